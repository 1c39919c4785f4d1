//! Where a daemon is installed: on this machine, or as Debian has it newest, in a root of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use agent::lab::Mounts;

/// Where the newer ones are, if anywhere.
static NEWER: OnceLock<PathBuf> = OnceLock::new();
/// Where a newer daemon finds its files.
const INSIDE: &str = "/mnt";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    Host,
    Newer,
}

/// Told once, before any daemon is asked for.
pub fn set_newer(root: PathBuf) {
    // A second word would change nothing.
    let _ = NEWER.set(root);
}

impl Root {
    /// `None` if there are no newer daemons here.
    fn path(self) -> Option<&'static Path> {
        match self {
            Root::Host => Some(Path::new("/")),
            Root::Newer => NEWER.get().map(PathBuf::as_path),
        }
    }

    pub fn command(self, program: &str) -> Command {
        match self {
            Root::Host => Command::new(program),
            Root::Newer => {
                let mut command = Command::new("chroot");
                command.arg(self.path().unwrap_or(Path::new("/nowhere")));
                command.arg(program);
                command
            }
        }
    }

    /// `directory` as the daemon sees it.
    pub fn inside(self, directory: &Path) -> PathBuf {
        match self {
            Root::Host => directory.to_owned(),
            Root::Newer => INSIDE.into(),
        }
    }

    pub fn mount(self, directory: &Path, mounts: &mut Mounts) {
        if let (Root::Newer, Some(root)) = (self, self.path()) {
            let into = |inside: &str| root.join(inside.trim_start_matches('/'));
            mounts.binds.push((directory.to_owned(), into(INSIDE)));
            mounts.binds.push(("/proc".into(), into("/proc")));
            mounts.binds.push(("/dev".into(), into("/dev")));
        }
    }

    /// The first line that the program prints for these words; `None` where it is not installed.
    pub fn version(self, program: &str, words: &[&str]) -> Option<String> {
        let installed = self.path()?.join(program.trim_start_matches('/'));
        if !installed.exists() {
            return None;
        }
        super::version_line(self.command(program).args(words))
    }
}
