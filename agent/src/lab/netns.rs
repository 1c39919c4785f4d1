//! Network namespaces of the lab, each with a mount namespace of its own.
//!
//! A namespace has no name on the host: a holder process keeps it alive, and it ends with the last
//! process in it. What is mounted in it (the names of route protocols, a run directory) is seen by
//! its own processes only, so no file of the host is touched.
//!
//! A socket belongs to the namespace it was made in, wherever it is used later. So `enter` is only
//! for making things.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use super::error::{LabError, Result};
use super::process::Process;

/// Names the lab in the environment of its processes.
pub const LAB_VARIABLE: &str = "CARACAL_LAB";

/// A namespace, known by the process that holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Namespace {
    pub name: String,
    pub holder: Process,
}

/// What a new namespace sees in place of the host's files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mounts {
    /// An empty /run, with these directories bound inside: (source, name under /run).
    pub run: Vec<(PathBuf, String)>,
    /// (source, target); the target exists on the host.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

impl Namespace {
    /// Makes a namespace and the process that holds it. Everything started in a lab has the lab's
    /// id in its environment, so that people can tell whose it is.
    ///
    /// # Errors
    /// `Io` where the kernel refuses a namespace or a mount (no privilege, no such target).
    pub fn create(lab: &str, name: &str, mounts: &Mounts) -> Result<Namespace> {
        let made = in_thread(|| {
            // CLONE_NEWNS gives this thread a root and working directory of its own as well, so
            // the other threads of this process stay where they are.
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
            prepare_mounts(mounts)?;
            Command::new("sleep")
                .arg("infinity")
                .env(LAB_VARIABLE, lab)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        });
        let child = made.map_err(LabError::io(format!("make the namespace {name}")))?;
        Ok(Namespace {
            name: name.to_owned(),
            holder: Process::of(name, child.id())?,
        })
    }

    /// Usable as CNI_NETNS and by `nsenter --net=`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.pid))
    }

    /// The kernel's name of the network namespace, `net:[4026532…]`; `None` if the holder is gone.
    pub fn kernel_name(&self) -> Option<PathBuf> {
        fs::read_link(self.path()).ok()
    }

    /// Runs `work` in a thread that is in this namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        let open = |kind: &str| File::open(format!("/proc/{}/ns/{kind}", self.holder.pid));
        in_thread(|| {
            let (net, mnt) = (open("net")?, open("mnt")?);
            // A thread may change its mount namespace only if it shares its root with no other.
            unshare(CloneFlags::CLONE_FS)?;
            setns(net, CloneFlags::CLONE_NEWNET)?;
            setns(mnt, CloneFlags::CLONE_NEWNS)?;
            work()
        })
        .map_err(LabError::io(format!("act in the namespace {}", self.name)))
    }

    /// Starts `command` in this namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.enter(|| command.spawn())
    }
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the namespace's thread panicked")))
    })
}

fn prepare_mounts(mounts: &Mounts) -> io::Result<()> {
    const NONE: Option<&str> = None;
    // Without this a bind here would show on the host.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    for (source, target) in &mounts.binds {
        bind(source, target)?;
    }
    if mounts.run.is_empty() {
        return Ok(());
    }
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )?;
    for (source, name) in &mounts.run {
        let target = Path::new("/run").join(name);
        fs::create_dir_all(&target)?;
        bind(source, &target)?;
    }
    Ok(())
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    const NONE: Option<&str> = None;
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|error| io::Error::other(format!("bind {}: {error}", target.display())))
}
