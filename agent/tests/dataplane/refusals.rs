//! What the kernel does not take is said with its reason, tried again, and leaves the rest working.

use std::net::Ipv4Addr;

use agent::dataplane::ApplyReport;
use agent::dataplane::desired::{Desired, RouteState, TunnelDriver};

use crate::netns::Namespace;
use crate::routes::{host, learned, open, prefix, via};
use crate::site::tunnel;

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn routes(host: &Namespace) -> String {
    host.ip("route show proto 203")
}

#[test]
fn route_by_a_gateway_that_none_can_be_is_refused_alone_and_tried_again() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        let changes = vec![
            learned("172.17.9.0/24", Some(via("10.0.0.2", "eth0"))),
            learned("172.17.10.0/24", Some(via("10.0.0.255", "eth0"))),
            learned("172.17.11.0/24", Some(via("10.0.0.3", "eth0"))),
        ];
        let report = dataplane.apply_learned(changes).await;
        let reason = "Nexthop has invalid gateway (EINVAL: Invalid argument)".to_owned();
        let failed = [("route 172.17.10.0/24".to_owned(), reason.clone())];
        assert_eq!(report.failed, failed);
        let state = dataplane.route_state(prefix("172.17.10.0/24")).await;
        let state = state.map(|(_, state)| state);
        assert_eq!(state, Some(RouteState::Failed { reason }));
        for other in ["172.17.9.0/24", "172.17.11.0/24"] {
            assert!(routes(&host).contains(other), "{}", routes(&host));
        }
        let report = dataplane.apply(&Desired::default()).await;
        assert_eq!(report.failed, failed, "and again");

        // Now it is an address like any other.
        host.ip("route del broadcast 10.0.0.255 dev eth0 table local");
        let report = dataplane.apply(&Desired::default()).await;
        assert_eq!(report, ApplyReport::default());
        assert!(
            routes(&host).contains("172.17.10.0/24 via 10.0.0.255"),
            "{}",
            routes(&host)
        );
    });
}

#[test]
fn route_by_a_device_that_has_gone_unseen_waits_for_it() {
    let Some(host) = host() else { return };
    let add = || {
        host.ip("link add eth1 type veth peer name lan1");
        host.ip("link set eth1 up");
    };
    add();
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&Desired::default()).await;
        // Before any notification is read.
        host.ip("link del eth1");
        let changes = vec![
            learned("172.17.9.0/24", Some(via("10.1.0.2", "eth1"))),
            learned("172.17.10.0/24", Some(via("10.0.0.2", "eth0"))),
        ];
        let report = dataplane.apply_learned(changes).await;
        assert_eq!(report.failed, [], "waiting is no failure");
        let state = dataplane.route_state(prefix("172.17.9.0/24")).await;
        let Some((_, RouteState::Pending { reason })) = state else {
            panic!("{state:?}")
        };
        assert!(
            reason.contains("No such device") || reason == "device eth1 does not exist",
            "{reason}"
        );
        assert!(
            routes(&host).contains("172.17.10.0/24"),
            "{}",
            routes(&host)
        );
        // Another device of the name, with another index.
        add();
        dataplane.apply(&Desired::default()).await;
        assert!(
            routes(&host).contains("172.17.9.0/24 via 10.1.0.2 dev eth1"),
            "{}",
            routes(&host)
        );
    });
}

#[test]
fn forwarding_entry_that_finds_the_table_full_is_named_and_the_others_are_there() {
    let Some(host) = host() else { return };
    // Ours by its name; whoever made it left room for one.
    host.ip("link add caracal-vxlan type vxlan id 4096 dstport 4789 local 10.0.0.1 maxaddress 1");
    let driver = TunnelDriver::Vxlan;
    let mut wanted = tunnel(driver, LOCAL, 8, Some((Ipv4Addr::new(10, 0, 0, 2), 2)));
    let (mac, _) = wanted.forwarding.pop_first().expect("an entry");
    let mut second = mac;
    second[5] ^= 1;
    wanted.forwarding = [
        (mac, Ipv4Addr::new(10, 0, 0, 2)),
        (second, Ipv4Addr::new(10, 0, 0, 3)),
    ]
    .into();
    let mut desired = Desired {
        tunnels: [(driver, wanted)].into(),
        ..Desired::default()
    };
    host.block_on(async || {
        let mut dataplane = open().await;
        for attempt in 1..3 {
            let report = dataplane.apply(&desired).await;
            let [(object, reason)] = report.failed.as_slice() else {
                panic!("attempt {attempt}: {report:?}")
            };
            assert!(object.starts_with("forwarding "), "{object}");
            assert!(reason.contains("no space left"), "{reason}");
            let entries = host.run("bridge fdb show dev caracal-vxlan").1;
            assert_eq!(entries.lines().count(), 1, "{entries}");
            assert!(
                host.ip("neigh show dev caracal-vxlan")
                    .contains("PERMANENT"),
                "the rest is there"
            );
        }
        // One node less: there is room.
        let tunnel = desired.tunnels.get_mut(&driver).expect("a tunnel");
        tunnel.forwarding.pop_first();
        assert_eq!(dataplane.apply(&desired).await.failed, []);
    });
}
