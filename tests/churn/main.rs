//! A reflector through a day of random churn, reconnects and configuration changes, and through ten
//! real minutes of the same as a process: at every quiet point its clients have what an oracle
//! computes from what they say, and nothing it holds grows.

mod client;
mod day;
mod events;
#[path = "../../bgp/tests/isolation/memory.rs"]
mod memory;
mod namespace;
mod oracle;
mod process;
mod random;
mod setup;
mod world;

/// What the environment variable says, else `default`.
fn number_from(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect(variable),
        Err(_) => default,
    }
}
