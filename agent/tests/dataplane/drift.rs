//! What others change of ours is put right and counted; what was never there is not.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::dataplane::desired::{Desired, Route, WorkloadLink};

use crate::netns::Namespace;
use crate::passes::{rest, wait_for_addresses};
use crate::routes::{has_ipv6, host, learned, open, prefix, via, wait_for};

pub const IFACE: &str = "cara0123456789a";

pub fn host_with_veth() -> Option<Namespace> {
    let host = host()?;
    host.ip(&format!("link add {IFACE} type veth peer name peer0"));
    host.ip("link set peer0 up");
    Some(host)
}

/// A workload and a blackhole.
pub fn desired() -> Desired {
    let workload = WorkloadLink {
        addresses: vec!["172.17.8.2".parse().expect("an address")],
        mac: Some([2, 0, 0, 0, 0, 1]),
    };
    Desired {
        workloads: BTreeMap::from([(IFACE.into(), workload)]),
        routes: BTreeMap::from([(prefix("172.17.8.0/24"), Route::Blackhole)]),
        ..Desired::default()
    }
}

#[test]
fn host_side_of_a_workload_is_as_specified() {
    let Some(host) = host_with_veth() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane.apply(&desired()).await;
        assert_eq!(
            report.workload_states,
            BTreeMap::from([(IFACE.to_owned(), Ok(()))])
        );
        assert_eq!(
            (report.failed.len(), report.repairs.len()),
            (0, 0),
            "{report:?}"
        );
    });
    for (path, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/cara0123456789a/proxy_arp", "1"),
        ("ipv4/conf/cara0123456789a/forwarding", "1"),
        ("ipv4/neigh/cara0123456789a/proxy_delay", "0"),
        ("ipv6/conf/cara0123456789a/accept_ra", "0"),
    ] {
        if path.starts_with("ipv6/") && !has_ipv6() {
            continue;
        }
        assert_eq!(host.sysctl(path), value, "{path}");
    }
    let link = host.ip(&format!("link show {IFACE}"));
    assert!(
        link.contains("ee:ee:ee:ee:ee:ee") && link.contains(",UP"),
        "{link}"
    );
    let neighbours = host.ip(&format!("neigh show dev {IFACE}"));
    assert!(
        neighbours.contains("172.17.8.2 lladdr 02:00:00:00:00:01 PERMANENT"),
        "{neighbours}"
    );
    let routes = host.ip("-N route show");
    assert!(
        routes.contains(&format!(
            "172.17.8.2 dev {IFACE} proto 202 scope 253 metric 202"
        )),
        "{routes}"
    );
}

#[test]
fn drift_is_repaired_and_counted_by_kind() {
    for (name, spoil, kind, count) in [
        ("deleted route", "ip route del 172.17.8.2", "route", 1),
        (
            "deleted blackhole",
            "ip route del blackhole 172.17.8.0/24",
            "route",
            1,
        ),
        (
            "deleted learned route",
            "ip route del 172.17.9.0/24",
            "route",
            1,
        ),
        (
            "changed learned route",
            "ip route change 172.17.9.0/24 via 10.0.0.7 dev eth0 onlink proto 203 metric 202",
            "route",
            1,
        ),
        ("NIC taken down and up", "ip link set eth0 down", "", 0),
        (
            "changed sysctl",
            "sysctl -qw net.ipv4.conf.cara0123456789a.proxy_arp=0",
            "sysctl",
            1,
        ),
        (
            "forwarding switched off",
            "sysctl -qw net.ipv4.ip_forward=0",
            "sysctl",
            1,
        ),
        (
            "deleted neighbour",
            "ip neigh del 172.17.8.2 dev cara0123456789a",
            "neighbour",
            1,
        ),
        (
            "changed neighbour",
            "ip neigh change 172.17.8.2 lladdr 02:00:00:00:00:09 dev cara0123456789a nud permanent",
            "neighbour",
            1,
        ),
        (
            "other MAC",
            "ip link set cara0123456789a address 02:00:00:00:00:08",
            "link",
            1,
        ),
        (
            "link taken down",
            "ip link set cara0123456789a down",
            "link",
            1,
        ),
    ] {
        let Some(host) = host_with_veth() else { return };
        host.block_on(async || {
            let mut dataplane = open().await;
            dataplane.apply(&desired()).await;
            dataplane
                .apply_learned(vec![learned(
                    "172.17.9.0/24",
                    Some(via("10.0.0.2", "eth0")),
                )])
                .await;
            dataplane.request_resync().await;
            let quiet = dataplane.apply(&desired()).await;
            assert_eq!(
                quiet.repairs,
                BTreeMap::new(),
                "{name}: nothing to repair yet"
            );
            let right = evidence(&host);

            let (is_ok, output) = host.run(spoil);
            assert!(is_ok, "{name}: {output}");
            dataplane.request_resync().await;
            let report = dataplane.apply(&desired()).await;
            if kind.is_empty() {
                return;
            }
            assert_eq!(report.repairs.get(kind), Some(&count), "{name}: {report:?}");
            assert_eq!(evidence(&host), right, "{name}");
            let writes = dataplane.writes().await;
            dataplane.request_resync().await;
            let report = dataplane.apply(&desired()).await;
            assert_eq!(report.repairs, BTreeMap::new(), "{name}: repaired once");
            assert_eq!(
                dataplane.writes().await,
                writes,
                "{name}: nothing more to write"
            );
        });
    }
}

/// Everything the kernel shows of ours.
fn evidence(host: &Namespace) -> String {
    [
        host.ip("route show"),
        host.ip("neigh show nud permanent"),
        host.ip(&format!("-br link show {IFACE}")),
        host.sysctl("ipv4/ip_forward"),
        host.sysctl(&format!("ipv4/conf/{IFACE}/proxy_arp")),
        host.sysctl(&format!("ipv4/conf/{IFACE}/forwarding")),
    ]
    .join("\n")
}

#[test]
fn learned_routes_come_back_with_their_device() {
    let Some(host) = host_with_veth() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&desired()).await;
        dataplane
            .apply_learned(vec![learned(
                "172.17.9.0/24",
                Some(via("10.0.0.2", "eth0")),
            )])
            .await;
        let mut changes = dataplane.changes();
        host.ip("link set eth0 down");
        wait_for(&mut changes, |change| change.links).await;
        dataplane.apply(&desired()).await;
        assert!(!host.ip("route show").contains("172.17.9.0/24"));
        host.ip("link set eth0 up");
        // The kernel reports a link more than once; the one that matters comes in time.
        let reinstalled = async {
            while !host.ip("route show").contains("172.17.9.0/24 via 10.0.0.2") {
                changes.changed().await;
                dataplane.apply(&desired()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reinstalled)
            .await
            .expect("route returns");
    });
}

#[test]
fn own_writes_do_not_wake_the_loop() {
    let Some(host) = host_with_veth() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        let mut changes = dataplane.changes();
        dataplane.apply(&desired()).await;
        let many = (0..500).map(|i| {
            learned(
                &format!("172.18.{}.{}/32", i / 250, i % 250),
                Some(via("10.0.0.2", "eth0")),
            )
        });
        dataplane.apply_learned(many.collect()).await;
        wait_for_addresses(&host);
        // The link's coming up is reported by the kernel in its own name; a pass follows, and none after it.
        let passes = rest(&mut dataplane, &mut changes, &desired()).await;
        assert!(passes < 5, "passes cause passes");
        let written = dataplane.writes().await;
        dataplane.apply(&desired()).await;
        assert_eq!(dataplane.writes().await, written);
    });
}

#[test]
fn neighbours_that_a_workload_makes_up_wake_nobody() {
    let Some(host) = host_with_veth() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        let mut changes = dataplane.changes();
        dataplane.apply(&desired()).await;
        wait_for_addresses(&host);
        rest(&mut dataplane, &mut changes, &desired()).await;
        for last in 10..30 {
            host.ip(&format!(
                "neigh add 172.17.8.{last} lladdr 02:00:00:00:00:07 nud stale dev {IFACE}"
            ));
        }
        let woken = tokio::time::timeout(Duration::from_millis(300), changes.changed()).await;
        assert!(woken.is_err(), "{woken:?}");
        // As an ARP answer of another MAC would, if the kernel took it.
        host.ip(&format!(
            "neigh replace 172.17.8.2 lladdr 02:00:00:00:00:07 nud stale dev {IFACE}"
        ));
        wait_for(&mut changes, |change| change.own).await;
        let report = dataplane.apply(&desired()).await;
        assert_eq!(report.repairs.get("neighbour"), Some(&1), "{report:?}");
    });
}

#[test]
fn missing_veth_is_pending_until_it_appears() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane.apply(&desired()).await;
        let reason = format!("interface {IFACE} does not exist");
        assert_eq!(report.workload_states[IFACE], Err(reason));
        assert_eq!(report.failed, [], "waiting is no failure");
        let mut changes = dataplane.changes();
        host.ip(&format!("link add {IFACE} type veth peer name peer0"));
        wait_for(&mut changes, |change| change.own).await;
        let report = dataplane.apply(&desired()).await;
        assert_eq!(report.workload_states[IFACE], Ok(()));
        assert_eq!(
            report.repairs,
            BTreeMap::new(),
            "first-time creation is no repair"
        );
    });
}
