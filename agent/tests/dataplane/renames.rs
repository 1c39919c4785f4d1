//! Interfaces whose name or index changes under what stands on them.

use std::collections::BTreeMap;

use agent::dataplane::desired::{Desired, RouteState};

use crate::drift::{self, IFACE, host_with_veth};
use crate::netns::Namespace;
use crate::passes::{pass_until, rest};
use crate::routes::{host, learned, open, prefix, via, wait_for};

/// Of the one workload.
const ADDRESS: &str = "172.17.8.2";

fn desired() -> Desired {
    Desired {
        routes: BTreeMap::new(),
        ..drift::desired()
    }
}

/// The route, the neighbour and the parameters of the workload.
fn expect_in_place(host: &Namespace, name: &str) {
    let routes = host.ip("route show proto 202");
    assert!(
        routes.contains(&format!("{ADDRESS} dev {IFACE}")),
        "{name}: {routes}"
    );
    let neighbours = host.ip(&format!("neigh show dev {IFACE}"));
    assert!(
        neighbours.contains("172.17.8.2 lladdr 02:00:00:00:00:01 PERMANENT"),
        "{name}: {neighbours}"
    );
    let proxy_arp = host.sysctl(&format!("ipv4/conf/{IFACE}/proxy_arp"));
    assert_eq!(proxy_arp, "1", "{name}");
}

#[test]
fn workload_follows_its_link_through_rename_and_re_creation() {
    let Some(host) = host_with_veth() else { return };
    let missing = format!("interface {IFACE} does not exist");
    host.block_on(async || {
        let mut dataplane = open().await;
        let mut changes = dataplane.changes();
        dataplane.apply(&desired()).await;
        expect_in_place(&host, "at first");
        type Step = (
            &'static str,
            &'static [&'static str],
            &'static [&'static str],
        );
        let cases: [Step; 3] = [
            (
                "renamed, and back",
                &[
                    "link set cara0123456789a down",
                    "link set cara0123456789a name away0",
                ],
                &["link set away0 name cara0123456789a"],
            ),
            (
                "made anew",
                &["link del cara0123456789a"],
                &[
                    "link add cara0123456789a type veth peer name peer0",
                    "link set peer0 up",
                ],
            ),
            (
                "renamed, and another in its place",
                &[
                    "link set cara0123456789a down",
                    "link set cara0123456789a name away0",
                ],
                &[
                    "link del away0",
                    "link add cara0123456789a index 4711 type veth peer name peer0",
                    "link set peer0 up",
                ],
            ),
        ];
        for (name, take_away, give_back) in cases {
            take_away.iter().for_each(|command| drop(host.ip(command)));
            let gone = async {
                loop {
                    changes.changed().await;
                    let report = dataplane.apply(&desired()).await;
                    if report.workload_states[IFACE] == Err(missing.clone()) {
                        let is_told = |(_, reason): &(_, String)| reason.starts_with(&missing);
                        let findings = report.findings;
                        assert!(findings.iter().any(is_told), "{name}: {findings:?}");
                        break;
                    }
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(5), gone)
                .await
                .expect(name);
            let routes = host.ip("route show proto 202");
            assert!(!routes.contains(ADDRESS), "{name}: {routes}");
            give_back.iter().for_each(|command| drop(host.ip(command)));
            pass_until(name, &mut dataplane, &desired(), async |_, report| {
                report.workload_states[IFACE] == Ok(()) && report.failed.is_empty()
            })
            .await;
            expect_in_place(&host, name);
        }
    });
}

#[test]
fn learned_route_stays_on_a_renamed_link_until_it_is_said_anew() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        let by_old = learned("172.17.9.0/24", Some(via("10.0.0.2", "eth0")));
        dataplane.apply(&Desired::default()).await;
        dataplane.apply_learned(vec![by_old]).await;
        let mut changes = dataplane.changes();
        rest(&mut dataplane, &mut changes, &Desired::default()).await;
        if !host.run("ip link set eth0 name wan0").0 {
            println!("SKIPPED: this kernel does not rename links that are up");
            return;
        }
        wait_for(&mut changes, |change| change.links).await;
        let writes = dataplane.writes().await;
        let report = dataplane.apply(&Desired::default()).await;
        assert_eq!(report.failed, []);
        let by_new = learned("172.17.9.0/24", Some(via("10.0.0.2", "wan0")));
        dataplane.apply_learned(vec![by_new]).await;
        assert_eq!(dataplane.writes().await, writes, "it is the same route");
        let state = dataplane.route_state(prefix("172.17.9.0/24")).await;
        assert_eq!(state.map(|(_, state)| state), Some(RouteState::Installed));
        let routes = host.ip("route show proto 203");
        assert!(
            routes.contains("172.17.9.0/24 via 10.0.0.2 dev wan0"),
            "{routes}"
        );
    });
}
