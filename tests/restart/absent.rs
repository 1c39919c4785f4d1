//! One stays away: its routes go when its time is over, and nobody waits for it.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, ensure};
use harness::fleet::{Fleet, Plan, TIMEOUT, node, reflector};
use harness::needs_root;
use harness::product::eventually;
use harness::watch::Watch;

use crate::matrix::NODES;

/// Who does not come back.
const ABSENT: u8 = 7;
/// Long enough for all the others to be back on a slow machine.
const GRACEFUL_RESTART_SECS: u16 = 12;

/// What node 1 announces when the others are back.
const NEW: &str = "172.17.101.0/24";

fn prefix() -> String {
    format!("172.17.{ABSENT}.0/24")
}

fn others() -> Vec<u8> {
    (1..=NODES).filter(|number| *number != ABSENT).collect()
}

/// Who of the others has a prefix in its kernel.
fn holders(fleet: &Fleet, prefix: &str) -> Result<Vec<String>> {
    let mut holders = Vec::new();
    for number in others() {
        let name = node(number);
        if fleet.kernel_routes(&name)?.contains(prefix) {
            holders.push(name);
        }
    }
    Ok(holders)
}

/// The others have settled. Waits until they all learn a route that is new, while the absent one's
/// are still in place, and until those have gone. Nothing else changes and nothing is lost.
fn expect_only_its_routes_go(fleet: &Fleet, watch: Watch, name: &str) -> Result<()> {
    let settled = watch.begun().elapsed();
    fleet.write_node(1, &format!("172.17.1.0/24, {NEW}"))?;
    eventually("a new route everywhere", TIMEOUT, || {
        let holders = holders(fleet, NEW)?;
        // Its own node has no learned route to it.
        let is_all = holders.len() == others().len() - 1;
        Ok((!is_all).then(|| format!("only {holders:?} have it")))
    })?;
    let learned = watch.begun().elapsed();
    let still = holders(fleet, &prefix())?;
    ensure!(
        still.len() == others().len(),
        "only {still:?} still hold its route after {learned:?}"
    );
    eventually("the end of its routes", TIMEOUT, || {
        let holders = holders(fleet, &prefix())?;
        Ok((!holders.is_empty()).then(|| format!("{holders:?} hold it")))
    })?;
    let gone = watch.begun().elapsed();
    let mut seen = watch.stop(&fleet.lab)?;
    println!(
        "{name}: {} sent, {} lost; the others settled after {:.1} s, a new route was everywhere after \
         {:.1} s, its routes were gone after {:.1} s of {GRACEFUL_RESTART_SECS} s",
        seen.sent,
        seen.lost.len(),
        settled.as_secs_f64(),
        learned.as_secs_f64(),
        gone.as_secs_f64(),
    );
    let is_its_end = |event: &String| event.contains("Deleted") && event.contains(&prefix());
    let ends = seen.route_events.iter().filter(|event| is_its_end(event));
    ensure!(ends.count() == others().len(), "{:?}", seen.route_events);
    seen.route_events
        .retain(|event| !is_its_end(event) && !event.contains(NEW));
    seen.expect_calm()
}

fn plan(reflectors: u8) -> Plan {
    Plan {
        nodes: NODES,
        reflectors,
        graceful_restart_secs: Some(GRACEFUL_RESTART_SECS),
    }
}

#[test]
fn routes_of_a_node_that_stays_away_go_when_its_restart_time_is_over() -> Result<()> {
    needs_root!();
    let _turn = crate::turn();
    let mut fleet = Fleet::up(plan(0))?;
    let before = fleet.sessions()?;
    let watch = fleet.watch(&[ABSENT])?;
    fleet.kill(&[node(ABSENT)])?;
    fleet.wait_settled(&BTreeSet::new(), &before)?;
    expect_only_its_routes_go(&fleet, watch, "mesh, one stays away")
}

/// All are killed, and all but one come back.
fn all_but_one_come_back(reflectors: u8, name: &str) -> Result<()> {
    let _turn = crate::turn();
    let mut fleet = Fleet::up(plan(reflectors))?;
    let before = fleet.sessions()?;
    let watch = fleet.watch(&[ABSENT])?;
    let nodes = (1..=NODES).map(node);
    let all: Vec<String> = nodes.chain((1..=reflectors).map(reflector)).collect();
    let back: Vec<String> = (all.iter())
        .filter(|name| **name != node(ABSENT))
        .cloned()
        .collect();
    fleet.kill(&all)?;
    let started = Instant::now();
    fleet.start(&back)?;
    fleet.wait_settled(&all.into_iter().collect(), &before)?;
    println!(
        "{name}: back after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    expect_only_its_routes_go(&fleet, watch, name)
}

#[test]
fn an_absent_node_holds_back_nobody_who_restarts_in_a_mesh() -> Result<()> {
    needs_root!();
    all_but_one_come_back(0, "mesh, all but one come back")
}

#[test]
fn an_absent_node_holds_back_nobody_who_restarts_with_a_reflector() -> Result<()> {
    needs_root!();
    all_but_one_come_back(1, "reflector, all but one come back")
}
