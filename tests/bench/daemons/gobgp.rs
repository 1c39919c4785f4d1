//! GoBGP.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::root::Root;
use super::{Daemon, addresses, write};

pub struct Gobgp(pub Root);

impl Daemon for Gobgp {
    fn name(&self) -> &'static str {
        match self.0 {
            Root::Host => "gobgp",
            Root::Newer => "gobgp-new",
        }
    }

    fn version(&self) -> Option<String> {
        self.0.version("/usr/bin/gobgpd", &["--version"])
    }

    fn prepare(&self, directory: &Path, clients: u32, mounts: &mut Mounts) -> Result<()> {
        let mut text = "[global.config]\nas = 64512\nrouter-id = \"10.0.0.1\"\n\
             local-address-list = [\"10.0.0.1\"]\n"
            .to_owned();
        for address in addresses(clients) {
            write!(
                text,
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\n\
                 peer-as = 64512\n[neighbors.transport.config]\npassive-mode = true\n\
                 [neighbors.timers.config]\nidle-hold-time-after-reset = 1\n\
                 [neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"10.0.0.1\"\n\
                 [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
                 afi-safi-name = \"ipv4-unicast\"\n"
            )?;
        }
        self.0.mount(directory, mounts);
        write(&directory.join("gobgpd.toml"), &text)
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        let directory = self.0.inside(directory);
        let mut command = self.0.command("/usr/bin/gobgpd");
        command.arg("-f").arg(directory.join("gobgpd.toml"));
        command.args(["-t", "toml", "--log-plain", "-l", "warn"]);
        command.args(["--api-hosts", "127.0.0.1:50051"]);
        vec![command]
    }
}
