//! IPIP by the kernel, where it has it: with the carrier, with tunnels made by hand, and through
//! restarts of the agent.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use agent::lab::capture::Capture;
use agent::lab::machine::COMMAND_TIMEOUT;
use agent::lab::packet::Carriage;
use agent::lab::ping::{self, Probe, Target};
use agent::lab::topology::{NIC, ROUTER, ROUTER_NIC_B, node};
use agent::lab::{Driver, Lab, Options, Scenario, machine, process};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use harness::crossing::{Crossing, peer};
use harness::monitor::RouteMonitor;
use harness::product::{TIMEOUT, eventually, kill, programs, succeeded};
use harness::{needs_root, report};

use crate::modes;
use harness::traffic::{Stream, address};

/// Whether the test can go on; reported as skipped if not.
fn has_ipip() -> Result<bool> {
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "ip",
        "link",
        "add",
        "probe",
        "type",
        "ipip",
        "local",
        "127.0.0.1",
    ]);
    let made = process::run(None, &mut command, "", COMMAND_TIMEOUT)?;
    if !made.status.success() {
        report::skip("this kernel has no ipip");
    }
    Ok(made.status.success())
}

#[test]
fn kernel_and_carrier_carry_each_others_packets_as_protocol_4() -> Result<()> {
    needs_root!();
    if !has_ipip()? {
        return Ok(());
    }
    let options = Options {
        scenario: Scenario::Mesh,
        drivers: [("b1".to_owned(), Driver::Userspace)].into(),
    };
    let lab = Lab::up(options, &programs()?)?;
    // a1 and b2 chose the kernel's driver by themselves, b1 was told otherwise.
    for (at, prefix, device) in [
        ("a1", "172.17.10.0/24", "caracal-ipip"),
        ("b1", "172.17.8.0/24", "caracal-tun"),
        ("b2", "172.17.8.0/24", "caracal-ipip"),
    ] {
        let route = machine::ip(lab.namespace(at)?, &["route", "show", prefix])?;
        ensure!(route.contains(&format!("dev {device} ")), "{at}: {route}");
        let mut list = Command::new("nft");
        list.args(["list", "chain", "inet", "caracal", "tunnel-guard"]);
        let guard = process::output(Some(lab.namespace(at)?), &mut list, "", COMMAND_TIMEOUT)?;
        ensure!(guard.contains("tunnel-peers"), "{at}: {guard}");
    }
    let router = lab.namespace(ROUTER)?;
    let captures = [
        Capture::start(router, NIC)?,
        Capture::start(router, ROUTER_NIC_B)?,
    ];
    for (identifier, (from, to)) in (1..).zip([
        ("a1-1", "b1-1"),
        ("b1-1", "a1-1"),
        ("a1-1", "b2-1"),
        ("b2-1", "a2-1"),
    ]) {
        let target = Target {
            address: address(&lab, to)?,
            identifier,
        };
        let outcomes = ping::burst(lab.namespace(from)?, &[target], 10)?;
        let is_whole = outcomes[0].received == 10 && outcomes[0].duplicates == 0;
        ensure!(is_whole, "{from} to {to}: {outcomes:?}");
        let stream = Stream::start(&lab, from, to)?;
        stream.wait_turns(10)?;
        stream.stop()?;
    }
    let seen = captures.map(Capture::stop).concat();
    let nodes: Vec<Ipv4Addr> = ["a1", "a2", "b1", "b2"]
        .into_iter()
        .filter_map(|name| Some(node(name)?.address))
        .collect();
    for identifier in 1..=4 {
        for is_request in [true, false] {
            let mut echoes = seen.iter().map(|sighting| sighting.echo);
            let is_seen =
                echoes.any(|echo| echo.identifier == identifier && echo.is_request == is_request);
            ensure!(
                is_seen,
                "{identifier} {is_request}: {} sightings",
                seen.len()
            );
        }
    }
    for sighting in seen {
        let is_tunnelled = matches!(sighting.carriage, Carriage::Tunnelled { source, destination }
            if nodes.contains(&source) && nodes.contains(&destination));
        ensure!(is_tunnelled, "{sighting:?}");
    }
    Ok(())
}

/// Echoes may be lost where nodes are slower than the time that tunnels stand before they are used,
/// as in a guest kernel on a busy machine.
#[test]
fn connection_outlives_changes_to_kernel_ipip_and_from_it() -> Result<()> {
    needs_root!();
    if has_ipip()? {
        modes::change_kinds_under_traffic()?;
    }
    Ok(())
}

const ROUTES: u16 = 2000;
const WORKLOADS: u8 = 200;
/// Of the workloads, those that send or are sent to: numbers from 2 on, as their addresses.
const TALKING: [u8; 4] = [2, 67, 133, 201];

/// A node with 200 workloads, whose ends are all in one namespace; behind a tunnel made by hand is a
/// node that says 2,000 prefixes.
struct Busy {
    crossing: Crossing,
}

impl Busy {
    fn up() -> Result<Busy> {
        let mut crossing = Crossing::wired(2)?;
        let mut store = String::from(
            "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: n2}\nspec: {bgp: \
             {ipv4Address: 10.0.1.2/24}, podCIDRs: [172.17.64.0/24]}\n---\napiVersion: \
             caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {name: default}\nspec: {cidr: \
             172.17.0.0/16, ipipMode: Always}\n",
        );
        store += &peer(1, "");
        for number in 2..WORKLOADS + 2 {
            store += &format!(
                "---\napiVersion: caracal.dev/v1alpha1\nkind: WorkloadEndpoint\nmetadata: {{name: \
                 w{number}, namespace: busy}}\nspec: {{node: n1, interfaceName: cara{number}, \
                 addresses: [172.17.8.{number}]}}\n"
            );
        }
        Busy::wire_workloads(&crossing)?;
        let hand = &crossing.neighbours[&1].namespace;
        machine::ip_batch(
            hand,
            "tunnel add hand mode ipip local 10.0.1.2 remote 10.0.1.1 ttl 64\n\
             address add 172.17.64.1/32 dev hand\n\
             link set hand up\n\
             route add 172.17.8.0/24 dev hand src 172.17.64.1\n",
        )?;
        let prefixes: Vec<String> = (0..ROUTES)
            .map(|number| {
                let [high, low] = (number * 16 + 0x4000).to_be_bytes();
                format!("172.17.{high}.{low}/28")
            })
            .collect();
        let routes: Vec<(&str, &str)> = (prefixes.iter())
            .map(|prefix| (prefix.as_str(), "10.0.1.2"))
            .collect();
        crossing.announce(1, &routes)?;
        crossing.write_store(&store)?;
        Ok(Busy { crossing })
    }

    fn wire_workloads(crossing: &Crossing) -> Result<()> {
        let node = &crossing.node;
        node.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
        // The node answers for the workloads' gateway if it has a way there.
        machine::ip(node, &["route", "add", "default", "via", "10.0.1.2"])?;
        let ends = &crossing.neighbours[&2].namespace;
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

    /// Waits until the session is up, no route is stale, and the kernel has everything.
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
            if ready < usize::from(ROUTES) {
                return Ok(Some(format!("{ready} of {} routes", routes.len())));
            }
            let kernel = machine::ip(&self.crossing.node, &["-4", "route"])?;
            let held = |mark: &str| kernel.lines().filter(|line| line.contains(mark)).count();
            let (learned, own) = (held("dev caracal-ipip"), held("172.17.8."));
            let is_whole = learned == usize::from(ROUTES) && own >= usize::from(WORKLOADS);
            Ok((!is_whole).then(|| format!("{learned} learned and {own} own routes")))
        });
        waited
            .with_context(|| std::fs::read_to_string(self.crossing.path("log")).unwrap_or_default())
    }
}

#[test]
fn restart_with_2000_routes_and_200_workloads_is_not_noticed_by_a_tunnel_made_by_hand() -> Result<()>
{
    needs_root!();
    if !has_ipip()? {
        return Ok(());
    }
    let busy = Busy::up()?;
    let crossing = &busy.crossing;
    let agent = crossing.start_agent_again()?;
    busy.wait_settled()?;
    let (hand, ends) = (
        &crossing.neighbours[&1].namespace,
        &crossing.neighbours[&2].namespace,
    );
    let interval = Duration::from_millis(10);
    let mut probes = Vec::new();
    for number in TALKING {
        let target = Target {
            address: Ipv4Addr::new(172, 17, 8, number),
            identifier: number.into(),
        };
        probes.push(Probe::start(hand, target, interval)?);
    }
    let back = Target {
        address: Ipv4Addr::new(172, 17, 64, 1),
        identifier: 1,
    };
    probes.push(Probe::start(ends, back, interval)?);
    let monitor = RouteMonitor::in_namespace(&crossing.node)?;

    kill(&agent)?;
    crossing.start_agent_again()?;
    eventually("the agent's first pass", TIMEOUT, || {
        let done = crossing.caracal(&["wait", "synced", "--timeout", "10"])?;
        Ok((!done.status.success()).then_some(done.stderr))
    })?;
    busy.wait_settled()?;
    let settled: Vec<RouteStatus> = crossing.items(&["routes"])?;
    println!("{} routes", settled.len());
    succeeded(crossing.caracal(&["status"])?)?;

    let changes = monitor.stop()?;
    ensure!(
        changes.is_empty(),
        "{} changes, first {:?}",
        changes.len(),
        changes.first()
    );
    for probe in probes {
        let report = probe.stop();
        println!("{} sent, longest gap {:?}", report.sent, report.longest_gap);
        let is_calm = report.sent > 100 && report.lost.is_empty() && report.duplicates == 0;
        ensure!(is_calm, "{report:?}");
    }
    Ok(())
}
