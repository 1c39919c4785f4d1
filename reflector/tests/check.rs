//! `caracal-reflector --check` as a user runs it.

use std::path::Path;
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
    check_in(dir.path(), &FILE.replace("AGGREGATES", aggregates))
}

fn check_in(dir: &Path, text: &str) -> Output {
    let path = dir.join("rack-a.yaml");
    std::fs::write(&path, text).expect("write");
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

const WHOLE: &str = "
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, listenAddresses: [192.168.100.2]}
---
apiVersion: caracal.dev/v1alpha1
kind: Rack
metadata: {name: a}
spec: {reflectors: [192.168.100.2], aggregates: [{cidr: 172.17.8.0/22, nextHop: 192.168.100.1}]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: nodes}
spec: {peerPrefixes: [192.168.100.0/24], asNumber: 64512, password: {file: KEY}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 192.168.100.1, asNumber: 64520, password: {file: KEY}, filters: [from-tor]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: from-tor}
spec: {importV4: [{action: Accept}]}
";

#[test]
fn a_usual_mistake_is_told_with_what_to_write() {
    let tor = "BGPPeer/tor: spec.";
    for (name, old, new, expected) in [
        ("none", "KIND", "KIND", vec![]),
        (
            "a field by its short name",
            "asNumber: 64520",
            "asn: 64520",
            vec![format!(
                "{tor}asn: unknown field; did you mean `asNumber`?"
            )],
        ),
        (
            "the port of a peer",
            "asNumber: 64520",
            "asNumber: 64520, port: 1179",
            vec![format!(
                "{tor}port: not supported; write it behind the address, as in peerIP: 192.0.2.1:1179"
            )],
        ),
        (
            "a range that is no list",
            "[192.168.100.0/24]",
            "192.168.100.0/24",
            vec![
                "BGPPeer/nodes: spec.peerPrefixes: expected a list, found \"192.168.100.0/24\"; put it in [ ]".to_owned(),
            ],
        ),
        (
            "the port of a listener, and nothing that follows from it",
            "listenAddresses: [192.168.100.2]",
            "listenAddresses: ['192.168.100.2:1179']",
            vec![
                "BGPConfiguration/default: spec.listenAddresses[0]: expected an IP address, found \"192.168.100.2:1179\"; the port is listenPort".to_owned(),
            ],
        ),
        (
            "a filter that is there, and wrong",
            "action: Accept",
            "action: accept",
            vec![
                "BGPFilter/from-tor: spec.importV4[0].action: expected one of Accept, Reject, found \"accept\"".to_owned(),
                format!(
                    "{tor}filters[0]: there is no usable BGPFilter from-tor, so nothing passes; add or mend it"
                ),
            ],
        ),
        (
            "the file of the other reflector",
            "peerIP: 192.168.100.1,",
            "peerIP: 192.168.100.2,",
            vec![format!(
                "{tor}peerIP: 192.168.100.2 is an address of this reflector; write the peer's address"
            )],
        ),
        (
            "a peer without the password of the range around it",
            "asNumber: 64520, password: {file: KEY}",
            "asNumber: 64520",
            vec![format!(
                "{tor}password: missing; 192.168.100.1 is inside 192.168.100.0/24 of BGPPeer nodes, which has one, so it cannot dial us; write its password"
            )],
        ),
    ] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let key = dir.path().join("key");
        std::fs::write(&key, "a key\n").expect("write");
        let text = WHOLE.replace(old, new);
        let text = text.replace("KEY", &key.display().to_string());
        let output = check_in(dir.path(), &text);
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let wanted: String = expected
            .iter()
            .map(|line| format!("rack-a.yaml: {line}\n"))
            .collect();
        assert_eq!(lines, wanted, "{name}");
        let code = i32::from(!expected.is_empty());
        assert_eq!(output.status.code(), Some(code), "{name}");
    }
}
