//! The userspace tunnel's own process.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use agent::lab::ping::{self, Probe, Target};
use agent::lab::topology::{self, Rack};
use agent::lab::{Lab, Process, Scenario, machine};
use anyhow::{Context, Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, kill, lab_with_carriers, status};
use harness::traffic::Stream;

use crate::modes::mtu;

const NODES: [&str; 4] = ["a1", "a2", "b1", "b2"];

fn carrier(lab: &Lab, node: &str) -> Result<Process> {
    let text = fs::read_to_string(lab.run_dir(node).join("carrier.pid"))?;
    let pid = text
        .trim()
        .parse()
        .with_context(|| format!("carrier.pid: {text}"))?;
    Ok(Process::of("carrier", pid)?)
}

/// b1's first workload, which a1 reaches through the tunnel.
fn remote(lab: &Lab, identifier: u16) -> Result<Target> {
    let is_remote = |workload: &&agent::lab::record::Workload| workload.name == "b1-1";
    let remote = lab.workloads().iter().find(is_remote).context("no b1-1")?;
    Ok(Target {
        address: remote.address,
        identifier,
    })
}

#[test]
fn killed_carrier_is_back_within_a_second() -> Result<()> {
    needs_root!();
    let lab = lab_with_carriers(Scenario::Racks, &NODES)?;
    let interval = Duration::from_millis(5);
    let probe = Probe::start(lab.namespace("a1-1")?, remote(&lab, 1)?, interval)?;
    // Some answers before, so that the gap is seen.
    ping::burst(lab.namespace("a1-1")?, &[remote(&lab, 2)?], 5)?;
    let first = carrier(&lab, "a1")?;
    let killed = Instant::now();
    kill(&first)?;
    eventually("another carrier", TIMEOUT, || {
        let is_back = carrier(&lab, "a1").is_ok_and(|carrier| carrier != first);
        Ok((!is_back).then(|| "carrier.pid names none that runs".to_owned()))
    })?;
    let back = killed.elapsed();
    eventually("packets through the new carrier", TIMEOUT, || {
        let outcomes = ping::burst(lab.namespace("a1-1")?, &[remote(&lab, 2)?], 3)?;
        Ok((outcomes[0].received < 3).then(|| format!("{outcomes:?}")))
    })?;
    let report = probe.stop();
    println!(
        "carrier back after {back:?}; {} of {} echoes lost, longest gap {:?}",
        report.lost.len(),
        report.sent,
        report.longest_gap
    );
    ensure!(back < Duration::from_secs(1), "it took {back:?}");
    ensure!(report.longest_gap < Duration::from_secs(1), "{report:?}");
    ensure!(report.duplicates == 0, "{report:?}");
    Ok(())
}

/// What a node can send that holds no packet: too short, of another version, with lengths that
/// contradict each other.
fn garbage() -> Vec<Vec<u8>> {
    let header = |first: u8, total: u16| {
        let mut header = vec![0; 60];
        header[0] = first;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header
    };
    vec![
        Vec::new(),
        vec![0x45],
        header(0x45, 60)[..19].to_vec(),
        header(0x65, 60),
        header(0x44, 60),
        header(0x45, 61),
        header(0x45, 19),
        header(0x4f, 59),
        vec![0xff; 1400],
    ]
}

#[test]
fn garbage_from_a_node_is_counted_and_hinders_nothing() -> Result<()> {
    needs_root!();
    let lab = lab_with_carriers(Scenario::Racks, &NODES)?;
    let stream = Stream::start(&lab, "a1-2", "b1-2")?;
    stream.wait_turns(5)?;
    let first = carrier(&lab, "a1")?;
    let node = topology::node("a1").context("a1")?.address;
    let protocol = socket2::Protocol::from(4);
    let socket = lab.namespace("b1")?.enter(|| {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(protocol))
    })?;
    let rounds = 10;
    for _ in 0..rounds {
        for packet in garbage() {
            socket.send_to(&packet, &SocketAddr::from((node, 0)).into())?;
        }
    }
    let sent = rounds * garbage().len() as u64;
    eventually("all of it in status", TIMEOUT, || {
        let tunnel = status(&lab, "a1")?.tunnel.context("no tunnel in status")?;
        let carrier = tunnel.carrier.context("no carrier in status")?;
        let is_counted = carrier.dropped_malformed >= sent && carrier.received > 0;
        Ok((!is_counted).then(|| format!("{carrier:?}")))
    })?;
    let shown = lab.caracal("a1", &["status"])?.stdout;
    ensure!(shown.contains("dropped: malformed"), "{shown}");
    stream.wait_turns(stream.turns() + 5)?;
    stream.stop()?;
    ensure!(carrier(&lab, "a1")? == first, "another carrier");
    Ok(())
}

#[test]
fn no_packet_is_lost_while_the_mtu_changes() -> Result<()> {
    needs_root!();
    let lab = lab_with_carriers(Scenario::Racks, &NODES)?;
    let interval = Duration::from_millis(5);
    let probe = Probe::start(lab.namespace("a1-1")?, remote(&lab, 1)?, interval)?;
    for (nic, tunnel) in [("1300", "1280"), ("9000", "8980"), ("1500", "1480")] {
        machine::ip(lab.namespace("a1")?, &["link", "set", "eth0", "mtu", nic])?;
        eventually(&format!("the TAP's MTU {tunnel}"), TIMEOUT, || {
            let found = mtu(&lab, "a1", "caracal-tun")?;
            Ok((found != tunnel).then_some(found))
        })?;
    }
    let report = probe.stop();
    ensure!(
        report.sent > 0 && report.lost.is_empty() && report.duplicates == 0,
        "{report:?}"
    );
    Ok(())
}

#[test]
fn connection_outlives_what_happens_to_the_carriers_devices() -> Result<()> {
    needs_root!();
    let lab = lab_with_carriers(Scenario::Racks, &NODES)?;
    let stream = Stream::start(&lab, "a1-2", "b1-2")?;
    stream.wait_turns(5)?;
    let host = lab.namespace("a1")?;
    let gateway = Rack::A.router().to_string();
    for (what, lines) in [
        (
            "the NIC down and up",
            format!("link set eth0 down\nlink set eth0 up\nroute replace default via {gateway}\n"),
        ),
        ("the TAP down", "link set caracal-tun down\n".to_owned()),
        ("the TAP deleted", "link delete caracal-tun\n".to_owned()),
    ] {
        machine::ip_batch(host, &lines)?;
        let turns = stream.turns();
        println!("{what}, after {turns} turns");
        stream.wait_turns(turns + 20).with_context(|| what)?;
    }
    stream.stop()?;
    Ok(())
}

#[test]
fn forced_driver_is_shown_in_status() -> Result<()> {
    needs_root!();
    let lab = lab_with_carriers(Scenario::Racks, &NODES)?;
    let tunnel = status(&lab, "a1")?.tunnel.context("no tunnel in status")?;
    ensure!(tunnel.driver == "userspace", "{tunnel:?}");
    ensure!(tunnel.device == "caracal-tun", "{tunnel:?}");
    ensure!(tunnel.mtu == 1480, "{tunnel:?}");
    Ok(())
}
