//! Wrong resources are named, and hurt nothing else.

use std::fs;

use agent::api::schema::StoreError;
use agent::lab::{Lab, Scenario};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab, status};

const FILE: &str = "wrong.yaml";

fn errors_of(lab: &Lab, node: &str, file: &str) -> Result<Vec<StoreError>> {
    let mut errors = status(lab, node)?.store.errors;
    errors.retain(|error| error.file.ends_with(file));
    Ok(errors)
}

/// Puts a file into the store, and returns what a1 says of it.
fn errors_after(lab: &Lab, file: &str, text: &str) -> Result<Vec<StoreError>> {
    fs::write(lab.store().join(file), text)?;
    let mut errors = Vec::new();
    eventually("an error of the store", TIMEOUT, || {
        errors = errors_of(lab, "a1", file)?;
        Ok(errors.is_empty().then(|| "no error shown".to_owned()))
    })?;
    Ok(errors)
}

fn remove(lab: &Lab, file: &str) -> Result<()> {
    fs::remove_file(lab.store().join(file))?;
    eventually("the end of the store's errors", TIMEOUT, || {
        let errors = status(lab, "a1")?.store.errors;
        Ok((!errors.is_empty()).then(|| format!("{errors:?}")))
    })
}

#[test]
fn wrong_resources_are_named_by_file_field_and_reason() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    // (name, text, field, a word of the reason)
    for (name, text, field, word) in [
        (
            "unknown field",
            "apiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {name: x}\nspec: {cidr: 10.9.0.0/16, ippMode: Never}\n",
            "ippMode",
            "unknown",
        ),
        (
            "missing apiVersion",
            "kind: IPPool\nmetadata: {name: x}\nspec: {cidr: 10.9.0.0/16}\n",
            "apiVersion",
            "",
        ),
        (
            "bad CIDR",
            "apiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {name: x}\nspec: {cidr: 10.9.0.0/40}\n",
            "cidr",
            "",
        ),
        (
            "overlapping podCIDRs",
            "apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: z9}\nspec:\n  bgp: {ipv4Address: 192.168.100.9/24}\n  podCIDRs: [172.17.9.128/25]\n",
            "podCIDRs",
            "",
        ),
    ] {
        let errors = errors_after(&lab, FILE, text)?;
        println!("{name}: {errors:?}");
        ensure!(errors.len() == 1, "{name}: {errors:?}");
        ensure!(
            errors[0].field.contains(field) || errors[0].reason.contains(field),
            "{name}: {:?}",
            errors[0]
        );
        ensure!(errors[0].reason.contains(word), "{name}: {:?}", errors[0]);
        let findings = lab.route_findings()?;
        ensure!(findings.is_empty(), "{name}: {findings:?}");
        remove(&lab, FILE)?;
    }
    Ok(())
}

#[test]
fn rest_of_a_file_with_a_wrong_document_still_counts() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let text = "apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: wrong}\nspec: {podCIDRs: [nonsense]}\n\
                ---\n\
                apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: a3}\nspec:\n  bgp: {ipv4Address: 192.168.100.103/24}\n  podCIDRs: [172.17.12.0/24]\n";
    errors_after(&lab, FILE, text)?;
    eventually("a1's peering with the right one", TIMEOUT, || {
        let peers = harness::product::peers(&lab, "a1")?;
        let is_there = peers
            .iter()
            .any(|peer| peer.peer.to_string() == "192.168.100.103");
        Ok((!is_there).then(|| format!("{peers:?}")))
    })
}

#[test]
fn winner_of_a_conflict_is_the_same_on_every_node_and_in_any_order() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let node = |name: &str, last: u8| {
        format!(
            "apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {{name: {name}}}\nspec:\n  bgp: {{ipv4Address: 192.168.100.{last}/24}}\n  podCIDRs: [172.17.99.0/24]\n"
        )
    };
    // One name in two files: the first file wins. One podCIDR in two nodes: the first name wins.
    for (case, files) in [
        (
            "one name",
            [("x1.yaml", node("x", 91)), ("x2.yaml", node("x", 92))],
        ),
        (
            "one podCIDR",
            [("y2.yaml", node("y1", 93)), ("y1.yaml", node("y2", 94))],
        ),
    ] {
        let loser = if case == "one name" {
            "x2.yaml"
        } else {
            "y1.yaml"
        };
        for order in [[0, 1], [1, 0]] {
            for at in order {
                let (file, text) = &files[at];
                fs::write(lab.store().join(file), text)?;
                // Let every node take this file before the next one comes.
                wait_same_peers(&lab)?;
            }
            for machine in ["a1", "a2", "b1", "b2"] {
                eventually(&format!("{case}, {machine}"), TIMEOUT, || {
                    let errors = status(&lab, machine)?.store.errors;
                    let is_right = !errors.is_empty()
                        && errors.iter().all(|error| error.file.ends_with(loser));
                    Ok((!is_right).then(|| format!("order {order:?}: {errors:?}")))
                })?;
            }
            for (file, _) in &files {
                fs::remove_file(lab.store().join(file))?;
            }
            wait_same_peers(&lab)?;
        }
    }
    Ok(())
}

/// Every node peers with exactly the nodes that the store's files name.
fn wait_same_peers(lab: &Lab) -> Result<()> {
    let mut names = std::collections::BTreeSet::new();
    for entry in fs::read_dir(lab.store())? {
        let text = fs::read_to_string(entry?.path())?;
        let name = text.split("kind: Node\nmetadata: {name: ").nth(1);
        names.extend(
            name.and_then(|rest| rest.split([',', '}']).next())
                .map(str::to_owned),
        );
    }
    for machine in ["a1", "a2", "b1", "b2"] {
        eventually(&format!("{machine}'s peers"), TIMEOUT, || {
            let peers = harness::product::peers(lab, machine)?.len();
            let expected = names.len() - 1;
            Ok((peers != expected).then(|| format!("{peers} of {expected}: {names:?}")))
        })?;
    }
    Ok(())
}
