//! `caracal-reflector --check` as a user runs it.

use std::process::{Command, Output};

const FILE: &str = "
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, listenAddresses: [192.168.100.2]}
---
apiVersion: caracal.dev/v1alpha1
kind: Rack
metadata: {name: a}
spec: {reflectors: [192.168.100.2], aggregates: [AGGREGATES]}
";

fn check(aggregates: &str) -> Output {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("rack-a.yaml");
    std::fs::write(&path, FILE.replace("AGGREGATES", aggregates)).expect("write");
    Command::new(env!("CARGO_BIN_EXE_caracal-reflector"))
        .arg("--check")
        .arg("--config")
        .arg(&path)
        .output()
        .expect("the reflector runs")
}

#[test]
fn an_aggregate_needs_a_next_hop_that_forwards() {
    let good = "{cidr: 172.17.8.0/22, nextHop: 192.168.100.1}";
    let router = "write the address of the router that has the rack's routes (the ToR)";
    for (name, aggregates, expected) in [
        ("fine", good.to_owned(), String::new()),
        (
            "no next hop",
            "{cidr: 172.17.8.0/22}".to_owned(),
            format!("spec.aggregates[0].nextHop: missing; {router}: a reflector forwards nothing"),
        ),
        (
            "the reflector itself",
            good.replace("100.1}", "100.2}"),
            format!(
                "spec.aggregates[0].nextHop: 192.168.100.2 is a reflector of this rack, which forwards nothing; {router}"
            ),
        ),
        (
            "overlapping",
            format!("{good}, {}", good.replace("8.0/22", "0.0/16")),
            "spec.aggregates[1].cidr: 172.17.0.0/16 overlaps 172.17.8.0/22; remove one".to_owned(),
        ),
    ] {
        let output = check(aggregates.as_str());
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let wanted = match expected.as_str() {
            "" => String::new(),
            line => format!("rack-a.yaml: Rack/a: {line}\n"),
        };
        assert_eq!(lines, wanted, "{name}");
        let code = if wanted.is_empty() { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{name}");
    }
}
