//! Caracal leaves a machine as it found it.

use std::process::Command;
use std::time::Duration;

use agent::lab::{Namespace, Scenario, machine, process};
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
    nft(a1, &["add", "table", "inet", "foreign"])?;
    let tables = nft(a1, &["list", "tables"])?;
    ensure!(tables.contains("table inet caracal"), "{tables}");
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
    let tables = nft(a1, &["list", "tables"])?;
    ensure!(tables == "table inet foreign\n", "{tables}");
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

fn nft(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("nft");
    let command = command.args(arguments);
    Ok(process::output(
        Some(namespace),
        command,
        "",
        machine::COMMAND_TIMEOUT,
    )?)
}
