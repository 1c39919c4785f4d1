//! One carrier, or one agent, takes over from another under traffic. Also where the kernel has ipip
//! loaded, and sees all that the carrier gets.

use std::process::Command;
use std::time::Duration;

use agent::carrier::{Encapsulation, supervise};
use agent::lab::ping::{Probe, Target};
use agent::lab::{Lab, Scenario, process, topology};
use anyhow::{Context, Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, kill, lab_with_carriers, program, programs, status};
use harness::traffic::{Stream, address};

fn carrier_pid(lab: &Lab, node: &str) -> Result<u32> {
    let text = std::fs::read_to_string(lab.run_dir(node).join("carrier.pid"))?;
    Ok(text.trim().parse()?)
}

/// As an agent of another version does: the carrier of the one before ends, and its own begins.
fn replace_agent_and_carrier(lab: &mut Lab, node: &str) -> Result<()> {
    let before = carrier_pid(lab, node)?;
    kill(&program(lab, node)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(supervise::stop(&lab.run_dir(node), Encapsulation::Ipip))?;
    lab.start_agent(node)?;
    eventually("another carrier", TIMEOUT, || {
        let is_other = carrier_pid(lab, node).is_ok_and(|pid| pid != before);
        Ok((!is_other).then(|| "carrier.pid names none, or the old one".to_owned()))
    })
}

#[test]
fn carriers_that_replace_each_other_make_no_duplicates_and_break_no_connection() -> Result<()> {
    needs_root!();
    let mut lab = lab_with_carriers(Scenario::Mesh, &["a1", "b1"])?;
    ensure!(
        status(&lab, "a1")?
            .tunnel
            .is_some_and(|tunnel| tunnel.driver == "userspace")
    );
    let target = Target {
        address: address(&lab, "b1-1")?,
        identifier: 1,
    };
    let probe = Probe::start(lab.namespace("a1-1")?, target, Duration::from_millis(5))?;
    let stream = Stream::start(&lab, "a1-2", "b1-2")?;
    stream.wait_turns(5)?;
    for node in ["a1", "b1", "a1"] {
        replace_agent_and_carrier(&mut lab, node)?;
        // It goes on: not only the connection is there, but packets cross.
        stream.wait_turns(stream.turns() + 5)?;
    }
    let (report, turns) = (probe.stop(), stream.stop()?);
    println!(
        "{turns} turns; {} of {} echoes lost, longest gap {:?}",
        report.lost.len(),
        report.sent,
        report.longest_gap
    );
    ensure!(report.duplicates == 0, "{report:?}");
    Ok(())
}

/// As an agent of another version has its own carrier do.
fn take_over(lab: &Lab, node: &str) -> Result<()> {
    let before = carrier_pid(lab, node)?;
    let run_dir = lab.run_dir(node);
    let local = topology::node(node).context("a node")?.address;
    let mut command = Command::new(programs()?.join("caracal-agent"));
    command.args(["carrier", "--take-over", "--local", &local.to_string()]);
    command.arg("--run-dir").arg(&run_dir);
    process::start(
        "carrier",
        lab.namespace(node)?,
        &mut command,
        &run_dir.join("next"),
    )?;
    eventually("the next carrier in status", TIMEOUT, || {
        let now = carrier_pid(lab, node).unwrap_or(before);
        let reason = status(lab, node)?.tunnel.map(|tunnel| tunnel.reason);
        let reason = reason.unwrap_or_default();
        let is_known = now != before && reason.contains(&format!("carrier {now}"));
        Ok((!is_known).then_some(reason))
    })
}

#[test]
fn a_carrier_that_is_taken_over_from_loses_and_doubles_nothing() -> Result<()> {
    needs_root!();
    let lab = lab_with_carriers(Scenario::Mesh, &["a1", "b1"])?;
    let target = Target {
        address: address(&lab, "b1-1")?,
        identifier: 1,
    };
    let probe = Probe::start(lab.namespace("a1-1")?, target, Duration::from_millis(1))?;
    let stream = Stream::start(&lab, "a1-2", "b1-2")?;
    stream.wait_turns(5)?;
    for node in ["a1", "b1", "a1"] {
        take_over(&lab, node)?;
        stream.wait_turns(stream.turns() + 5)?;
    }
    let (report, turns) = (probe.stop(), stream.stop()?);
    println!("{turns} turns; {report:?}");
    ensure!(
        report.sent > 0 && report.lost.is_empty() && report.duplicates == 0,
        "{report:?}"
    );
    Ok(())
}
