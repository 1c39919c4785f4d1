//! Reflectors that are killed, replaced or configured anew while workloads talk: no packet is lost,
//! and no route changes in any kernel.

use std::time::Instant;

use agent::lab::machine;
use agent::lab::topology::{NODES, ROUTED_ASN, Rack};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::RouteStatus;
use harness::needs_root;
use harness::product::{TIMEOUT, eventually};
use harness::report::skip;
use harness::spine::{Edition, Ends, Kept, OTHER_HOLD_TIME_SECS, Peering, Plan, Reflector, Spine};
use nix::sys::signal::Signal;

/// Runs `work` under watch, and prints a line of what was seen.
fn watched(
    spine: &mut Spine,
    name: &str,
    work: impl FnOnce(&mut Spine) -> Result<()>,
) -> Result<()> {
    let watch = spine.watch()?;
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

/// One after the other: missed by the others, started again, and the next when all has settled.
fn restart_in_turn(
    spine: &mut Spine,
    plan: Plan,
    machines: &[String],
    signal: Signal,
) -> Result<()> {
    for machine in machines {
        let before = spine.sessions()?;
        spine.end(machine, signal)?;
        spine.wait_missed(machine, Kept::Whatever)?;
        spine.start(machine)?;
        let settled = spine.wait_settled(&plan.ends_of(machine), &before);
        settled.with_context(|| format!("{signal} of {machine}"))?;
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
    let before = spine.sessions()?;
    for reflector in &reflectors {
        spine.end(&reflector.name, Signal::SIGKILL)?;
    }
    let mut renewed = Ends::new();
    for reflector in &reflectors {
        spine.wait_missed(&reflector.name, Kept::Nothing)?;
        renewed.extend(plan.ends_of(&reflector.name));
    }
    for reflector in &reflectors {
        spine.start(&reflector.name)?;
    }
    spine.wait_settled(&renewed, &before)
}

/// Whether the other rack's routes have passed the spine is as the plan has it.
fn expect_paths(spine: &Spine, plan: Plan) -> Result<()> {
    for node in &NODES {
        let other = node.rack.other();
        let expected = match plan.peering {
            Peering::Joined => other.asn.to_string(),
            Peering::BySpine | Peering::Ranges => format!("{ROUTED_ASN} {}", other.asn),
        };
        let routes = spine.routes(node.name)?;
        for remote in NODES.iter().filter(|remote| remote.rack == other) {
            let prefix = remote.pod_cidr();
            let is_its = |route: &&RouteStatus| route.best && route.prefix.to_string() == prefix;
            let route = routes.iter().find(is_its).context("no route")?;
            ensure!(route.as_path == expected, "{}: {route:?}", node.name);
        }
    }
    Ok(())
}

/// The first reflector is away until the spine waits to be dialled.
fn await_dial(spine: &mut Spine, plan: Plan) -> Result<()> {
    let reflector = plan.reflectors().swap_remove(0);
    let before = spine.sessions()?;
    spine.end(&reflector.name, Signal::SIGTERM)?;
    spine.wait_spine_waits(&reflector)?;
    spine.start(&reflector.name)?;
    spine.wait_settled(&plan.ends_of(&reflector.name), &before)
}

/// What is done to the programs while workloads talk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Kill,
    Configure,
    Upgrade,
    Forget,
    AwaitDial,
}

fn run(plan: Plan, deeds: &[Deed]) -> Result<()> {
    if !machine::has_tool("vtysh") {
        skip("FRR is missing: apt-get install frr");
        return Ok(());
    }
    let mut spine = Spine::up(plan)?;
    expect_paths(&spine, plan)?;
    let reflectors = plan.reflectors();
    let names: Vec<String> = reflectors.iter().map(|it| it.name.clone()).collect();
    let nodes = NODES.iter().map(|node| node.name.to_owned());
    let everyone: Vec<String> = names.iter().cloned().chain(nodes).collect();
    for deed in deeds {
        let name = format!("{:?}, {deed:?}", plan.peering);
        watched(&mut spine, &name, |spine| match deed {
            Deed::Kill => restart_in_turn(spine, plan, &names, Signal::SIGKILL),
            Deed::Configure => {
                let mut each = reflectors.iter();
                each.try_for_each(|reflector| configure(spine, plan, reflector))
            }
            Deed::Upgrade => restart_in_turn(spine, plan, &everyone, Signal::SIGTERM),
            Deed::Forget => forget(spine, plan),
            Deed::AwaitDial => await_dial(spine, plan),
        })?;
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
    run(plan, &[Deed::Kill, Deed::Forget])
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
