//! One agent works on a network namespace, wherever its directories are.

use std::process::Command;
use std::time::{Duration, Instant};

use agent::lab::process::{self, Finished};
use agent::lab::{Process, machine};
use anyhow::{Result, ensure};
use harness::crossing::Crossing;
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, kill, programs, succeeded};

use crate::host_daemons::own_configuration;

const OWN_ROUTE: &str = "blackhole 172.17.8.0/24";

fn routes(crossing: &Crossing) -> Result<String> {
    machine::ip(&crossing.node, &["route", "show"]).map_err(Into::into)
}

fn started(crossing: &Crossing) -> Result<Process> {
    let agent = crossing.start_agent("")?;
    eventually("the node's own route", TIMEOUT, || {
        let routes = routes(crossing)?;
        Ok((!routes.contains(OWN_ROUTE)).then_some(routes))
    })?;
    Ok(agent)
}

/// With directories that no agent uses.
fn run(crossing: &Crossing, arguments: &[&str]) -> Result<Finished> {
    let mut command = Command::new(programs()?.join("caracal-agent"));
    command.args(arguments);
    command.arg("--run-dir").arg(crossing.path("other/run"));
    command.arg("--state-dir").arg(crossing.path("other/state"));
    Ok(process::run(
        Some(&crossing.node),
        &mut command,
        "",
        TIMEOUT,
    )?)
}

fn uninstall(crossing: &Crossing) -> Result<Finished> {
    let empty = crossing.path("other/cni").display().to_string();
    let dirs = ["--cni-bin-dir", &empty, "--cni-conf-dir", &empty];
    run(crossing, &[&["uninstall"][..], &dirs].concat())
}

#[test]
fn second_agent_and_uninstall_are_refused_whatever_their_directories() -> Result<()> {
    needs_root!();
    let crossing = Crossing::wired(1)?;
    own_configuration(&crossing.node)?;
    let agent = started(&crossing)?;
    let store = format!("dir:{}", crossing.path("store").display());
    let second = [
        "run",
        "--node",
        "n1",
        "--http-listen",
        "none",
        "--store",
        &store,
    ];
    for refused in [run(&crossing, &second)?, uninstall(&crossing)?] {
        let said = &refused.stderr;
        ensure!(!refused.status.success(), "{said}");
        let reason = format!(
            "another agent (pid {}) works on this network namespace",
            agent.pid
        );
        ensure!(said.contains(&reason), "{said}");
    }
    let before = routes(&crossing)?;
    ensure!(before.contains(OWN_ROUTE), "{before}");
    kill(&agent)?;
    succeeded(uninstall(&crossing)?)?;
    let after = routes(&crossing)?;
    ensure!(!after.contains(OWN_ROUTE), "{after}");
    Ok(())
}

/// Changes a rule as often as it is repaired.
#[test]
fn who_undoes_every_repair_is_met_now_and_then() -> Result<()> {
    needs_root!();
    let crossing = Crossing::wired(1)?;
    let agent = started(&crossing)?;
    let fight = "for i in $(seq 300); do ip route del blackhole 172.17.8.0/24 metric 202 && n=$((n+1)); \
                 sleep 0.01; done 2>/dev/null; echo $n";
    let mut command = Command::new("sh");
    command.args(["-c", fight]);
    let started = Instant::now();
    let said = process::output(
        Some(&crossing.node),
        &mut command,
        "",
        Duration::from_secs(60),
    )?;
    let took = started.elapsed();
    let undone: u64 = said.trim().parse()?;
    println!("{undone} repairs in {took:?}");
    // Twice a second, and a few at first, before it shows that somebody undoes them.
    let most = 12 + 4 * took.as_secs();
    ensure!((4..most).contains(&undone), "{undone} repairs in {took:?}");
    eventually("the last repair", Duration::from_secs(10), || {
        let routes = routes(&crossing)?;
        Ok((!routes.contains(OWN_ROUTE)).then_some(routes))
    })?;
    Ok(kill(&agent)?)
}
