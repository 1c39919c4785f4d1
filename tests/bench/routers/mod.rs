//! The daemons that are measured, each as a router at 10.0.0.1 of AS 64512 that writes what its one
//! peer says, 10.1.0.1 by iBGP, to the kernel. The next hop is behind `uplink`.

pub mod agent;

use std::path::Path;
use std::process::Command;

use ::agent::lab::Mounts;
use anyhow::Result;

use self::agent::Agent;
use crate::daemons::bird::Bird;
use crate::daemons::frr::Frr;
use crate::daemons::root::Root;
use crate::daemons::{Daemon, write};

/// Who writes what a peer says: the limit, us, and the others.
pub const ALL: [&dyn Daemon; 6] = [
    &Raw,
    &AGENT,
    &BirdRouter(Bird(Root::Host), WRITES),
    &BirdRouter(Bird(Root::Newer), WRITES),
    &FrrRouter(Frr(Root::Host)),
    &FrrRouter(Frr(Root::Newer)),
];

/// Who compares all it wrote with the kernel, here each second.
pub const RESYNCING: [&dyn Daemon; 4] = [
    &Raw,
    &Agent {
        configuration: "resyncSeconds: 1\n",
    },
    &BirdRouter(Bird(Root::Host), SCANS),
    &BirdRouter(Bird(Root::Newer), SCANS),
];

/// Who has prefixes of its own.
pub const ORIGINATING: [&dyn Daemon; 5] = [
    &AGENT,
    &BirdRouter(Bird(Root::Host), LEARNS),
    &BirdRouter(Bird(Root::Newer), LEARNS),
    &FrrRouter(Frr(Root::Host)),
    &FrrRouter(Frr(Root::Newer)),
];

/// Who has workloads.
pub const NODES: [&dyn Daemon; 2] = [&Raw, &AGENT];

const AGENT: Agent = Agent { configuration: "" };

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

/// With this as its protocol `kernel` and what its peer is told.
struct BirdRouter(Bird, Kernel);

impl Daemon for BirdRouter {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn version(&self) -> Option<String> {
        self.0.version()
    }

    fn prepare(&self, directory: &Path, _: u32, mounts: &mut Mounts) -> Result<()> {
        self.0.0.mount(directory, mounts);
        write(&directory.join("bird.conf"), &bird(&self.1))
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        self.0.commands(directory)
    }

    fn links(&self) -> &'static str {
        LINKS
    }
}

struct Kernel {
    protocol: &'static str,
    told: &'static str,
}

const WRITES: Kernel = Kernel {
    protocol: "scan time 60; ipv4 { import none; export where source = RTS_BGP; };",
    told: "none",
};

const SCANS: Kernel = Kernel {
    protocol: "scan time 1; ipv4 { import none; export where source = RTS_BGP; };",
    ..WRITES
};

/// As Calico configures it.
const LEARNS: Kernel = Kernel {
    protocol: "learn; scan time 2; ipv4 { import all; export none; };",
    told: "where source = RTS_INHERIT",
};

fn bird(Kernel { protocol, told }: &Kernel) -> String {
    format!(
        "log stderr {{ warning, error, fatal, bug }};
router id 10.0.0.1;
protocol device {{ scan time 60; }}
protocol direct {{ ipv4; interface \"uplink\"; }}
protocol kernel {{ {protocol} }}
protocol bgp peer {{
  local 10.0.0.1 as 64512; neighbor 10.1.0.1 as 64512; passive on; hold time 180;
  ipv4 {{ import all; export {told}; }};
}}
"
    )
}

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
        // With real-time priority zebra and the kernel wait for each other.
        let ordinary = |command: Command| {
            let mut wrapped = Command::new("chrt");
            wrapped.args(["--other", "0"]).arg(command.get_program());
            wrapped.args(command.get_args());
            wrapped
        };
        self.0.daemons(directory).map(ordinary).into()
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
  redistribute kernel
 exit-address-family
";
