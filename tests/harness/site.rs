//! Two namespaces with a cable: speakers of ours at one end, a router by others at the other.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agent::lab::process::{self, Process};
use agent::lab::{Mounts, Namespace, machine};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::product::eventually;
use crate::routers::{Router, Setting};

/// The longest that anything between two routers may take; GoBGP dials again after up to 30 s.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The last octets of more speakers of ours, beside 1 and 3.
pub const CROWD: RangeInclusive<u8> = 101..=140;

pub struct Site {
    pub ours: Namespace,
    pub theirs: Namespace,
    router: &'static dyn Router,
    setting: Setting,
    directory: TempDir,
    running: Vec<Process>,
    more: Vec<Namespace>,
    id: String,
}

impl Site {
    /// Everything wired, the router started.
    pub fn start(router: &'static dyn Router, setting: Setting) -> Result<Site> {
        let directory = tempfile::Builder::new().prefix("caracal-site-").tempdir()?;
        open_to_all(directory.path())?;
        let mut mounts = Mounts::default();
        router.prepare(directory.path(), &setting, &mut mounts)?;
        let name = directory.path().file_name().context("a name")?;
        let id = name.to_string_lossy().into_owned();
        let ours = Namespace::create(&id, "ours", &Mounts::default())?;
        let theirs = Namespace::create(&id, router.name(), &mounts)?;
        let mut site = Site {
            ours,
            theirs,
            router,
            setting,
            directory,
            running: Vec::new(),
            more: Vec::new(),
            id,
        };
        site.wire()?;
        site.start_router(false)?;
        Ok(site)
    }

    fn wire(&self) -> Result<()> {
        let peer = self.theirs.holder.pid;
        let mut text = format!(
            "link add v0 type veth peer name v0 netns {peer}\n\
             address add 192.0.2.1/24 dev v0\n\
             address add 192.0.2.3/24 dev v0\n\
             address add 2001:db8::1/64 dev v0 nodad\n\
             address add 2001:db8::3/64 dev v0 nodad\n\
             link set lo up\n\
             link set v0 up\n"
        );
        for last in CROWD {
            text += &format!("address add 192.0.2.{last}/24 dev v0\n");
        }
        machine::ip_batch(&self.ours, &text)?;
        machine::ip_batch(
            &self.theirs,
            "address add 192.0.2.2/24 dev v0\n\
             address add 2001:db8::2/64 dev v0 nodad\n\
             link set lo up\n\
             link set v0 up\n",
        )?;
        Ok(())
    }

    /// One more namespace, which ends with the site.
    pub fn add_namespace(&mut self, name: &str, mounts: &Mounts) -> Result<Namespace> {
        let namespace = Namespace::create(&self.id, name, mounts)?;
        self.more.push(namespace.clone());
        Ok(namespace)
    }

    /// A machine behind our end: 198.51.100.2, two hops from the router.
    pub fn add_behind_us(&mut self) -> Result<Namespace> {
        let behind = self.add_namespace("behind us", &Mounts::default())?;
        wire_behind(&self.ours, &behind, "198.51.100", 24)?;
        let route = "route add 198.51.100.0/24 via 192.0.2.1\n";
        machine::ip_batch(&self.theirs, route)?;
        Ok(behind)
    }

    /// A machine behind the router: 10.2.0.2, in what the router announces.
    pub fn add_behind_router(&mut self) -> Result<Namespace> {
        let behind = self.add_namespace("behind the router", &Mounts::default())?;
        wire_behind(&self.theirs, &behind, "10.2.0", 16)?;
        Ok(behind)
    }

    /// `again`: it ran before, and its peers keep its routes.
    pub fn start_router(&mut self, again: bool) -> Result<()> {
        let log = self.directory.path().join("log");
        let mut commands = self.router.commands(self.directory.path(), again);
        for command in &mut commands {
            command.env(agent::lab::netns::LAB_VARIABLE, &self.id);
            let name = self.router.name();
            self.running
                .push(process::start(name, &self.theirs, command, &log)?);
        }
        let (site, router) = (&*self, self.router);
        eventually("the router's own routes", TIMEOUT, || {
            router.announce(site)?;
            Ok(None)
        })
    }

    /// All its processes, also those it forked.
    fn router_processes(&self) -> Vec<Process> {
        let name = self.theirs.kernel_name().into_iter().collect::<Vec<_>>();
        let mut all = process::in_namespaces(&name);
        all.retain(|process| process.pid != self.theirs.holder.pid);
        all
    }

    pub fn signal_router(&self, signal: Signal) {
        for process in self.router_processes() {
            process.signal(signal);
        }
    }

    /// kill -9 of all it is, and its end awaited.
    pub fn kill_router(&mut self) -> Result<()> {
        let all = self.router_processes();
        ensure!(!all.is_empty(), "the router does not run");
        for process in &all {
            process.signal(Signal::SIGKILL);
        }
        for process in all.iter().chain(&self.running) {
            process.wait_gone(Duration::from_secs(5))?;
        }
        self.running.clear();
        Ok(())
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// What the router's command line tool says.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let (program, arguments) = words.split_first().context("a program")?;
        let mut command = Command::new(program);
        command.args(arguments);
        let done = process::run(Some(&self.theirs), &mut command, "", TIMEOUT)?;
        Ok(done.stdout + &done.stderr)
    }

    /// What the router has of a prefix, in its own words; empty if nothing.
    pub fn route(&self, prefix: &str) -> Result<String> {
        let said = self.router.route(self, prefix)?;
        let nothing = ["not in table", "not found", "No such"];
        let has = said.contains(prefix) && !nothing.iter().any(|word| said.contains(word));
        Ok(if has { said } else { String::new() })
    }

    /// Waits until the router's words of a prefix hold all of `words`.
    pub fn expect_route(&self, prefix: &str, words: &[&str]) -> Result<()> {
        let what = format!("{prefix} on {}", self.router.name());
        eventually(&what, TIMEOUT, || {
            let said = self.route(prefix)?;
            let is_there = !said.is_empty() && words.iter().all(|word| said.contains(word));
            Ok((!is_there).then(|| format!("wanted {words:?}, it says {said:?}\n{}", self.log())))
        })
    }

    pub fn expect_no_route(&self, prefix: &str) -> Result<()> {
        let what = format!("the end of {prefix} on {}", self.router.name());
        eventually(&what, TIMEOUT, || {
            let said = self.route(prefix)?;
            Ok((!said.is_empty()).then_some(said))
        })
    }

    /// What the router's kernel has of an IPv4 prefix.
    pub fn kernel_route(&self, prefix: &str) -> Result<String> {
        Ok(machine::ip(&self.theirs, &["-4", "route", "show", prefix])?)
    }

    /// Routes an IPv4 prefix to us in the router's kernel, where the router itself does not.
    pub fn add_route(&self, prefix: &str) -> Result<()> {
        machine::ip(&self.theirs, &["route", "add", prefix, "via", "192.0.2.1"])?;
        Ok(())
    }

    /// The end of what the router logged.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        end_all_in(self.more.iter().chain([&self.ours, &self.theirs]));
    }
}

/// Ends every process in these namespaces, and with their holders the namespaces.
///
/// Those that one starts while it is being ended are found by looking again: an agent may be at
/// starting its carrier, which outlives it.
pub fn end_all_in<'a>(namespaces: impl IntoIterator<Item = &'a Namespace>) {
    let spaces = namespaces.into_iter();
    let names: Vec<PathBuf> = spaces.filter_map(Namespace::kernel_name).collect();
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let mut left = process::in_namespaces(&names);
        // Threads of ours may be in there; they are not ours to kill.
        left.retain(|process| Ok(process.pid) != i32::try_from(std::process::id()));
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for process in &left {
            process.signal(Signal::SIGKILL);
        }
        for process in &left {
            // What cannot be ended has no one left to tell.
            let _ = process.wait_gone(Duration::from_secs(5));
        }
    }
}

/// The carriers that run in a namespace.
pub fn carriers_in(namespace: &Namespace) -> Vec<Process> {
    let name: Vec<PathBuf> = namespace.kernel_name().into_iter().collect();
    let mut found = process::in_namespaces(&name);
    found.retain(|process| {
        let command = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        let mut words = command.split(|octet| *octet == 0);
        words.nth(1) == Some(b"carrier")
    });
    found
}

/// `gateway` is .1 and forwards, `behind` is .2.
fn wire_behind(gateway: &Namespace, behind: &Namespace, network: &str, length: u8) -> Result<()> {
    let peer = behind.holder.pid;
    let links = format!(
        "link add v1 type veth peer name v1 netns {peer}\n\
         address add {network}.1/{length} dev v1\n\
         link set v1 up\n"
    );
    machine::ip_batch(gateway, &links)?;
    let links = format!(
        "address add {network}.2/{length} dev v1\n\
         link set lo up\n\
         link set v1 up\n\
         route add default via {network}.1\n"
    );
    machine::ip_batch(behind, &links)?;
    gateway.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    Ok(())
}

fn open_to_all(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
