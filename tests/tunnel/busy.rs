//! A busy node: its agent ends and comes back, and neither packets nor the kernel's tables notice.

use std::net::Ipv4Addr;
use std::time::Duration;

use agent::lab::ping::{self, Probe, Target};
use agent::lab::{Namespace, Process, machine};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use harness::crossing::{Crossing, peer};
use harness::monitor::{RouteMonitor, wait_detected};
use harness::product::{TIMEOUT, eventually, succeeded};
use harness::site::carriers_in;
use nix::sys::signal::Signal;

const ROUTES: u16 = 2000;
const WORKLOADS: u8 = 200;
/// Of the workloads, those that send or are sent to: numbers from 2 on, as their addresses.
const TALKING: [u8; 4] = [2, 67, 133, 201];
const INTERVAL: Duration = Duration::from_millis(10);

/// Links of the node.
const REMOTE: u8 = 1;
const ENDS: u8 = 2;
const REMOTE_WORKLOAD: u8 = 3;

/// How packets get to the other node.
pub struct Way {
    pub name: &'static str,
    /// Of the pool.
    pub modes: &'static str,
    pub settings: &'static str,
    /// Of the node's learned routes.
    pub device: &'static str,
    pub has_carrier: bool,
    /// What the other node is without an agent, as lines for `ip`: then its own 172.17.64.1 answers.
    pub by_hand: Option<&'static str>,
}

/// A node with 200 workloads, whose ends are all in one namespace, and 2,000 learned prefixes that
/// another node has.
struct Busy<'a> {
    way: &'a Way,
    crossing: Crossing,
}

impl Busy<'_> {
    fn up(way: &Way) -> Result<Busy<'_>> {
        let mut crossing = Crossing::wired(3)?;
        crossing.configure(way.settings)?;
        wire_workloads(&crossing)?;
        let prefixes: Vec<String> = (0..ROUTES)
            .map(|number| {
                let [high, low] = (number * 16 + 0x4000).to_be_bytes();
                format!("172.17.{high}.{low}/28")
            })
            .collect();
        let routes: Vec<(&str, &str)> = (prefixes.iter())
            .map(|prefix| (prefix.as_str(), "10.0.1.2"))
            .collect();
        crossing.announce(ENDS, &routes)?;
        crossing.write_store(&store(way))?;
        let busy = Busy { way, crossing };
        match way.by_hand {
            Some(lines) => machine::ip_batch(busy.remote(), lines)?,
            None => busy.start_remote()?,
        }
        Ok(busy)
    }

    fn remote(&self) -> &Namespace {
        &self.crossing.neighbours[&REMOTE].namespace
    }

    fn ends(&self) -> &Namespace {
        &self.crossing.neighbours[&ENDS].namespace
    }

    /// The other node, with a workload.
    fn start_remote(&self) -> Result<()> {
        let remote = self.remote();
        remote.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
        let workload = &self.crossing.neighbours[&REMOTE_WORKLOAD].namespace;
        let veth = format!(
            "link add cararemote type veth peer name w netns {}\n",
            workload.holder.pid
        );
        machine::ip_batch(remote, &veth)?;
        machine::ip_batch(
            workload,
            "link set w up\n\
             address add 172.17.64.2/32 dev w\n\
             neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev w nud permanent\n\
             route add default via 169.254.1.1 dev w onlink src 172.17.64.2\n",
        )?;
        self.crossing.start_agent_on(REMOTE, "n2")?;
        Ok(())
    }

    /// Who answers behind the other node, and where that is.
    fn far_end(&self) -> (&Namespace, Ipv4Addr) {
        if self.way.by_hand.is_some() {
            return (self.remote(), Ipv4Addr::new(172, 17, 64, 1));
        }
        let workload = &self.crossing.neighbours[&REMOTE_WORKLOAD].namespace;
        (workload, Ipv4Addr::new(172, 17, 64, 2))
    }

    /// Waits until the sessions are up, no route is stale, and the kernel has everything.
    fn wait_settled(&self) -> Result<()> {
        let waited = eventually("all routes, fresh", TIMEOUT * 4, || {
            let peers: Vec<PeerStatus> = self.crossing.items(&["peers"])?;
            if !peers.iter().all(|peer| peer.state == "established") {
                return Ok(Some(format!("{peers:?}")));
            }
            let routes: Vec<RouteStatus> = self.crossing.items(&["routes"])?;
            let is_ready = |route: &&RouteStatus| {
                let kernel = route.kernel.as_ref();
                !route.stale && kernel.is_some_and(|kernel| kernel.state == "installed")
            };
            let ready = routes.iter().filter(is_ready).count();
            if ready < usize::from(ROUTES) || ready < routes.len() {
                return Ok(Some(format!("{ready} of {} routes", routes.len())));
            }
            let kernel = machine::ip(&self.crossing.node, &["-4", "route"])?;
            let held = |mark: &str| kernel.lines().filter(|line| line.contains(mark)).count();
            let learned = held(&format!("via 10.0.1.2 dev {}", self.way.device))
                .max(held(&format!("via 172.17.64.1 dev {}", self.way.device)));
            let own = held("172.17.8.");
            let is_whole = learned >= usize::from(ROUTES) && own >= usize::from(WORKLOADS);
            Ok((!is_whole).then(|| format!("{learned} learned and {own} own routes")))
        });
        waited
            .and_then(|()| wait_detected(&self.crossing.node))
            .with_context(|| std::fs::read_to_string(self.crossing.path("log")).unwrap_or_default())
    }

    fn targets(&self) -> Vec<(&Namespace, Target)> {
        let (far, address) = self.far_end();
        let target = |address, identifier: u8| Target {
            address,
            identifier: identifier.into(),
        };
        let there = TALKING.map(|number| {
            let address = Ipv4Addr::new(172, 17, 8, number);
            (far, target(address, number))
        });
        let back = (self.ends(), target(address, 1));
        there.into_iter().chain([back]).collect()
    }

    fn wait_traffic(&self) -> Result<()> {
        for (from, target) in self.targets() {
            let what = format!("echoes from {}", target.address);
            eventually(&what, TIMEOUT, || {
                let outcomes = ping::burst(from, std::slice::from_ref(&target), 1)?;
                Ok((outcomes[0].received == 0).then(|| format!("{outcomes:?}")))
            })?;
        }
        Ok(())
    }

    fn end(&self, agent: &Process, signal: Signal) -> Result<Process> {
        agent.signal(signal);
        agent.wait_gone(Duration::from_secs(10))?;
        let next = self.crossing.start_agent_again()?;
        eventually("the agent's first pass", TIMEOUT, || {
            let done = self
                .crossing
                .caracal(&["wait", "synced", "--timeout", "10"])?;
            Ok((!done.status.success()).then_some(done.stderr))
        })?;
        self.wait_settled()?;
        Ok(next)
    }
}

fn store(way: &Way) -> String {
    let mut store = format!(
        "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {{name: n2}}\nspec: {{bgp: \
         {{ipv4Address: 10.0.1.2/24}}, podCIDRs: [172.17.64.0/24]}}\n---\napiVersion: \
         caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: default}}\nspec: {{cidr: \
         172.17.0.0/16, {}}}\n",
        way.modes
    );
    store += &peer(ENDS, "");
    let mut workloads: Vec<(&str, String, String)> = (2..WORKLOADS + 2)
        .map(|number| {
            let interface = format!("cara{number}");
            ("n1", interface, format!("172.17.8.{number}"))
        })
        .collect();
    if way.by_hand.is_none() {
        store += &peer(REMOTE, "");
        store += "---\napiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: back}\n\
                  spec: {node: n2, peerIP: 10.0.1.1, asNumber: 64512, connectRetryTime: 1s}\n";
        workloads.push(("n2", "cararemote".to_owned(), "172.17.64.2".to_owned()));
    }
    for (node, interface, address) in workloads {
        store += &format!(
            "---\napiVersion: caracal.dev/v1alpha1\nkind: WorkloadEndpoint\nmetadata: {{name: \
             {interface}, namespace: busy}}\nspec: {{node: {node}, interfaceName: {interface}, \
             addresses: [{address}]}}\n"
        );
    }
    store
}

fn wire_workloads(crossing: &Crossing) -> Result<()> {
    let node = &crossing.node;
    node.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    // The node answers for the workloads' gateway if it has a way there. Nothing there forwards, so
    // that it stands in for no route.
    machine::ip(node, &["route", "add", "default", "via", "10.0.2.2"])?;
    let ends = &crossing.neighbours[&ENDS].namespace;
    let numbers = || 2..WORKLOADS + 2;
    let veths = numbers().map(|number| {
        let holder = ends.holder.pid;
        format!("link add cara{number} type veth peer name w{number} netns {holder}\n")
    });
    machine::ip_batch(node, &veths.collect::<String>())?;
    let ups = numbers().map(|number| format!("link set w{number} up\n"));
    machine::ip_batch(ends, &ups.collect::<String>())?;
    let talking = TALKING.map(|number| {
        format!(
            "address add 172.17.8.{number}/32 dev w{number}\n\
             route add default via 169.254.1.1 dev w{number} onlink table {number}\n\
             rule add from 172.17.8.{number} lookup {number}\n"
        )
    });
    let first = TALKING[0];
    let main =
        format!("route add default via 169.254.1.1 dev w{first} onlink src 172.17.8.{first}\n");
    machine::ip_batch(ends, &(talking.concat() + &main))?;
    Ok(())
}

/// Ends the agent in order and by kill -9, under echoes from workloads and to them.
pub fn restarts_are_not_noticed(way: &Way) -> Result<()> {
    let busy = Busy::up(way)?;
    let mut agent = busy.crossing.start_agent_again()?;
    busy.wait_settled()?;
    busy.wait_traffic()?;
    let carriers = carriers_in(&busy.crossing.node);
    ensure!(
        carriers.len() == usize::from(way.has_carrier),
        "{carriers:?}"
    );
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let probe = |(from, target): (&Namespace, Target)| Probe::start(from, target, INTERVAL);
        let probes = busy.targets().into_iter().map(probe);
        let probes = probes.collect::<Result<Vec<_>, _>>()?;
        let monitors = [&busy.crossing.node, busy.remote()].map(RouteMonitor::of_everything);
        agent = busy.end(&agent, signal)?;
        succeeded(busy.crossing.caracal(&["status"])?)?;
        for monitor in monitors {
            let changes = monitor?.stop_with_devices()?;
            ensure!(
                changes.is_empty(),
                "{}, {signal}: {} changes, first {:?}",
                way.name,
                changes.len(),
                changes.first()
            );
        }
        for probe in probes {
            let report = probe.stop();
            println!(
                "{}, {signal}: {} sent, longest gap {:?}",
                way.name, report.sent, report.longest_gap
            );
            let is_calm = report.sent > 20 && report.lost.is_empty() && report.duplicates == 0;
            ensure!(is_calm, "{}, {signal}: {report:?}", way.name);
        }
        let now = carriers_in(&busy.crossing.node);
        ensure!(now == carriers, "{signal}: {now:?} instead of {carriers:?}");
    }
    Ok(())
}
