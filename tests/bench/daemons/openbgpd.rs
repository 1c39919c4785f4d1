//! OpenBGPD in its portable version.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::{Daemon, addresses, version_line, write};

pub struct Openbgpd;

impl Daemon for Openbgpd {
    fn name(&self) -> &'static str {
        "openbgpd"
    }

    fn version(&self) -> Option<String> {
        version_line("/usr/sbin/bgpd", &["-V"])
    }

    fn prepare(&self, directory: &Path, clients: u32, mounts: &mut Mounts) -> Result<()> {
        let file = directory.join("bgpd.conf");
        let control = directory.join("control");
        let mut text = format!(
            "AS 64512\nrouter-id 10.0.0.1\nsocket \"{}\"\nfib-update no\nlisten on 10.0.0.1\n\
             nexthop qualify via bgp\nallow from any\nallow to any\n",
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
        mounts.run.push((empty, "openbgpd".to_owned()));
        Ok(())
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        let mut command = Command::new("/usr/sbin/bgpd");
        command.arg("-d").arg("-f").arg(directory.join("bgpd.conf"));
        vec![command]
    }
}
