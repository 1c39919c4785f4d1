//! What is compared, and who takes part.

use crate::daemons::Daemon;
use crate::scenarios::Figure;

/// What a contender's figures are to those of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// What the machine can do without anybody deciding anything.
    Limit,
    Ours,
    Peer,
}

/// What is run, and with whom.
pub struct Test {
    pub name: &'static str,
    pub title: &'static str,
    pub contenders: Vec<Contender>,
    /// Printed below the figures; may be empty.
    pub note: &'static str,
}

pub struct Contender {
    pub name: &'static str,
    pub role: Role,
    version: Box<dyn Fn() -> Result<String, String>>,
    run: Box<dyn Fn() -> anyhow::Result<Vec<Figure>>>,
}

impl Contender {
    /// `version`: in its own words, or why it cannot take part. `run`: once, begun anew.
    pub fn new(
        name: &'static str,
        role: Role,
        version: impl Fn() -> Result<String, String> + 'static,
        run: impl Fn() -> anyhow::Result<Vec<Figure>> + 'static,
    ) -> Contender {
        Contender {
            name,
            role,
            version: Box::new(version),
            run: Box::new(run),
        }
    }

    /// # Errors
    /// Why it cannot take part.
    pub fn version(&self) -> Result<String, String> {
        (self.version)()
    }

    /// Runs it so often. What cannot be done once is not asked again.
    pub fn runs(&self, runs: u32) -> Vec<Result<Vec<Figure>, String>> {
        let mut all = Vec::new();
        for _ in 0..runs {
            let run = (self.run)().map_err(|error| format!("{error:#}"));
            let has_failed = run.is_err();
            all.push(run);
            if has_failed {
                break;
            }
        }
        all
    }
}

/// Each of the daemons, run in the same way.
pub fn by_daemon(
    daemons: &[&'static dyn Daemon],
    run: impl Fn(&dyn Daemon) -> anyhow::Result<Vec<Figure>> + Copy + 'static,
) -> Vec<Contender> {
    let contender = |daemon: &&'static dyn Daemon| {
        let daemon = *daemon;
        let role = match daemon.name() {
            "caracal" => Role::Ours,
            _ if daemon.is_relay() => Role::Limit,
            _ => Role::Peer,
        };
        let version = move || daemon.version().ok_or_else(|| "not installed".to_owned());
        Contender::new(daemon.name(), role, version, move || run(daemon))
    };
    daemons.iter().map(contender).collect()
}
