//! The BGP connections of a namespace as its kernel has them.

use std::net::SocketAddr;
use std::process::Command;

use agent::lab::Namespace;
use agent::lab::machine::COMMAND_TIMEOUT;
use agent::lab::process;
use anyhow::{Context, Result};

/// An established TCP connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Octets that were sent and not acknowledged.
    pub unacknowledged: usize,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

pub fn connections(namespace: &Namespace) -> Result<Vec<Connection>> {
    let mut command = Command::new("ss");
    command.args(["-Htn", "state", "established"]);
    command.arg("( sport = :179 or dport = :179 )");
    let said = process::output(Some(namespace), &mut command, "", COMMAND_TIMEOUT)?;
    let each = said
        .lines()
        .map(|line| connection(line).with_context(|| line.to_owned()));
    each.collect()
}

/// What it received and sent that nobody has taken yet, and its two ends.
fn connection(line: &str) -> Option<Connection> {
    let mut words = line.split_ascii_whitespace().skip(1);
    Some(Connection {
        unacknowledged: words.next()?.parse().ok()?,
        local: words.next()?.parse().ok()?,
        remote: words.next()?.parse().ok()?,
    })
}
