//! One carrier, or one agent, takes over from another under traffic. Also where the kernel has ipip
//! loaded, and sees all that the carrier gets.

use std::time::Duration;

use agent::carrier::{Encapsulation, supervise};
use agent::lab::ping::{Probe, Target};
use agent::lab::{Driver, Lab, Options, Scenario};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, kill, program, programs, status};

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
    let options = Options {
        scenario: Scenario::Mesh,
        drivers: ["a1", "b1"]
            .map(|node| (node.to_owned(), Driver::Userspace))
            .into(),
    };
    let mut lab = Lab::up(options, &programs()?)?;
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
