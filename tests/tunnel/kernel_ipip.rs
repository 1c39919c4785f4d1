//! IPIP by the kernel, where it has it: with the carrier, with tunnels made by hand, and through
//! restarts of the agent.

use std::net::Ipv4Addr;
use std::process::Command;

use agent::lab::capture::Capture;
use agent::lab::machine::COMMAND_TIMEOUT;
use agent::lab::packet::Carriage;
use agent::lab::ping::{self, Target};
use agent::lab::topology::{NIC, ROUTER, ROUTER_NIC_B, node};
use agent::lab::{Scenario, machine, process};
use anyhow::{Result, ensure};
use harness::product::lab_with_carriers;
use harness::traffic::{Stream, address};
use harness::{needs_root, report};

use crate::busy::{Way, restarts_are_not_noticed};
use crate::modes;

/// Whether the test can go on; reported as skipped if not.
fn has_ipip() -> Result<bool> {
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "ip",
        "link",
        "add",
        "probe",
        "type",
        "ipip",
        "local",
        "127.0.0.1",
    ]);
    let made = process::run(None, &mut command, "", COMMAND_TIMEOUT)?;
    if !made.status.success() {
        report::skip("this kernel has no ipip");
    }
    Ok(made.status.success())
}

#[test]
fn kernel_and_carrier_carry_each_others_packets_as_protocol_4() -> Result<()> {
    needs_root!();
    if !has_ipip()? {
        return Ok(());
    }
    let lab = lab_with_carriers(Scenario::Mesh, &["b1"])?;
    // a1 and b2 chose the kernel's driver by themselves, b1 was told otherwise.
    for (at, prefix, device) in [
        ("a1", "172.17.10.0/24", "caracal-ipip"),
        ("b1", "172.17.8.0/24", "caracal-tun"),
        ("b2", "172.17.8.0/24", "caracal-ipip"),
    ] {
        let route = machine::ip(lab.namespace(at)?, &["route", "show", prefix])?;
        ensure!(route.contains(&format!("dev {device} ")), "{at}: {route}");
        let mut list = Command::new("nft");
        list.args(["list", "chain", "inet", "caracal", "tunnel-guard"]);
        let guard = process::output(Some(lab.namespace(at)?), &mut list, "", COMMAND_TIMEOUT)?;
        ensure!(guard.contains("tunnel-peers"), "{at}: {guard}");
    }
    let router = lab.namespace(ROUTER)?;
    let captures = [
        Capture::start(router, NIC)?,
        Capture::start(router, ROUTER_NIC_B)?,
    ];
    for (identifier, (from, to)) in (1..).zip([
        ("a1-1", "b1-1"),
        ("b1-1", "a1-1"),
        ("a1-1", "b2-1"),
        ("b2-1", "a2-1"),
    ]) {
        let target = Target {
            address: address(&lab, to)?,
            identifier,
        };
        let outcomes = ping::burst(lab.namespace(from)?, &[target], 10)?;
        let is_whole = outcomes[0].received == 10 && outcomes[0].duplicates == 0;
        ensure!(is_whole, "{from} to {to}: {outcomes:?}");
        let stream = Stream::start(&lab, from, to)?;
        stream.wait_turns(10)?;
        stream.stop()?;
    }
    let seen = captures.map(Capture::stop).concat();
    let nodes: Vec<Ipv4Addr> = ["a1", "a2", "b1", "b2"]
        .into_iter()
        .filter_map(|name| Some(node(name)?.address))
        .collect();
    for identifier in 1..=4 {
        for is_request in [true, false] {
            let mut echoes = seen.iter().map(|sighting| sighting.echo);
            let is_seen =
                echoes.any(|echo| echo.identifier == identifier && echo.is_request == is_request);
            ensure!(
                is_seen,
                "{identifier} {is_request}: {} sightings",
                seen.len()
            );
        }
    }
    for sighting in seen {
        let is_tunnelled = matches!(sighting.carriage, Carriage::Tunnelled { source, destination }
            if nodes.contains(&source) && nodes.contains(&destination));
        ensure!(is_tunnelled, "{sighting:?}");
    }
    Ok(())
}

/// Echoes may be lost where nodes are slower than the time that tunnels stand before they are used,
/// as in a guest kernel on a busy machine.
#[test]
fn connection_outlives_changes_to_kernel_ipip_and_from_it() -> Result<()> {
    needs_root!();
    if has_ipip()? {
        modes::change_kinds_under_traffic()?;
    }
    Ok(())
}

#[test]
fn restart_with_2000_routes_and_200_workloads_is_not_noticed_by_a_tunnel_made_by_hand() -> Result<()>
{
    needs_root!();
    if !has_ipip()? {
        return Ok(());
    }
    restarts_are_not_noticed(&Way {
        name: "IPIP by the kernel",
        modes: "ipipMode: Always",
        settings: "",
        device: "caracal-ipip",
        has_carrier: false,
        by_hand: Some(
            "tunnel add hand mode ipip local 10.0.1.2 remote 10.0.1.1 ttl 64\n\
             address add 172.17.64.1/32 dev hand\n\
             link set hand up\n\
             route add 172.17.8.0/24 dev hand src 172.17.64.1\n",
        ),
    })
}
