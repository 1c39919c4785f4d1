//! Our agent, as it is shipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::LINKS;
use crate::daemons::caracal::program;
use crate::daemons::{Daemon, version_line, write};

const AGENT: &str = "caracal-agent";

/// The directory of resources, in the agent's own.
pub const STORE: &str = "store";

/// With this as its configuration file.
pub struct Agent {
    pub configuration: &'static str,
}

impl Daemon for Agent {
    fn name(&self) -> &'static str {
        "caracal"
    }

    fn version(&self) -> Option<String> {
        version_line(Command::new(program(AGENT)).arg("--version"))
    }

    fn prepare(&self, directory: &Path, _: u32, _: &mut Mounts) -> Result<()> {
        let store = directory.join(STORE);
        fs::create_dir(&store)?;
        write(&store.join("peers.yaml"), PEERS)?;
        write_node(directory, "")?;
        write(&directory.join("agent.yaml"), self.configuration)
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        let mut command = Command::new(program(AGENT));
        command.args(["run", "--node", "n", "--store"]);
        command.arg(format!("dir:{}", directory.join(STORE).display()));
        command.arg("--config").arg(directory.join("agent.yaml"));
        command.arg("--run-dir").arg(directory.join("run"));
        command.arg("--state-dir").arg(directory.join("state"));
        command.args(["--http-listen", "none", "--log-level", "warn"]);
        vec![command]
    }

    fn links(&self) -> &'static str {
        LINKS
    }
}

/// Where a node's runtime asks for workloads.
pub fn socket(directory: &Path) -> PathBuf {
    directory.join("run/agent.sock")
}

/// Whether this is the directory of an agent.
pub fn has_store(directory: &Path) -> bool {
    directory.join(STORE).is_dir()
}

/// Replaces the store's Node: `more` follows its first podCIDR.
pub fn write_node(directory: &Path, more: &str) -> Result<()> {
    let store = directory.join(STORE);
    // Whole or not at all: the agent watches.
    let new = store.join(".new");
    let node = format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {{name: n}}\nspec: {{bgp: \
         {{ipv4Address: 10.0.0.1/16, asNumber: 64512}}, podCIDRs: [10.200.0.0/22{more}]}}\n"
    );
    write(&new, &node)?;
    Ok(fs::rename(new, store.join("node.yaml"))?)
}

const PEERS: &str = "
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
