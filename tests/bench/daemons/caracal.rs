//! Our reflector, as it is shipped.

use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::{Daemon, version_line, write};

const REFLECTOR: &str = "caracal-reflector";

pub struct Caracal;

/// Beside this program: all are built with the profile of releases.
pub fn program(name: &str) -> String {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name(name).display().to_string()
}

impl Daemon for Caracal {
    fn name(&self) -> &'static str {
        "caracal"
    }

    fn version(&self) -> Option<String> {
        version_line(Command::new(program(REFLECTOR)).arg("--version"))
    }

    fn prepare(&self, directory: &Path, _: u32, _: &mut Mounts) -> Result<()> {
        write(&directory.join("rack.yaml"), RACK)
    }

    fn commands(&self, directory: &Path) -> Vec<Command> {
        let mut command = Command::new(program(REFLECTOR));
        command.arg("--config").arg(directory.join("rack.yaml"));
        command.arg("--run-dir").arg(directory);
        command.arg("--state-dir").arg(directory);
        command.args(["--http-listen", "none", "--log-level", "warn"]);
        vec![command]
    }
}

const RACK: &str = "
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, listenAddresses: [10.0.0.1]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: clients}
spec: {peerPrefixes: [10.1.0.0/16], asNumber: 64512, routeReflectorClient: true}
";
