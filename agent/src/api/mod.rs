//! The agent's socket and HTTP endpoints. The reflector serves the same, without CNI.
//!
//! `serve` answers on the unix socket what `schema` describes, `listener` accepts connections and
//! the descriptors that come with them, `bounded` keeps them few, `health` is the HTTP listener for
//! probes and Prometheus, `metrics` what the latter reads, `client` is the other end for our own programs.

mod bounded;
pub mod client;
pub mod health;
pub mod listener;
mod metrics;
pub mod schema;
pub mod serve;

#[cfg(test)]
mod tests;
