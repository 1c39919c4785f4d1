//! OpenBGPD in its portable version, without a FIB.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::{PEERS, Router, Setting};
use crate::site::Site;

pub struct Openbgpd;

impl Router for Openbgpd {
    fn name(&self) -> &'static str {
        "openbgpd"
    }

    fn program(&self) -> &'static str {
        "bgpctl"
    }

    fn prepare(&self, directory: &Path, setting: Setting, mounts: &mut Mounts) -> Result<()> {
        let control = directory.join("control");
        let mut text = format!(
            "AS 64512\nrouter-id 192.0.2.2\nsocket \"{}\"\nfib-update no\n\
             listen on 192.0.2.2\nnexthop qualify via default\n\
             network 10.2.0.0/16 set {{ large-community 64512:1:2 nexthop 192.0.2.2 }}\n\
             network 2001:db8:2::/48 set nexthop 2001:db8::2\n",
            control.display()
        );
        for peer in PEERS {
            let client = if setting.reflects {
                "\n route-reflector"
            } else {
                ""
            };
            let passive = if setting.dials { "" } else { "\n passive" };
            text += &format!(
                "neighbor {peer} {{\n remote-as 64512\n local-address 192.0.2.2{client}{passive}\n \
                 announce IPv4 unicast\n announce IPv6 unicast\n}}\n"
            );
        }
        text += "allow from any\nallow to any\n";
        let file = directory.join("bgpd.conf");
        fs::write(&file, text)?;
        use std::os::unix::fs::PermissionsExt;
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

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let control = site.control().display().to_string();
        site.ask(&["bgpctl", "-s", &control, "show", "rib", "detail", prefix])
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        let control = site.control().display().to_string();
        site.ask(&["bgpctl", "-s", &control, "neighbor", "192.0.2.1", "refresh"])
    }

    /// It stays idle for 30 s, and twice as long each time.
    fn dial_now(&self, site: &Site) -> Result<()> {
        let control = site.control().display().to_string();
        site.ask(&["bgpctl", "-s", &control, "neighbor", "192.0.2.1", "clear"])?;
        Ok(())
    }
}
