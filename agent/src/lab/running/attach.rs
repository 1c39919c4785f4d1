//! Workloads of a lab: attached and detached by the CNI plugin, as a runtime would.

use std::net::Ipv4Addr;
use std::process::Command;

use serde::Deserialize;

use super::{Lab, in_parallel};
use crate::lab::error::{LabError, Result};
use crate::lab::machine::COMMAND_TIMEOUT;
use crate::lab::netns::Mounts;
use crate::lab::process;
use crate::lab::record::Workload;
use crate::lab::texts;
use crate::lab::topology::{NODES, Node};

impl Lab {
    /// Attaches two workloads to every node, the nodes at the same time.
    pub fn attach_all(&mut self) -> Result<()> {
        in_parallel(&NODES, |node| self.wait_synced(node.name))?;
        let names = |node: &Node| [1, 2].map(|number| format!("{}-{number}", node.name));
        for name in NODES.iter().flat_map(names) {
            self.add_namespace(&name, Mounts::default())?;
        }
        let this: &Lab = self;
        let attached = in_parallel(&NODES, |node| {
            let attach = |name: String| {
                Ok(Workload {
                    address: this.cni_add(node.name, &name)?,
                    node: node.name.to_owned(),
                    name,
                })
            };
            names(node)
                .into_iter()
                .map(attach)
                .collect::<Result<Vec<Workload>>>()
        })?;
        self.record.workloads = attached.concat();
        self.record.save()
    }

    /// Makes a namespace and attaches it to `node` by the CNI plugin's ADD.
    pub fn attach(&mut self, node: &str, name: &str) -> Result<Workload> {
        self.add_namespace(name, Mounts::default())?;
        let workload = Workload {
            name: name.to_owned(),
            node: node.to_owned(),
            address: self.cni_add(node, name)?,
        };
        self.record.workloads.push(workload.clone());
        self.record.save()?;
        Ok(workload)
    }

    fn cni_add(&self, node: &str, workload: &str) -> Result<Ipv4Addr> {
        let said = self.cni("ADD", node, workload)?;
        address_of(&said).ok_or_else(|| LabError::Command {
            command: "caracal-cni ADD".to_owned(),
            reason: format!("no IPv4 address in its result: {said}"),
        })
    }

    /// Calls the CNI plugin as a runtime would, and returns its standard output.
    pub fn cni(&self, verb: &str, node: &str, workload: &str) -> Result<String> {
        let mut command = Command::new(self.program("caracal-cni"));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", format!("{}-{workload}", self.id()))
            .env("CNI_NETNS", self.namespace(workload)?.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.programs)
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAMESPACE=lab;K8S_POD_NAME={workload}"),
            );
        let socket = self.run_dir(node).join("agent.sock");
        let input = texts::cni_configuration(&socket);
        let namespace = self.namespace(node)?;
        process::output(Some(namespace), &mut command, &input, COMMAND_TIMEOUT)
    }
}

fn address_of(cni_result: &str) -> Option<Ipv4Addr> {
    #[derive(Deserialize)]
    struct Added {
        ips: Vec<Ip>,
    }
    #[derive(Deserialize)]
    struct Ip {
        address: String,
    }
    let added: Added = serde_json::from_str(cni_result).ok()?;
    let first = |ip: &Ip| ip.address.split('/').next()?.parse().ok();
    added.ips.iter().find_map(first)
}
