//! Tunnels that change under traffic, and MTUs that follow.

use std::time::Duration;

use agent::lab::ping::{Probe, Report, Target};
use agent::lab::{Lab, Scenario, machine};
use anyhow::{Context, Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab, status};

use harness::traffic::{IPIP, Stream, address, set_mode, wait_for_device};

/// Echoes between the racks and within one, while every kind of tunnel takes over from another.
/// Ends with an error if a connection does, or the old devices stay.
pub fn change_kinds_under_traffic() -> Result<[Report; 2]> {
    let lab = lab(Scenario::Mesh)?;
    let interval = Duration::from_millis(5);
    let target = |workload, identifier| -> Result<Target> {
        Ok(Target {
            address: address(&lab, workload)?,
            identifier,
        })
    };
    let far = Probe::start(lab.namespace("a1-1")?, target("b1-1", 1)?, interval)?;
    let near = Probe::start(lab.namespace("a1-1")?, target("a2-1", 2)?, interval)?;
    let stream = Stream::start(&lab, "a1-2", "b1-2")?;
    let far_ways = [("a1", "172.17.10.0/24"), ("b1", "172.17.8.0/24")];
    let near_ways = [("a1", "172.17.9.0/24"), ("a2", "172.17.8.0/24")];
    for (mode, far_device, near_device) in [
        ("vxlanMode: CrossSubnet", "caracal-vxlan", "eth0"),
        ("vxlanMode: Always", "caracal-vxlan", "caracal-vxlan"),
        ("udpMode: Always", "caracal-udp", "caracal-udp"),
        ("udpMode: CrossSubnet", "caracal-udp", "eth0"),
        ("ipipMode: Always", IPIP, IPIP),
        ("vxlanMode: CrossSubnet", "caracal-vxlan", "eth0"),
    ] {
        set_mode(&lab, mode)?;
        wait_for_device(&lab, &far_ways, far_device)?;
        wait_for_device(&lab, &near_ways, near_device)?;
        println!("{mode}: by {far_device} and {near_device}");
        stream.wait_turns(stream.turns() + 5)?;
    }
    // The old devices go when nobody sends through them any more.
    eventually("old devices gone", TIMEOUT, || {
        let links = machine::ip(lab.namespace("a1")?, &["-o", "link"])?;
        let mut old = ["caracal-udp", "caracal-tun", "caracal-ipip"].into_iter();
        Ok(old.find(|name| links.contains(name)).map(|_| links.clone()))
    })?;
    wait_for_device(&lab, &far_ways, "caracal-vxlan")?;
    let (reports, turns) = ([far.stop(), near.stop()], stream.stop()?);
    println!("{turns} turns; far and near: {reports:?}");
    ensure!(reports.iter().all(|report| report.duplicates == 0));
    Ok(reports)
}

#[test]
fn kinds_of_tunnel_change_under_traffic_without_loss() -> Result<()> {
    needs_root!();
    for report in change_kinds_under_traffic()? {
        ensure!(report.lost.is_empty() && report.sent > 0, "{report:?}");
    }
    Ok(())
}

#[test]
fn a_pool_that_needs_no_tunnel_any_more_goes_without_loss() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let near = Target {
        address: address(&lab, "a2-1")?,
        identifier: 3,
    };
    let probe = Probe::start(lab.namespace("a1-1")?, near, Duration::from_millis(5))?;
    let ways = [("a1", "172.17.9.0/24"), ("a2", "172.17.8.0/24")];
    for (mode, device) in [
        ("vxlanMode: Always", "caracal-vxlan"),
        ("vxlanMode: Never", "eth0"),
        ("udpMode: Always", "caracal-udp"),
        ("ipipMode: CrossSubnet", "eth0"),
    ] {
        set_mode(&lab, mode)?;
        wait_for_device(&lab, &ways, device)?;
    }
    let report = probe.stop();
    println!("{report:?}");
    ensure!(
        report.lost.is_empty() && report.duplicates == 0,
        "{report:?}"
    );
    Ok(())
}

/// MTU of a link in a namespace of the lab.
pub fn mtu(lab: &Lab, machine_name: &str, link: &str) -> Result<String> {
    let text = machine::ip(lab.namespace(machine_name)?, &["-o", "link", "show", link])?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "mtu");
    Ok(words.nth(1).unwrap_or_default().to_owned())
}

#[test]
fn tunnels_and_workloads_follow_the_mtu_of_the_nic() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    set_mode(&lab, "vxlanMode: Always")?;
    let host = lab.namespace("a1")?;
    let links = machine::ip(host, &["-o", "link"])?;
    let is_workload = |name: &&str| name.starts_with("cara") && !name.contains('-');
    let mut names = links
        .split_whitespace()
        .filter_map(|word| word.split('@').next());
    let veth = names.find(is_workload).context("a workload")?.to_owned();
    for nic in ["1500", "1400", "9000", "1450"] {
        machine::ip(host, &["link", "set", "eth0", "mtu", nic])?;
        let expected = (nic.parse::<u32>()? - 50).to_string();
        eventually(&format!("all at {expected}"), TIMEOUT, || {
            let seen = [
                mtu(&lab, "a1", "caracal-vxlan")?,
                mtu(&lab, "a1", &veth)?,
                mtu(&lab, "a1-1", "eth0")?,
                mtu(&lab, "a1-2", "eth0")?,
            ];
            Ok(seen
                .iter()
                .any(|mtu| *mtu != expected)
                .then(|| format!("{seen:?}")))
        })?;
    }
    Ok(())
}

#[test]
fn a_foreign_vxlan_device_of_ours_is_named_and_its_routes_are_not_programmed() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let host = lab.namespace("a1")?;
    let foreign = "link add theirs type vxlan id 4096 dstport 4789 local 192.168.100.100";
    machine::ip(host, &foreign.split(' ').collect::<Vec<_>>())?;
    set_mode(&lab, "vxlanMode: Always")?;
    eventually("the reason in status", TIMEOUT, || {
        let tunnels = status(&lab, "a1")?.tunnels;
        let is_said = |tunnel: &&agent::api::schema::TunnelStatus| {
            tunnel.kind == "vxlan" && tunnel.reason.contains("the foreign device theirs")
        };
        Ok(tunnels
            .iter()
            .find(is_said)
            .is_none()
            .then(|| format!("{tunnels:?}")))
    })?;
    eventually("no route", TIMEOUT, || {
        let route = machine::ip(host, &["route", "show", "172.17.10.0/24"])?;
        Ok((!route.is_empty()).then_some(route))
    })?;
    machine::ip(host, &["link", "show", "theirs"])?;
    machine::ip(host, &["link", "del", "theirs"])?;
    let ways = [("a1", "172.17.10.0/24")];
    wait_for_device(&lab, &ways, "caracal-vxlan")
}
