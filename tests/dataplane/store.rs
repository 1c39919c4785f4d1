//! Wrong resources are named, and hurt nothing else.

use std::fs;
use std::net::IpAddr;

use agent::api::schema::StoreError;
use agent::lab::{Lab, Scenario, topology};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab, peers, status};

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
        let peers = peers(&lab, "a1")?;
        let is_there = peers
            .iter()
            .any(|peer| peer.peer.to_string() == "192.168.100.103");
        Ok((!is_there).then(|| format!("{peers:?}")))
    })
}

const NODES: [&str; 4] = ["a1", "a2", "b1", "b2"];

/// Two resources that cannot both be, each in a file, with the address its node has.
struct Conflict {
    name: &'static str,
    winner: (&'static str, &'static str, u8),
    loser: (&'static str, &'static str, u8),
}

#[test]
fn winner_of_a_conflict_is_the_same_on_every_node_and_in_any_order() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    for conflict in [
        Conflict {
            name: "one name in two files: the first file wins",
            winner: ("x1.yaml", "x", 91),
            loser: ("x2.yaml", "x", 92),
        },
        Conflict {
            name: "one podCIDR of two nodes: the first name wins",
            winner: ("y2.yaml", "y1", 93),
            loser: ("y1.yaml", "y2", 94),
        },
    ] {
        let (winner, loser) = (conflict.winner, conflict.loser);
        for order in [[winner, loser], [loser, winner]] {
            let case = format!("{}, {} first", conflict.name, order[0].0);
            for (file, node, last) in order {
                fs::write(lab.store().join(file), node_resource(node, last))?;
                if file == order[0].0 {
                    // Every node has taken the first before the second comes.
                    wait_extra_peer(&lab, &case, Some(last))?;
                }
            }
            wait_extra_peer(&lab, &case, Some(winner.2))?;
            for machine in NODES {
                eventually(&format!("{case}, errors on {machine}"), TIMEOUT, || {
                    let errors = status(&lab, machine)?.store.errors;
                    let is_right = errors.len() == 1 && errors[0].file.ends_with(loser.0);
                    Ok((!is_right).then(|| format!("{errors:?}")))
                })?;
            }
            for (file, ..) in order {
                fs::remove_file(lab.store().join(file))?;
            }
            wait_extra_peer(&lab, &case, None)?;
        }
    }
    Ok(())
}

fn node_resource(name: &str, last: u8) -> String {
    format!(
        "apiVersion: caracal.dev/v1alpha1\n\
         kind: Node\n\
         metadata: {{name: {name}}}\n\
         spec:\n  \
           bgp: {{ipv4Address: 192.168.100.{last}/24}}\n  \
           podCIDRs: [172.17.99.0/24]\n"
    )
}

/// Every node peers with the three others of the lab and at most this one more.
fn wait_extra_peer(lab: &Lab, case: &str, last: Option<u8>) -> Result<()> {
    let expected: Vec<IpAddr> = last
        .map(|last| IpAddr::from([192, 168, 100, last]))
        .into_iter()
        .collect();
    let own: Vec<IpAddr> = topology::NODES
        .iter()
        .map(|node| node.address.into())
        .collect();
    for machine in NODES {
        eventually(&format!("{case}, peers of {machine}"), TIMEOUT, || {
            let mut peers: Vec<IpAddr> =
                peers(lab, machine)?.iter().map(|peer| peer.peer).collect();
            peers.retain(|peer| !own.contains(peer));
            Ok((peers != expected).then(|| format!("{peers:?}, not {expected:?}")))
        })?;
    }
    Ok(())
}
