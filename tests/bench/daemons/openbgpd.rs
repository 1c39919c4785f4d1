//! OpenBGPD in its portable version.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::root::Root;
use super::{Daemon, addresses, write};

pub struct Openbgpd(pub Root);

impl Daemon for Openbgpd {
    fn name(&self) -> &'static str {
        match self.0 {
            Root::Host => "openbgpd",
            Root::Newer => "openbgpd-new",
        }
    }

    fn version(&self) -> Option<String> {
        self.0.version("/usr/sbin/bgpd", &["-V"])
    }

    fn prepare(&self, directory: &Path, clients: u32, mounts: &mut Mounts) -> Result<()> {
        let file = directory.join("bgpd.conf");
        let control = self.0.inside(directory).join("control");
        let mut text = format!(
            "AS 64512\nrouter-id 10.0.0.1\nsocket \"{}\"\nfib-update no\nlisten on 10.0.0.1\n\
             nexthop qualify via default\nallow from any\nallow to any\n",
            control.display()
        );
        for address in addresses(clients) {
            write!(
                text,
                "neighbor {address} {{\n remote-as 64512\n passive\n route-reflector\n}}\n"
            )?;
        }
        write(&file, &text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        // Where its processes change their root to.
        let empty = directory.join("empty");
        fs::create_dir_all(&empty)?;
        match self.0 {
            Root::Host => mounts.run.push((empty, "openbgpd".to_owned())),
            Root::Newer => self.0.mount(directory, mounts),
        }
        Ok(())
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        let directory = self.0.inside(directory);
        let mut command = self.0.command("/usr/sbin/bgpd");
        command.arg("-d").arg("-f").arg(directory.join("bgpd.conf"));
        vec![command]
    }
}
