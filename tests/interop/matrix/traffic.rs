//! Packets through the product's agent and a router while either of them dies and comes back.

use std::time::Duration;

use agent::lab::Namespace;
use agent::lab::ping::{self, Probe, Target};
use anyhow::{Result, ensure};
use harness::node::{Node, POD_CIDR};
use harness::product::eventually;
use harness::routers::{Router, Setting};
use harness::site::{Site, TIMEOUT};
use harness::speaker::address;

const BEHIND: &str = "10.2.0.0/16";

/// Echoes from a workload of the node to a machine behind the router, and from there to it.
struct Traffic {
    out: Probe,
    back: Probe,
    workload: Namespace,
}

impl Traffic {
    fn start(site: &mut Site, node: &Node) -> Result<Traffic> {
        let behind = site.add_behind_router()?;
        let (workload, address) = node.attach(site, "w1")?;
        let there = Target {
            address: [10, 2, 0, 2].into(),
            identifier: 1,
        };
        let here = Target {
            address,
            identifier: 2,
        };
        eventually("the way to the machine behind the router", TIMEOUT, || {
            let outcome = ping::burst(&workload, std::slice::from_ref(&there), 1)?;
            let arrived = outcome.iter().all(|outcome| outcome.received == 1);
            Ok((!arrived).then(|| format!("{outcome:?}")))
        })?;
        let interval = Duration::from_millis(5);
        Ok(Traffic {
            out: Probe::start(&workload, there, interval)?,
            back: Probe::start(&behind, here, interval)?,
            workload,
        })
    }

    /// Half a second more, and the sums.
    fn expect_no_loss(self, what: &str) -> Result<()> {
        let there = Target {
            address: [10, 2, 0, 2].into(),
            identifier: 3,
        };
        ping::burst(&self.workload, &[there], 50)?;
        for (name, probe) in [("out", self.out), ("back", self.back)] {
            let report = probe.stop();
            let (sent, lost) = (report.sent, report.lost.len());
            println!(
                "{what}, {name}: {sent} sent, {lost} lost, longest gap {:?}",
                report.longest_gap
            );
            ensure!(report.lost.is_empty(), "{name}: lost {:?}", report.lost);
            ensure!(sent > 100, "{name}: {sent} are too few to tell");
        }
        Ok(())
    }
}

/// The router and the node, each with the other's prefix in its kernel.
fn start(router: &'static dyn Router) -> Result<(Site, Node)> {
    // A restarted router waits for the sessions of all its peers.
    let setting = Setting {
        peers: vec![address(1)],
        ..Setting::default()
    };
    let site = Site::start(router, setting)?;
    let node = Node::start(&site)?;
    node.expect_route(BEHIND, "learned", |route| !route.stale)?;
    if router.has_fib() {
        expect_in_kernel(&site)?;
    } else {
        site.add_route(POD_CIDR)?;
    }
    Ok((site, node))
}

fn expect_in_kernel(site: &Site) -> Result<()> {
    eventually("the pods' prefix in the router's kernel", TIMEOUT, || {
        let said = site.kernel_route(POD_CIDR)?;
        Ok((!said.contains("via 192.0.2.1")).then_some(said))
    })
}

/// The new session is up, and either side has heard all of the other.
fn expect_settled(site: &Site, node: &Node, before: &str) -> Result<()> {
    eventually("a new session", TIMEOUT, || {
        let session = node.session()?;
        let is_new = session.state == "established" && session.since != before;
        Ok((!is_new).then(|| format!("{session:?}")))
    })?;
    node.expect_route(BEHIND, "fresh", |route| !route.stale)?;
    site.expect_route(POD_CIDR, &["192.0.2.1"])
}

pub fn packets_pass_while_the_router_is_killed(router: &'static dyn Router) -> Result<()> {
    let (mut site, node) = start(router)?;
    let before = node.session()?.since;
    let traffic = Traffic::start(&mut site, &node)?;
    site.kill_router()?;
    node.expect_route(BEHIND, "kept", |route| route.stale)?;
    site.start_router(true)?;
    expect_settled(&site, &node, &before)?;
    traffic.expect_no_loss(&format!("{} killed", router.name()))
}

pub fn packets_pass_while_the_agent_is_killed(router: &'static dyn Router) -> Result<()> {
    let (mut site, mut node) = start(router)?;
    let before = node.session()?.since;
    let traffic = Traffic::start(&mut site, &node)?;
    node.kill()?;
    node.restart()?;
    expect_settled(&site, &node, &before)?;
    traffic.expect_no_loss(&format!("agent killed beside {}", router.name()))
}
