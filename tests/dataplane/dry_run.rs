//! A dry run says what an agent would do, and does nothing.

use std::fs;
use std::process::Command;

use agent::lab::process::{self, Finished};
use agent::lab::{Lab, Scenario, machine, texts};
use anyhow::{Context, Result, ensure};
use harness::monitor::{RouteMonitor, wait_detected};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab, program, wait_settled, wired_lab};
use nix::sys::signal::Signal;
use serde_json::Value;

/// On a1, with the directories of its agent.
fn dry_run(lab: &Lab, more: &[&str]) -> Result<Finished> {
    let mut command = Command::new(lab.program("caracal-agent"));
    command.args(["run", "--dry-run", "--node", "a1", "--store"]);
    command.arg(format!("dir:{}", lab.store().display()));
    command.arg("--run-dir").arg(lab.run_dir("a1"));
    command.arg("--state-dir").arg(lab.state_dir("a1"));
    command.args(more);
    let a1 = lab.namespace("a1")?;
    Ok(process::run(Some(a1), &mut command, "", TIMEOUT)?)
}

/// Everything that a dry run could have written, in the words of others.
fn everything(lab: &Lab) -> Result<String> {
    let directories = [lab.run_dir("a1"), lab.state_dir("a1"), lab.store()];
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "nft -a list ruleset
        ip -d address show
        ip -4 route show table all
        ip -6 route show table all
        ip neigh show nud permanent
        bridge fdb show
        cd /proc/sys/net && grep -rs . ipv4/conf ipv6/conf ipv4/ip_forward
        ls -lRa --time-style=full-iso \"$@\" || true",
        "sh",
    ]);
    command.args(directories);
    let timeout = machine::COMMAND_TIMEOUT;
    let a1 = lab.namespace("a1")?;
    Ok(process::output(Some(a1), &mut command, "", timeout)?)
}

/// The store of the lab, whose nodes' programs do not run.
fn write_store(lab: &Lab, modes: &str) -> Result<()> {
    fs::create_dir_all(lab.store())?;
    for (name, text) in texts::store(lab.scenario()) {
        fs::write(lab.store().join(name), text)?;
    }
    let pool = format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: default}}\n\
         spec: {{cidr: 172.17.0.0/16, {modes}}}\n"
    );
    fs::write(lab.store().join("pool.yaml"), pool)?;
    Ok(())
}

/// A dry run during which nothing changes.
fn silent_dry_run(lab: &Lab, more: &[&str]) -> Result<Finished> {
    let a1 = lab.namespace("a1")?;
    wait_detected(a1)?;
    let before = everything(lab)?;
    let monitor = RouteMonitor::of_everything(a1)?;
    let done = dry_run(lab, more)?;
    let mut changes = monitor.stop_with_all()?;
    // The kernel asks and hears its neighbours whatever we do.
    changes.retain(|line| line.contains("PERMANENT") || !line.contains("[NEIGH]"));
    ensure!(changes.is_empty(), "{changes:#?}\n{done:?}");
    let after = everything(lab)?;
    let gone = before.lines().find(|line| !after.contains(line));
    let come = after.lines().find(|line| !before.contains(line));
    ensure!(before == after, "gone: {gone:?}, come: {come:?}");
    Ok(done)
}

#[test]
fn beside_a_running_agent_all_is_as_it_should_be() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Racks)?;
    wait_settled(&lab, "a1")?;
    let peers = lab.caracal("a1", &["peers"])?.stdout;
    let done = silent_dry_run(&lab, &[])?;
    ensure!(done.status.code() == Some(0), "{done:?}");
    ensure!(done.stdout.contains("all is as it should be"), "{done:?}");
    ensure!(
        done.stdout.contains("in the kernel (3) are not judged"),
        "{done:?}"
    );
    // Its sessions are those from before.
    ensure!(lab.caracal("a1", &["peers"])?.stdout == peers);

    // A route that the agent has, with the agent stopped: it is not there to put it back.
    let agent = program(&lab, "a1")?;
    agent.signal(Signal::SIGTERM);
    agent.wait_gone(TIMEOUT)?;
    let a1 = lab.namespace("a1")?;
    let own = lab.workloads().iter().find(|one| one.node == "a1");
    let own = own.context("a workload")?.address.to_string();
    machine::ip(a1, &["route", "del", &own])?;
    let done = silent_dry_run(&lab, &[])?;
    ensure!(done.status.code() == Some(1), "{done:?}");
    let line = format!("+ route {own}/32: proto caracal dev cara");
    ensure!(done.stdout.contains(&line), "{done:?}");
    ensure!(
        done.stdout.contains("differences: 1, problems: 0"),
        "{done:?}"
    );
    Ok(())
}

#[test]
fn what_a_dry_run_says_is_what_the_agent_does() -> Result<()> {
    needs_root!();
    let mut lab = wired_lab(Scenario::Racks)?;
    write_store(&lab, "ipipMode: Never, vxlanMode: CrossSubnet")?;
    let a1 = lab.namespace("a1")?.clone();
    let done = silent_dry_run(&lab, &["-o", "json"])?;
    ensure!(done.status.code() == Some(1), "{done:?}");
    let said: Value = serde_json::from_str(&done.stdout)?;
    let wanted = |object: &str| -> Result<String> {
        let all = said["differences"].as_array();
        let mut all = all.into_iter().flatten();
        let found = all.find(|one| one["object"] == object);
        let found = found.with_context(|| format!("no {object} in {}", done.stdout))?;
        ensure!(found["present"].is_null(), "{found}");
        Ok(found["wanted"].as_str().unwrap_or_default().to_owned())
    };
    let device = wanted("link caracal-vxlan")?;
    let blackhole = wanted("route 172.17.8.0/24")?;
    let tables = wanted("nft table inet caracal")?;
    ensure!(blackhole == "blackhole proto caracal", "{blackhole}");
    ensure!(tables.contains("chain tunnel-guard"), "{tables}");

    lab.start_agent("a1")?;
    lab.wait_synced("a1")?;
    let link = machine::ip(&a1, &["-d", "address", "show", "caracal-vxlan"])?;
    for part in device.split(", ").filter(|part| !part.starts_with("pmtu")) {
        let word = part.split(' ').next_back().unwrap_or_default();
        let is_there = ["up", "false"].contains(&word) || link.to_lowercase().contains(word);
        ensure!(is_there, "{word} of {device} is not in {link}");
    }
    eventually("no difference any more", TIMEOUT, || {
        let done = dry_run(&lab, &[])?;
        Ok((!done.status.success()).then_some(done.stdout))
    })
}

#[test]
fn beside_a_foreign_agent_it_says_what_is_in_the_way() -> Result<()> {
    needs_root!();
    let lab = wired_lab(Scenario::Racks)?;
    write_store(&lab, "ipipMode: Never, vxlanMode: CrossSubnet")?;
    fs::write(
        lab.store().join("workload.yaml"),
        "apiVersion: caracal.dev/v1alpha1\nkind: WorkloadEndpoint\n\
         metadata: {name: db, namespace: default}\n\
         spec: {node: a1, interfaceName: cara0123456789a, addresses: [172.17.8.9/32]}\n",
    )?;
    let a1 = lab.namespace("a1")?;
    machine::ip_batch(
        a1,
        "link add cali0123456789a type veth peer name pod0\n\
         link set cali0123456789a up\n\
         link set pod0 up\n\
         link add cara0123456789a type veth peer name pod1\n\
         link set pod1 up\n\
         route add 172.17.8.7 dev cali0123456789a scope link proto 80\n\
         route add blackhole 172.17.8.0/24 proto bird\n\
         route add 172.17.8.9 dev cali0123456789a metric 202 proto 80\n\
         route add 172.17.10.0/24 via 192.168.100.1 proto bird\n\
         link add vxlan.calico type vxlan id 4096 dstport 4789 local 192.168.100.100\n",
    )?;
    let nft = "add table ip filter\nadd chain ip filter cali-FORWARD\n\
               add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }\n";
    let mut command = Command::new("nft");
    let command = command.args(["-f", "-"]);
    process::output(Some(a1), command, nft, machine::COMMAND_TIMEOUT)?;

    let done = silent_dry_run(&lab, &[])?;
    ensure!(done.status.code() == Some(1), "{done:?}");
    for said in [
        "vxlan.calico",
        "! route 172.17.8.9/32: blocked by proto 80 dev cali0123456789a",
        "! tunnel vxlan: the foreign device vxlan.calico has ",
        "! route 172.17.8.0/24: shadowed by blackhole proto bird",
        "~ link cara0123456789a: mac ",
        "chain ip filter FORWARD stops",
        "sessions not opened: 192.168.100.2 ",
    ] {
        ensure!(done.stdout.contains(said), "no {said:?} in {done:?}");
    }
    // What is none of our business is not spoken of.
    for silent in ["172.17.8.7", "172.17.10.0", "cali-FORWARD"] {
        ensure!(!done.stdout.contains(silent), "{silent} in {done:?}");
    }
    Ok(())
}

#[test]
fn dry_run_that_cannot_tell_ends_with_two() -> Result<()> {
    needs_root!();
    let lab = wired_lab(Scenario::Mesh)?;
    write_store(&lab, "ipipMode: Never")?;
    fs::remove_file(lab.store().join("node-a1.yaml"))?;
    let done = silent_dry_run(&lab, &[])?;
    ensure!(done.status.code() == Some(2), "{done:?}");
    for said in ["the store has no Node a1", "it has a2, b1, b2"] {
        ensure!(done.stderr.contains(said), "no {said:?} in {done:?}");
    }
    fs::remove_dir_all(lab.store())?;
    let done = silent_dry_run(&lab, &[])?;
    ensure!(done.status.code() == Some(2), "{done:?}");
    let said = "the store's directory cannot be read";
    ensure!(done.stderr.contains(said), "{done:?}");
    Ok(())
}
