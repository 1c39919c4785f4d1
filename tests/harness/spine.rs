//! The lab's two racks with one or two reflectors each, and FRR as the spine between them: it routes
//! the pods, and peers with every reflector by eBGP.
//!
//! ```text
//!        rack a  AS 64512                                     rack b  AS 64513
//!   a1, a2   two workloads each                          b1, b2   two workloads each
//!   .2 reflector-a  ─ eBGP ─┐                        ┌─ eBGP ─  .2 reflector-b
//!   .4 reflector-a2 ─ eBGP ─┴─ .1 FRR AS 64530 .1 ───┴─ eBGP ─  .4 reflector-b2
//! ```

mod plan;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use agent::api::client::Client;
use agent::api::schema::Items;
use agent::lab::topology::{NODES, ROUTER};
use agent::lab::{Lab, Options, Scenario, frr};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use nix::sys::signal::Signal;
use serde_json::Value;

pub use self::plan::{Ends, Peering, Plan, Reflector};
pub use self::texts::{Edition, OTHER_HOLD_TIME_SECS};
use crate::fleet::Sessions;
use crate::product::{TIMEOUT, eventually, program, programs};
use crate::watch::Watch;

/// Between two echoes of one probe.
const ECHO_INTERVAL: Duration = Duration::from_millis(5);
/// An agent or a reflector that is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What others keep of a machine that is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// Its routes or not.
    Whatever,
    /// The time of graceful restart is over.
    Nothing,
}

/// The running racks. Dropping it takes them down.
pub struct Spine {
    pub lab: Lab,
    plan: Plan,
    /// Whose programs were ended and not started again.
    away: BTreeSet<String>,
}

impl Spine {
    /// Everything started, attached, settled, and every route in place.
    pub fn up(plan: Plan) -> Result<Spine> {
        let options = Options {
            scenario: Scenario::Routed,
            ..Options::default()
        };
        let mut lab = Lab::new(options, &programs()?)?;
        lab.wire()?;
        for reflector in plan.reflectors() {
            if reflector.address != reflector.rack.reflector() {
                lab.plug(&reflector.rack, &reflector.name, reflector.address)?;
            }
        }
        let mut spine = Spine {
            lab,
            plan,
            away: BTreeSet::new(),
        };
        spine.write_files()?;
        spine.lab.start_frr()?;
        for machine in plan.machines() {
            spine.start(&machine)?;
        }
        spine.lab.attach_all()?;
        spine.wait_settled(&Ends::new(), &Sessions::new())?;
        Ok(spine)
    }

    fn write_files(&self) -> Result<()> {
        let store = self.lab.store();
        fs::create_dir_all(&store)?;
        for (name, text) in agent::lab::texts::store(Scenario::Routed) {
            fs::write(store.join(name), text)?;
        }
        fs::write(store.join("racks.yaml"), texts::racks(self.plan))?;
        let bgpd = self.lab.directory().join(ROUTER).join("frr-etc/bgpd.conf");
        ensure!(bgpd.exists(), "the lab has no {}", bgpd.display());
        fs::write(bgpd, texts::frr(self.plan))?;
        for reflector in self.plan.reflectors() {
            self.write_reflector(&reflector, Edition::First)?;
        }
        Ok(())
    }

    /// Replaces a reflector's file, as an editor does.
    pub fn write_reflector(&self, reflector: &Reflector, edition: Edition) -> Result<()> {
        let file = self.lab.configuration_of(&reflector.name);
        let new = file.with_extension("new");
        fs::write(&new, texts::reflector(self.plan, reflector, edition))?;
        Ok(fs::rename(new, file)?)
    }

    /// Starts the program of a machine, for the first time or again.
    pub fn start(&mut self, machine: &str) -> Result<()> {
        if machine.starts_with("reflector") {
            self.lab.start_reflector_on(machine)?;
        } else {
            self.lab.start_agent(machine)?;
        }
        self.away.remove(machine);
        Ok(())
    }

    /// kill -9 or SIGTERM, and the end awaited.
    pub fn end(&mut self, machine: &str, signal: Signal) -> Result<()> {
        let running = program(&self.lab, machine)?;
        running.signal(signal);
        self.away.insert(machine.to_owned());
        Ok(running.wait_gone(STOP_TIMEOUT)?)
    }

    fn client(&self, machine: &str) -> Client {
        let socket = if machine.starts_with("reflector") {
            "reflector.sock"
        } else {
            "agent.sock"
        };
        Client::new(&self.lab.run_dir(machine).join(socket))
    }

    pub fn peers(&self, machine: &str) -> Result<Vec<PeerStatus>> {
        let items: Items<PeerStatus> = self.client(machine).get("/v1/peers")?;
        Ok(items.items)
    }

    pub fn routes(&self, machine: &str) -> Result<Vec<RouteStatus>> {
        let items: Items<RouteStatus> = self.client(machine).get("/v1/routes")?;
        Ok(items.items)
    }

    /// Sessions that are up, of all machines.
    pub fn sessions(&self) -> Result<Sessions> {
        let mut sessions = Sessions::new();
        for machine in self.plan.machines() {
            for peer in self.peers(&machine)? {
                if peer.state == "established" {
                    sessions.insert((machine.clone(), peer.peer), peer.since);
                }
            }
        }
        Ok(sessions)
    }

    /// Waits until every machine has all its sessions and fresh routes to every node, and the
    /// kernels of the nodes and of the spine have them. Sessions in `renewed` must be others than in
    /// `before`, and all others the same.
    pub fn wait_settled(&self, renewed: &Ends, before: &Sessions) -> Result<()> {
        let namespace = self.lab.namespace(ROUTER)?;
        let waited = eventually("sessions and fresh routes", TIMEOUT, || {
            let sessions = self.sessions()?;
            for machine in self.plan.machines() {
                if let Some(missing) = self.missing_on(&machine, &sessions)? {
                    return Ok(Some(format!("{machine}: {missing}")));
                }
            }
            let is_old = |end: &&(String, IpAddr)| {
                let was = before.get(*end);
                was.is_some() && was == sessions.get(*end)
            };
            if let Some((machine, peer)) = renewed.iter().find(is_old) {
                return Ok(Some(format!("{machine}: old session with {peer}")));
            }
            if let Some(missing) = self.missing_on_spine()? {
                return Ok(Some(format!("spine: {missing}")));
            }
            let findings = self.lab.route_findings()?;
            Ok((!findings.is_empty()).then(|| findings.join("; ")))
        });
        waited.with_context(|| {
            let shown = frr::vtysh(namespace, "show bgp neighbors");
            format!("{}\nspine: {shown:?}", self.lab.all_last_lines())
        })?;
        self.expect_lasting(renewed, before)
    }

    /// All sessions but those in `renewed` are those of `before`.
    fn expect_lasting(&self, renewed: &Ends, before: &Sessions) -> Result<()> {
        let after = self.sessions()?;
        for (end, since) in before.iter().filter(|(end, _)| !renewed.contains(*end)) {
            let (machine, peer) = end;
            ensure!(
                after.get(end) == Some(since),
                "the session of {machine} with {peer} did not last"
            );
        }
        Ok(())
    }

    /// Waits until those that had a session with `machine` have it no more, and what they keep of it
    /// is as said.
    pub fn wait_missed(&self, machine: &str, what_is_kept: Kept) -> Result<()> {
        let address = self.plan.address(machine).context("no such machine")?;
        let mut peers = self.plan.ends_of(machine);
        peers.retain(|(peer, with)| *with == address && !self.away.contains(peer));
        eventually(&format!("{machine} to be missed"), TIMEOUT, || {
            for (peer, _) in &peers {
                let sessions = self.peers(peer)?;
                let is_up = |it: &&PeerStatus| it.peer == address && it.state == "established";
                if let Some(session) = sessions.iter().find(is_up) {
                    return Ok(Some(format!("{peer}: {session:?}")));
                }
                let routes = self.routes(peer)?;
                let kept = routes.iter().find(|route| route.peer == Some(address));
                if let (Some(route), Kept::Nothing) = (kept, what_is_kept) {
                    return Ok(Some(format!("{peer}: {route:?}")));
                }
            }
            let kept = self.spine_routes()?.remove(&address.to_string());
            Ok(match (kept, what_is_kept) {
                (Some(kept), Kept::Nothing) => Some(format!("spine: {kept:?}")),
                (_, Kept::Nothing | Kept::Whatever) => None,
            })
        })
    }

    /// Waits until FRR dials a reflector that is away no more: after a dial that failed it waits to be
    /// dialled, as long as it keeps the routes.
    pub fn wait_spine_waits(&self, reflector: &Reflector) -> Result<()> {
        let command = format!("show bgp neighbors {}", reflector.address);
        eventually("the spine to wait", TIMEOUT, || {
            let said = frr::vtysh(self.lab.namespace(ROUTER)?, &command)?;
            Ok((!said.contains("NSF passive")).then_some(said))
        })
    }

    fn missing_on(&self, machine: &str, sessions: &Sessions) -> Result<Option<String>> {
        for peer in self.plan.peers_of(machine) {
            if !sessions.contains_key(&(machine.to_owned(), peer)) {
                return Ok(Some(format!("no session with {peer}")));
            }
        }
        let routes = self.routes(machine)?;
        if let Some(route) = routes.iter().find(|route| route.stale) {
            return Ok(Some(format!("{} is stale", route.prefix)));
        }
        let count = routes.iter().filter(|route| route.best).count();
        let wanted = NODES.len();
        Ok((count != wanted).then(|| format!("{count} of {wanted} routes")))
    }

    /// What the spine itself misses: from every reflector a fresh route to each node of its rack.
    fn missing_on_spine(&self) -> Result<Option<String>> {
        let routes = self.spine_routes()?;
        for reflector in self.plan.reflectors() {
            let address = reflector.address.to_string();
            let Some(routes) = routes.get(&address) else {
                return Ok(Some(format!("nothing from {address}")));
            };
            if let Some((prefix, _)) = routes.iter().find(|(_, is_stale)| **is_stale) {
                return Ok(Some(format!("{prefix} from {address} is stale")));
            }
            let nodes = NODES.iter().filter(|node| node.rack == reflector.rack);
            let mut missing = nodes.filter(|node| !routes.contains_key(&node.pod_cidr()));
            if let Some(node) = missing.next() {
                return Ok(Some(format!("no route to {} from {address}", node.name)));
            }
        }
        Ok(None)
    }

    /// By peer, what the spine has heard: prefixes, and whether they are stale.
    fn spine_routes(&self) -> Result<BTreeMap<String, BTreeMap<String, bool>>> {
        let said = self.vtysh("show bgp ipv4 unicast json")?;
        let prefixes = said.get("routes").and_then(Value::as_object);
        let prefixes = prefixes.with_context(|| format!("no routes in {said}"))?;
        let mut heard: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
        for (prefix, paths) in prefixes {
            for path in paths.as_array().into_iter().flatten() {
                let peer = path.get("peerId").and_then(Value::as_str);
                let peer = peer.with_context(|| format!("no peer in {path}"))?;
                let of_peer = heard.entry(peer.to_owned()).or_default();
                of_peer.insert(prefix.clone(), path.get("stale").is_some());
            }
        }
        Ok(heard)
    }

    fn vtysh(&self, command: &str) -> Result<Value> {
        let said = frr::vtysh(self.lab.namespace(ROUTER)?, command)?;
        serde_json::from_str(&said).context(said)
    }

    /// Watches the routes of the nodes and of the spine, and packets within each rack and between
    /// them, begun from both sides.
    pub fn watch(&self) -> Result<Watch> {
        let mut machines: Vec<String> = NODES.iter().map(|node| node.name.to_owned()).collect();
        machines.push(ROUTER.to_owned());
        let flow = |[from, to]: [&str; 2]| [from, to].map(str::to_owned);
        let flows = [
            ["a1-1", "a2-1"],
            ["a1-2", "b1-1"],
            ["a2-2", "b2-1"],
            ["b1-1", "b2-2"],
            ["b1-2", "a1-1"],
            ["b2-2", "a2-1"],
        ];
        Watch::start(&self.lab, &machines, &flows.map(flow), ECHO_INTERVAL)
    }
}
