//! FRR: zebra and bgpd without kernel routes, and without the wait before the first advertisement
//! (`coalesce-time 0`; with its default of a second, most of what is measured is that second).

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use agent::lab::{Mounts, frr};
use anyhow::Result;

use super::{Daemon, addresses, version_line};

pub struct Frr;

impl Daemon for Frr {
    fn name(&self) -> &'static str {
        "frr"
    }

    fn version(&self) -> Option<String> {
        version_line("/usr/lib/frr/bgpd", &["--version"])
    }

    fn prepare(&self, directory: &Path, clients: u32, mounts: &mut Mounts) -> Result<()> {
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
        frr::prepare_with(directory, &text, mounts)?;
        Ok(())
    }

    fn commands(&self, _: &Path) -> Vec<Command> {
        let daemon = |name: &str| {
            let mut command = Command::new(format!("/usr/lib/frr/{name}"));
            command.args(["-f", &format!("/etc/frr/{name}.conf"), "-A", "127.0.0.1"]);
            command.args(["-i", &format!("/run/frr/{name}.pid"), "--log", "stdout"]);
            command
        };
        let mut bgpd = daemon("bgpd");
        bgpd.arg("-n");
        vec![daemon("zebra"), bgpd]
    }
}
