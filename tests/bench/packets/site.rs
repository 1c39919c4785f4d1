//! Two nodes on one wire, with a workload each.
//!
//! Node N is 10.0.0.N+1 on `wire`; its workload is 10.200.N+1.2 behind a veth whose MAC and gateway are
//! as the agent makes them for attachments.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use agent::lab::{Mounts, machine, process};
use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::plain;
use super::ways::{Carrying, Way};
use crate::daemons::caracal::program;
use crate::daemons::write;
use crate::place::Place;

/// Until a node has routes to the other.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Site {
    nodes: [Place; 2],
    pub workloads: [Place; 2],
    directory: TempDir,
}

fn node_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + last(node))
}

/// Of a node's workload.
pub fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, 1 + last(node), 2)
}

fn pod_cidr(node: usize) -> String {
    format!("10.200.{}.0/24", 1 + last(node))
}

fn last(node: usize) -> u8 {
    u8::try_from(node).expect("two nodes")
}

/// Of the workload on its node.
const INTERFACE: &str = "carabench0";
const MAC: &str = "02:00:00:00:00:02";

impl Site {
    /// Everything started; it may take a moment until packets arrive.
    pub fn start(way: &Way) -> Result<Site> {
        let directory = tempfile::Builder::new()
            .prefix("caracal-bench-")
            .tempdir()?;
        let id = directory.path().display().to_string();
        let place = |name: &str| Place::create(&id, name, &Mounts::default());
        let site = Site {
            nodes: [place("node 0")?, place("node 1")?],
            workloads: [place("workload 0")?, place("workload 1")?],
            directory,
        };
        site.wire(way.mtu)?;
        match way.carrying {
            Carrying::Nobody => site.route(|node| format!("via {node} dev wire"))?,
            Carrying::Plain => site.start_plain()?,
            Carrying::Agents {
                pool,
                configuration,
            } => site.start_agents(pool, configuration)?,
        }
        Ok(site)
    }

    fn wire(&self, mtu: u32) -> Result<()> {
        let other = self.nodes[1].namespace.holder.pid;
        let wire = format!("link add wire type veth peer name wire netns {other}\n");
        machine::ip_batch(&self.nodes[0].namespace, &wire)?;
        for (number, (node, workload)) in self.nodes.iter().zip(&self.workloads).enumerate() {
            let inside = workload.namespace.holder.pid;
            let (own, its) = (node_address(number), address(number));
            let text = format!(
                "link set lo up\naddress add {own}/24 dev wire\nlink set wire up\n\
                 link add {INTERFACE} address ee:ee:ee:ee:ee:ee mtu {mtu} type veth \
                 peer name eth0 address {MAC} mtu {mtu} netns {inside}\n\
                 link set {INTERFACE} up\nroute add {its}/32 dev {INTERFACE}\n"
            );
            machine::ip_batch(&node.namespace, &text)?;
            let text = format!(
                "link set lo up\naddress add {its}/32 dev eth0\nlink set eth0 up\n\
                 neighbour add 169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee nud permanent\n\
                 route add 169.254.1.1 dev eth0 scope link\n\
                 route add default via 169.254.1.1 dev eth0\n"
            );
            machine::ip_batch(&workload.namespace, &text)?;
            let forward = || fs::write("/proc/sys/net/ipv4/ip_forward", "1");
            node.namespace.enter(forward)?;
        }
        Ok(())
    }

    /// To the other node's workloads, the way that is made of that node's address.
    fn route(&self, way: impl Fn(Ipv4Addr) -> String) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let (to, way) = (pod_cidr(1 - number), way(node_address(1 - number)));
            machine::ip_batch(&node.namespace, &format!("route add {to} {way}\n"))?;
        }
        Ok(())
    }

    fn start_plain(&self) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("plain-carrier");
            command.args([number, 1 - number].map(|node| node_address(node).to_string()));
            self.start_on(node, "plain", &mut command)?;
            process::wait_until("the plain carrier's device", PATIENCE, || {
                let links = machine::ip(&node.namespace, &["-o", "link", "show", "up"])?;
                Ok((!links.contains(plain::DEVICE)).then_some(links))
            })?;
        }
        self.route(|_| format!("dev {}", plain::DEVICE))
    }

    fn start_agents(&self, pool: &str, configuration: &str) -> Result<()> {
        let directory = self.directory.path();
        let store = directory.join("store");
        fs::create_dir(&store)?;
        write(&store.join("all.yaml"), &resources(pool))?;
        write(&directory.join("agent.yaml"), configuration)?;
        for (number, node) in self.nodes.iter().enumerate() {
            let own = directory.join(format!("n{number}"));
            let mut command = Command::new(program("caracal-agent"));
            command.args(["run", "--node", &format!("n{number}"), "--store"]);
            command.arg(format!("dir:{}", store.display()));
            command.arg("--config").arg(directory.join("agent.yaml"));
            command.arg("--run-dir").arg(own.join("run"));
            command.arg("--state-dir").arg(own.join("state"));
            command.args(["--http-listen", "none", "--log-level", "warn"]);
            self.start_on(node, "agent", &mut command)?;
        }
        Ok(())
    }

    fn start_on(&self, node: &Place, name: &str, command: &mut Command) -> Result<()> {
        let log = self.directory.path().join("log");
        process::start(name, &node.namespace, command, &log)?;
        Ok(())
    }

    /// Whether packets go the way that is measured.
    pub fn check_way(&self, way: &Way) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let to = address(1 - number).to_string();
            let route = machine::ip(&node.namespace, &["route", "get", &to])?;
            ensure!(
                route.contains(&format!("dev {} ", way.device)),
                "packets do not go by {}: {route}",
                way.device
            );
        }
        Ok(())
    }
}

/// Whether an ipip device can be made in this kernel.
pub fn has_kernel_ipip() -> bool {
    let probe = || -> Result<()> {
        let place = Place::create("caracal-bench", "probe", &Mounts::default())?;
        let probe = ["link", "add", "probe", "type", "ipip", "local", "127.0.0.1"];
        machine::ip(&place.namespace, &probe)?;
        Ok(())
    };
    probe().is_ok()
}

fn resources(pool: &str) -> String {
    let mut text = format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{asNumber: 64512}}\n---\napiVersion: caracal.dev/v1alpha1\nkind: IPPool\n\
         metadata: {{name: pool}}\nspec: {{cidr: 10.200.0.0/16, {pool}}}\n"
    );
    for node in 0..2 {
        text += &format!(
            "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {{name: n{node}}}\n\
             spec: {{bgp: {{ipv4Address: {}/24}}, podCIDRs: [{}]}}\n\
             ---\napiVersion: caracal.dev/v1alpha1\nkind: WorkloadEndpoint\n\
             metadata: {{name: w{node}, namespace: bench}}\n\
             spec: {{node: n{node}, interfaceName: {INTERFACE}, addresses: [{}/32], mac: '{MAC}'}}\n",
            node_address(node),
            pod_cidr(node),
            address(node),
        );
    }
    text
}
