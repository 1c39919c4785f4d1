//! Caracal leaves a machine as it found it.

use std::process::Command;
use std::time::Duration;

use agent::lab::{Scenario, machine, process};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{lab, program, succeeded};
use nix::sys::signal::Signal;

#[test]
fn uninstall_removes_every_route_device_and_process_of_ours() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let a1 = lab.namespace("a1")?;
    let foreign = ["route", "add", "198.51.100.0/24", "via", "192.168.100.1"];
    machine::ip(a1, &foreign)?;
    let agent = program(&lab, "a1")?;
    agent.signal(Signal::SIGTERM);
    agent.wait_gone(Duration::from_secs(5))?;

    let mut command = Command::new(lab.program("caracal-agent"));
    command.arg("uninstall");
    command.arg("--run-dir").arg(lab.run_dir("a1"));
    command.arg("--state-dir").arg(lab.state_dir("a1"));
    // The plugin was never installed in the lab; the machine's own directories are not touched.
    let empty = tempfile::tempdir()?;
    command.arg("--cni-bin-dir").arg(empty.path());
    command.arg("--cni-conf-dir").arg(empty.path());
    succeeded(process::run(
        Some(a1),
        &mut command,
        "",
        Duration::from_secs(20),
    )?)?;

    let routes = machine::ip(a1, &["route", "show", "table", "all"])?;
    ensure!(
        !routes.contains("caracal") && !routes.contains("dev cara"),
        "{routes}"
    );
    ensure!(
        routes.contains("198.51.100.0/24 via 192.168.100.1"),
        "{routes}"
    );
    let links = machine::ip(a1, &["-br", "link"])?;
    ensure!(!links.contains("cara"), "{links}");
    let namespace = a1.kernel_name().into_iter().collect::<Vec<_>>();
    let left = process::in_namespaces(&namespace);
    let others: Vec<_> = left
        .iter()
        .filter(|left| left.pid != a1.holder.pid)
        .collect();
    ensure!(others.is_empty(), "{others:?}");
    Ok(())
}
