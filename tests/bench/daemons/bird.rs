//! BIRD 2.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::root::Root;
use super::{Daemon, addresses, write};

pub struct Bird(pub Root);

impl Daemon for Bird {
    fn name(&self) -> &'static str {
        match self.0 {
            Root::Host => "bird",
            Root::Newer => "bird-new",
        }
    }

    fn version(&self) -> Option<String> {
        self.0.version("/usr/sbin/bird", &["--version"])
    }

    fn prepare(&self, directory: &Path, clients: u32, mounts: &mut Mounts) -> Result<()> {
        let mut text = "log stderr { warning, error, fatal, bug };\nrouter id 10.0.0.1;\n\
             protocol device { scan time 60; }\nprotocol direct { ipv4; interface \"lo\"; }\n\
             template bgp rack { local 10.0.0.1 as 64512; passive on; rr client; \
             rr cluster id 10.0.0.1; error wait time 1, 1; hold time 180; \
             ipv4 { import all; export where source = RTS_BGP; }; }\n"
            .to_owned();
        for (number, address) in addresses(clients).enumerate() {
            writeln!(
                text,
                "protocol bgp c{number} from rack {{ neighbor {address} as 64512; }}"
            )?;
        }
        self.0.mount(directory, mounts);
        write(&directory.join("bird.conf"), &text)
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        let directory = self.0.inside(directory);
        let mut command = self.0.command("/usr/sbin/bird");
        command.arg("-f").arg("-c").arg(directory.join("bird.conf"));
        command.arg("-s").arg(directory.join("control"));
        vec![command]
    }
}
