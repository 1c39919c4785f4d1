//! OpenBGPD in its portable version, without a FIB.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::{Hops, Router, Setting, own_address};
use crate::site::Site;
use crate::speaker::ASN;

pub struct Openbgpd;

impl Openbgpd {
    fn bgpctl(site: &Site, words: &[&str]) -> Result<String> {
        let control = site.control().display().to_string();
        site.ask(&[&["bgpctl", "-s", &control], words].concat())
    }
}

impl Router for Openbgpd {
    fn name(&self) -> &'static str {
        "openbgpd"
    }

    fn program(&self) -> &'static str {
        "bgpctl"
    }

    fn has_fib(&self) -> bool {
        false
    }

    fn prepare(&self, directory: &Path, setting: &Setting, mounts: &mut Mounts) -> Result<()> {
        let file = directory.join("bgpd.conf");
        fs::write(&file, configuration(setting, &directory.join("control")))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        // Where its processes change their root to.
        let empty = directory.join("empty");
        fs::create_dir_all(&empty)?;
        mounts.run.push((empty, "openbgpd".to_owned()));
        Ok(())
    }

    fn commands(&self, directory: &Path, _: bool) -> Vec<Command> {
        let mut command = Command::new("/usr/sbin/bgpd");
        command.arg("-d").arg("-f").arg(directory.join("bgpd.conf"));
        vec![command]
    }

    fn announce(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn announce_more(&self, site: &Site, prefix: &str) -> Result<()> {
        Openbgpd::bgpctl(site, &["network", "add", prefix, "nexthop", "192.0.2.2"])?;
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        Openbgpd::bgpctl(site, &["show", "rib", "detail", prefix])
    }

    fn graceful_shutdown(&self) -> &'static str {
        "GRACEFUL_SHUTDOWN"
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        let peer = site.setting().first_peer();
        Openbgpd::bgpctl(site, &["neighbor", &peer, "refresh"])
    }

    /// It stays idle for 30 s, and twice as long each time.
    fn dial_now(&self, site: &Site) -> Result<()> {
        for peer in &site.setting().peers {
            Openbgpd::bgpctl(site, &["neighbor", &peer.to_string(), "clear"])?;
        }
        Ok(())
    }
}

fn configuration(setting: &Setting, control: &Path) -> String {
    let drains = if setting.drains {
        " community GRACEFUL_SHUTDOWN"
    } else {
        ""
    };
    let mut text = format!(
        "AS {}\nrouter-id 192.0.2.2\nsocket \"{}\"\nfib-update no\n\
         listen on 192.0.2.2\nlisten on 2001:db8::2\nnexthop qualify via default\n\
         network 10.2.0.0/16 set {{ large-community 64512:1:2 nexthop 192.0.2.2{drains} }}\n\
         network 2001:db8:2::/48 set {{ nexthop 2001:db8::2{drains} }}\n",
        setting.asn(),
        control.display()
    );
    for peer in &setting.peers {
        text += &format!("neighbor {peer} {{\n");
        let mut line = |words: &str| text += &format!(" {words}\n");
        line(&format!("remote-as {ASN}"));
        line(&format!("local-address {}", own_address(peer)));
        line("announce IPv4 unicast");
        line("announce IPv6 unicast");
        line("announce enhanced refresh yes");
        if setting.reflects {
            line("route-reflector");
        }
        if !setting.dials {
            line("passive");
        }
        if let Some(password) = setting.password {
            line(&format!("tcp md5sig password {password}"));
        }
        if setting.add_paths {
            line("announce add-path send all");
            line("announce add-path recv yes");
        }
        if let Some(role) = setting.role {
            line(&format!("announce policy {role}"));
        }
        match setting.hops {
            Hops::Unsaid => {}
            Hops::Secured => line("ttl-security yes"),
            Hops::Many(hops) => line(&format!("multihop {hops}")),
        }
        if let Some(most) = setting.max_prefixes {
            line(&format!("max-prefix {most}"));
        }
        text += "}\n";
    }
    text + "allow from any\nallow to any\n"
}
