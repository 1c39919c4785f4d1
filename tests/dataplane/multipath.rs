//! Packets take every equal path, and IPv4 goes by IPv6 neighbours (RFC 8950).

use std::process::Command;

use agent::lab::{machine, process};
use anyhow::{Result, ensure};
use bgp::speaker::status::RouteStatus;
use harness::crossing::{Crossing, peer};
use harness::needs_root;
use harness::product::{TIMEOUT, kill};

const PREFIX: &str = "198.51.100.0/24";
const HOST: &str = "198.51.100.1";
const PREFIX6: &str = "2001:db8:51::/48";

const TWO_PATHS: &str = "---\napiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\n\
     metadata: {name: node.n1}\nspec: {multipath: {ibgp: 2}}\n";

/// What a neighbour says: each prefix with its own address.
fn say(crossing: &mut Crossing, link: u8) -> Result<()> {
    let (next_hop, next_hop6) = (format!("10.0.{link}.2"), format!("fd00:{link}::2"));
    crossing.announce(link, &[(PREFIX, &next_hop), (PREFIX6, &next_hop6)])
}

/// `VIA dev DEV` of the paths that are shown as used together and installed, in order.
fn used_together(routes: &[RouteStatus]) -> Vec<String> {
    let mut used: Vec<String> = routes
        .iter()
        .filter(|route| route.multipath && route.rejected_reason.is_none())
        .filter_map(|route| route.kernel.as_ref())
        .filter(|kernel| kernel.state == "installed")
        .filter_map(|kernel| Some(format!("{} dev {}", kernel.via?, kernel.dev.as_ref()?)))
        .collect();
    used.sort();
    used
}

fn expect_both(crossing: &Crossing, what: &str) -> Result<()> {
    for (prefix, expected) in [
        (PREFIX, ["10.0.1.2 dev eth1", "10.0.2.2 dev eth2"]),
        (PREFIX6, ["fd00:1::2 dev eth1", "fd00:2::2 dev eth2"]),
    ] {
        crossing.expect(what, prefix, |routes, kernel| {
            let is_there = |hop: &&str| kernel.contains(&format!("nexthop via {hop}"));
            used_together(routes) == expected && expected.iter().all(is_there)
        })?;
    }
    Ok(())
}

fn expect_first_only(crossing: &Crossing, what: &str) -> Result<()> {
    for (prefix, expected) in [
        (PREFIX, "via 10.0.1.2 dev eth1"),
        (PREFIX6, "via fd00:1::2 dev eth1"),
    ] {
        crossing.expect(what, prefix, |routes, kernel| {
            let is_alone = routes.iter().all(|route| !route.multipath);
            is_alone && kernel.contains(expected) && !kernel.contains("nexthop")
        })?;
    }
    Ok(())
}

fn table(crossing: &Crossing) -> Result<String> {
    let show = |family| machine::ip(&crossing.node, &[family, "route", "show", "proto", "203"]);
    Ok(show("-4")? + &show("-6")?)
}

#[test]
fn equal_paths_are_used_together_for_as_long_as_each_leads_somewhere() -> Result<()> {
    needs_root!();
    let mut crossing = Crossing::wired(2)?;
    crossing.start_agent(TWO_PATHS)?;
    say(&mut crossing, 1)?;
    say(&mut crossing, 2)?;
    expect_both(&crossing, "both paths")?;

    crossing.announce(2, &[])?;
    expect_first_only(&crossing, "the second says nothing")?;
    say(&mut crossing, 2)?;
    expect_both(&crossing, "both again")?;

    let second = crossing.neighbours[&2].namespace.clone();
    machine::ip(&second, &["link", "set", "eth0", "down"])?;
    expect_first_only(&crossing, "the second cable has no carrier")?;
    machine::ip(&second, &["link", "set", "eth0", "up"])?;
    // IPv6 forgot its address with the link.
    machine::ip(
        &second,
        &["addr", "replace", "fd00:2::2/64", "dev", "eth0", "nodad"],
    )?;
    expect_both(&crossing, "both once more")
}

#[test]
fn several_paths_outlive_kill_of_the_agent_unchanged() -> Result<()> {
    needs_root!();
    let mut crossing = Crossing::wired(2)?;
    let agent = crossing.start_agent(TWO_PATHS)?;
    say(&mut crossing, 1)?;
    say(&mut crossing, 2)?;
    expect_both(&crossing, "both paths")?;
    let before = table(&crossing)?;
    kill(&agent)?;
    ensure!(table(&crossing)? == before, "kill changed the kernel");
    crossing.start_agent_again()?;
    expect_both(&crossing, "both paths of the next agent")?;
    let status: serde_json::Value =
        serde_json::from_str(&crossing.caracal(&["status", "-o", "json"])?.stdout)?;
    ensure!(status["repairs"] == serde_json::json!({}), "{status}");
    let after = table(&crossing)?;
    ensure!(after == before, "{after}\nbefore:\n{before}");
    Ok(())
}

#[test]
fn one_path_is_used_unless_more_are_asked_for() -> Result<()> {
    needs_root!();
    let mut crossing = Crossing::wired(2)?;
    crossing.start_agent("")?;
    say(&mut crossing, 1)?;
    say(&mut crossing, 2)?;
    crossing.expect("both said", PREFIX, |routes, _| routes.len() == 2)?;
    expect_first_only(&crossing, "one path")?;
    let peers = peer(1, "") + &peer(2, "") + TWO_PATHS;
    crossing.write_store(&peers)?;
    expect_both(&crossing, "as the store asks since")
}

#[test]
fn ipv4_packets_go_by_an_ipv6_neighbour() -> Result<()> {
    needs_root!();
    let mut crossing = Crossing::wired(1)?;
    let over_ipv6 = peer(1, "").replace("10.0.1.2", "'fd00:1::2'");
    crossing.write_store(&over_ipv6)?;
    crossing.start_agent_again()?;
    let neighbour = crossing.neighbours[&1].namespace.clone();
    machine::ip(
        &neighbour,
        &["addr", "add", &format!("{HOST}/32"), "dev", "lo"],
    )?;
    crossing.announce(1, &[(PREFIX, "fd00:1::2")])?;
    crossing.expect("the route by IPv6", PREFIX, |routes, kernel| {
        let is_shown = |route: &RouteStatus| {
            let kernel = route.kernel.as_ref();
            kernel.is_some_and(|kernel| {
                kernel.state == "installed" && kernel.via == "fd00:1::2".parse().ok()
            })
        };
        routes.iter().any(is_shown) && kernel.contains("via inet6 fd00:1::2 dev eth1")
    })?;
    let mut ping = Command::new("ping");
    ping.args(["-n", "-c", "3", "-i", "0.2", "-W", "5", HOST]);
    process::output(Some(&crossing.node), &mut ping, "", TIMEOUT)?;
    Ok(())
}
