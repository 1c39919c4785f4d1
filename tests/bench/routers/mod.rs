//! The daemons that are measured, each as a router at 10.0.0.1 of AS 64512 that writes what its one
//! peer says, 10.1.0.1 by iBGP, to the kernel. The next hop is behind `uplink`.

mod agent;

use std::path::Path;
use std::process::Command;

use ::agent::lab::Mounts;
use anyhow::Result;

use crate::daemons::bird::Bird;
use crate::daemons::frr::Frr;
use crate::daemons::root::Root;
use crate::daemons::{Daemon, write};

/// The limit, us, and the others.
pub const ALL: [&dyn Daemon; 6] = [
    &Raw,
    &agent::Agent,
    &BirdRouter(Bird(Root::Host)),
    &BirdRouter(Bird(Root::Newer)),
    &FrrRouter(Frr(Root::Host)),
    &FrrRouter(Frr(Root::Newer)),
];

const LINKS: &str = "link set lo up\naddress add 10.1.0.1/32 dev lo\n\
                     link add uplink type veth peer name far\nlink set far up\n\
                     link set uplink up\naddress add 10.0.0.1/16 dev uplink\n";

/// Nobody: the measurement writes the routes itself.
struct Raw;

impl Daemon for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn version(&self) -> Option<String> {
        Some("netlink, 64 routes a system call".to_owned())
    }

    fn prepare(&self, _: &Path, _: u32, _: &mut Mounts) -> Result<()> {
        Ok(())
    }

    fn commands(&self, _: &Path) -> Vec<Command> {
        Vec::new()
    }

    fn links(&self) -> &'static str {
        LINKS
    }

    fn is_relay(&self) -> bool {
        true
    }
}

struct BirdRouter(Bird);

impl Daemon for BirdRouter {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn version(&self) -> Option<String> {
        self.0.version()
    }

    fn prepare(&self, directory: &Path, _: u32, mounts: &mut Mounts) -> Result<()> {
        self.0.0.mount(directory, mounts);
        write(&directory.join("bird.conf"), BIRD)
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        self.0.commands(directory)
    }

    fn links(&self) -> &'static str {
        LINKS
    }
}

const BIRD: &str = "log stderr { warning, error, fatal, bug };
router id 10.0.0.1;
protocol device { scan time 60; }
protocol direct { ipv4; interface \"uplink\"; }
protocol kernel { scan time 60; ipv4 { import none; export where source = RTS_BGP; }; }
protocol bgp peer {
  local 10.0.0.1 as 64512; neighbor 10.1.0.1 as 64512; passive on; hold time 180;
  ipv4 { import all; export none; };
}
";

struct FrrRouter(Frr);

impl Daemon for FrrRouter {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn version(&self) -> Option<String> {
        self.0.version()
    }

    fn prepare(&self, directory: &Path, _: u32, mounts: &mut Mounts) -> Result<()> {
        self.0.configure(directory, FRR, mounts)
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        self.0.daemons(directory).into()
    }

    fn links(&self) -> &'static str {
        LINKS
    }
}

const FRR: &str = "router bgp 64512
 bgp router-id 10.0.0.1
 no bgp default ipv4-unicast
 neighbor 10.1.0.1 remote-as 64512
 neighbor 10.1.0.1 passive
 address-family ipv4 unicast
  neighbor 10.1.0.1 activate
 exit-address-family
";
