//! What routes carry, and how they go on.

use anyhow::{Result, ensure};
use bgp::speaker::config::Aggregate;
use bgp::types::Asn;
use harness::product::eventually;
use harness::routers::{Router, Setting};
use harness::site::{Site, TIMEOUT};
use harness::speaker::{Running, address, address6, config, peer};

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

/// RFC 8326 §4.1: who is about to go is the last choice.
pub fn routes_about_to_go_are_the_last_choice(router: &'static dyn Router) -> Result<()> {
    let setting = Setting {
        drains: true,
        ..Setting::default()
    };
    let (_site, ours) = start_session(router, setting)?;
    for prefix in ["10.2.0.0/16", "2001:db8:2::/48"] {
        ours.expect_route(prefix, "as the last choice", |route| {
            route.best && route.communities == ["graceful-shutdown"] && route.local_pref == Some(0)
        })?;
    }
    Ok(())
}

/// An external router hears of a client's routes as one, by the next hop that is configured.
pub fn aggregates_come_and_go_with_their_routes(router: &'static dyn Router) -> Result<()> {
    let setting = Setting {
        is_external: true,
        ..Setting::default()
    };
    let external = Some(Asn(setting.asn()));
    let site = Site::start(router, setting)?;
    let mut reflector = config(1);
    peer(&mut reflector, 2).remote_asn = external;
    peer(&mut reflector, 3).route_reflector_client = true;
    let aggregates = [
        ("10.3.0.0/16", "10.0.0.0/14"),
        ("2001:db8:3::/48", "2001:db8::/44"),
    ];
    for ((_, aggregate), next_hop) in aggregates.iter().zip([address(3), address6(3)]) {
        let of_client = Aggregate {
            next_hop,
            summary_only: true,
        };
        reflector.aggregates.insert(aggregate.parse()?, of_client);
    }
    let mut client = config(3);
    peer(&mut client, 1);
    let reflector = Running::start(&site.ours, reflector)?;
    reflector.established(2)?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    let running = Running::start(&site.ours, client.clone())?;
    site.expect_route("10.0.0.0/14", &["192.0.2.3", "64512"])?;
    site.expect_route("2001:db8::/44", &["2001:db8::3", "64512"])?;
    for (specific, _) in aggregates {
        let said = site.route(specific)?;
        ensure!(said.is_empty(), "{specific} was said, too: {said}");
    }
    client.originated.clear();
    running.configure(client);
    for (_, aggregate) in aggregates {
        eventually(&format!("the end of {aggregate}"), TIMEOUT, || {
            let said = site.route(aggregate)?;
            Ok((!said.is_empty()).then(|| format!("{said}\n{}", site.log())))
        })?;
    }
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])
}
