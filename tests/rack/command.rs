//! Every kind of lab ends well and leaves nothing.

use std::process::Command;
use std::time::Duration;

use agent::lab::process;
use anyhow::{Context, Result, ensure};
use harness::{leftovers, needs_root, product};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs `caracal lab ARGUMENTS` to its end and returns what it printed.
fn lab(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(product::programs()?.join("caracal"));
    let finished = process::run(None, command.arg("lab").args(arguments), "", LIMIT)?;
    println!("{}{}", finished.stdout, finished.stderr);
    let id = id_in(&finished.stdout)?.to_owned();
    let left = leftovers::of(&id);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    product::succeeded(finished)
}

/// The first line says `lab ID: …`.
pub fn id_in(output: &str) -> Result<&str> {
    let first = output
        .strip_prefix("lab ")
        .and_then(|rest| rest.split(':').next());
    first.context("the lab did not say its id")
}

/// The machine's route table as the lab shows it.
fn route_table<'a>(output: &'a str, machine: &str) -> Result<Vec<&'a str>> {
    let start = format!("{machine}$ ip route\n");
    let (_, table) = output.split_once(&start).context("no route table shown")?;
    let ends = |line: &&str| !line.contains("$ ") && !line.starts_with("-- ");
    Ok(table.lines().take_while(ends).map(str::trim_end).collect())
}

fn expect_line(table: &[&str], what: &str, holds: impl Fn(&str) -> bool) -> Result<()> {
    let found = table.iter().any(|line| holds(line));
    ensure!(found, "no line {what} in:\n{}", table.join("\n"));
    Ok(())
}

#[test]
fn two_racks_reach_each_other_and_leave_nothing() -> Result<()> {
    needs_root!();
    let output = lab(&[])?;
    let a1 = route_table(&output, "a1")?;
    expect_line(&a1, "of a workload", |line| {
        line.starts_with("172.17.8.2 dev cara") && line.contains("scope link")
    })?;
    expect_line(&a1, "within the rack", |line| {
        line.starts_with("172.17.9.0/24 via 192.168.100.101 dev eth0 proto caracal-bgp")
            && line.contains("onlink")
    })?;
    expect_line(&a1, "through the tunnel", |line| {
        line.starts_with("172.17.10.0/24 via 192.168.200.101 dev caracal-")
            && line.contains("src 172.17.8.1")
            && line.contains("onlink")
    })?;
    let workload = route_table(&output, "a1-1")?;
    ensure!(
        workload
            == [
                "default via 169.254.1.1 dev eth0",
                "169.254.1.1 dev eth0 scope link"
            ],
        "{workload:?}"
    );
    ensure!(output.contains("169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT"));
    Ok(())
}

#[test]
fn full_mesh_reaches_everywhere_and_leaves_nothing() -> Result<()> {
    needs_root!();
    lab(&["--mesh"])?;
    Ok(())
}

#[test]
fn routed_racks_use_no_tunnel_and_leave_nothing() -> Result<()> {
    needs_root!();
    let output = lab(&["--routed"])?;
    let a1 = route_table(&output, "a1")?;
    expect_line(&a1, "by the router", |line| {
        line.starts_with("172.17.10.0/24 via 192.168.100.1 dev eth0 proto caracal-bgp")
    })
}

#[test]
fn lab_routers_prefix_is_admitted_by_a_filter() -> Result<()> {
    needs_root!();
    let output = lab(&["--frr"])?;
    let a1 = route_table(&output, "a1")?;
    expect_line(&a1, "of the lab router", |line| {
        line.starts_with("203.0.113.0/24 via 192.168.100.3 dev eth0 proto caracal-bgp")
    })?;
    let b1 = route_table(&output, "b1")?;
    expect_line(&b1, "of the lab router", |line| {
        line.starts_with("203.0.113.0/24 via 192.168.200.1 dev eth0 proto caracal-bgp")
    })
}

#[test]
fn lab_routers_prefix_is_refused_without_a_filter() -> Result<()> {
    needs_root!();
    let output = lab(&["--frr", "--no-filter"])?;
    ensure!(output.contains("a1 refuses 203.0.113.0/24: "));
    Ok(())
}
