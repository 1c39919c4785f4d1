//! Who is killed, by how the nodes are told of each other. Prints a line a case.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use harness::fleet::{Fleet, Plan, TIMEOUT, node, reflector};
use harness::needs_root;
use harness::product::eventually;

pub const NODES: u8 = 20;

/// How often the same are killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Times {
    Once,
    /// Also when the first of them has a session again, and at once after the start that follows.
    Thrice,
}

use Times::{Once, Thrice};

fn all() -> Vec<String> {
    (1..=NODES).map(node).collect()
}

/// Kills and starts them once or three times, and waits until all is as before.
fn case(fleet: &mut Fleet, name: &str, killed: &[String], times: Times) -> Result<()> {
    let before = fleet.sessions()?;
    let watch = fleet.watch(&[])?;
    fleet.kill(killed)?;
    fleet.start(killed)?;
    if times == Thrice {
        let up = wait_first_session(fleet, killed)?;
        println!("  {name}: killed again when the first had {up} session(s)");
        for _ in 0..2 {
            fleet.kill(killed)?;
            fleet.start(killed)?;
        }
    }
    let restarted: BTreeSet<String> = killed.iter().cloned().collect();
    fleet.wait_settled(&restarted, &before)?;
    let settled = watch.begun().elapsed();
    let seen = watch.stop(&fleet.lab)?;
    println!(
        "{name}, {times:?}: {} sent, {} lost, {} route events, longest gap {} ms, settled after {:.1} s",
        seen.sent,
        seen.lost.len(),
        seen.route_events.len(),
        seen.longest_gap.as_millis(),
        settled.as_secs_f64(),
    );
    seen.expect_calm().with_context(|| name.to_owned())
}

/// Waits until the first of them has a session; returns how many it has.
fn wait_first_session(fleet: &Fleet, killed: &[String]) -> Result<usize> {
    let first = killed.first().context("someone is killed")?;
    let mut up = 0;
    eventually("a first session", TIMEOUT, || {
        let peers = fleet.peers(first)?;
        up = peers
            .iter()
            .filter(|peer| peer.state == "established")
            .count();
        Ok((up == 0).then(|| format!("{peers:?}")))
    })?;
    Ok(up)
}

fn run(reflectors: u8, cases: &[(&str, Vec<String>, &[Times])]) -> Result<()> {
    let plan = Plan {
        nodes: NODES,
        reflectors,
        graceful_restart_secs: None,
    };
    let _turn = crate::turn();
    let mut fleet = Fleet::up(plan)?;
    for (name, killed, times) in cases {
        for times in *times {
            case(&mut fleet, name, killed, *times)?;
        }
    }
    Ok(())
}

const BOTH: &[Times] = &[Once, Thrice];

#[test]
fn twenty_nodes_in_a_mesh_lose_nothing_when_any_restart() -> Result<()> {
    needs_root!();
    let cases = [
        ("mesh, one node", vec![node(1)], BOTH),
        ("mesh, two nodes", vec![node(1), node(11)], BOTH),
        ("mesh, all nodes", all(), BOTH),
    ];
    run(0, &cases)
}

#[test]
fn twenty_nodes_with_a_reflector_lose_nothing_when_any_restart() -> Result<()> {
    needs_root!();
    let everything = [all(), vec![reflector(1)]].concat();
    let cases = [
        ("reflector, one node", vec![node(1)], BOTH),
        ("reflector, two nodes", vec![node(1), node(11)], BOTH),
        ("reflector, all nodes", all(), BOTH),
        ("reflector, itself", vec![reflector(1)], BOTH),
        ("reflector, itself and all nodes", everything, BOTH),
    ];
    run(1, &cases)
}

#[test]
fn twenty_nodes_with_two_reflectors_lose_nothing_when_any_restart() -> Result<()> {
    needs_root!();
    let both = vec![reflector(1), reflector(2)];
    let everything = [all(), both.clone()].concat();
    // Nodes wait longer with every session that ends soon: once each is enough.
    let cases = [
        ("two reflectors, all nodes", all(), BOTH),
        ("two reflectors, one of them", vec![reflector(1)], &[Once]),
        ("two reflectors, both", both, &[Thrice]),
        ("two reflectors, everything", everything, &[Thrice]),
    ];
    run(2, &cases)
}
