//! FRR's zebra and bgpd from Debian, in a namespace of the lab.
//!
//! Its daemons find each other under /run/frr and /etc/frr; the namespace's mounts give each lab
//! its own. They run in the foreground, so the lab knows their process ids.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::{User, chown};

use super::error::{LabError, Result};
use super::machine::COMMAND_TIMEOUT;
use super::netns::{LAB_VARIABLE, Mounts, Namespace};
use super::process::{self, Process};
use super::texts;
use super::topology::Scenario;

const DAEMONS: &str = "/usr/lib/frr";
const ZEBRA_STARTS: Duration = Duration::from_secs(10);
/// How long zebra leaves routes alone that it finds in the kernel: until bgpd says them again.
const KEPT_SECS: &str = "60";

/// Makes FRR's directories under `directory` and has them mounted.
pub fn prepare(directory: &Path, scenario: Scenario, mounts: &mut Mounts) -> Result<()> {
    prepare_with(directory, &texts::frr(scenario), mounts)
}

/// The same with any configuration.
pub fn prepare_with(directory: &Path, configuration: &str, mounts: &mut Mounts) -> Result<()> {
    let missing = || LabError::MissingTool {
        tool: "FRR".to_owned(),
        package: "frr".to_owned(),
    };
    let user = User::from_name("frr").ok().flatten().ok_or_else(missing)?;
    let (etc, run) = (directory.join("frr-etc"), directory.join("frr-run"));
    for path in [&etc, &run] {
        fs::create_dir_all(path).map_err(LabError::io(format!("make {}", path.display())))?;
    }
    let files = [
        ("zebra.conf", "hostname frr\n"),
        ("bgpd.conf", configuration),
        ("vtysh.conf", ""),
    ];
    let mut owned = vec![etc.clone(), run.clone()];
    for (name, text) in files {
        let file = etc.join(name);
        super::running::write(&file, text)?;
        owned.push(file);
    }
    for path in &owned {
        chown(path, Some(user.uid), Some(user.gid))
            .map_err(|errno| LabError::io(format!("chown {}", path.display()))(errno.into()))?;
    }
    mounts.run.push((run, "frr".to_owned()));
    mounts.binds.push((etc, "/etc/frr".into()));
    Ok(())
}

/// Starts zebra or bgpd, as `daemon` says; zebra listens on return. `directory`: what `prepare` was
/// given.
pub fn start(namespace: &Namespace, lab: &str, directory: &Path, daemon: &str) -> Result<Process> {
    let mut command = Command::new(Path::new(DAEMONS).join(daemon));
    command.args(["-f", &format!("/etc/frr/{daemon}.conf"), "-A", "127.0.0.1"]);
    command.args(["-i", &format!("/run/frr/{daemon}.pid")]);
    command.args(["--log", "stdout"]);
    if daemon == "zebra" {
        // Without, what it finds goes at once.
        command.args(["-K", KEPT_SECS]);
    }
    command.env(LAB_VARIABLE, lab);
    let log = directory.join("log");
    let process = process::start(&namespace.name, namespace, &mut command, &log)?;
    if daemon == "zebra" {
        wait_for_zebra(directory)?;
    }
    Ok(process)
}

/// A bgpd that does not reach zebra at once tries again only after ten seconds.
fn wait_for_zebra(directory: &Path) -> Result<()> {
    let socket = directory.join("frr-run/zserv.api");
    process::wait_until("zebra to listen", ZEBRA_STARTS, || {
        Ok(UnixStream::connect(&socket)
            .is_err()
            .then(|| format!("nothing answers on {}", socket.display())))
    })
}

/// `vtysh -c COMMAND`, unedited.
pub fn vtysh(namespace: &Namespace, command: &str) -> Result<String> {
    let mut vtysh = Command::new("vtysh");
    let vtysh = vtysh.args(["-c", command]);
    process::output(Some(namespace), vtysh, "", COMMAND_TIMEOUT)
}
