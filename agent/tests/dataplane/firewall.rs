//! A host whose firewall forwards nothing by itself: it is named, and opened only when asked.

use std::time::Duration;

use agent::dataplane::{ApplyReport, Dataplane, DataplaneOptions};

use crate::connections::{Scene, scene};
use crate::netns::wait_until;
use crate::routes::wait_for;
use crate::site::DEADLINE;

const CLIENT: &str = "10.1.0.2";

/// As docker leaves it, by iptables on nftables.
const POLICY: &str = "\
add table ip filter
add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
add rule ip filter FORWARD iifname \"docker0\" accept
";
/// As firewalld leaves it.
const REJECT: &str = "\
add table inet firewalld
add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }
add rule inet firewalld filter_FORWARD ct state established,related accept
add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited
";

/// As POLICY, with what kube-proxy put in front: nobody answers for the service 10.96.0.14.
const KUBE_PROXY: &str = "\
add table ip filter
add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
add chain ip filter KUBE-FORWARD
add chain ip filter KUBE-SERVICES
add rule ip filter KUBE-SERVICES ip daddr 10.96.0.14 counter reject
add rule ip filter FORWARD counter jump KUBE-FORWARD
add rule ip filter FORWARD ct state new counter jump KUBE-SERVICES
add rule ip filter FORWARD iifname \"docker0\" accept
";

fn blocked_by(firewall: &str) -> Option<Scene> {
    let scene = scene()?;
    firewall.lines().for_each(|line| scene.nft(line));
    Some(scene)
}

async fn open(opens_host_firewall: bool) -> Dataplane {
    let options = DataplaneOptions {
        opens_host_firewall,
        ..DataplaneOptions::new("/nonexistent".into())
    };
    Dataplane::open(options).await.expect("opens")
}

fn apply(scene: &Scene, opens_host_firewall: bool) -> ApplyReport {
    let report = scene.host.block_on(async || {
        let mut dataplane = open(opens_host_firewall).await;
        dataplane.apply(&scene.desired).await
    });
    assert_eq!(report.failed, []);
    report
}

/// Everything but our own table, and counters.
fn foreign(scene: &Scene) -> String {
    let (is_ok, text) = scene.host.run("nft -s -a list ruleset");
    assert!(is_ok, "{text}");
    let tables = text.split("\ntable ").map(str::trim);
    let others = tables.filter(|table| {
        !table
            .trim_start_matches("table ")
            .starts_with("inet caracal")
    });
    others.collect::<Vec<_>>().join("\n")
}

fn can_ping(scene: &Scene) -> bool {
    scene.workloads[0].can_ping(CLIENT) && scene.client.can_ping("172.17.8.3")
}

/// A busy machine loses one now and then.
fn wait_for_ping(scene: &Scene) {
    wait_until(
        "pings to and from workloads",
        DEADLINE,
        || can_ping(scene),
        || foreign(scene),
    );
}

#[test]
fn firewall_that_blocks_is_named_and_left_alone() {
    for (name, firewall, chain) in [
        ("policy drop", POLICY, "ip filter FORWARD"),
        ("last rule rejects", REJECT, "inet firewalld filter_FORWARD"),
    ] {
        let Some(scene) = blocked_by(firewall) else {
            return;
        };
        let before = foreign(&scene);
        let report = apply(&scene, false);
        assert_eq!(report.findings.len(), 1, "{name}: {report:?}");
        let (object, reason) = &report.findings[0];
        assert_eq!(object, "host firewall", "{name}");
        assert!(reason.contains(chain), "{name}: {reason}");
        assert!(reason.contains("hostFirewall: insert"), "{name}: {reason}");
        assert!(!can_ping(&scene), "{name}");
        assert_eq!(foreign(&scene), before, "{name}");
    }
}

#[test]
fn insert_lets_workloads_through_until_it_is_not_asked_for() {
    for (name, firewall) in [
        ("policy drop", POLICY),
        ("last rule rejects", REJECT),
        ("kube-proxy and policy drop", KUBE_PROXY),
    ] {
        let Some(scene) = blocked_by(firewall) else {
            return;
        };
        let before = foreign(&scene);
        let report = apply(&scene, true);
        assert_eq!(report.findings, [], "{name}");
        wait_for_ping(&scene);
        let opened = foreign(&scene);
        assert_eq!(opened.matches("comment \"caracal\"").count(), 2, "{opened}");

        apply(&scene, true);
        assert_eq!(foreign(&scene), opened, "{name}: a restart writes nothing");
        let report = apply(&scene, false);
        assert_eq!(report.findings.len(), 1, "{name}: {report:?}");
        assert_eq!(foreign(&scene), before, "{name}: without the key");

        apply(&scene, true);
        let report = scene
            .host
            .block_on(async || open(false).await.uninstall().await);
        assert_eq!(report.failed, [], "{name}");
        assert_eq!(foreign(&scene), before, "{name}: uninstalled");
    }
}

#[test]
fn what_kube_proxy_refuses_is_still_refused() {
    let Some(scene) = blocked_by(KUBE_PROXY) else {
        return;
    };
    let (is_ok, text) = scene
        .host
        .run(&format!("ip route add 10.96.0.0/16 via {CLIENT}"));
    assert!(is_ok, "{text}");
    apply(&scene, true);
    wait_for_ping(&scene);
    let (_, said) = scene.workloads[0].run("ping -c 1 -W 2 10.96.0.14");
    let opened = foreign(&scene);
    assert!(said.contains("Port Unreachable"), "{said}{opened}");
}

#[test]
fn rules_that_went_with_a_reload_are_put_back_and_counted() {
    let Some(scene) = blocked_by(POLICY) else {
        return;
    };
    scene.host.block_on(async || {
        let mut dataplane = open(true).await;
        dataplane.apply(&scene.desired).await;
        scene.nft("flush chain ip filter FORWARD");
        dataplane.request_resync().await;
        let report = dataplane.apply(&scene.desired).await;
        assert_eq!(report.repairs.get("host firewall"), Some(&1), "{report:?}");
    });
    wait_for_ping(&scene);
}

/// Looks now and then, as whoever is told of a change.
async fn apply_until(dataplane: &mut Dataplane, scene: &Scene, findings: usize) {
    let mut changes = dataplane.changes();
    let found = async {
        while dataplane.apply(&scene.desired).await.findings.len() != findings {
            let change = tokio::time::timeout(Duration::from_millis(100), changes.changed());
            let _ = change.await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, found).await;
    found.expect("the firewall is looked at");
}

#[test]
fn changed_policy_is_found_without_a_resync() {
    let Some(scene) = blocked_by(POLICY) else {
        return;
    };
    scene.host.block_on(async || {
        let mut dataplane = open(false).await;
        let mut changes = dataplane.changes();
        assert_eq!(dataplane.apply(&scene.desired).await.findings.len(), 1);
        scene.nft("add chain ip filter FORWARD { policy accept; }");
        wait_for(&mut changes, |change| change.own).await;
        apply_until(&mut dataplane, &scene, 0).await;
        scene.nft("add chain ip filter FORWARD { policy drop; }");
        wait_for(&mut changes, |change| change.own).await;
        apply_until(&mut dataplane, &scene, 1).await;
    });
}

#[test]
fn firewall_that_accepts_workloads_or_everything_is_no_finding() {
    for (name, more) in [
        (
            "rules of the user",
            "add rule ip filter FORWARD iifname \"cara*\" counter accept\n\
             add rule ip filter FORWARD oifname \"cara*\" counter accept\n",
        ),
        (
            "policy accept",
            "add chain ip filter FORWARD { policy accept; }\n",
        ),
    ] {
        let Some(scene) = blocked_by(&format!("{POLICY}{more}")) else {
            return;
        };
        let before = foreign(&scene);
        let report = apply(&scene, true);
        assert_eq!(report.findings, [], "{name}");
        wait_for_ping(&scene);
        assert_eq!(foreign(&scene), before, "{name}");
    }
}

#[test]
fn legacy_iptables_is_treated_alike() {
    let Some(scene) = scene() else { return };
    let has_legacy = std::path::Path::new("/usr/sbin/iptables-legacy").exists();
    if !has_legacy
        || !scene
            .host
            .run("/usr/sbin/iptables-legacy -P FORWARD DROP")
            .0
    {
        println!("SKIPPED: no iptables-legacy, or a kernel without it");
        return;
    }
    let rules = || scene.host.run("/usr/sbin/iptables-legacy -S FORWARD").1;
    let before = rules();
    let report = apply(&scene, false);
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(!can_ping(&scene));
    assert_eq!(rules(), before);

    let report = apply(&scene, true);
    assert_eq!(report.findings, []);
    wait_for_ping(&scene);
    let opened = rules();
    assert_eq!(opened.matches("--comment caracal").count(), 2, "{opened}");
    apply(&scene, true);
    assert_eq!(rules(), opened, "a restart writes nothing");

    let report = scene
        .host
        .block_on(async || open(false).await.uninstall().await);
    assert_eq!(report.failed, []);
    assert_eq!(rules(), before);
}

#[test]
fn our_rules_are_there_once_whoever_inserted_them() {
    let Some(scene) = blocked_by(POLICY) else {
        return;
    };
    apply(&scene, true);
    let opened = foreign(&scene);
    // As by a program that outlived the agent before.
    for key in ["iifname", "oifname"] {
        scene.nft(&format!(
            "insert rule ip filter FORWARD {key} \"cara*\" counter accept comment \"caracal\""
        ));
    }
    apply(&scene, true);
    let once = foreign(&scene);
    assert_eq!(once.matches("comment \"caracal\"").count(), 2, "{once}");
    assert_eq!(once.lines().count(), opened.lines().count(), "{once}");
}
