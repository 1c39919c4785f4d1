//! GoBGP, without a FIB.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::{Result, ensure};

use super::{PEERS, Router, Setting};
use crate::site::Site;

pub struct Gobgp;

impl Router for Gobgp {
    fn name(&self) -> &'static str {
        "gobgp"
    }

    fn program(&self) -> &'static str {
        "gobgpd"
    }

    fn prepare(&self, directory: &Path, setting: Setting, _: &mut Mounts) -> Result<()> {
        let mut text = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.2\"\n".to_owned();
        for peer in PEERS {
            text += &format!(
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{peer}\"\npeer-as = 64512\n\
                 [neighbors.transport.config]\npassive-mode = {}\n\
                 [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n\
                 [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\n\
                 deferral-time = 5\n",
                !setting.dials
            );
            if setting.reflects {
                text += "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                         route-reflector-cluster-id = \"192.0.2.2\"\n";
            }
            for family in ["ipv4", "ipv6"] {
                text += &format!(
                    "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
                     afi-safi-name = \"{family}-unicast\"\n\
                     [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
                );
            }
        }
        fs::write(directory.join("gobgpd.toml"), text)?;
        Ok(())
    }

    fn commands(&self, directory: &Path, again: bool) -> Vec<Command> {
        let mut command = Command::new("gobgpd");
        command.arg("-f").arg(directory.join("gobgpd.toml"));
        command.args(["-t", "toml", "--log-plain"]);
        if again {
            command.arg("-r");
        }
        vec![command]
    }

    fn announce(&self, site: &Site) -> Result<()> {
        for (family, words) in [
            (
                "ipv4",
                "10.2.0.0/16 nexthop 192.0.2.2 large-community 64512:1:2",
            ),
            ("ipv6", "2001:db8:2::/48 nexthop 2001:db8::2"),
        ] {
            let mut command = vec!["gobgp", "global", "rib", "add", "-a", family];
            command.extend(words.split(' '));
            let said = site.ask(&command)?;
            ensure!(said.is_empty(), "{said}");
        }
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        site.ask(&["gobgp", "global", "rib", "-a", family, prefix])
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        site.ask(&["gobgp", "neighbor", "192.0.2.1", "softresetin"])
    }
}
