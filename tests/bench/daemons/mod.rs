//! The daemons that are measured, each as a route reflector at 10.0.0.1 of AS 64512 whose clients
//! are in 10.1.0.0/16: accept everything, pass on everything, dial nobody, write no kernel routes.

pub mod bird;
pub mod caracal;
pub mod frr;
mod gobgp;
mod openbgpd;
mod relay;
pub mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent::lab::{Mounts, Namespace, machine, process};
use anyhow::{Context, Result, bail};
use tempfile::TempDir;

pub use self::relay::serve as serve_relay;
use self::root::Root;
pub use self::root::set_newer;
use crate::load::plan;
use crate::place::Place;
use crate::usage::Usage;

pub trait Daemon: Sync {
    fn name(&self) -> &'static str;

    /// Its version in its own words; `None` if it is not installed.
    fn version(&self) -> Option<String>;

    /// Writes its configuration for so many clients.
    fn prepare(&self, directory: &Path, clients: u32, mounts: &mut Mounts) -> Result<()>;

    fn commands(&self, directory: &Path) -> Vec<Command>;

    /// What `ip -batch` makes in its namespace first.
    fn links(&self) -> &'static str {
        // All of 10.0.0.0/8 is local by that.
        "link set lo up\naddress add 10.0.0.1/8 dev lo\nroute add default dev lo\n"
    }

    /// Passes octets on as they are.
    fn is_relay(&self) -> bool {
        false
    }
}

/// The limit, us, and the others.
pub const ALL: [&dyn Daemon; 10] = [
    &relay::Relay,
    &caracal::Caracal,
    &bird::Bird(Root::Host),
    &bird::Bird(Root::Newer),
    &frr::Frr(Root::Host),
    &frr::Frr(Root::Newer),
    &gobgp::Gobgp(Root::Host),
    &gobgp::Gobgp(Root::Newer),
    &openbgpd::Openbgpd(Root::Host),
    &openbgpd::Openbgpd(Root::Newer),
];

/// The addresses of all clients, as text.
fn addresses(clients: u32) -> impl Iterator<Item = String> {
    (0..clients).map(|client| plan::address(client).to_string())
}

/// What a version command prints, in one line.
pub fn version_line(command: &mut Command) -> Option<String> {
    let done = command.output().ok()?;
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().map(|line| line.trim().to_owned())
}

pub fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}

/// A daemon that runs, alone in a namespace.
pub struct Running {
    place: Place,
    directory: TempDir,
}

impl Running {
    pub fn start(daemon: &dyn Daemon, clients: u32) -> Result<Running> {
        let directory = tempfile::Builder::new()
            .prefix("caracal-bench-")
            .tempdir()?;
        // FRR and OpenBGPD give up root.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let mut mounts = Mounts::default();
        daemon.prepare(directory.path(), clients, &mut mounts)?;
        let id = directory.path().display().to_string();
        let place = Place::create(&id, daemon.name(), &mounts)?;
        let running = Running { place, directory };
        machine::ip_batch(running.namespace(), daemon.links())?;
        let somaxconn = || fs::write("/proc/sys/net/core/somaxconn", "4096");
        running.namespace().enter(somaxconn)?;
        for mut command in daemon.commands(running.directory.path()) {
            process::start(
                daemon.name(),
                running.namespace(),
                &mut command,
                &running.log(),
            )?;
        }
        Ok(running)
    }

    pub fn namespace(&self) -> &Namespace {
        &self.place.namespace
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The end of what it said.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// What all its processes together used until now.
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.pids()?.into_iter().map(Usage::of).sum())
    }

    /// Of all its processes.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let all = self.place.processes();
        if all.is_empty() {
            bail!("it ended: {}", self.last_words());
        }
        Ok(all.iter().map(|process| process.pid).collect())
    }

    /// Waits until something listens on 10.0.0.1:179.
    pub fn wait_listening(&self) -> Result<()> {
        process::wait_until("the listener", Duration::from_secs(20), || {
            let table = format!("/proc/{}/net/tcp", self.namespace().holder.pid);
            let sockets = fs::read_to_string(table).unwrap_or_default();
            // Port 179 in state LISTEN, on any address.
            let listens = |line: &str| line.contains(":00B3 00000000:0000 0A");
            Ok((!sockets.lines().any(listens)).then(|| "nothing listens".to_owned()))
        })
        .with_context(|| self.last_words())
    }
}
