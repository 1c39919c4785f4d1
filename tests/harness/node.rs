//! The product's agent in place of our speaker in a site: node `n1` at 192.0.2.1 with 172.17.8.0/24,
//! the router as its only peer.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use agent::api::schema::Items;
use agent::lab::machine::COMMAND_TIMEOUT;
use agent::lab::process::{self, Process};
use agent::lab::{Mounts, Namespace, netns, texts};
use anyhow::{Context, Result};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use serde::de::DeserializeOwned;

use crate::product::{self, eventually, programs, succeeded};
use crate::site::{Site, TIMEOUT};

/// What the node announces.
pub const POD_CIDR: &str = "172.17.8.0/24";

const STORE: &str = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.1/24}, podCIDRs: [172.17.8.0/24]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: false}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: default}
spec: {cidr: 172.17.0.0/16, ipipMode: Never}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: router}
spec: {node: n1, peerIP: 192.0.2.2, asNumber: 64512, families: [ipv4, ipv6], connectRetryTime: 1s, filters: [all]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: all}
spec: {importV4: [{action: Accept}], importV6: [{action: Accept}]}
";

pub struct Node {
    namespace: Namespace,
    directory: PathBuf,
    programs: PathBuf,
    id: String,
    process: Process,
}

impl Node {
    /// Starts the agent and waits for its first pass. It ends with the site.
    pub fn start(site: &Site) -> Result<Node> {
        let directory = site.directory().join("node");
        fs::create_dir_all(directory.join("store"))?;
        fs::write(directory.join("store/all.yaml"), STORE)?;
        site.ours
            .enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
        let (namespace, id) = (site.ours.clone(), site.id().to_owned());
        let programs = programs()?;
        let mut command = agent(&programs, &directory, &id);
        let process = process::start("n1", &namespace, &mut command, &directory.join("log"))?;
        let node = Node {
            namespace,
            directory,
            programs,
            id,
            process,
        };
        node.wait_synced()?;
        Ok(node)
    }

    /// kill -9, its end awaited.
    pub fn kill(&self) -> Result<()> {
        Ok(product::kill(&self.process)?)
    }

    /// Starts the agent again.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = agent(&self.programs, &self.directory, &self.id);
        let log = self.directory.join("log");
        self.process = process::start("n1", &self.namespace, &mut command, &log)?;
        self.wait_synced()
    }

    fn wait_synced(&self) -> Result<()> {
        let waited = eventually("the agent's first pass", TIMEOUT, || {
            let done = self.caracal(&["wait", "synced", "--timeout", "10"])?;
            Ok((!done.status.success()).then_some(done.stderr))
        });
        waited.with_context(|| fs::read_to_string(self.directory.join("log")).unwrap_or_default())
    }

    /// Attaches a workload by the CNI plugin, in a namespace of its own.
    pub fn attach(&self, site: &mut Site, name: &str) -> Result<(Namespace, std::net::Ipv4Addr)> {
        let workload = site.add_namespace(name, &Mounts::default())?;
        let mut command = Command::new(self.programs.join("caracal-cni"));
        command
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", format!("{}-{name}", self.id))
            .env("CNI_NETNS", workload.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.programs)
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAMESPACE=site;K8S_POD_NAME={name}"),
            );
        let input = texts::cni_configuration(&self.socket());
        let timeout = COMMAND_TIMEOUT;
        let said = process::output(Some(&self.namespace), &mut command, &input, timeout)?;
        let result: serde_json::Value = serde_json::from_str(&said)?;
        let address = result["ips"][0]["address"].as_str();
        let address = address.and_then(|cidr| cidr.split('/').next());
        let address = address.with_context(|| format!("no address in {said}"))?;
        Ok((workload, address.parse()?))
    }

    /// The session with the router.
    pub fn session(&self) -> Result<PeerStatus> {
        let peers: Vec<PeerStatus> = self.items(&["peers"])?;
        peers.into_iter().next().context("no peer")
    }

    pub fn routes(&self, prefix: &str) -> Result<Vec<RouteStatus>> {
        let mut routes: Vec<RouteStatus> = self.items(&["routes"])?;
        routes.retain(|route| route.prefix.to_string() == prefix);
        Ok(routes)
    }

    /// Waits until the route to `prefix` is in the kernel and as wanted.
    pub fn expect_route(
        &self,
        prefix: &str,
        what: &str,
        holds: impl Fn(&RouteStatus) -> bool,
    ) -> Result<()> {
        eventually(&format!("{prefix}: {what}"), TIMEOUT, || {
            let routes = self.routes(prefix)?;
            let is_installed = |route: &RouteStatus| {
                let kernel = route.kernel.as_ref();
                kernel.is_some_and(|kernel| kernel.state == "installed")
            };
            let is_there = routes
                .iter()
                .any(|route| is_installed(route) && holds(route));
            Ok((!is_there).then(|| format!("{routes:?}\n{:?}", self.session())))
        })
    }

    fn items<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<Vec<T>> {
        let said = succeeded(self.caracal(&[arguments, &["-o", "json"]].concat())?)?;
        let items: Items<T> = serde_json::from_str(&said).context(said)?;
        Ok(items.items)
    }

    fn caracal(&self, arguments: &[&str]) -> Result<process::Finished> {
        let mut command = Command::new(self.programs.join("caracal"));
        command.arg("--socket").arg(self.socket()).args(arguments);
        let finished = process::run(Some(&self.namespace), &mut command, "", TIMEOUT)?;
        Ok(finished)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("run/agent.sock")
    }
}

fn agent(programs: &std::path::Path, directory: &std::path::Path, id: &str) -> Command {
    let mut command = Command::new(programs.join("caracal-agent"));
    command.args(["run", "--node", "n1", "--http-listen", "none", "--store"]);
    command.arg(format!("dir:{}", directory.join("store").display()));
    command.arg("--run-dir").arg(directory.join("run"));
    command.arg("--state-dir").arg(directory.join("state"));
    command.env(netns::LAB_VARIABLE, id);
    command
}
