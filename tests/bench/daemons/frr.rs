//! FRR: zebra and bgpd without kernel routes, and without the wait before the first advertisement
//! (`coalesce-time 0`; with its default of a second, most of what is measured is that second).

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use agent::lab::{Mounts, frr};
use anyhow::{Result, ensure};

use super::root::Root;
use super::{Daemon, addresses, write};

pub struct Frr(pub Root);

impl Daemon for Frr {
    fn name(&self) -> &'static str {
        match self.0 {
            Root::Host => "frr",
            Root::Newer => "frr-new",
        }
    }

    fn version(&self) -> Option<String> {
        self.0.version("/usr/lib/frr/bgpd", &["--version"])
    }

    fn prepare(&self, directory: &Path, clients: u32, mounts: &mut Mounts) -> Result<()> {
        self.configure(directory, &reflector(clients)?, mounts)
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        let [zebra, mut bgpd] = self.daemons(directory);
        bgpd.arg("-n");
        vec![zebra, bgpd]
    }
}

impl Frr {
    /// zebra and bgpd.
    pub fn daemons(&self, directory: &Path) -> [Command; 2] {
        let (etc, run) = match self.0 {
            Root::Host => ("/etc/frr".into(), "/run/frr".into()),
            Root::Newer => (self.0.inside(directory), self.0.inside(directory)),
        };
        let daemon = |name: &str| {
            let mut command = self.0.command(&format!("/usr/lib/frr/{name}"));
            command.arg("-f").arg(etc.join(format!("{name}.conf")));
            command.arg("-i").arg(run.join(format!("{name}.pid")));
            command.args(["-A", "127.0.0.1", "--log", "stdout"]);
            if self.0 == Root::Newer {
                command.arg("--vty_socket").arg(&run);
                command.arg("-z").arg(run.join("zserv.api"));
            }
            command
        };
        ["zebra", "bgpd"].map(daemon)
    }

    /// Writes its files, with this as bgpd's.
    pub fn configure(&self, directory: &Path, text: &str, mounts: &mut Mounts) -> Result<()> {
        if self.0 == Root::Host {
            frr::prepare_with(directory, text, mounts)?;
            return Ok(());
        }
        self.0.mount(directory, mounts);
        write(&directory.join("bgpd.conf"), text)?;
        write(&directory.join("zebra.conf"), "hostname frr\n")?;
        // FRR gives up root, and its user has another number in there.
        let owner = "stat -c %u:%g /etc/frr";
        let output = self.0.command("/bin/sh").args(["-c", owner]).output()?;
        let owner = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let changed = Command::new("chown")
            .arg("-R")
            .arg(owner)
            .arg(directory)
            .status()?;
        ensure!(
            changed.success(),
            "failed to give {} to FRR",
            directory.display()
        );
        Ok(())
    }
}

/// bgpd's configuration with so many clients.
fn reflector(clients: u32) -> Result<String> {
    let mut text = "router bgp 64512\n bgp router-id 10.0.0.1\n bgp cluster-id 10.0.0.1\n \
             coalesce-time 0\n no bgp default ipv4-unicast\n neighbor clients peer-group\n \
             neighbor clients remote-as 64512\n neighbor clients passive\n \
             neighbor clients advertisement-interval 0\n"
        .to_owned();
    for address in addresses(clients) {
        writeln!(text, " neighbor {address} peer-group clients")?;
    }
    text += " address-family ipv4 unicast\n  neighbor clients activate\n  \
             neighbor clients route-reflector-client\n exit-address-family\n";
    Ok(text)
}
