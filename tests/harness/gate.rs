//! Lets speakers connect and holds back what they say, so that both ends' connections are there
//! before either becomes a session.

use std::process::Command;

use agent::lab::Namespace;
use agent::lab::machine::COMMAND_TIMEOUT;
use agent::lab::process;
use anyhow::Result;

/// The shortest OPEN makes a longer packet; a SYN and an acknowledgement with all their options do
/// not.
const RULES: &str = "table inet gate {
    chain in { type filter hook input priority 0; tcp sport 179 meta length > 72 drop; tcp dport 179 meta length > 72 drop; }
    chain out { type filter hook output priority 0; tcp sport 179 meta length > 72 drop; tcp dport 179 meta length > 72 drop; }
}
";

/// Closed from the time it is there until `open`.
pub struct Gate<'a> {
    namespace: &'a Namespace,
}

impl Gate<'_> {
    pub fn close(namespace: &Namespace) -> Result<Gate<'_>> {
        nft(namespace, RULES)?;
        Ok(Gate { namespace })
    }

    /// What was held back comes when TCP sends it again.
    pub fn open(self) -> Result<()> {
        nft(self.namespace, "delete table inet gate\n")
    }
}

fn nft(namespace: &Namespace, rules: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    process::output(Some(namespace), &mut command, rules, COMMAND_TIMEOUT)?;
    Ok(())
}
