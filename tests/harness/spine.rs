//! The lab's two racks with one or two reflectors each, and FRR as the spine between them: it routes
//! the pods, and peers with every reflector, by eBGP unless it is of rack b's AS.
//!
//! ```text
//!        rack a  AS 64512                                     rack b  AS 64513
//!   a1, a2   two workloads each                          b1, b2   two workloads each
//!   .2 reflector-a  ─ eBGP ─┐                        ┌─ eBGP ─  .2 reflector-b
//!   .4 reflector-a2 ─ eBGP ─┴─ .1 FRR AS 64530 .1 ───┴─ eBGP ─  .4 reflector-b2
//! ```

mod heard;
mod plan;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use agent::api::client::Client;
use agent::api::schema::Items;
use agent::lab::topology::{NODES, ROUTER};
use agent::lab::{Lab, Options, Process, Scenario, frr};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use nix::sys::signal::Signal;
use serde_json::Value;

pub use self::heard::Kept;
use self::heard::{Heard, HeardOfOne};
pub use self::plan::{Ends, Peering, Plan, Reflector, Scope};
pub use self::texts::{Edition, OTHER_HOLD_TIME_SECS};
use crate::fleet::Sessions;
use crate::product::{TIMEOUT, eventually, kill, program, programs};
use crate::watch::Watch;

/// Between two echoes of one probe.
const ECHO_INTERVAL: Duration = Duration::from_millis(5);
/// An agent or a reflector that is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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
        } else if machine == ROUTER {
            // It is there where bgpd alone was ended.
            if self.running(ROUTER).is_empty() {
                self.lab.start_frr_daemon("zebra")?;
            }
            self.lab.start_frr_daemon("bgpd")?;
        } else {
            self.lab.start_agent(machine)?;
        }
        self.away.remove(machine);
        Ok(())
    }

    /// kill -9 or SIGTERM to all programs of these machines at once, and the ends awaited.
    pub fn end(&mut self, machines: &[String], signal: Signal) -> Result<()> {
        let mut running = Vec::new();
        for machine in machines {
            let its = self.running(machine);
            ensure!(!its.is_empty(), "no program on {machine}");
            running.extend(its);
        }
        for process in &running {
            process.signal(signal);
        }
        self.away.extend(machines.iter().cloned());
        for process in &running {
            process.wait_gone(STOP_TIMEOUT)?;
        }
        Ok(())
    }

    /// kill -9 of the spine's bgpd alone, its end awaited. What zebra has put in the kernel stays.
    pub fn kill_bgpd(&mut self) -> Result<()> {
        // The last one started.
        kill(&program(&self.lab, ROUTER)?)?;
        self.away.insert(ROUTER.to_owned());
        Ok(())
    }

    fn running(&self, machine: &str) -> Vec<Process> {
        let all = self.lab.processes().iter();
        all.filter(|process| process.name == machine && process.is_running())
            .cloned()
            .collect()
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
        let addresses = self.plan.addresses(machine);
        let mut ends = self.plan.ends_of(machine);
        ends.retain(|(one, with)| addresses.contains(with) && !self.away.contains(one));
        ensure!(!ends.is_empty(), "nobody is there to miss {machine}");
        eventually(&format!("{machine} to be missed"), TIMEOUT, || {
            for (one, address) in &ends {
                let sessions = self.peers(one)?;
                let is_up = |it: &&PeerStatus| it.peer == *address && it.state == "established";
                if let Some(session) = sessions.iter().find(is_up) {
                    return Ok(Some(format!("{one}: {session:?}")));
                }
                let routes = self.routes(one)?.into_iter();
                let its = routes.filter(|route| route.peer == Some(*address));
                let its = its.map(|route| (route.prefix.to_string(), Heard::from(&route)));
                if let Some(kept) = what_is_kept.contradicted_by(&its.collect()) {
                    return Ok(Some(format!("{one}: {kept}")));
                }
            }
            if self.away.contains(ROUTER) {
                return Ok(None);
            }
            let mut heard = self.spine_routes()?;
            let of_it = |address: &IpAddr| heard.remove(&address.to_string()).unwrap_or_default();
            let mut kept = addresses.iter().map(of_it);
            let wrong = kept.find_map(|kept| what_is_kept.contradicted_by(&kept));
            Ok(wrong.map(|kept| format!("spine: {kept}")))
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

    /// What the spine itself misses: from every reflector a fresh route to each node of its rack, with
    /// the node as next hop.
    fn missing_on_spine(&self) -> Result<Option<String>> {
        let routes = self.spine_routes()?;
        for reflector in self.plan.reflectors() {
            let address = reflector.address.to_string();
            let Some(routes) = routes.get(&address) else {
                return Ok(Some(format!("nothing from {address}")));
            };
            if let Some((prefix, _)) = routes.iter().find(|(_, heard)| heard.is_stale) {
                return Ok(Some(format!("{prefix} from {address} is stale")));
            }
            for node in NODES.iter().filter(|node| node.rack == reflector.rack) {
                let heard = routes.get(&node.pod_cidr());
                if heard.is_none_or(|heard| heard.next_hop != node.address.to_string()) {
                    let name = node.name;
                    return Ok(Some(format!("to {name} from {address}: {heard:?}")));
                }
            }
        }
        Ok(None)
    }

    /// By peer, what the spine has heard.
    fn spine_routes(&self) -> Result<BTreeMap<String, HeardOfOne>> {
        let said = self.vtysh("show bgp ipv4 unicast json")?;
        let prefixes = said.get("routes").and_then(Value::as_object);
        let prefixes = prefixes.with_context(|| format!("no routes in {said}"))?;
        let mut heard: BTreeMap<String, HeardOfOne> = BTreeMap::new();
        for (prefix, paths) in prefixes {
            for path in paths.as_array().into_iter().flatten() {
                let text = |pointer: &str| {
                    let found = path.pointer(pointer).and_then(Value::as_str);
                    found.with_context(|| format!("no {pointer} in {path}"))
                };
                let route = Heard {
                    next_hop: text("/nexthops/0/ip")?.to_owned(),
                    is_stale: path.get("stale").is_some(),
                };
                let of_peer = heard.entry(text("/peerId")?.to_owned()).or_default();
                of_peer.insert(prefix.clone(), route);
            }
        }
        Ok(heard)
    }

    fn vtysh(&self, command: &str) -> Result<Value> {
        let said = frr::vtysh(self.lab.namespace(ROUTER)?, command)?;
        serde_json::from_str(&said).context(said)
    }

    /// Watches until it is stopped, or dropped.
    pub fn watch(&self, scope: Scope) -> Result<Watch> {
        let mut machines: Vec<String> = NODES.iter().map(|node| node.name.to_owned()).collect();
        if scope == Scope::Everything {
            machines.push(ROUTER.to_owned());
        }
        let flows = scope.flows().into_iter();
        let flows: Vec<[String; 2]> = flows.map(|ends| ends.map(str::to_owned)).collect();
        Watch::start(&self.lab, &machines, &flows, ECHO_INTERVAL)
    }
}
