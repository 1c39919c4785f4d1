//! What routes carry, and how they go on.

use anyhow::{Result, ensure};
use bgp::policy::{Action, Filter, PrefixMatch, Rule};
use harness::routers::{Router, Setting};
use harness::site::Site;
use harness::speaker::{Running, config, peer};

use super::start_session;

pub fn both_families_pass_in_one_session(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = start_session(router, Setting::default())?;
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

pub fn large_communities_arrive(router: &'static dyn Router) -> Result<()> {
    let (_site, ours) = start_session(router, Setting::default())?;
    ours.expect_route("10.2.0.0/16", "with its large community", |route| {
        route.large_communities == ["64512:1:2"]
    })
}

pub fn routes_are_reflected_by_us(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, Setting::default())?;
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

pub fn routes_are_reflected_to_us(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = start_session(
        router,
        Setting {
            reflects: true,
            ..Setting::default()
        },
    )?;
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

/// A change of policy ends no session: what the peer sent is judged again, and the peer is asked
/// besides, whether or not it answers.
pub fn refused_routes_come_back_without_a_reset(router: &'static dyn Router) -> Result<()> {
    let (_site, ours) = start_session(router, Setting::default())?;
    let is_used = |route: &bgp::speaker::status::RouteStatus| route.rejected_reason.is_none();
    ours.expect_route("10.2.0.0/16", "used", is_used)?;
    let mut refusing = config(1);
    peer(&mut refusing, 2).filters = vec![Filter {
        name: "none".to_owned(),
        import_v4: vec![Rule::new(PrefixMatch::Any, Action::Reject)],
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

pub fn refresh_is_answered(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = start_session(router, Setting::default())?;
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
