//! Feature by peer: every feature with every router by others that Debian has.
//!
//! What a peer lacks is written where its cells are listed, and in docs/conformance.md.

mod restart;
mod routes;
mod session;

use agent::lab::machine;
use anyhow::Result;
use harness::report::{missing_privilege, skip};
use harness::routers::{Bird, Frr, Gobgp, Openbgpd, Router, Setting};
use harness::site::Site;
use harness::speaker::{Running, config, peer};

/// One test per cell. FRR and BIRD are never missing; the others are skipped where they are.
macro_rules! cells {
    ($peer:ident, $router:expr, [$($area:ident::$feature:ident),* $(,)?]) => {
        mod $peer {
            use super::*;
            $(
                #[test]
                fn $feature() -> Result<()> {
                    run(&$router, super::$area::$feature)
                }
            )*
        }
    };
}

cells!(
    with_frr,
    Frr,
    [
        routes::both_families_pass_in_one_session,
        routes::large_communities_arrive,
        routes::routes_are_reflected_by_us,
        routes::routes_are_reflected_to_us,
        routes::refused_routes_come_back_without_a_reset,
        routes::refresh_is_answered,
        restart::routes_outlive_kill_of_peer,
        restart::routes_outlive_kill_of_us,
        session::silent_peer_is_dropped_and_comes_back,
        session::both_sides_dial_at_once,
    ]
);

cells!(
    with_bird,
    Bird,
    [
        routes::both_families_pass_in_one_session,
        routes::large_communities_arrive,
        routes::routes_are_reflected_by_us,
        routes::routes_are_reflected_to_us,
        routes::refused_routes_come_back_without_a_reset,
        routes::refresh_is_answered,
        restart::routes_outlive_kill_of_peer,
        restart::routes_outlive_kill_of_us,
        session::silent_peer_is_dropped_and_comes_back,
        session::both_sides_dial_at_once,
    ]
);

cells!(
    with_gobgp,
    Gobgp,
    [
        routes::both_families_pass_in_one_session,
        routes::large_communities_arrive,
        routes::routes_are_reflected_by_us,
        routes::routes_are_reflected_to_us,
        routes::refused_routes_come_back_without_a_reset,
        routes::refresh_is_answered,
        restart::routes_outlive_kill_of_peer,
        restart::routes_outlive_kill_of_us,
        session::silent_peer_is_dropped_and_comes_back,
        session::both_sides_dial_at_once,
    ]
);

// It offers graceful restart without families: it keeps the routes of others and asks nobody to
// keep its own. It does not answer a ROUTE-REFRESH, whoever sends it.
cells!(
    with_openbgpd,
    Openbgpd,
    [
        routes::both_families_pass_in_one_session,
        routes::large_communities_arrive,
        routes::routes_are_reflected_by_us,
        routes::routes_are_reflected_to_us,
        routes::refused_routes_come_back_without_a_reset,
        routes::refresh_is_answered,
        restart::routes_outlive_kill_of_us,
        session::silent_peer_is_dropped_and_comes_back,
        session::both_sides_dial_at_once,
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
fn start_session(router: &'static dyn Router, setting: Setting) -> Result<(Site, Running)> {
    let site = Site::start(router, setting)?;
    let mut config = config(1);
    peer(&mut config, 2);
    let ours = Running::start(&site.ours, config)?;
    ours.established(2)?;
    Ok((site, ours))
}
