//! The lab's own machines, before any program of the product runs: what a finding in the matrix
//! rests on.

use agent::lab::capture::Capture;
use agent::lab::packet::Carriage;
use agent::lab::ping::{self, Target};
use agent::lab::{Lab, Scenario};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::wired_lab;

/// Pings one NIC from another; whether the router's two wires saw the echoes.
fn seen_by_router(lab: &Lab, from: &str, to: std::net::Ipv4Addr) -> Result<[bool; 2]> {
    let router = lab.namespace("router")?;
    let captures = [
        Capture::start(router, "eth0")?,
        Capture::start(router, "eth1")?,
    ];
    let target = Target {
        address: to,
        identifier: 77,
    };
    let outcomes = ping::burst(lab.namespace(from)?, &[target], 3)?;
    let seen = captures.map(|capture| {
        let sightings = capture.stop();
        let is_its = |seen: &agent::lab::capture::Sighting| {
            seen.echo.identifier == 77 && seen.carriage == Carriage::Bare
        };
        sightings.iter().any(is_its)
    });
    ensure!(
        outcomes[0].received == 3 && outcomes[0].duplicates == 0,
        "{outcomes:?}"
    );
    Ok(seen)
}

#[test]
fn router_carries_what_crosses_racks_and_nothing_else() -> Result<()> {
    needs_root!();
    let lab = wired_lab(Scenario::Racks)?;
    for (from, to, expected) in [
        ("a1", "a2", [false, false]),
        ("a1", "b1", [true, true]),
        ("b2", "a2", [true, true]),
        ("b1", "b2", [false, false]),
    ] {
        let node = agent::lab::topology::node(to).expect("a node of the lab");
        let seen = seen_by_router(&lab, from, node.address)?;
        ensure!(seen == expected, "{from} to {to}: {seen:?}");
    }
    Ok(())
}
