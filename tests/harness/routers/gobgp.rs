//! GoBGP, without a FIB.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::{Result, ensure};

use super::{Hops, Router, Setting};
use crate::site::Site;
use crate::speaker::ASN;

pub struct Gobgp;

impl Gobgp {
    fn add(site: &Site, family: &str, words: &str) -> Result<()> {
        let mut command = vec!["gobgp", "global", "rib", "add", "-a", family];
        command.extend(words.split(' '));
        let said = site.ask(&command)?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }
}

impl Router for Gobgp {
    fn name(&self) -> &'static str {
        "gobgp"
    }

    fn program(&self) -> &'static str {
        "gobgpd"
    }

    fn has_fib(&self) -> bool {
        false
    }

    fn prepare(&self, directory: &Path, setting: &Setting, _: &mut Mounts) -> Result<()> {
        fs::write(directory.join("gobgpd.toml"), configuration(setting))?;
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
        let drains = if site.setting().drains {
            " community 65535:0"
        } else {
            ""
        };
        // It offers IPv6 next hops wherever IPv4 is carried over IPv6.
        let hop = if site.setting().extended_next_hop {
            "2001:db8::2"
        } else {
            "192.0.2.2"
        };
        let large = format!("10.2.0.0/16 nexthop {hop} large-community 64512:1:2");
        Gobgp::add(site, "ipv4", &format!("{large}{drains}"))?;
        let hop = "2001:db8:2::/48 nexthop 2001:db8::2";
        Gobgp::add(site, "ipv6", &format!("{hop}{drains}"))
    }

    fn announce_more(&self, site: &Site, prefix: &str) -> Result<()> {
        Gobgp::add(site, "ipv4", &format!("{prefix} nexthop 192.0.2.2"))
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        site.ask(&["gobgp", "global", "rib", "-a", family, prefix])
    }

    fn graceful_shutdown(&self) -> &'static str {
        "planned-shut"
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        let peer = site.setting().first_peer();
        site.ask(&["gobgp", "neighbor", &peer, "softresetin"])
    }
}

fn configuration(setting: &Setting) -> String {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"192.0.2.2\"\n",
        setting.asn()
    );
    for peer in &setting.peers {
        text += &format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{peer}\"\npeer-as = {ASN}\n"
        );
        if let Some(password) = setting.password {
            text += &format!("auth-password = \"{password}\"\n");
        }
        text += &format!(
            "[neighbors.transport.config]\npassive-mode = {}\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n\
             [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\n\
             deferral-time = 5\n",
            !setting.dials
        );
        match setting.hops {
            Hops::Unsaid => {}
            Hops::Secured => {
                text += "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
            }
            Hops::Many(hops) => {
                text += &format!(
                    "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = {hops}\n"
                );
            }
        }
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
            if setting.add_paths {
                text += "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n";
            }
            if let Some(most) = setting.max_prefixes {
                text +=
                    &format!("[neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = {most}\n");
            }
        }
    }
    text
}
