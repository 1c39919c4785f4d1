//! The userspace tunnel's own process.

use std::fs;
use std::time::{Duration, Instant};

use agent::lab::ping::{self, Probe, Target};
use agent::lab::{Driver, Lab, Options, Process, Scenario};
use anyhow::{Context, Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, kill, programs, status};

fn lab_with_carriers() -> Result<Lab> {
    let nodes = ["a1", "a2", "b1", "b2"];
    let options = Options {
        scenario: Scenario::Racks,
        drivers: nodes
            .map(|node| (node.to_owned(), Driver::Userspace))
            .into(),
    };
    Ok(Lab::up(options, &programs()?)?)
}

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
    let lab = lab_with_carriers()?;
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

#[test]
fn forced_driver_is_shown_in_status() -> Result<()> {
    needs_root!();
    let lab = lab_with_carriers()?;
    let tunnel = status(&lab, "a1")?.tunnel.context("no tunnel in status")?;
    ensure!(tunnel.driver == "userspace", "{tunnel:?}");
    ensure!(tunnel.device == "caracal-tun", "{tunnel:?}");
    ensure!(tunnel.mtu == 1480, "{tunnel:?}");
    Ok(())
}
