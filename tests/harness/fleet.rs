//! Many nodes on one subnet, in a full mesh or with reflectors, each with a workload.
//!
//! ```text
//!   n1 .11   n2 .12   …   reflector-1 .201   reflector-2 .202
//!   ───┴────────┴───────────────┴──────────────────┴─── 192.168.50.0/24
//!   node x: 172.17.x.0/24, workload wx
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use agent::api::client::Client;
use agent::api::schema::Items;
use agent::lab::{Lab, Mounts, Options, machine};
use anyhow::{Context, Result};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use nix::sys::signal::Signal;

use crate::product::{eventually, program, programs};
use crate::watch::Watch;

/// Seconds are usual; many agents of a debug build on few cores need more.
pub const TIMEOUT: Duration = Duration::from_secs(60);
const SWITCH: &str = "switch";
const BRIDGE: &str = "subnet";
/// Between two echoes of one probe.
const ECHO_INTERVAL: Duration = Duration::from_millis(10);

/// How many of what there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    pub nodes: u8,
    /// None: full mesh.
    pub reflectors: u8,
    /// gracefulRestartSeconds of the agents; `None` is their default.
    pub graceful_restart_secs: Option<u16>,
}

impl Plan {
    fn names(self) -> impl Iterator<Item = String> {
        let nodes = (1..=self.nodes).map(node);
        nodes.chain((1..=self.reflectors).map(reflector))
    }

    /// Everybody's peers, by address.
    fn peers_of(self, name: &str) -> BTreeSet<IpAddr> {
        let is_reflector = (1..=self.reflectors).any(|number| reflector(number) == name);
        let nodes = (1..=self.nodes).filter(|number| node(*number) != name);
        let nodes = nodes.map(|number| node_address(number).into());
        let reflectors = (1..=self.reflectors).map(|number| reflector_address(number).into());
        if is_reflector || self.reflectors == 0 {
            nodes.collect()
        } else {
            reflectors.collect()
        }
    }
}

pub fn node(number: u8) -> String {
    format!("n{number}")
}

pub fn reflector(number: u8) -> String {
    format!("reflector-{number}")
}

fn workload(number: u8) -> String {
    format!("w{number}")
}

fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 50, 10 + number)
}

fn reflector_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 50, 200 + number)
}

/// Where a machine is.
fn address(plan: Plan, name: &str) -> Option<IpAddr> {
    let node = (1..=plan.nodes).find(|number| node(*number) == name);
    let reflector = (1..=plan.reflectors).find(|number| reflector(*number) == name);
    let address = node
        .map(node_address)
        .or_else(|| reflector.map(reflector_address));
    address.map(IpAddr::from)
}

fn document(kind: &str, name: &str, spec: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: caracal.dev/v1alpha1\nkind: {kind}\n\
         metadata: {{name: {name}{labels}}}\nspec: {spec}\n"
    )
}

/// When the session of a machine with a peer came up, for all that are up.
pub type Sessions = BTreeMap<(String, IpAddr), String>;

/// A running fleet. Dropping it takes it down.
pub struct Fleet {
    pub lab: Lab,
    pub plan: Plan,
    /// Machines whose programs are not to run.
    absent: BTreeSet<String>,
}

impl Fleet {
    /// Everything started, attached and settled.
    pub fn up(plan: Plan) -> Result<Fleet> {
        let mut fleet = Fleet {
            lab: Lab::new(Options::default(), &programs()?)?,
            plan,
            absent: BTreeSet::new(),
        };
        fleet.wire()?;
        fleet.write_store()?;
        let names: Vec<String> = plan.names().collect();
        fleet.start(&names)?;
        for number in 1..=plan.nodes {
            fleet.lab.wait_synced(&node(number))?;
            fleet.lab.attach(&node(number), &workload(number))?;
        }
        fleet.wait_settled(&BTreeSet::new(), &Sessions::new())?;
        Ok(fleet)
    }

    fn wire(&mut self) -> Result<()> {
        let switch = self.lab.add_namespace(SWITCH, Mounts::default())?;
        let mut lines = format!(
            "link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0\n\
             link set {BRIDGE} up\n"
        );
        let mut machines = Vec::new();
        for name in self.plan.names() {
            let run = self.lab.run_dir(&name);
            for directory in [&run, &self.lab.state_dir(&name)] {
                fs::create_dir_all(directory)?;
            }
            let mounts = Mounts {
                run: vec![(run, "caracal".to_owned())],
                binds: Vec::new(),
            };
            let namespace = self.lab.add_namespace(&name, mounts)?;
            let holder = namespace.holder.pid;
            lines += &format!(
                "link add {name} type veth peer name eth0 netns {holder}\n\
                 link set {name} master {BRIDGE} up\n"
            );
            machines.push((name, namespace));
        }
        machine::ip_batch(&switch, &lines)?;
        for (name, namespace) in machines {
            let address = address(self.plan, &name).context("no such machine")?;
            let lines = format!(
                "link set lo up\n\
                 address add {address}/24 dev eth0\n\
                 link set eth0 up\n"
            );
            machine::ip_batch(&namespace, &lines)?;
            namespace.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
        }
        Ok(())
    }

    fn write_store(&self) -> Result<()> {
        let store = self.lab.store();
        fs::create_dir_all(&store)?;
        let is_mesh = self.plan.reflectors == 0;
        let mut text = document(
            "IPPool",
            "default",
            "{cidr: 172.17.0.0/16, ipipMode: Never}",
            "",
        );
        let spec = format!("{{asNumber: 64512, nodeToNodeMeshEnabled: {is_mesh}}}");
        text += &document("BGPConfiguration", "default", &spec, "");
        let reflectors: Vec<String> = (1..=self.plan.reflectors)
            .map(|number| reflector_address(number).to_string())
            .collect();
        if !is_mesh {
            let spec = format!("{{reflectors: [{}]}}", reflectors.join(", "));
            text += &document("Rack", "all", &spec, "");
        }
        for number in 1..=self.plan.nodes {
            self.write_node(number, &format!("172.17.{number}.0/24"))?;
        }
        fs::write(store.join("all.yaml"), text)?;
        for (number, address) in (1..).zip(&reflectors) {
            let spec = format!(
                "{{asNumber: 64512, routerID: {address}, clusterID: {address}, \
                 listenAddresses: [{address}]}}"
            );
            let mut text = document("BGPConfiguration", "default", &spec, "");
            let spec =
                "{peerPrefixes: [192.168.50.0/24], asNumber: 64512, routeReflectorClient: true}";
            text += &document("BGPPeer", "nodes", spec, "");
            fs::write(self.file(&reflector(number)), text)?;
        }
        for number in 1..=self.plan.nodes {
            let mut text = String::from("httpListen: none\n");
            if let Some(seconds) = self.plan.graceful_restart_secs {
                text += &format!("gracefulRestartSeconds: {seconds}\n");
            }
            fs::write(self.file(&node(number)), text)?;
        }
        Ok(())
    }

    /// Makes these the podCIDRs of a node, for all that read the store.
    pub fn write_node(&self, number: u8, pod_cidrs: &str) -> Result<()> {
        let address = node_address(number);
        let spec = format!("{{bgp: {{ipv4Address: {address}/24}}, podCIDRs: [{pod_cidrs}]}}");
        let labels = if self.plan.reflectors == 0 {
            ""
        } else {
            ", labels: {caracal.dev/rack: all}"
        };
        let name = node(number);
        let file = self.lab.store().join(format!("{name}.yaml"));
        Ok(fs::write(file, document("Node", &name, &spec, labels))?)
    }

    /// A machine's configuration.
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.lab.directory().join(name).join("configuration.yaml")
    }

    /// Starts the programs of these machines.
    pub fn start(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            let is_reflector = name.starts_with("reflector");
            let mut command = Command::new(self.lab.program(if is_reflector {
                "caracal-reflector"
            } else {
                "caracal-agent"
            }));
            if is_reflector {
                command.args(["--http-listen", "none"]);
            } else {
                let store = format!("dir:{}", self.lab.store().display());
                command.args(["run", "--node", name, "--store", &store]);
            }
            command.arg("--config").arg(self.file(name));
            command.arg("--run-dir").arg(self.lab.run_dir(name));
            command.arg("--state-dir").arg(self.lab.state_dir(name));
            self.lab.start_other(name, &mut command)?;
            self.absent.remove(name);
        }
        Ok(())
    }

    /// kill -9 of all of these at once, and their ends awaited.
    pub fn kill(&mut self, names: &[String]) -> Result<()> {
        let running = names.iter().map(|name| program(&self.lab, name));
        let running = running.collect::<Result<Vec<_>>>()?;
        for process in &running {
            process.signal(Signal::SIGKILL);
        }
        for process in &running {
            process.wait_gone(Duration::from_secs(10))?;
        }
        self.absent.extend(names.iter().cloned());
        Ok(())
    }

    fn client(&self, name: &str) -> Client {
        let socket = if name.starts_with("reflector") {
            "reflector.sock"
        } else {
            "agent.sock"
        };
        Client::new(&self.lab.run_dir(name).join(socket))
    }

    pub fn peers(&self, name: &str) -> Result<Vec<PeerStatus>> {
        let items: Items<PeerStatus> = self.client(name).get("/v1/peers")?;
        Ok(items.items)
    }

    pub fn routes(&self, name: &str) -> Result<Vec<RouteStatus>> {
        let items: Items<RouteStatus> = self.client(name).get("/v1/routes")?;
        Ok(items.items)
    }

    /// Sessions that are up, on the machines that run.
    pub fn sessions(&self) -> Result<Sessions> {
        let mut sessions = Sessions::new();
        for name in self.present() {
            for peer in self.peers(&name)? {
                if peer.state == "established" {
                    sessions.insert((name.clone(), peer.peer), peer.since);
                }
            }
        }
        Ok(sessions)
    }

    fn present(&self) -> impl Iterator<Item = String> {
        let names = self.plan.names();
        names.filter(|name| !self.absent.contains(name))
    }

    /// Waits until every machine has all its sessions and all routes, fresh ones, and the nodes have
    /// them in the kernel. A session one of whose ends is in `restarted` must be another one than in
    /// `before`. What an absent node has announced is left out of account.
    pub fn wait_settled(&self, restarted: &BTreeSet<String>, before: &Sessions) -> Result<()> {
        let waited = eventually("sessions and fresh routes", TIMEOUT, || {
            for name in self.present() {
                let missing = self.missing_on(&name, restarted, before);
                if let Some(missing) = missing.with_context(|| name.clone())? {
                    return Ok(Some(format!("{name}: {missing}")));
                }
            }
            Ok(None)
        });
        waited.with_context(|| self.lab.last_lines(&node(1)))
    }

    fn missing_on(
        &self,
        name: &str,
        restarted: &BTreeSet<String>,
        before: &Sessions,
    ) -> Result<Option<String>> {
        let absent: Vec<IpAddr> = (self.absent.iter())
            .filter_map(|name| address(self.plan, name))
            .collect();
        let again: Vec<IpAddr> = (restarted.iter())
            .filter_map(|name| address(self.plan, name))
            .collect();
        let peers = self.peers(name)?;
        for wanted in self.plan.peers_of(name) {
            if absent.contains(&wanted) {
                continue;
            }
            let Some(peer) = peers.iter().find(|peer| peer.peer == wanted) else {
                return Ok(Some(format!("no peer {wanted}")));
            };
            let is_new = restarted.contains(name) || again.contains(&wanted);
            let was = before.get(&(name.to_owned(), wanted));
            if peer.state != "established" || (is_new && was == Some(&peer.since)) {
                return Ok(Some(format!("{peer:?}")));
            }
        }
        let routes = self.routes(name)?;
        let of_absent = |route: &RouteStatus| absent.contains(&route.next_hop);
        if let Some(route) = routes.iter().find(|route| route.stale && !of_absent(route)) {
            return Ok(Some(format!("{} is stale", route.prefix)));
        }
        let best = routes
            .iter()
            .filter(|route| route.best && !of_absent(route));
        let absent_nodes = (1..=self.plan.nodes).filter(|at| self.absent.contains(&node(*at)));
        let wanted = usize::from(self.plan.nodes) - absent_nodes.count();
        let count = best.count();
        Ok((count != wanted).then(|| format!("{count} of {wanted} routes")))
    }

    /// Learned routes in a machine's kernel.
    pub fn kernel_routes(&self, name: &str) -> Result<BTreeSet<String>> {
        let routes = machine::routes(self.lab.namespace(name)?)?;
        let is_learned = |protocol: Option<&str>| protocol == Some("caracal-bgp");
        let learned = routes.into_values();
        let learned = learned.filter(|route| is_learned(route.protocol.as_deref()));
        Ok(learned.map(|route| route.dst).collect())
    }

    /// Watches packets and routes of all nodes but `except`: every node's workload asks the next
    /// one's.
    pub fn watch(&self, except: &[u8]) -> Result<Watch> {
        let nodes: Vec<u8> = (1..=self.plan.nodes)
            .filter(|number| !except.contains(number))
            .collect();
        let machines: Vec<String> = nodes.iter().copied().map(node).collect();
        let next = nodes.iter().cycle().skip(1);
        let flows = nodes.iter().zip(next);
        let flows = flows.map(|(from, to)| [workload(*from), workload(*to)]);
        Watch::start(
            &self.lab,
            &machines,
            &flows.collect::<Vec<_>>(),
            ECHO_INTERVAL,
        )
    }
}
