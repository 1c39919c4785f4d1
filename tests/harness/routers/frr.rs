//! FRR: zebra and bgpd.

use std::path::Path;
use std::process::Command;

use agent::lab::{Mounts, frr};
use anyhow::Result;

use super::{PEERS, Router, Setting};
use crate::site::Site;

pub struct Frr;

impl Router for Frr {
    fn name(&self) -> &'static str {
        "frr"
    }

    fn program(&self) -> &'static str {
        "vtysh"
    }

    fn prepare(&self, directory: &Path, setting: Setting, mounts: &mut Mounts) -> Result<()> {
        let mut text = "router bgp 64512\n bgp router-id 192.0.2.2\n bgp graceful-restart\n \
                        bgp graceful-restart select-defer-time 5\n \
                        bgp graceful-restart preserve-fw-state\n \
                        no bgp network import-check\n"
            .to_owned();
        for peer in PEERS {
            text +=
                &format!(" neighbor {peer} remote-as 64512\n neighbor {peer} timers connect 1\n");
            if !setting.dials {
                text += &format!(" neighbor {peer} passive\n");
            }
        }
        for (family, network) in [
            ("ipv4", "10.2.0.0/16 route-map large"),
            ("ipv6", "2001:db8:2::/48 route-map hop"),
        ] {
            text += &format!(" address-family {family} unicast\n  network {network}\n");
            for peer in PEERS {
                text += &format!("  neighbor {peer} activate\n");
                if setting.reflects {
                    text += &format!("  neighbor {peer} route-reflector-client\n");
                }
            }
            text += " exit-address-family\n";
        }
        text += "route-map large permit 10\n set large-community 64512:1:2\n\
                 route-map hop permit 10\n set ipv6 next-hop global 2001:db8::2\n";
        frr::prepare_with(directory, &text, mounts)?;
        Ok(())
    }

    fn commands(&self, _: &Path, _: bool) -> Vec<Command> {
        let daemon = |name: &str| {
            let mut command = Command::new(format!("/usr/lib/frr/{name}"));
            command.args(["-f", &format!("/etc/frr/{name}.conf"), "-A", "127.0.0.1"]);
            command.args(["-i", &format!("/run/frr/{name}.pid"), "--log", "stdout"]);
            command
        };
        vec![daemon("zebra"), daemon("bgpd")]
    }

    fn announce(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let show = format!("show bgp {family} unicast {prefix}");
        site.ask(&["vtysh", "-c", &show])
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        site.ask(&["vtysh", "-c", "clear bgp ipv4 unicast 192.0.2.1 soft in"])
    }
}
