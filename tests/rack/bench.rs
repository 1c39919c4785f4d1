//! The benchmark of reflectors runs, and what it prints is of runs in which everything arrived.

use std::process::Command;
use std::time::Duration;

use agent::lab::process;
use anyhow::{Result, ensure};
use harness::report::{missing_privilege, skip};

/// BIRD takes seconds to come back: it listens with a backlog of eight.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn reflectors_are_measured_side_by_side() -> Result<()> {
    if let Some(reason) = missing_privilege() {
        skip(reason);
        return Ok(());
    }
    let mut bench = Command::new(env!("CARGO_BIN_EXE_caracal-bench"));
    bench.args(["reflector", "--scenario", "c,g", "--runs", "1"]);
    bench.args(["--daemon", "relay,caracal,bird"]);
    let said = process::output(None, &mut bench, "", PATIENCE)?;
    for daemon in ["relay", "caracal", "bird"] {
        let counted = said
            .lines()
            .filter(|line| line.trim_start().starts_with(daemon) && line.contains(" 1/1 "));
        ensure!(counted.count() == 2, "{daemon} did not do both:\n{said}");
    }
    ensure!(said.contains("of best"), "no ratio:\n{said}");
    Ok(())
}
