//! A node with an agent, and neighbours that are speakers of ours, each on a link of its own.
//!
//! On link N the node is 10.0.N.1 and fd00:N::1 on device ethN, the neighbour 10.0.N.2 and fd00:N::2
//! on device eth0. The sessions are internal.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::api::schema::Items;
use agent::lab::process::{self, Finished, Process};
use agent::lab::{Mounts, Namespace, machine, netns};
use anyhow::{Context, Result};
use bgp::speaker::config::{Originated, PeerConfig, PeerKey, PeerSource, SpeakerConfig};
use bgp::speaker::status::RouteStatus;
use bgp::types::{Family, RouterId};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::product::{TIMEOUT, eventually, programs, succeeded};
use crate::site::end_all_in;
use crate::speaker::{self, ASN, Running};

const CONFIG: &str = "agent.yaml";

pub struct Crossing {
    pub node: Namespace,
    /// By link number.
    pub neighbours: BTreeMap<u8, Neighbour>,
    directory: TempDir,
    programs: PathBuf,
    id: String,
}

pub struct Neighbour {
    pub namespace: Namespace,
    pub speaker: Option<Running>,
}

impl Crossing {
    /// Everything wired, nothing started. Links are numbered from 1.
    pub fn wired(links: u8) -> Result<Crossing> {
        let directory = tempfile::Builder::new()
            .prefix("caracal-crossing-")
            .tempdir()?;
        let name = directory.path().file_name().context("a name")?;
        let id = name.to_string_lossy().into_owned();
        let node = Namespace::create(&id, "node", &Mounts::default())?;
        machine::ip(&node, &["link", "set", "lo", "up"])?;
        let mut neighbours = BTreeMap::new();
        for link in 1..=links {
            let name = format!("neighbour {link}");
            let namespace = Namespace::create(&id, &name, &Mounts::default())?;
            wire(&node, &namespace, link)?;
            let neighbour = Neighbour {
                namespace,
                speaker: None,
            };
            neighbours.insert(link, neighbour);
        }
        Ok(Crossing {
            node,
            neighbours,
            directory,
            programs: programs()?,
            id,
        })
    }

    /// Starts the agent. Its store is one Node `n1` with 172.17.8.0/24, a session with each
    /// neighbour, and `more`.
    pub fn start_agent(&self, more: &str) -> Result<Process> {
        let peers = self.neighbours.keys().map(|link| peer(*link, ""));
        self.write_store(&(peers.collect::<String>() + more))?;
        self.start_agent_again()
    }

    /// Replaces the store but for its Node.
    pub fn write_store(&self, resources: &str) -> Result<()> {
        let store = self.directory.path().join("store");
        fs::create_dir_all(&store)?;
        let node = "apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: n1}\nspec: {bgp: \
                    {ipv4Address: 10.0.1.1/24, ipv6Address: 'fd00:1::1/64'}, podCIDRs: [172.17.8.0/24]}\n\
                    ---\napiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: \
                    default}\nspec: {asNumber: 64512, nodeToNodeMeshEnabled: false}\n";
        // Whole or not at all: the agent watches.
        let new = store.join(".new");
        fs::write(&new, format!("{node}{resources}"))?;
        fs::rename(new, store.join("all.yaml"))?;
        Ok(())
    }

    /// The agent's configuration file from its next start on.
    pub fn configure(&self, yaml: &str) -> Result<()> {
        Ok(fs::write(self.path(CONFIG), yaml)?)
    }

    pub fn start_agent_again(&self) -> Result<Process> {
        self.start("n1", &self.node, self.directory.path())
    }

    /// The agent of another node, which is the neighbour on a link. Its resources are in the store,
    /// what it keeps is in a directory of its name.
    pub fn start_agent_on(&self, link: u8, node: &str) -> Result<Process> {
        let neighbour = self.neighbours.get(&link).context("a neighbour")?;
        let own = self.path(node);
        fs::create_dir_all(&own)?;
        self.start(node, &neighbour.namespace, &own)
    }

    fn start(&self, node: &str, namespace: &Namespace, own: &Path) -> Result<Process> {
        let mut command = Command::new(self.programs.join("caracal-agent"));
        command.args(["run", "--node", node, "--http-listen", "none", "--store"]);
        command.arg(format!("dir:{}", self.path("store").display()));
        if self.path(CONFIG).exists() {
            command.arg("--config").arg(self.path(CONFIG));
        }
        command.arg("--run-dir").arg(own.join("run"));
        command.arg("--state-dir").arg(own.join("state"));
        command.env(netns::LAB_VARIABLE, &self.id);
        let log = own.join("log");
        Ok(process::start(node, namespace, &mut command, &log)?)
    }

    /// The neighbour's configuration, without routes.
    pub fn speaker_config(&self, link: u8) -> SpeakerConfig {
        let address = Ipv4Addr::new(10, 0, link, 2);
        let address6: IpAddr = format!("fd00:{link}::2").parse().expect("an address");
        let mut peer = PeerConfig::new("node", PeerSource::Peer, Some(ASN));
        peer.passive = true;
        peer.families = Family::ALL.to_vec();
        peer.extended_next_hop = true;
        let node = IpAddr::from(Ipv4Addr::new(10, 0, link, 1));
        let node6: IpAddr = format!("fd00:{link}::1").parse().expect("an address");
        let key = |address| PeerKey { address, port: 179 };
        SpeakerConfig {
            router_id: RouterId(address),
            listen: [address.into(), address6]
                .map(|ip| SocketAddr::new(ip, 179))
                .into(),
            local_addresses: vec![address.into(), address6],
            peers: [node, node6].map(|ip| (key(ip), peer.clone())).into(),
            originated: BTreeMap::new(),
            aggregates: BTreeMap::new(),
            ..speaker::config(link)
        }
    }

    /// Starts a neighbour, or makes the running one follow, that says `routes`: prefix and next hop.
    pub fn announce(&mut self, link: u8, routes: &[(&str, &str)]) -> Result<()> {
        let mut config = self.speaker_config(link);
        for (prefix, next_hop) in routes {
            let next_hop = next_hop.parse().context("a next hop")?;
            config
                .originated
                .insert(prefix.parse()?, Originated::new(next_hop));
        }
        let neighbour = self.neighbours.get_mut(&link).context("a neighbour")?;
        match &neighbour.speaker {
            Some(speaker) => speaker.configure(config),
            None => neighbour.speaker = Some(Running::start(&neighbour.namespace, config)?),
        }
        Ok(())
    }

    /// The running speaker on a link.
    pub fn speaker(&self, link: u8) -> Result<&Running> {
        let neighbour = self.neighbours.get(&link);
        let speaker = neighbour.and_then(|neighbour| neighbour.speaker.as_ref());
        speaker.with_context(|| format!("no speaker on link {link}"))
    }

    pub fn caracal(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(self.programs.join("caracal"));
        command.arg("--socket").arg(self.path("run/agent.sock"));
        command.args(arguments);
        Ok(process::run(Some(&self.node), &mut command, "", TIMEOUT)?)
    }

    /// The items of `caracal COMMAND -o json`.
    pub fn items<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<Vec<T>> {
        let said = succeeded(self.caracal(&[arguments, &["-o", "json"]].concat())?)?;
        let items: Items<T> = serde_json::from_str(&said).context(said)?;
        Ok(items.items)
    }

    /// Waits until `holds` of all routes to `prefix` and of what the kernel has for it. A prefix
    /// that is not known has none.
    pub fn expect(
        &self,
        what: &str,
        prefix: &str,
        holds: impl Fn(&[RouteStatus], &str) -> bool,
    ) -> Result<()> {
        let waited = eventually(what, TIMEOUT, || {
            let all: Vec<RouteStatus> = self.items(&["routes"])?;
            let is_asked = |route: &RouteStatus| route.prefix.to_string() == prefix;
            let routes: Vec<RouteStatus> = all.into_iter().filter(is_asked).collect();
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            let kernel = machine::ip(&self.node, &[family, "route", "show", prefix])?;
            Ok((!holds(&routes, &kernel)).then(|| format!("{routes:#?}\n{kernel}")))
        });
        waited.with_context(|| self.last_lines())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::join(self.directory.path(), name)
    }

    /// The end of the agent's log.
    pub fn last_lines(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// The session with the neighbour on a link, with more fields (`, key: value`) in its spec.
pub fn peer(link: u8, more: &str) -> String {
    format!(
        "---\napiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: link-{link}}}\n\
         spec: {{node: n1, peerIP: 10.0.{link}.2, asNumber: 64512, sourceAddress: None, \
         families: [ipv4, ipv6], connectRetryTime: 1s{more}}}\n"
    )
}

fn wire(node: &Namespace, neighbour: &Namespace, link: u8) -> Result<()> {
    machine::ip_batch(
        node,
        &format!(
            "link add eth{link} type veth peer name eth0 netns {}\n\
             address add 10.0.{link}.1/24 dev eth{link}\n\
             address add fd00:{link}::1/64 dev eth{link} nodad\n\
             link set eth{link} up\n",
            neighbour.holder.pid
        ),
    )?;
    machine::ip_batch(
        neighbour,
        &format!(
            "link set lo up\n\
             address add 10.0.{link}.2/24 dev eth0\n\
             address add fd00:{link}::2/64 dev eth0 nodad\n\
             link set eth0 up\n"
        ),
    )?;
    Ok(())
}

impl Drop for Crossing {
    fn drop(&mut self) {
        for neighbour in self.neighbours.values_mut() {
            drop(neighbour.speaker.take());
        }
        let spaces = self.neighbours.values().map(|one| &one.namespace);
        end_all_in(spaces.chain([&self.node]));
    }
}
