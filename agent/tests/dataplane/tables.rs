//! Our table in nftables: written once, kept right, and the only one that is touched.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use agent::dataplane::desired::{Desired, TunnelDriver, WorkloadLink};
use agent::dataplane::nft::diff::{self, Changes, Observed};
use agent::dataplane::nft::model::{
    Chain, Element, Field, InterfaceName, Kind, Rule, Set, Table, Value, ValueKind,
};
use agent::dataplane::nft::{contents, observe, render};
use agent::dataplane::{Dataplane, DataplaneOptions};

use crate::netns::Namespace;
use crate::passes::pass_until;
use crate::routes::{host, open};
use crate::site::tunnel;

const IFACE: &str = "cara0123456789a";
const OTHER_IFACE: &str = "cara0123456789b";
const FOREIGN: &str = "\
add table inet other
add chain inet other prerouting { type filter hook prerouting priority 0; policy accept; }
add rule inet other prerouting ip saddr 203.0.113.1 drop
add table ip caracal
add chain ip caracal prerouting
add rule ip caracal prerouting counter accept
";

/// With a veth for each of the two workloads. `None`, reported as skipped, without namespaces.
fn host_with_veths() -> Option<Namespace> {
    let host = host()?;
    for (at, iface) in [IFACE, OTHER_IFACE].into_iter().enumerate() {
        host.ip(&format!("link add {iface} type veth peer name peer{at}"));
        host.ip(&format!("link set peer{at} up"));
    }
    Some(host)
}

fn workload(address: &str) -> WorkloadLink {
    WorkloadLink {
        addresses: vec![address.parse::<IpAddr>().expect("an address")],
        mac: Some([2, 0, 0, 0, 0, 1]),
    }
}

/// One workload, and no tunnel: a TAP needs a carrier.
fn desired() -> Desired {
    Desired {
        workloads: BTreeMap::from([(IFACE.into(), workload("172.17.8.2"))]),
        ..Desired::default()
    }
}

fn nft(host: &Namespace, command: &str) -> String {
    let (is_ok, output) = host.run(&format!("nft {command}"));
    assert!(is_ok, "nft {command}: {output}");
    output
}

/// Runs lines of nft's language.
fn load(host: &Namespace, script: &str) {
    for line in script.lines() {
        nft(host, line);
    }
}

/// What people see of our table; chains and sets in order of their names.
fn table(host: &Namespace) -> String {
    let text = nft(host, "-s list table inet caracal");
    let mut blocks: Vec<&str> = text.split("\n\n").map(str::trim).collect();
    blocks.sort_unstable();
    blocks.join("\n")
}

#[test]
fn table_is_written_once_and_not_again_by_the_next_agent() {
    let Some(host) = host_with_veths() else {
        return;
    };
    host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane.apply(&desired()).await;
        assert_eq!(report.failed, []);
        let written = dataplane.writes().await;
        dataplane.request_resync().await;
        dataplane.apply(&desired()).await;
        assert_eq!(dataplane.writes().await, written, "nothing more to write");
    });
    let before = table(&host);
    assert!(
        before.contains("\"cara0123456789a\" . 172.17.8.2"),
        "{before}"
    );
    host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane.apply(&desired()).await;
        assert_eq!((report.failed, report.repairs), (vec![], BTreeMap::new()));
        assert_eq!(dataplane.writes().await, 0, "a restart writes nothing");
    });
    assert_eq!(table(&host), before);
}

#[test]
fn drift_is_noticed_at_once_repaired_and_counted() {
    for (name, spoil, count) in [
        ("flushed chain", "flush chain inet caracal prerouting", 1),
        ("deleted table", "delete table inet caracal", 1),
        ("flushed table", "flush table inet caracal", 2),
        (
            "deleted element",
            "delete element inet caracal workload-sources4 { \"cara0123456789a\" . 172.17.8.2 }",
            1,
        ),
        (
            "added element",
            "add element inet caracal workload-sources4 { \"cara0123456789a\" . 172.17.8.3 }",
            1,
        ),
        ("added rule", "add rule inet caracal prerouting accept", 1),
        (
            "rule in front",
            "insert rule inet caracal from-workload accept",
            1,
        ),
        ("added chain", "add chain inet caracal theirs", 1),
        (
            "added set",
            "add set inet caracal theirs { type ipv4_addr; }",
            1,
        ),
        (
            "added map that leads to a chain of theirs",
            "add chain inet caracal theirs; add map inet caracal leads { type ifname : verdict; }; \
             add element inet caracal leads { \"eth0\" : goto theirs }",
            2,
        ),
        ("added counter", "add counter inet caracal theirs", 1),
        (
            "table switched off",
            "add table inet caracal { flags dormant; }",
            1,
        ),
        (
            "other policy",
            "add chain inet caracal prerouting { policy drop; }",
            1,
        ),
    ] {
        let Some(host) = host_with_veths() else {
            return;
        };
        host.block_on(async || {
            let mut dataplane = open().await;
            dataplane.apply(&desired()).await;
            let right = table(&host);
            let mut changes = dataplane.changes();
            // What came with the veths' coming up.
            while tokio::time::timeout(Duration::from_millis(100), changes.changed())
                .await
                .is_ok()
            {}
            dataplane.apply(&desired()).await;

            nft(&host, spoil);
            let repairs = pass_until(name, &mut dataplane, &desired(), async |_, report| {
                assert_eq!(report.failed, [], "{name}");
                table(&host) == right
            })
            .await;
            assert_eq!(repairs.get("nft"), Some(&count), "{name}: {repairs:?}");
            let writes = dataplane.writes().await;
            dataplane.request_resync().await;
            let report = dataplane.apply(&desired()).await;
            assert_eq!(report.repairs, BTreeMap::new(), "{name}: repaired once");
            assert_eq!(dataplane.writes().await, writes, "{name}: nothing more");
        });
    }
}

#[test]
fn missing_rule_and_replaced_rule_are_put_back() {
    for (name, verb) in [("deleted", "delete"), ("replaced", "replace")] {
        let Some(host) = host_with_veths() else {
            return;
        };
        host.block_on(async || {
            let mut dataplane = open().await;
            dataplane.apply(&desired()).await;
            let right = table(&host);
            let handles = nft(&host, "-a list chain inet caracal from-workload");
            let rule = handles.lines().find(|line| line.contains("counter"));
            let handle = rule.and_then(|rule| rule.split("# handle ").nth(1));
            let handle = handle.expect("a rule with a handle");
            let statement = if verb == "replace" { "accept" } else { "" };
            nft(
                &host,
                &format!("{verb} rule inet caracal from-workload handle {handle} {statement}"),
            );
            dataplane.request_resync().await;
            let report = dataplane.apply(&desired()).await;
            assert_eq!(report.repairs.get("nft"), Some(&1), "{name}: {report:?}");
            assert_eq!(table(&host), right, "{name}");
        });
    }
}

/// Passes as long as changes are told, which must soon end.
async fn expect_rest(dataplane: &mut Dataplane, desired: &Desired) {
    let mut changes = dataplane.changes();
    let silence = Duration::from_millis(300);
    let mut passes = 0;
    while tokio::time::timeout(silence, changes.changed())
        .await
        .is_ok()
    {
        dataplane.apply(desired).await;
        passes += 1;
        assert!(passes < 5, "passes cause passes");
    }
}

#[test]
fn own_transactions_cause_no_pass() {
    let Some(host) = host_with_veths() else {
        return;
    };
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&desired()).await;
        expect_rest(&mut dataplane, &desired()).await;
        // Another address: a transaction and nothing that rtnetlink would tell.
        let mut more = desired();
        more.workloads
            .insert(OTHER_IFACE.into(), workload("172.17.8.3"));
        dataplane.apply(&more).await;
        expect_rest(&mut dataplane, &more).await;
    });
}

#[test]
fn workload_that_comes_or_goes_changes_elements_only() {
    let Some(host) = host_with_veths() else {
        return;
    };
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&desired()).await;
        let handles = || {
            let text = nft(&host, "-a list table inet caracal");
            let is_fixed = |line: &&str| line.contains("# handle");
            text.lines()
                .filter(is_fixed)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let before = handles();
        let mut more = desired();
        more.workloads
            .insert(OTHER_IFACE.into(), workload("172.17.8.3"));
        let report = dataplane.apply(&more).await;
        assert_eq!((report.failed, report.repairs), (vec![], BTreeMap::new()));
        assert!(table(&host).contains("\"cara0123456789b\" . 172.17.8.3"));
        assert_eq!(handles(), before);
        dataplane.apply(&desired()).await;
        assert!(!table(&host).contains("172.17.8.3"));
        assert_eq!(handles(), before);
    });
}

#[test]
fn foreign_tables_stay_as_they_are() {
    let Some(host) = host_with_veths() else {
        return;
    };
    load(&host, FOREIGN);
    let foreign = || {
        let others = ["list table inet other", "list table ip caracal"];
        others.map(|command| nft(&host, &format!("-a {command}")))
    };
    let before = foreign();
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&desired()).await;
        assert_eq!(foreign(), before);
        nft(&host, "delete table inet caracal");
        dataplane.request_resync().await;
        dataplane.apply(&desired()).await;
        assert_eq!(foreign(), before);
        let report = dataplane.uninstall().await;
        assert_eq!(report.failed, []);
    });
    assert_eq!(foreign(), before);
    let tables = nft(&host, "list tables");
    assert_eq!(tables, "table inet other\ntable ip caracal\n");
}

#[test]
fn table_goes_with_the_last_workload() {
    let Some(host) = host_with_veths() else {
        return;
    };
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&desired()).await;
        let report = dataplane.apply(&Desired::default()).await;
        assert_eq!(report.failed, []);
    });
    assert_eq!(nft(&host, "list tables"), "");
}

async fn open_with(nft_program: &str) -> Dataplane {
    let options = DataplaneOptions {
        nft_program: nft_program.into(),
        ..DataplaneOptions::new("/nonexistent".into())
    };
    Dataplane::open(options).await.expect("opens")
}

#[test]
fn routes_are_written_without_nft_and_its_absence_is_reported() {
    let Some(host) = host_with_veths() else {
        return;
    };
    host.block_on(async || {
        let mut dataplane = open_with("/nonexistent/nft").await;
        let report = dataplane.apply(&desired()).await;
        let [(object, reason)] = report.failed.as_slice() else {
            panic!("{report:?}");
        };
        assert_eq!(object, "nft");
        assert!(reason.contains("install the package nftables"), "{reason}");
        assert!(reason.contains("taken from any address"), "{reason}");
        assert_eq!(report.workload_states[IFACE], Ok(()));
        assert!(host.ip("route show").contains("172.17.8.2 dev"));
        // Nothing to protect, nothing to complain of.
        let report = dataplane.apply(&Desired::default()).await;
        assert_eq!(report.failed, []);
        let report = dataplane.uninstall().await;
        assert_eq!(report.failed, []);
    });
}

#[test]
fn refused_transaction_is_reported_and_made_good() {
    let Some(host) = host_with_veths() else {
        return;
    };
    // Lists, and refuses to write while a file is there.
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = directory.path().join("nft");
    let marker = directory.path().join("refuses");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != -f ] || [ ! -e {} ] || {{ echo Error: not today >&2; exit 1; }}\nexec nft \"$@\"\n",
        marker.display()
    );
    std::fs::write(&program, script).expect("writable");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("settable");
    std::fs::write(&marker, "").expect("writable");
    host.block_on(async || {
        let mut dataplane = open_with(&program.display().to_string()).await;
        let report = dataplane.apply(&desired()).await;
        assert_eq!(report.failed.len(), 1, "{report:?}");
        assert!(report.failed[0].1.contains("not today"), "{report:?}");
        std::fs::remove_file(&marker).expect("removable");
        let report = dataplane.apply(&desired()).await;
        assert_eq!((report.failed, report.repairs), (vec![], BTreeMap::new()));
    });
    assert!(table(&host).contains("172.17.8.2"));
}

/// Writes a script as the driver does, and reads the table back.
fn written(host: &Namespace, script: &str) -> Observed {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), script).expect("writable");
    nft(host, &format!("-f {}", file.path().display()));
    let text = nft(host, "-j -n list table inet caracal");
    observe::parse(&text).expect("understood")
}

#[test]
fn table_of_a_node_with_tunnel_compares_as_equal() {
    let Some(host) = host_with_veths() else {
        return;
    };
    for driver in TunnelDriver::ALL {
        let with = |remotes: [u8; 2]| {
            let local = Ipv4Addr::new(10, 0, 0, 1);
            let mut tunnel = tunnel(driver, local, 8, None);
            tunnel.remotes = remotes.map(|octet| Ipv4Addr::new(10, 0, 0, octet)).into();
            tunnel.address6 = "2001:db8::1".parse().ok();
            contents::wanted(&contents::Contents {
                workloads: &desired().workloads,
                answers_for_gateway: true,
                tunnels: &[(driver, tunnel)].into(),
                foreign_peers: &[],
            })
        };
        let first = written(&host, &render::script(&with([2, 3]), &Changes::Rebuild));
        assert_eq!(diff::changes(&with([2, 3]), Some(&first)), Changes::None);
        let changes = diff::changes(&with([3, 4]), Some(&first));
        let second = written(&host, &render::script(&with([3, 4]), &changes));
        assert_eq!(diff::changes(&with([3, 4]), Some(&second)), Changes::None);
    }
}

/// For chains, sets and maps that no node has yet: whatever the model can say, the kernel takes and
/// shows as it was said, from nothing and from another table.
#[test]
fn every_kind_of_set_and_map_compares_as_equal() {
    let Some(host) = host_with_veths() else {
        return;
    };
    let name = Field::Interface(InterfaceName::new(IFACE).expect("a name"));
    let v4 = |octet| Field::V4(Ipv4Addr::new(192, 0, 2, octet));
    let v6: IpAddr = "2001:db8::".parse().expect("an address");
    let tables = [("fw-a", 1), ("fw-b", 2)].map(|(chain, octet)| {
        let mut table = Table::default();
        table.rule(chain, Rule::new("all", "counter accept"));
        let mut nat = Chain::at("nat", "prerouting", -100);
        let rule = "dnat ip to ip daddr . meta l4proto . th dport map @ports";
        nat.rules.push(Rule::new("ports", rule));
        table.chains.insert("portmap".into(), nat);
        let verdict = |value| Element {
            key: vec![name.clone()],
            value: Some(value),
        };
        let sets = [
            (
                "protocols",
                Set::of([Kind::Protocol], [vec![Field::Protocol(17)]]),
            ),
            ("ports-only", Set::of([Kind::Port], [vec![Field::Port(80)]])),
            (
                "networks",
                Set {
                    is_interval: true,
                    ..Set::of([Kind::V6], [vec![Field::Prefix(v6, 32 + octet)]])
                },
            ),
            (
                "dispatch",
                Set {
                    value: Some(ValueKind::Verdict),
                    elements: [verdict(Value::Goto(chain.into()))].into(),
                    ..Set::of([Kind::Interface], [])
                },
            ),
            (
                "ports",
                Set {
                    value: Some(ValueKind::Fields(vec![Kind::V4, Kind::Port])),
                    elements: [Element {
                        key: vec![v4(1), Field::Protocol(6), Field::Port(80)],
                        value: Some(Value::Fields(vec![v4(octet), Field::Port(8080)])),
                    }]
                    .into(),
                    ..Set::of([Kind::V4, Kind::Protocol, Kind::Port], [])
                },
            ),
        ];
        table.sets = sets.map(|(name, set)| (name.to_owned(), set)).into();
        table
    });
    let [first, second] = &tables;
    let held = written(&host, &render::script(first, &Changes::Rebuild));
    assert_eq!(diff::changes(first, Some(&held)), Changes::None);
    let changes = diff::changes(second, Some(&held));
    assert!(matches!(changes, Changes::Parts(_)), "{changes:?}");
    let held = written(&host, &render::script(second, &changes));
    assert_eq!(diff::changes(second, Some(&held)), Changes::None);

    // Elements that we cannot even name go all the same, and with them nothing else.
    for (set, element) in [
        ("dispatch", "\"eth0\" : continue"),
        ("networks", "2001:db9::1-2001:db9::9"),
    ] {
        nft(
            &host,
            &format!("add element inet caracal {set} {{ {element} }}"),
        );
    }
    let text = nft(&host, "-j -n list table inet caracal");
    let held = observe::parse(&text).expect("understood");
    let changes = diff::changes(second, Some(&held));
    assert!(matches!(changes, Changes::Parts(_)), "{changes:?}");
    let held = written(&host, &render::script(second, &changes));
    assert_eq!(diff::changes(second, Some(&held)), Changes::None);
}
