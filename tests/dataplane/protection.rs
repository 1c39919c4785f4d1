//! What keeps strangers out of a node is in the kernel, and what is wrong with it is said.

use std::process::Command;

use agent::lab::{Lab, Namespace, Scenario, machine, process};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab, status, wired_lab};

fn nft(namespace: &Namespace, script: &str) -> Result<String> {
    let mut command = Command::new("nft");
    let command = command.args(["-f", "-"]);
    Ok(process::output(
        Some(namespace),
        command,
        script,
        machine::COMMAND_TIMEOUT,
    )?)
}

fn table(lab: &Lab, node: &str) -> Result<String> {
    nft(lab.namespace(node)?, "list table inet caracal\n")
}

#[test]
fn node_knows_its_workloads_and_the_other_nodes() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Racks)?;
    let before = table(&lab, "a1")?;
    for node in ["192.168.100.101", "192.168.200.101", "192.168.200.102"] {
        ensure!(before.contains(node), "{node}: {before}");
    }
    let workload = lab.attach("a1", "late")?;
    let address = format!(" . {}", workload.address);
    let with = table(&lab, "a1")?;
    ensure!(with.contains(&address), "{with}");
    lab.cni("DEL", "a1", "late")?;
    let after = table(&lab, "a1")?;
    ensure!(!after.contains(&address), "{after}");
    Ok(())
}

#[test]
fn removed_table_is_back_without_anybody_asking() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let a1 = lab.namespace("a1")?;
    nft(a1, "delete table inet caracal\n")?;
    eventually("the table", TIMEOUT, || {
        Ok(table(&lab, "a1").err().map(|error| format!("{error:#}")))
    })?;
    let repairs = status(&lab, "a1")?.repairs;
    ensure!(repairs.get("nft") == Some(&1), "{repairs:?}");
    Ok(())
}

#[test]
fn check_names_a_firewall_in_the_way() -> Result<()> {
    needs_root!();
    let mut lab = wired_lab(Scenario::Mesh)?;
    nft(
        lab.namespace("a1")?,
        "add table ip filter\nadd chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }\n",
    )?;
    lab.start_all()?;
    lab.attach_all()?;
    eventually("the finding", TIMEOUT, || {
        let check = lab.caracal("a1", &["check", "-o", "json"])?;
        let is_found = check.status.code() == Some(1)
            && check.stdout.contains("\"host firewall\"")
            && check.stdout.contains("ip filter FORWARD");
        Ok((!is_found).then(|| format!("{check:?}")))
    })?;
    // The other node has no firewall.
    eventually("nothing on a2", TIMEOUT, || {
        let check = lab.caracal("a2", &["check"])?;
        let is_fine = check.status.success() && check.stdout == "nothing found\n";
        Ok((!is_fine).then(|| format!("{check:?}")))
    })
}
