//! Programs die and come back; packets do not notice.

use std::net::Ipv4Addr;
use std::time::Duration;

use agent::lab::ping::{self, Probe, Report, Target};
use agent::lab::topology::{self, Rack};
use agent::lab::{Lab, Scenario};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::PeerStatus;
use harness::monitor::RouteMonitor;
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, kill, lab, peers, program, wait_settled};

const NODES: [&str; 4] = ["a1", "a2", "b1", "b2"];

/// Steady echoes between workloads, on a direct and on a tunnelled path.
struct Traffic {
    direct: Probe,
    tunnelled: Probe,
}

impl Traffic {
    fn start(lab: &Lab) -> Result<Traffic> {
        let probe = |to: &str, identifier: u16| -> Result<Probe> {
            let is_it = |workload: &&agent::lab::record::Workload| workload.name == to;
            let workload = lab.workloads().iter().find(is_it).context("no workload")?;
            let target = Target {
                address: workload.address,
                identifier,
            };
            let from = lab.namespace("a1-1")?;
            Ok(Probe::start(from, target, Duration::from_millis(5))?)
        };
        Ok(Traffic {
            direct: probe("a2-1", 1)?,
            tunnelled: probe("b1-1", 2)?,
        })
    }

    fn expect_no_loss(self) -> Result<()> {
        for (name, probe) in [("direct", self.direct), ("tunnelled", self.tunnelled)] {
            let report: Report = probe.stop();
            println!(
                "{name}: {} sent, {} lost, longest gap {:?}",
                report.sent,
                report.lost.len(),
                report.longest_gap
            );
            ensure!(report.lost.is_empty(), "{name}: lost {:?}", report.lost);
            ensure!(report.sent > 10, "{name}: the test was too short to tell");
        }
        Ok(())
    }
}

fn monitors(lab: &Lab) -> Result<Vec<(&'static str, RouteMonitor)>> {
    let start = |name: &&'static str| Ok((*name, RouteMonitor::start(lab, name)?));
    NODES.iter().map(start).collect()
}

fn expect_no_change(monitors: Vec<(&'static str, RouteMonitor)>) -> Result<()> {
    for (name, monitor) in monitors {
        let changes = monitor.stop()?;
        ensure!(changes.is_empty(), "{name}:\n{}", changes.join("\n"));
    }
    Ok(())
}

fn wait_all_settled(lab: &Lab) -> Result<()> {
    for machine in NODES.iter().chain(&["reflector-a", "reflector-b"]) {
        wait_settled(lab, machine)?;
    }
    Ok(())
}

/// When `peer`'s session on `machine` came up.
fn session_since(lab: &Lab, machine: &str, peer: Ipv4Addr) -> Result<String> {
    let peers = peers(lab, machine)?;
    let session = peers.into_iter().find(|status| status.peer == peer);
    Ok(session.context("no such peer")?.since)
}

/// Kills the agent of a1 and starts another; returns when all is as before.
fn restart_agent(lab: &mut Lab) -> Result<()> {
    let a1 = topology::NODES[0].address;
    let before = session_since(lab, "reflector-a", a1)?;
    kill(&program(lab, "a1")?)?;
    lab.start_agent("a1")?;
    lab.wait_synced("a1")?;
    wait_all_settled(lab)?;
    ensure!(
        session_since(lab, "reflector-a", a1)? != before,
        "the session is the old one"
    );
    Ok(())
}

/// The same with the only reflector of rack a.
fn restart_reflector(lab: &mut Lab) -> Result<()> {
    let reflector = Rack::A.reflector();
    let before = session_since(lab, "a1", reflector)?;
    kill(&program(lab, "reflector-a")?)?;
    lab.start_reflector(&Rack::A)?;
    wait_all_settled(lab)?;
    ensure!(
        session_since(lab, "a1", reflector)? != before,
        "the session is the old one"
    );
    Ok(())
}

#[test]
fn agent_killed_and_restarted_loses_no_packet_and_changes_no_route() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Racks)?;
    wait_all_settled(&lab)?;
    let monitors = monitors(&lab)?;
    let traffic = Traffic::start(&lab)?;
    restart_agent(&mut lab)?;
    expect_no_change(monitors)?;
    traffic.expect_no_loss()
}

#[test]
fn only_reflector_killed_and_restarted_loses_no_packet_and_changes_no_route() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Racks)?;
    wait_all_settled(&lab)?;
    let monitors = monitors(&lab)?;
    let traffic = Traffic::start(&lab)?;
    restart_reflector(&mut lab)?;
    expect_no_change(monitors)?;
    traffic.expect_no_loss()
}

#[test]
#[ignore = "long"]
fn fifty_restarts_in_turn_lose_no_packet_and_change_no_route() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Racks)?;
    wait_all_settled(&lab)?;
    let monitors = monitors(&lab)?;
    let traffic = Traffic::start(&lab)?;
    for _ in 0..25 {
        restart_agent(&mut lab)?;
        restart_reflector(&mut lab)?;
    }
    expect_no_change(monitors)?;
    traffic.expect_no_loss()
}

#[test]
fn agent_told_to_stop_ends_in_order_and_keeps_forwarding() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Racks)?;
    wait_all_settled(&lab)?;
    let monitors = monitors(&lab)?;
    let traffic = Traffic::start(&lab)?;

    let agent = program(&lab, "a1")?;
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    agent.wait_gone(Duration::from_secs(5))?;
    eventually("the reflector to miss a1", TIMEOUT, || {
        let peers = peers(&lab, "reflector-a")?;
        let is_up = |peer: &&PeerStatus| {
            peer.peer == topology::NODES[0].address && peer.state == "established"
        };
        Ok(peers.iter().find(is_up).map(|peer| format!("{peer:?}")))
    })?;
    // Half a second more of a network whose agent is gone.
    let b1 = Target {
        address: topology::NODES[2].address,
        identifier: 9,
    };
    ping::burst(lab.namespace("a2")?, &[b1], 50)?;

    expect_no_change(monitors)?;
    traffic.expect_no_loss()
}
