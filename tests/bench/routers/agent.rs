//! Our agent, as it is shipped.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::LINKS;
use crate::daemons::caracal::program;
use crate::daemons::{Daemon, version_line, write};

const AGENT: &str = "caracal-agent";

pub struct Agent;

impl Daemon for Agent {
    fn name(&self) -> &'static str {
        "caracal"
    }

    fn version(&self) -> Option<String> {
        version_line(Command::new(program(AGENT)).arg("--version"))
    }

    fn prepare(&self, directory: &Path, _: u32, _: &mut Mounts) -> Result<()> {
        let store = directory.join("store");
        fs::create_dir(&store)?;
        write(&store.join("node.yaml"), STORE)
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        let mut command = Command::new(program(AGENT));
        command.args(["run", "--node", "n", "--store"]);
        command.arg(format!("dir:{}", directory.join("store").display()));
        command.arg("--run-dir").arg(directory.join("run"));
        command.arg("--state-dir").arg(directory.join("state"));
        command.args(["--http-listen", "none", "--log-level", "warn"]);
        vec![command]
    }

    fn links(&self) -> &'static str {
        LINKS
    }
}

const STORE: &str = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: n}
spec: {bgp: {ipv4Address: 10.0.0.1/16, asNumber: 64512}, podCIDRs: [10.200.0.0/24]}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: own}
spec: {cidr: 10.200.0.0/16}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: learned}
spec: {cidr: 20.0.0.0/8}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: peer}
spec: {node: n, peerIP: 10.1.0.1, asNumber: 64512, passive: true}
";
