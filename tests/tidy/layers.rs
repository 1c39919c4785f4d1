//! Who may name what: the layers of ARCHITECTURE.md.

use crate::sources::{Source, expect_none, files, is_test};

/// Parts that take values and return values.
const PURE: &[&str] = &[
    "bgp/src/types.rs",
    "bgp/src/wire/",
    "bgp/src/fsm/",
    "bgp/src/rib/",
    "bgp/src/policy/",
    "agent/src/model/",
    "agent/src/resolve/",
    "agent/src/ipam/allocator.rs",
    "agent/src/dataplane/desired.rs",
    "agent/src/dataplane/diff.rs",
    "agent/src/dataplane/ownership.rs",
    "agent/src/dataplane/firewall/forward.rs",
    "agent/src/dataplane/nft/contents.rs",
    "agent/src/dataplane/nft/diff.rs",
    "agent/src/dataplane/nft/model.rs",
    "agent/src/dataplane/nft/names.rs",
    "agent/src/dataplane/nft/observe.rs",
    "agent/src/dataplane/nft/render.rs",
    "agent/src/host_daemons/",
    "agent/src/lab/topology.rs",
    "agent/src/lab/texts.rs",
    "agent/src/lab/expect.rs",
    "agent/src/lab/packet.rs",
];

/// Sockets, files, clocks and randomness.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "Instant::now",
    "SystemTime",
    "rand::",
    "getrandom",
];

/// (what, who may name it)
const OWNERS: &[(&str, &[&str])] = &[
    (
        "rtnetlink::",
        &["agent/src/dataplane/", "agent/src/carrier/"],
    ),
    (
        "netlink_packet",
        &["agent/src/dataplane/", "agent/src/carrier/"],
    ),
    (
        "netlink_sys",
        &["agent/src/dataplane/", "agent/src/carrier/"],
    ),
    ("zettabgp", &["bgp/src/wire/zetta.rs", "bgp/tests/"]),
    (
        "/proc/sys",
        &[
            "agent/src/dataplane/",
            "agent/src/carrier/",
            "agent/src/lab/",
            // Reads, never writes, how many keys one socket takes (net.core.optmem_max).
            "bgp/src/speaker/socket.rs",
            "bgp/tests/",
            "agent/tests/",
            "tests/",
        ],
    ),
    ("kube::", &["agent/src/datastore/"]),
];

fn named(source: &Source, words: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for (at, line) in source.code_lines() {
        for word in words {
            if line.contains(word) {
                findings.push(format!("{}:{at}: names {word}", source.path));
            }
        }
    }
    findings
}

#[test]
fn pure_parts_name_no_socket_file_clock_or_dice() {
    let is_pure = |source: &&Source| {
        !is_test(&source.path) && PURE.iter().any(|part| source.path.starts_with(part))
    };
    let files = files(".rs");
    let findings: Vec<String> = files
        .iter()
        .filter(is_pure)
        .flat_map(|source| named(source, IMPURE))
        .collect();
    expect_none(
        "pure parts take time and randomness as arguments",
        &findings,
    );
}

#[test]
fn kernel_and_foreign_types_have_one_owner() {
    let files = files(".rs");
    let mut findings = Vec::new();
    for (word, owners) in OWNERS {
        let is_other = |source: &&Source| {
            let is_here = source.path.starts_with("tests/tidy/");
            !is_here && !owners.iter().any(|owner| source.path.starts_with(owner))
        };
        findings.extend(
            files
                .iter()
                .filter(is_other)
                .flat_map(|source| named(source, &[word])),
        );
    }
    expect_none("only its owner names it", &findings);
}

#[test]
fn protocol_crate_knows_no_cluster_and_no_kernel() {
    let forbidden = ["kube", "k8s-openapi", "rtnetlink", "clap", "agent"];
    let manifests = files("bgp/Cargo.toml");
    let mut findings = Vec::new();
    for manifest in &manifests {
        for (at, line) in manifest.text.lines().enumerate() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if forbidden.contains(&name) {
                findings.push(format!("{}:{}: {line}", manifest.path, at + 1));
            }
        }
    }
    expect_none("bgp is a protocol library", &findings);
}
