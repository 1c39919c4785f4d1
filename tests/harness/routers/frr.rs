//! FRR: zebra and bgpd.

use std::path::Path;
use std::process::Command;

use agent::lab::{Mounts, frr};
use anyhow::{Result, ensure};

use super::{Hops, Router, Setting};
use crate::site::Site;
use crate::speaker::ASN;

pub struct Frr;

impl Router for Frr {
    fn name(&self) -> &'static str {
        "frr"
    }

    fn program(&self) -> &'static str {
        "vtysh"
    }

    fn has_fib(&self) -> bool {
        true
    }

    fn prepare(&self, directory: &Path, setting: &Setting, mounts: &mut Mounts) -> Result<()> {
        frr::prepare_with(directory, &configuration(setting), mounts)?;
        Ok(())
    }

    fn commands(&self, _: &Path, _: bool) -> Vec<Command> {
        let daemon = |name: &str| {
            let mut command = Command::new(format!("/usr/lib/frr/{name}"));
            command.args(["-f", &format!("/etc/frr/{name}.conf"), "-A", "127.0.0.1"]);
            command.args(["-i", &format!("/run/frr/{name}.pid"), "--log", "stdout"]);
            command
        };
        let mut zebra = daemon("zebra");
        // What it finds in the kernel stays so long; without, it goes at once.
        zebra.args(["-K", "60"]);
        vec![zebra, daemon("bgpd")]
    }

    fn announce(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn announce_more(&self, site: &Site, prefix: &str) -> Result<()> {
        let lines = [
            "configure terminal".to_owned(),
            format!("router bgp {}", site.setting().asn()),
            "address-family ipv4 unicast".to_owned(),
            format!("network {prefix}"),
        ];
        let mut words = vec!["vtysh"];
        words.extend(lines.iter().flat_map(|line| ["-c", line.as_str()]));
        let said = site.ask(&words)?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let show = format!("show bgp {family} unicast {prefix}");
        site.ask(&["vtysh", "-c", &show])
    }

    fn graceful_shutdown(&self) -> &'static str {
        "graceful-shutdown"
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        let peer = site.setting().first_peer();
        site.ask(&[
            "vtysh",
            "-c",
            &format!("clear bgp ipv4 unicast {peer} soft in"),
        ])
    }
}

fn configuration(setting: &Setting) -> String {
    let drains = if setting.drains {
        " set community graceful-shutdown\n"
    } else {
        ""
    };
    let hop = if setting.extended_next_hop {
        ""
    } else {
        " set ip next-hop 192.0.2.2\n"
    };
    // Next hops are set because it says 0.0.0.0 over IPv6. These come first, or the routes wait for
    // bgpd's next look at its route maps, 5 s later.
    let mut text = format!(
        "route-map large permit 10\n set large-community 64512:1:2\n{hop}{drains}\
         route-map hop permit 10\n set ipv6 next-hop global 2001:db8::2\n{drains}"
    );
    text += &format!(
        "router bgp {}\n bgp router-id 192.0.2.2\n bgp graceful-restart\n \
         bgp graceful-restart select-defer-time 5\n \
         bgp graceful-restart preserve-fw-state\n \
         no bgp ebgp-requires-policy\n \
         no bgp network import-check\n",
        setting.asn()
    );
    for peer in &setting.peers {
        let mut line = |words: &str| text += &format!(" neighbor {peer} {words}\n");
        line(&format!("remote-as {ASN}"));
        line("timers connect 1");
        if !setting.dials {
            line("passive");
        }
        if let Some(password) = setting.password {
            line(&format!("password {password}"));
        }
        if setting.extended_next_hop {
            line("capability extended-nexthop");
        }
        if let Some(role) = setting.role {
            line(&format!("local-role {role}"));
        }
        match setting.hops {
            Hops::Unsaid => {}
            Hops::Secured => line("ttl-security hops 1"),
            Hops::Many(hops) => line(&format!("ebgp-multihop {hops}")),
        }
    }
    for (family, network) in [
        ("ipv4", "10.2.0.0/16 route-map large"),
        ("ipv6", "2001:db8:2::/48 route-map hop"),
    ] {
        text += &format!(" address-family {family} unicast\n  network {network}\n");
        for peer in &setting.peers {
            let mut line = |words: &str| text += &format!("  neighbor {peer} {words}\n");
            line("activate");
            if setting.reflects {
                line("route-reflector-client");
            }
            if setting.add_paths {
                line("addpath-tx-all-paths");
            }
            if let Some(most) = setting.max_prefixes {
                line(&format!("maximum-prefix {most}"));
            }
        }
        text += " exit-address-family\n";
    }
    text
}
