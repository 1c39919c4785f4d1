//! Next hops are reached as the kernel says, and no other way (RFC 4271 §9.1.2.1).

use agent::lab::machine;
use anyhow::{Result, ensure};
use bgp::speaker::status::RouteStatus;
use harness::crossing::Crossing;
use harness::monitor::RouteMonitor;
use harness::{needs_root, report};

/// Said by both neighbours.
const BOTH: &str = "198.51.100.0/24";
/// Said by the first one only.
const FIRST: &str = "203.0.113.0/24";
const UNRESOLVABLE: Option<&str> = Some("no route leads to the next hop");

/// Both say next hops behind them, to which the node has a route; the first has the lower router id.
fn crossing() -> Result<Crossing> {
    let mut crossing = Crossing::wired(2)?;
    lead_to_next_hops(&crossing, 1)?;
    lead_to_next_hops(&crossing, 2)?;
    crossing.start_agent("")?;
    crossing.announce(1, &[(BOTH, "10.99.1.1"), (FIRST, "10.99.1.1")])?;
    crossing.announce(2, &[(BOTH, "10.99.2.1")])?;
    crossing.expect("the first one's route is used", BOTH, |routes, kernel| {
        routes.len() == 2 && best(routes) == Some("10.99.1.1") && kernel.contains("dev eth1")
    })?;
    crossing.expect("the other route", FIRST, |_, kernel| {
        kernel.contains("dev eth1")
    })?;
    Ok(crossing)
}

fn lead_to_next_hops(crossing: &Crossing, link: u8) -> Result<()> {
    let to = format!("10.99.{link}.0/24");
    let via = format!("10.0.{link}.2");
    machine::ip(&crossing.node, &["route", "add", &to, "via", &via])?;
    Ok(())
}

fn best(routes: &[RouteStatus]) -> Option<&str> {
    let best = routes.iter().find(|route| route.best)?;
    match best.next_hop.to_string().as_str() {
        "10.99.1.1" => Some("10.99.1.1"),
        "10.99.2.1" => Some("10.99.2.1"),
        _ => None,
    }
}

fn reason<'a>(routes: &'a [RouteStatus], next_hop: &str) -> Option<&'a str> {
    let of = |route: &&RouteStatus| route.next_hop.to_string() == next_hop;
    routes.iter().find(of)?.rejected_reason.as_deref()
}

#[test]
fn a_route_whose_next_hop_is_out_of_reach_gives_way_until_it_is_back() -> Result<()> {
    needs_root!();
    let crossing = crossing()?;
    let neighbour = &crossing.neighbours[&1].namespace;
    type Step<'a> = (
        &'a str,
        &'a dyn Fn() -> Result<()>,
        &'a dyn Fn() -> Result<()>,
    );
    let cases: [Step<'_>; 3] = [
        (
            "the link is down",
            &|| {
                machine::ip(&crossing.node, &["link", "set", "eth1", "down"])?;
                Ok(())
            },
            &|| {
                machine::ip(&crossing.node, &["link", "set", "eth1", "up"])?;
                lead_to_next_hops(&crossing, 1)
            },
        ),
        (
            "the cable has no carrier, and the kernel's routes stay",
            &|| {
                machine::ip(neighbour, &["link", "set", "eth0", "down"])?;
                Ok(())
            },
            &|| {
                machine::ip(neighbour, &["link", "set", "eth0", "up"])?;
                Ok(())
            },
        ),
        (
            "the route to the next hop is gone",
            &|| {
                machine::ip(&crossing.node, &["route", "del", "10.99.1.0/24"])?;
                Ok(())
            },
            &|| lead_to_next_hops(&crossing, 1),
        ),
    ];
    for (name, take_away, give_back) in cases {
        take_away()?;
        crossing.expect(name, BOTH, |routes, kernel| {
            best(routes) == Some("10.99.2.1")
                && reason(routes, "10.99.1.1") == UNRESOLVABLE
                && kernel.contains("dev eth2")
        })?;
        crossing.expect(name, FIRST, |routes, kernel| {
            reason(routes, "10.99.1.1") == UNRESOLVABLE
                && routes.iter().all(|route| !route.best)
                && kernel.is_empty()
        })?;
        give_back()?;
        let back = format!("{name}, and back");
        crossing.expect(&back, BOTH, |routes, kernel| {
            best(routes) == Some("10.99.1.1") && kernel.contains("dev eth1")
        })?;
        crossing.expect(&back, FIRST, |_, kernel| kernel.contains("dev eth1"))?;
    }
    Ok(())
}

#[test]
fn a_node_that_comes_on_link_is_reached_without_the_tunnel_at_once() -> Result<()> {
    needs_root!();
    const OF_NODE: &str = "172.17.9.0/24";
    let mut crossing = Crossing::wired(2)?;
    lead_to_next_hops(&crossing, 1)?;
    lead_to_next_hops(&crossing, 2)?;
    crossing.start_agent(
        "---\napiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {name: default}\n\
         spec: {cidr: 172.17.0.0/16, vxlanMode: CrossSubnet}\n\
         ---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: n2}\n\
         spec: {bgp: {ipv4Address: 10.99.2.1/24}, podCIDRs: [172.17.9.0/24]}\n",
    )?;
    crossing.announce(1, &[(BOTH, "10.99.1.1")])?;
    crossing.announce(2, &[(BOTH, "10.99.2.1"), (OF_NODE, "10.99.2.1")])?;
    let on_link = ["10.99.2.0/24", "dev", "eth2", "metric", "7"];
    for name in ["at first", "again"] {
        let tunnelled = format!("{name} through the tunnel");
        crossing.expect(&tunnelled, OF_NODE, |_, kernel| {
            kernel.contains("via 172.17.9.1 dev caracal-vxlan")
        })?;
        crossing.expect(&format!("{name} as far as the other"), BOTH, |routes, _| {
            best(routes) == Some("10.99.1.1")
        })?;
        machine::ip(&crossing.node, &["route", "del", "10.99.2.0/24"])?;
        machine::ip(&crossing.node, &[&["route", "add"], &on_link[..]].concat())?;
        crossing.expect(&format!("{name} on-link"), OF_NODE, |_, kernel| {
            kernel.contains("via 10.99.2.1 dev eth2")
        })?;
        crossing.expect(&format!("{name} nearer"), BOTH, |routes, kernel| {
            best(routes) == Some("10.99.2.1") && kernel.contains("dev eth2")
        })?;
        machine::ip(&crossing.node, &["route", "del", "10.99.2.0/24"])?;
        lead_to_next_hops(&crossing, 2)?;
    }
    Ok(())
}

#[test]
fn a_renamed_link_costs_no_route() -> Result<()> {
    needs_root!();
    let crossing = crossing()?;
    let monitor = RouteMonitor::in_namespace(&crossing.node)?;
    for (from, to) in [("eth1", "wan1"), ("wan1", "eth1")] {
        if machine::ip(&crossing.node, &["link", "set", from, "name", to]).is_err() {
            report::skip("this kernel does not rename links that are up");
            return Ok(());
        }
        let by = format!("dev {to}");
        crossing.expect(&by, FIRST, |routes, kernel| {
            let is_shown = |route: &RouteStatus| {
                let kernel = route.kernel.as_ref();
                kernel.is_some_and(|kernel| {
                    kernel.state == "installed" && kernel.dev.as_deref() == Some(to)
                })
            };
            routes.iter().any(is_shown) && kernel.contains(&by)
        })?;
    }
    let changes = monitor.stop()?;
    ensure!(changes.is_empty(), "{}", changes.join("\n"));
    Ok(())
}

#[test]
fn a_neighbour_on_link_is_nearer_than_one_behind_a_router() -> Result<()> {
    needs_root!();
    let mut crossing = Crossing::wired(2)?;
    lead_to_next_hops(&crossing, 1)?;
    crossing.start_agent("")?;
    crossing.announce(1, &[(BOTH, "10.99.1.1")])?;
    crossing.announce(2, &[(BOTH, "10.0.2.2")])?;
    crossing.expect("the nearer one is used", BOTH, |routes, kernel| {
        routes.iter().any(|route| {
            route.best
                && route.next_hop.to_string() == "10.0.2.2"
                && route
                    .deciding_step
                    .as_ref()
                    .is_some_and(|step| step.ends_with("lowest cost to next hop"))
        }) && kernel.contains("via 10.0.2.2 dev eth2")
    })
}
