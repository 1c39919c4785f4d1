//! Feature by peer: every feature with every router by others that Debian has.
//!
//! What a peer lacks is written where its cells are listed, and in docs/conformance.md.

use agent::lab::machine;
use anyhow::{Result, ensure};
use bgp::policy::{Action, Filter, PrefixMatch, Rule};
use bgp::speaker::Stop;
use harness::report::{missing_privilege, skip};
use harness::routers::{Bird, Frr, Gobgp, Openbgpd, Router, Setting};
use harness::site::Site;
use harness::speaker::{Running, config, peer};
use nix::sys::signal::Signal;

const PLAIN: Setting = Setting {
    reflects: false,
    dials: false,
};
const REFLECTS: Setting = Setting {
    reflects: true,
    dials: false,
};
const DIALS: Setting = Setting {
    reflects: false,
    dials: true,
};

/// One test per cell. FRR and BIRD are never missing; the others are skipped where they are.
macro_rules! cells {
    ($peer:ident, $router:expr, [$($feature:ident),* $(,)?]) => {
        mod $peer {
            use super::*;
            $(
                #[test]
                fn $feature() -> Result<()> {
                    run(&$router, super::$feature)
                }
            )*
        }
    };
}

cells!(
    with_frr,
    Frr,
    [
        both_families_pass_in_one_session,
        large_communities_arrive,
        routes_are_reflected_by_us,
        routes_are_reflected_to_us,
        refresh_brings_refused_routes_back,
        refresh_is_answered,
        routes_outlive_kill_of_peer,
        routes_outlive_kill_of_us,
        silent_peer_is_dropped_and_comes_back,
        both_sides_dial_at_once,
    ]
);

cells!(
    with_bird,
    Bird,
    [
        both_families_pass_in_one_session,
        large_communities_arrive,
        routes_are_reflected_by_us,
        routes_are_reflected_to_us,
        refresh_brings_refused_routes_back,
        refresh_is_answered,
        routes_outlive_kill_of_peer,
        routes_outlive_kill_of_us,
        silent_peer_is_dropped_and_comes_back,
        both_sides_dial_at_once,
    ]
);

cells!(
    with_gobgp,
    Gobgp,
    [
        both_families_pass_in_one_session,
        large_communities_arrive,
        routes_are_reflected_by_us,
        routes_are_reflected_to_us,
        refresh_brings_refused_routes_back,
        refresh_is_answered,
        routes_outlive_kill_of_peer,
        routes_outlive_kill_of_us,
        silent_peer_is_dropped_and_comes_back,
        both_sides_dial_at_once,
    ]
);

// It offers graceful restart without families: it keeps the routes of others and asks nobody to
// keep its own. It does not answer a ROUTE-REFRESH, whoever sends it.
cells!(
    with_openbgpd,
    Openbgpd,
    [
        both_families_pass_in_one_session,
        large_communities_arrive,
        routes_are_reflected_by_us,
        routes_are_reflected_to_us,
        refresh_is_answered,
        routes_outlive_kill_of_us,
        silent_peer_is_dropped_and_comes_back,
        both_sides_dial_at_once,
    ]
);

type Feature = fn(&'static dyn Router) -> Result<()>;

fn run(router: &'static dyn Router, feature: Feature) -> Result<()> {
    if let Some(reason) = missing_privilege() {
        skip(reason);
        return Ok(());
    }
    if !machine::has_tool(router.program()) && !matches!(router.name(), "frr" | "bird") {
        skip(&format!("{} is not installed", router.name()));
        return Ok(());
    }
    feature(router)
}

/// The site with one speaker of ours, and the session.
fn session(router: &'static dyn Router, setting: Setting) -> Result<(Site, Running)> {
    let site = Site::start(router, setting)?;
    let mut config = config(1);
    peer(&mut config, 2);
    let ours = Running::start(&site.ours, config)?;
    ours.established(2)?;
    Ok((site, ours))
}

fn both_families_pass_in_one_session(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = session(router, PLAIN)?;
    for (prefix, next_hop) in [
        ("10.2.0.0/16", "192.0.2.2"),
        ("2001:db8:2::/48", "2001:db8::2"),
    ] {
        ours.expect_route(prefix, "from the router", |route| {
            route.best && route.next_hop.to_string() == next_hop
        })?;
    }
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    site.expect_route("2001:db8:1::/48", &["2001:db8::1"])?;
    let families = ours.peer(2)?.families;
    ensure!(families == ["ipv4", "ipv6"], "{families:?}");
    Ok(())
}

fn large_communities_arrive(router: &'static dyn Router) -> Result<()> {
    let (_site, ours) = session(router, PLAIN)?;
    ours.expect_route("10.2.0.0/16", "with its large community", |route| {
        route.large_communities == ["64512:1:2"]
    })
}

fn routes_are_reflected_by_us(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, PLAIN)?;
    let mut reflector = config(1);
    peer(&mut reflector, 2).route_reflector_client = true;
    peer(&mut reflector, 3).route_reflector_client = true;
    let mut client = config(3);
    peer(&mut client, 1);
    let reflector = Running::start(&site.ours, reflector)?;
    let client = Running::start(&site.ours, client)?;
    reflector.established(2)?;
    client.established(1)?;
    for prefix in ["10.2.0.0/16", "2001:db8:2::/48"] {
        client.expect_route(prefix, "reflected", |route| {
            route.originator_id.as_deref() == Some("192.0.2.2")
                && route.cluster_list == ["192.0.2.1"]
        })?;
    }
    client.expect_route("10.2.0.0/16", "with all it had", |route| {
        route.large_communities == ["64512:1:2"] && route.next_hop.to_string() == "192.0.2.2"
    })?;
    site.expect_route("10.3.0.0/16", &["192.0.2.3"])?;
    site.expect_route("2001:db8:3::/48", &["2001:db8::3"])
}

fn routes_are_reflected_to_us(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = session(router, REFLECTS)?;
    let mut other = config(3);
    peer(&mut other, 2);
    let other = Running::start(&site.ours, other)?;
    other.established(2)?;
    for prefix in ["10.3.0.0/16", "2001:db8:3::/48"] {
        ours.expect_route(prefix, "reflected", |route| {
            route.originator_id.as_deref() == Some("192.0.2.3")
                && route.cluster_list == ["192.0.2.2"]
        })?;
    }
    other.expect_route("10.1.0.0/16", "reflected", |route| {
        route.next_hop.to_string() == "192.0.2.1"
    })
}

/// A change of policy asks the peer again rather than ending the session.
fn refresh_brings_refused_routes_back(router: &'static dyn Router) -> Result<()> {
    let (_site, ours) = session(router, PLAIN)?;
    let is_used = |route: &bgp::speaker::status::RouteStatus| route.rejected_reason.is_none();
    ours.expect_route("10.2.0.0/16", "used", is_used)?;
    let mut refusing = config(1);
    peer(&mut refusing, 2).filters = vec![Filter {
        name: "none".to_owned(),
        import_v4: vec![Rule {
            prefixes: PrefixMatch::Any,
            action: Action::Reject,
        }],
        ..Filter::default()
    }];
    ours.configure(refusing);
    ours.expect_route("10.2.0.0/16", "refused", |route| !is_used(route))?;
    let mut admitting = config(1);
    peer(&mut admitting, 2);
    ours.configure(admitting);
    ours.expect_route("10.2.0.0/16", "used again", is_used)?;
    ensure!(ours.peer(2)?.flaps == 0, "the session ended on the way");
    Ok(())
}

fn refresh_is_answered(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = session(router, PLAIN)?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    router.refresh(&site)?;
    // The answer changes nothing; what may go wrong is the session, or the route.
    let mut more = config(1);
    peer(&mut more, 2);
    let later = config(7).originated;
    more.originated.extend(later);
    ours.configure(more);
    site.expect_route("10.7.0.0/16", &[])?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    ensure!(ours.peer(2)?.flaps == 0, "the session ended on the way");
    Ok(())
}

fn routes_outlive_kill_of_peer(router: &'static dyn Router) -> Result<()> {
    let (mut site, ours) = session(router, PLAIN)?;
    for prefix in ["10.2.0.0/16", "2001:db8:2::/48"] {
        ours.expect_route(prefix, "learned", |route| !route.stale)?;
    }
    site.kill_router()?;
    for prefix in ["10.2.0.0/16", "2001:db8:2::/48"] {
        ours.expect_route(prefix, "kept", |route| route.best && route.stale)?;
    }
    site.start_router(true)?;
    ours.established(2)?;
    for prefix in ["10.2.0.0/16", "2001:db8:2::/48"] {
        ours.expect_route(prefix, "fresh", |route| route.best && !route.stale)?;
    }
    Ok(())
}

fn routes_outlive_kill_of_us(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = session(router, PLAIN)?;
    let kept = ["10.1.0.0/16", "2001:db8:1::/48"];
    for prefix in kept {
        site.expect_route(prefix, &[])?;
    }
    ours.kill();
    let still = |when: &str| -> Result<()> {
        for prefix in kept {
            ensure!(!site.route(prefix)?.is_empty(), "{prefix} went {when}");
        }
        Ok(())
    };
    still("with us")?;
    let mut restarted = config(1);
    peer(&mut restarted, 2);
    restarted.graceful_restart.restarting = true;
    let ours = Running::start(&site.ours, restarted)?;
    ours.established(2)?;
    still("as we came back")?;
    ours.expect_route("10.2.0.0/16", "learned again", |route| route.best)?;
    still("as we were told everything")
}

/// RFC 4271 §6.5: nothing is heard for the hold time.
fn silent_peer_is_dropped_and_comes_back(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, PLAIN)?;
    let mut impatient = config(1);
    peer(&mut impatient, 2).hold_time = bgp::types::HoldTime::new(3)?;
    let ours = Running::start(&site.ours, impatient)?;
    ours.established(2)?;
    site.signal_router(Signal::SIGSTOP);
    ours.wait_peer("the end of the silent session", 2, |peer| {
        let error = peer.last_error.as_ref();
        error.is_some_and(|error| error.code == 4 && error.direction == "sent")
    })?;
    site.signal_router(Signal::SIGCONT);
    ours.wait_peer("its return", 2, |peer| {
        peer.state == "established" && peer.flaps >= 1
    })?;
    ours.expect_route("10.2.0.0/16", "learned again", |route| {
        route.best && !route.stale
    })
}

/// RFC 4271 §6.8, again and again: one session each time, whoever dialled it.
fn both_sides_dial_at_once(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, DIALS)?;
    for _ in 0..5 {
        let mut config = config(1);
        peer(&mut config, 2);
        let ours = Running::start(&site.ours, config)?;
        router.dial_now(&site)?;
        ours.established(2)?;
        ours.expect_route("10.2.0.0/16", "learned", |route| route.best)?;
        site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
        ours.stop(Stop::ForGood);
    }
    Ok(())
}
