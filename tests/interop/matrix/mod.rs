//! Feature by peer: every feature with every router by others that Debian has.
//!
//! What a peer lacks is written where its cells are listed, and in docs/conformance.md.

mod collision;
mod extensions;
mod limits;
mod refresh;
mod restart;
mod routes;
mod security;
mod session;
mod traffic;

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
        routes::aggregates_come_and_go_with_their_routes,
        refresh::refused_routes_come_back_without_a_reset,
        refresh::refresh_is_answered,
        restart::routes_outlive_kill_of_peer,
        restart::routes_outlive_kill_of_us,
        session::silent_peer_is_dropped_and_comes_back,
        collision::collisions_leave_one_session,
        routes::routes_about_to_go_are_the_last_choice,
        refresh::its_answer_is_demarcated,
        refresh::our_answer_is_demarcated,
        security::md5_key_of_both_connects,
        security::other_md5_key_connects_nobody,
        security::ttl_security_of_both_connects,
        security::ttl_security_refuses_a_lower_ttl,
        security::ttl_security_of_the_router_refuses_ours,
        limits::too_many_prefixes_end_its_session_alone,
        limits::too_many_prefixes_for_it_end_the_session,
        limits::extended_messages_pass_both_ways,
        session::both_families_pass_over_ipv6,
        session::external_peer_is_two_hops_away,
        traffic::packets_pass_while_the_router_is_killed,
        traffic::packets_pass_while_the_agent_is_killed,
        extensions::our_routes_say_that_they_are_about_to_go,
        limits::a_higher_maximum_brings_it_back,
        extensions::several_paths_go_to_it,
        extensions::several_paths_come_from_it,
        extensions::ipv4_goes_by_ipv6_next_hops,
        extensions::roles_mark_what_is_for_customers_only,
        extensions::roles_that_do_not_go_together_end_the_session,
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
        routes::aggregates_come_and_go_with_their_routes,
        refresh::refused_routes_come_back_without_a_reset,
        refresh::refresh_is_answered,
        restart::routes_outlive_kill_of_peer,
        restart::routes_outlive_kill_of_us,
        session::silent_peer_is_dropped_and_comes_back,
        collision::collisions_leave_one_session,
        routes::routes_about_to_go_are_the_last_choice,
        refresh::its_answer_is_demarcated,
        refresh::our_answer_is_demarcated,
        security::md5_key_of_both_connects,
        security::other_md5_key_connects_nobody,
        security::ttl_security_of_both_connects,
        security::ttl_security_refuses_a_lower_ttl,
        security::ttl_security_of_the_router_refuses_ours,
        limits::too_many_prefixes_end_its_session_alone,
        limits::too_many_prefixes_for_it_end_the_session,
        limits::extended_messages_pass_both_ways,
        session::both_families_pass_over_ipv6,
        session::external_peer_is_two_hops_away,
        traffic::packets_pass_while_the_router_is_killed,
        traffic::packets_pass_while_the_agent_is_killed,
        extensions::our_routes_say_that_they_are_about_to_go,
        limits::a_higher_maximum_brings_it_back,
        extensions::several_paths_go_to_it,
        extensions::several_paths_come_from_it,
        extensions::ipv4_goes_by_ipv6_next_hops,
        extensions::roles_mark_what_is_for_customers_only,
        extensions::roles_that_do_not_go_together_end_the_session,
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
        routes::aggregates_come_and_go_with_their_routes,
        refresh::refused_routes_come_back_without_a_reset,
        refresh::refresh_is_answered,
        restart::routes_outlive_kill_of_peer,
        restart::routes_outlive_kill_of_us,
        session::silent_peer_is_dropped_and_comes_back,
        collision::both_sides_dial_at_once,
        routes::routes_about_to_go_are_the_last_choice,
        security::md5_key_of_both_connects,
        security::other_md5_key_connects_nobody,
        security::ttl_security_of_both_connects,
        security::ttl_security_refuses_a_lower_ttl,
        security::ttl_security_of_the_router_refuses_ours,
        limits::too_many_prefixes_end_its_session_alone,
        limits::too_many_prefixes_for_it_end_the_session,
        limits::route_too_long_for_it_is_withdrawn,
        session::both_families_pass_over_ipv6,
        session::external_peer_is_two_hops_away,
        traffic::packets_pass_while_the_router_is_killed,
        extensions::our_routes_say_that_they_are_about_to_go,
        limits::a_higher_maximum_brings_it_back,
        extensions::several_paths_go_to_it,
        extensions::several_paths_come_from_it,
        extensions::ipv4_goes_by_ipv6_next_hops,
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
        routes::aggregates_come_and_go_with_their_routes,
        refresh::refused_routes_come_back_without_a_reset,
        refresh::refresh_is_answered,
        refresh::our_answer_is_demarcated,
        restart::routes_outlive_kill_of_us,
        session::silent_peer_is_dropped_and_comes_back,
        collision::both_sides_dial_at_once,
        routes::routes_about_to_go_are_the_last_choice,
        security::md5_key_of_both_connects,
        security::other_md5_key_connects_nobody,
        security::ttl_security_of_both_connects,
        security::ttl_security_refuses_a_lower_ttl,
        security::ttl_security_of_the_router_refuses_ours,
        limits::too_many_prefixes_end_its_session_alone,
        limits::too_many_prefixes_for_it_end_the_session,
        limits::route_too_long_for_it_is_withdrawn,
        session::both_families_pass_over_ipv6,
        session::external_peer_is_two_hops_away,
        extensions::our_routes_say_that_they_are_about_to_go,
        limits::a_higher_maximum_brings_it_back,
        extensions::several_paths_go_to_it,
        extensions::several_paths_come_from_it,
        extensions::roles_mark_what_is_for_customers_only,
        extensions::roles_that_do_not_go_together_end_the_session,
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

/// Waits until each side has the other's IPv4 route.
fn expect_exchange(site: &Site, ours: &Running) -> Result<()> {
    ours.expect_route("10.2.0.0/16", "learned", |route| route.best)?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])
}
