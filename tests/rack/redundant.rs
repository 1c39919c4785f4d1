//! Reflectors and the spine's bgpd that are killed, replaced or configured anew while workloads talk:
//! no packet is lost, and no route changes in any kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use agent::lab::machine;
use agent::lab::topology::{NODES, Node, ROUTER, Rack};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::RouteStatus;
use harness::needs_root;
use harness::product::{TIMEOUT, eventually};
use harness::report::skip;
use harness::spine::{
    Edition, Ends, Kept, OTHER_HOLD_TIME_SECS, Peering, Plan, Reflector, Scope, Spine,
};
use nix::sys::signal::Signal;

/// Runs `work` under watch, and prints a line of what was seen.
fn watched(
    spine: &mut Spine,
    (name, scope): (&str, Scope),
    work: impl FnOnce(&mut Spine) -> Result<()>,
) -> Result<()> {
    let watch = spine.watch(scope)?;
    let begun = Instant::now();
    work(spine).with_context(|| name.to_owned())?;
    let took = begun.elapsed();
    let seen = watch.stop(&spine.lab)?;
    println!(
        "{name}: {} sent, {} lost, {} route events, longest gap {} ms, {:.1} s",
        seen.sent,
        seen.lost.len(),
        seen.route_events.len(),
        seen.longest_gap.as_millis(),
        took.as_secs_f64(),
    );
    seen.expect_calm().with_context(|| name.to_owned())
}

/// All of `machines` at once: missed by the others, started again, and everything settled.
fn restart(
    spine: &mut Spine,
    plan: Plan,
    machines: &[String],
    (signal, kept): (Signal, Kept),
) -> Result<()> {
    let before = spine.sessions()?;
    spine.end(machines, signal)?;
    for machine in machines {
        spine.wait_missed(machine, kept)?;
    }
    for machine in machines {
        spine.start(machine)?;
    }
    let renewed = machines.iter().flat_map(|machine| plan.ends_of(machine));
    let settled = spine.wait_settled(&renewed.collect(), &before);
    settled.with_context(|| format!("{signal} of {machines:?}"))
}

/// One after the other, and the next when all has settled.
fn restart_in_turn(
    spine: &mut Spine,
    plan: Plan,
    machines: &[String],
    signal: Signal,
) -> Result<()> {
    let mut each = machines.chunks(1);
    each.try_for_each(|machine| restart(spine, plan, machine, (signal, Kept::Whatever)))
}

/// All reflectors of a rack at once, and then those of the other.
fn restart_racks(spine: &mut Spine, plan: Plan) -> Result<()> {
    for rack in &Rack::ALL {
        let reflectors = plan.reflectors_of(rack).into_iter();
        let names: Vec<String> = reflectors.map(|reflector| reflector.name).collect();
        restart(spine, plan, &names, (Signal::SIGKILL, Kept::Stale))?;
    }
    Ok(())
}

/// Waits until the reflector has the peer of `Edition::Filtered`.
fn wait_taken(spine: &Spine, reflector: &Reflector) -> Result<()> {
    eventually("the new peer", TIMEOUT, || {
        let peers = spine.peers(&reflector.name)?;
        let is_there = peers.iter().any(|peer| peer.name == "nobody");
        Ok((!is_there).then(|| format!("{peers:?}")))
    })
}

/// A filter that admits the same and a peer more reset no session, another hold time for the nodes
/// theirs alone.
fn configure(spine: &Spine, plan: Plan, reflector: &Reflector) -> Result<()> {
    let before = spine.sessions()?;
    spine.write_reflector(reflector, Edition::Filtered)?;
    wait_taken(spine, reflector)?;
    spine.wait_settled(&Ends::new(), &before)?;
    spine.write_reflector(reflector, Edition::Timed)?;
    spine.wait_settled(&plan.ends_with_nodes(reflector), &before)?;
    let peers = spine.peers(&reflector.name)?;
    let of_nodes: Vec<Option<u16>> = (peers.iter())
        .filter(|peer| peer.client)
        .map(|peer| peer.hold_time_seconds)
        .collect();
    ensure!(of_nodes == [Some(OTHER_HOLD_TIME_SECS); 2], "{peers:?}");
    Ok(())
}

/// The first reflector of each rack is away until nobody keeps anything of it.
fn forget(spine: &mut Spine, plan: Plan) -> Result<()> {
    let reflectors = Rack::ALL.map(|rack| plan.reflectors_of(&rack).swap_remove(0));
    for reflector in &reflectors {
        let before = spine.sessions()?;
        spine.write_reflector(reflector, Edition::SoonForgotten)?;
        spine.wait_settled(&plan.ends_of(&reflector.name), &before)?;
    }
    let names = reflectors.map(|reflector| reflector.name);
    restart(spine, plan, &names, (Signal::SIGKILL, Kept::Nothing))
}

/// Whether the routes are as the plan has them: path and next hop on the nodes, and everywhere who
/// tells of the other rack.
fn expect_routes(spine: &Spine, plan: Plan) -> Result<()> {
    for node in &NODES {
        let routes = spine.routes(node.name)?;
        for remote in NODES.iter().filter(|remote| remote.name != node.name) {
            let is_its = |route: &&RouteStatus| route.best && is_to(route, remote);
            let route = routes.iter().find(is_its).context("no route")?;
            let is_within = remote.rack == node.rack;
            let path = (!is_within).then(|| plan.path_to(&remote.rack));
            ensure!(
                route.as_path == path.unwrap_or_default()
                    && route.next_hop == plan.next_hop(&node.rack, remote),
                "{}: {route:?}",
                node.name
            );
        }
    }
    eventually("routes from all who tell them", TIMEOUT, || {
        for machine in plan.machines() {
            let routes = spine.routes(&machine)?;
            for remote in plan.others(&machine) {
                let its = routes.iter().filter(|route| is_to(route, remote));
                let tellers: BTreeSet<IpAddr> = its.filter_map(|route| route.peer).collect();
                if tellers != plan.tellers(&machine) {
                    return Ok(Some(format!("{machine}: {routes:#?}")));
                }
            }
        }
        Ok(None)
    })
}

fn is_to(route: &RouteStatus, node: &Node) -> bool {
    route.prefix.to_string() == node.pod_cidr()
}

/// The first reflector is away until the spine waits to be dialled.
fn await_dial(spine: &mut Spine, plan: Plan) -> Result<()> {
    let reflector = plan.reflectors().swap_remove(0);
    let before = spine.sessions()?;
    spine.end(std::slice::from_ref(&reflector.name), Signal::SIGTERM)?;
    spine.wait_spine_waits(&reflector)?;
    spine.start(&reflector.name)?;
    spine.wait_settled(&plan.ends_of(&reflector.name), &before)
}

/// What is done to the programs while workloads talk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Kill,
    KillRacks,
    KillSpine,
    KillBgpd,
    /// After `KillBgpd`.
    StartBgpd,
    Configure,
    Upgrade,
    Forget,
    AwaitDial,
}

impl Deed {
    /// All but what FRR does to its own routes.
    fn scope(self) -> Scope {
        match self {
            Deed::Kill
            | Deed::KillRacks
            | Deed::KillBgpd
            | Deed::Configure
            | Deed::Upgrade
            | Deed::Forget
            | Deed::AwaitDial => Scope::Everything,
            // A zebra that comes back writes the routes anew that it has found.
            Deed::KillSpine => Scope::Packets,
            // bgpd of FRR 8.4.4 chooses at the first End-of-RIB it hears, before it knows about any
            // next hop, and tells zebra that this is all: zebra has no routes for 50 ms.
            Deed::StartBgpd => Scope::Racks,
        }
    }
}

fn run(plan: Plan, deeds: &[Deed]) -> Result<()> {
    if !machine::has_tool("vtysh") {
        skip("FRR is missing: apt-get install frr");
        return Ok(());
    }
    let mut spine = Spine::up(plan)?;
    expect_routes(&spine, plan)?;
    let reflectors = plan.reflectors();
    let names: Vec<String> = reflectors.iter().map(|it| it.name.clone()).collect();
    let nodes = NODES.iter().map(|node| node.name.to_owned());
    let everyone: Vec<String> = names.iter().cloned().chain(nodes).collect();
    for deed in deeds {
        let name = format!("{:?}, {deed:?}", plan.peering);
        watched(&mut spine, (&name, deed.scope()), |spine| match deed {
            Deed::Kill => restart_in_turn(spine, plan, &names, Signal::SIGKILL),
            Deed::KillRacks => restart_racks(spine, plan),
            Deed::KillSpine => {
                let spines = [ROUTER.to_owned()];
                restart(spine, plan, &spines, (Signal::SIGKILL, Kept::Stale))
            }
            Deed::KillBgpd => {
                spine.kill_bgpd()?;
                spine.wait_missed(ROUTER, Kept::Stale)
            }
            Deed::StartBgpd => {
                let before = spine.sessions()?;
                spine.start(ROUTER)?;
                spine.wait_settled(&Ends::new(), &before)
            }
            Deed::Configure => {
                let mut each = reflectors.iter();
                each.try_for_each(|reflector| configure(spine, plan, reflector))
            }
            Deed::Upgrade => restart_in_turn(spine, plan, &everyone, Signal::SIGTERM),
            Deed::Forget => forget(spine, plan),
            Deed::AwaitDial => await_dial(spine, plan),
        })?;
        expect_routes(&spine, plan).with_context(|| name)?;
    }
    Ok(())
}

#[test]
fn two_reflectors_a_rack_restart_and_change_under_traffic() -> Result<()> {
    needs_root!();
    let plan = Plan {
        per_rack: 2,
        peering: Peering::Joined,
    };
    run(plan, &[Deed::Kill, Deed::Configure, Deed::Upgrade])
}

#[test]
fn racks_that_hear_of_each_other_by_the_spine_alone_lose_nothing() -> Result<()> {
    needs_root!();
    let plan = Plan {
        per_rack: 2,
        peering: Peering::BySpine,
    };
    run(
        plan,
        &[
            Deed::Kill,
            Deed::KillRacks,
            Deed::KillSpine,
            Deed::KillBgpd,
            Deed::StartBgpd,
            Deed::Forget,
        ],
    )
}

#[test]
fn spine_that_is_an_internal_client_of_a_rack_restarts_and_sees_restarts() -> Result<()> {
    needs_root!();
    let plan = Plan {
        per_rack: 2,
        peering: Peering::Inside { is_client: true },
    };
    run(plan, &[Deed::Kill, Deed::KillSpine])
}

#[test]
fn spine_that_is_an_internal_peer_of_a_rack_restarts_and_sees_restarts() -> Result<()> {
    needs_root!();
    let plan = Plan {
        per_rack: 2,
        peering: Peering::Inside { is_client: false },
    };
    run(plan, &[Deed::Kill, Deed::KillSpine])
}

#[test]
fn only_reflector_of_a_rack_that_lists_nobody_restarts_under_traffic() -> Result<()> {
    needs_root!();
    let plan = Plan {
        per_rack: 1,
        peering: Peering::Ranges,
    };
    run(
        plan,
        &[Deed::Kill, Deed::AwaitDial, Deed::Configure, Deed::Upgrade],
    )
}
