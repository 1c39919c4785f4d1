//! Both sides dial at once, again and again.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use bgp::speaker::Stop;
use bgp::speaker::config::SpeakerConfig;
use bgp::types::RouterId;
use harness::gate::Gate;
use harness::product::eventually;
use harness::routers::{Router, Setting};
use harness::site::{CROWD, Site, TIMEOUT};
use harness::sockets::{Connection, connections};
use harness::speaker::{Running, address, config, peer};
use nix::sys::signal::Signal;

const WANTED: usize = 200;
/// How often a crowd of forty dials for that.
const ROUNDS: usize = 5;
/// Routers dial a second after a session ended.
const COLLISION_TIMEOUT: Duration = Duration::from_secs(5);

/// Every other speaker of the crowd has a lower identifier than the router.
fn is_lower(last: u8) -> bool {
    last.is_multiple_of(2)
}

fn one_of_the_crowd(last: u8) -> SpeakerConfig {
    let mut one = config(last);
    if is_lower(last) {
        one.router_id = RouterId(Ipv4Addr::new(192, 0, 1, last));
    }
    peer(&mut one, 2);
    one
}

fn crowded_site(router: &'static dyn Router) -> Result<Site> {
    let setting = Setting {
        peers: CROWD.map(address).collect(),
        dials: true,
        ..Setting::default()
    };
    Site::start(router, setting)
}

fn start_crowd(site: &Site) -> Result<Vec<(u8, Running)>> {
    let start = |last| Ok((last, Running::start(&site.ours, one_of_the_crowd(last))?));
    CROWD.map(start).collect()
}

/// Waits until everybody has a session and nothing else, and the router's route by it. Returns how
/// many sessions ended on the way.
fn expect_one_session_each(site: &Site, crowd: &[(u8, Running)]) -> Result<u64> {
    for (_, speaker) in crowd {
        speaker.established(2)?;
        speaker.expect_route("10.2.0.0/16", "learned", |route| route.best)?;
    }
    expect_one_connection_each(site, crowd)?;
    let mut flaps = 0;
    for (last, speaker) in crowd {
        let peer = speaker.peer(2)?;
        ensure!(peer.state == "established", "{last}: {peer:?}");
        flaps += peer.flaps;
    }
    Ok(flaps)
}

fn expect_one_connection_each(site: &Site, crowd: &[(u8, Running)]) -> Result<()> {
    eventually("one connection of each", TIMEOUT, || {
        let left = connections(&site.ours)?;
        Ok((left.len() != crowd.len()).then(|| format!("{}: {left:?}", left.len())))
    })
}

/// Those of the crowd that have two connections with the router, an OPEN on the way from either end
/// of both.
fn colliding(site: &Site) -> Result<Vec<u8>> {
    let mut all = connections(&site.ours)?;
    all.extend(connections(&site.theirs)?);
    all.retain(|connection| connection.unacknowledged > 0);
    let has_two = |last: &u8| {
        let own = address(*last);
        let ends = all.iter().flat_map(|one| [one.local.ip(), one.remote.ip()]);
        ends.filter(|end| *end == own).count() == 4
    };
    Ok(CROWD.filter(has_two).collect())
}

/// Waits until we have closed one connection of each, and looks which.
fn expect_decisions(site: &Site, colliding: &[u8]) -> Result<()> {
    let ours = |last: u8| -> Result<Vec<Connection>> {
        let mut all = connections(&site.ours)?;
        all.retain(|connection| connection.local.ip() == address(last));
        Ok(all)
    };
    for last in colliding {
        eventually("the end of one of two connections", TIMEOUT, || {
            let left = ours(*last)?;
            Ok((left.len() != 1).then(|| format!("{left:?}")))
        })?;
        for connection in ours(*last)? {
            let dialled_by_router = connection.local.port() == 179;
            ensure!(
                dialled_by_router == is_lower(*last),
                "the other one stayed: {connection:?}"
            );
        }
    }
    Ok(())
}

/// RFC 4271 §6.8: of two connections of the same two speakers, neither a session when the second
/// OPEN comes, the one stays that the speaker with the higher identifier opened.
pub fn collisions_leave_one_session(router: &'static dyn Router) -> Result<()> {
    let site = crowded_site(router)?;
    let (mut collisions, mut rounds, mut flaps) = (0, 0, 0);
    while collisions < WANTED {
        rounds += 1;
        ensure!(rounds <= 2 * ROUNDS, "only {collisions} collisions");
        let gate = Gate::close(&site.ours)?;
        let crowd = start_crowd(&site)?;
        let all_collide = eventually("a collision of each", COLLISION_TIMEOUT, || {
            let colliding = colliding(&site)?.len();
            Ok((colliding < crowd.len()).then(|| format!("{colliding} of {}", crowd.len())))
        });
        // Whom the router turned away has been dialled by it since: one connection, no collision.
        if let Err(missing) = all_collide {
            println!("{missing}");
        }
        let colliding = colliding(&site)?;
        // What the router said arrives, and it does not go on before we have decided.
        site.signal_router(Signal::SIGSTOP);
        gate.open()?;
        expect_decisions(&site, &colliding)?;
        site.signal_router(Signal::SIGCONT);
        flaps += expect_one_session_each(&site, &crowd)?;
        collisions += colliding.len();
        for (_, speaker) in crowd {
            speaker.stop(Stop::ForGood);
        }
    }
    println!(
        "{}: {collisions} collisions, one session each, {flaps} ended and came again",
        router.name()
    );
    Ok(())
}

/// The same with routers that open no second connection: who is first has the session.
pub fn both_sides_dial_at_once(router: &'static dyn Router) -> Result<()> {
    let site = crowded_site(router)?;
    let (mut dials, mut flaps) = (0, 0);
    for _ in 0..ROUNDS {
        let crowd = start_crowd(&site)?;
        router.dial_now(&site)?;
        flaps += expect_one_session_each(&site, &crowd)?;
        dials += crowd.len();
        for (_, speaker) in crowd {
            speaker.stop(Stop::ForGood);
        }
    }
    println!(
        "{}: {dials} times dialled, one session each, {flaps} ended and came again",
        router.name()
    );
    Ok(())
}
