//! A node that is about to go is used last, and goes for good (RFC 8326).

use std::time::Duration;

use agent::lab::topology::Rack;
use agent::lab::{Lab, Scenario};
use anyhow::{Result, ensure};
use bgp::speaker::status::RouteStatus;
use harness::crossing::Crossing;
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, kill, lab, program, routes, succeeded};
use nix::sys::signal::Signal;

const OWN: &str = "172.17.8.0/24";

/// Whether there is a fresh route that is marked, or not.
fn has_marked(routes: &[RouteStatus], is_marked: bool) -> bool {
    routes.iter().any(|route| {
        let mut communities = route.communities.iter();
        let is_said = communities.any(|one| one == "graceful-shutdown");
        !route.stale && is_said == is_marked
    })
}

/// Waits until the neighbour knows that the session is gone: what the next one says is new then.
fn expect_stale(crossing: &Crossing) -> Result<()> {
    eventually("the prefix is stale", TIMEOUT, || {
        let routes = crossing.speaker(1)?.routes(OWN)?;
        Ok((!routes.iter().all(|route| route.stale)).then(|| format!("{routes:#?}")))
    })
}

/// Waits until the neighbour has the node's prefix, marked or not.
fn expect_marked(crossing: &Crossing, what: &str, is_marked: bool) -> Result<()> {
    eventually(what, TIMEOUT, || {
        let routes = crossing.speaker(1)?.routes(OWN)?;
        Ok((!has_marked(&routes, is_marked)).then(|| format!("{routes:#?}")))
    })
}

fn is_draining(crossing: &Crossing) -> Result<bool> {
    let status: serde_json::Value =
        serde_json::from_str(&crossing.caracal(&["status", "-o", "json"])?.stdout)?;
    Ok(status["draining"] == true)
}

#[test]
fn a_drained_node_is_used_last_over_restarts_and_leaves_no_stale_route() -> Result<()> {
    needs_root!();
    let mut crossing = Crossing::wired(1)?;
    let mut agent = crossing.start_agent("")?;
    crossing.announce(1, &[])?;
    expect_marked(&crossing, "the prefix", false)?;
    ensure!(!is_draining(&crossing)?);

    let said = succeeded(crossing.caracal(&["drain", "--wait", "0"])?)?;
    ensure!(said.trim() == "draining for 0 s", "{said}");
    expect_marked(&crossing, "the prefix is marked", true)?;
    ensure!(is_draining(&crossing)?);

    kill(&agent)?;
    expect_stale(&crossing)?;
    agent = crossing.start_agent_again()?;
    expect_marked(&crossing, "marked after kill and restart, too", true)?;
    ensure!(is_draining(&crossing)?);

    agent.signal(Signal::SIGTERM);
    agent.wait_gone(Duration::from_secs(5))?;
    eventually("the end for good", TIMEOUT, || {
        let speaker = crossing.speaker(1)?;
        let (peers, routes) = (speaker.peers(), speaker.routes(OWN)?);
        let is_told = peers.iter().any(|peer| {
            let error = peer.last_error.as_ref();
            error.is_some_and(|error| {
                // Administrative shutdown, itself or within a hard reset (RFC 8538).
                let is_shutdown = error.subcode == 2 || error.data_hex.starts_with("0602");
                error.direction == "received" && error.code == 6 && is_shutdown
            })
        });
        Ok((!is_told || !routes.is_empty()).then(|| format!("{routes:#?}\n{peers:#?}")))
    })?;

    crossing.start_agent_again()?;
    expect_marked(&crossing, "marked after the end, too", true)?;
    let said = succeeded(crossing.caracal(&["drain", "--off"])?)?;
    ensure!(said.trim() == "not draining", "{said}");
    expect_marked(&crossing, "not marked any more", false)?;
    ensure!(!is_draining(&crossing)?);
    Ok(())
}

/// Waits until what the reflector of rack a says to a1 is marked or not.
fn expect_reflected(lab: &Lab, what: &str, is_marked: bool) -> Result<()> {
    eventually(what, TIMEOUT, || {
        let routes = routes(lab, "a1", &["172.17.10.0/24"])?;
        Ok((!has_marked(&routes, is_marked)).then(|| format!("{routes:#?}")))
    })
}

#[test]
fn a_drained_reflector_marks_what_it_reflects_over_restarts() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Racks)?;
    let reflector = Rack::A.reflector_name();
    expect_reflected(&lab, "the route", false)?;
    let said = succeeded(lab.caracal(&reflector, &["drain"])?)?;
    ensure!(said.trim() == "draining", "{said}");
    expect_reflected(&lab, "the route is marked", true)?;
    kill(&program(&lab, &reflector)?)?;
    lab.start_reflector(&Rack::A)?;
    expect_reflected(&lab, "marked by the next one, too", true)?;
    let said = succeeded(lab.caracal(&reflector, &["drain", "--off"])?)?;
    ensure!(said.trim() == "not draining", "{said}");
    expect_reflected(&lab, "not marked any more", false)
}
