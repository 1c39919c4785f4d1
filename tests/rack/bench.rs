//! The benchmarks run, and what they print is of runs in which everything arrived. Their figures mean
//! nothing here, where other tests run beside them.

use std::process::Command;
use std::time::Duration;

use agent::lab::process;
use anyhow::{Result, ensure};
use harness::report::{missing_privilege, skip};

/// BIRD takes seconds to come back: it listens with a backlog of eight.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn reflectors_are_measured_side_by_side() -> Result<()> {
    let arguments = ["reflector", "--scenario", "c,g"];
    measured(&arguments, &[("relay", 2), ("caracal", 2), ("bird", 2)])
}

#[test]
fn nodes_are_measured_side_by_side() -> Result<()> {
    measured(
        &["node", "--small"],
        &[("raw", 5), ("caracal", 6), ("bird", 4)],
    )
}

#[test]
fn ways_of_packets_are_measured_side_by_side() -> Result<()> {
    let ways = ["veth", "vxlan", "ipip", "udp", "one-a-call"];
    measured(&["packets", "--small"], &ways.map(|way| (way, 1)))
}

/// Runs it once with these contenders, each of which must have done so many scenarios.
fn measured(arguments: &[&str], contenders: &[(&str, usize)]) -> Result<()> {
    if let Some(reason) = missing_privilege() {
        skip(reason);
        return Ok(());
    }
    let names: Vec<&str> = contenders.iter().map(|(name, _)| *name).collect();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_caracal-bench"));
    bench.args(arguments).args(["--runs", "1", "--daemon"]);
    bench.arg(names.join(","));
    let said = process::output(None, &mut bench, "", PATIENCE)?;
    for (name, scenarios) in contenders {
        let counted = said
            .lines()
            .filter(|line| line.split_whitespace().take(2).eq([*name, "1/1"]));
        ensure!(
            counted.count() == *scenarios,
            "{name} did not do {scenarios}:\n{said}"
        );
    }
    ensure!(
        said.contains(" best") && said.contains(" limit"),
        "no ratio:\n{said}"
    );
    Ok(())
}
