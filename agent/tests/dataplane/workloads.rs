//! Attaching workloads: what they see, and that they reach each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use agent::dataplane::desired::{Desired, WorkloadLink};
use agent::dataplane::{AttachError, WorkloadSpec, attach_workload, detach_workload};
use agent::names::host_interface;

use crate::netns::{Namespace, wait_until};
use crate::routes::open;

fn spec(workload: &Namespace, name: &str, address: &str) -> WorkloadSpec {
    WorkloadSpec {
        netns: workload.descriptor(),
        container_interface: "eth0".into(),
        host_interface: host_interface(name),
        addresses: vec![address.parse().expect("an address")],
        mtu: 1480,
    }
}

async fn attach(workload: &Namespace, name: &str, address: &str) -> WorkloadLink {
    let spec = spec(workload, name, address);
    let addresses: Vec<IpAddr> = spec.addresses.clone();
    let attached = attach_workload(spec).await.expect("attaches");
    WorkloadLink {
        addresses,
        mac: Some(attached.mac),
    }
}

#[test]
fn workloads_on_one_host_reach_each_other() {
    let Some(host) = Namespace::new() else { return };
    let (Some(one), Some(two)) = (Namespace::new(), Namespace::new()) else {
        return;
    };
    host.block_on(async || {
        let mut dataplane = open().await;
        let mut workloads = BTreeMap::new();
        for (namespace, name, address) in [
            (&one, "default.one", "172.17.8.2"),
            (&two, "default.two", "172.17.8.3"),
        ] {
            let link = attach(namespace, name, address).await;
            workloads.insert(host_interface(name), link);
        }
        let report = dataplane
            .apply(&Desired {
                workloads,
                ..Desired::default()
            })
            .await;
        assert!(report.failed.is_empty(), "{report:?}");
        assert!(
            report.workload_states.values().all(Result::is_ok),
            "{report:?}"
        );
    });
    // No default route on the host: it would not answer ARP for the gateway. The kernel starts the
    // queue of the workload's own end in the background, and drops packets until it has.
    wait_until(
        "one reaches the other",
        Duration::from_secs(5),
        || one.can_ping("172.17.8.3"),
        || format!("{}\n{}", one.ip("neigh"), host.ip("route")),
    );
    assert!(two.can_ping("172.17.8.2"));
    let routes = one.ip("route show");
    assert_eq!(
        routes.lines().map(str::trim).collect::<Vec<_>>(),
        [
            "default via 169.254.1.1 dev eth0",
            "169.254.1.1 dev eth0 scope link"
        ]
    );
    let neighbours = one.ip("neigh show");
    assert!(
        neighbours.contains("169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT"),
        "{neighbours}"
    );
    let link = one.ip("addr show eth0");
    assert!(
        link.contains("mtu 1480") && link.contains("172.17.8.2/32"),
        "{link}"
    );
    assert!(one.ip("link show lo").contains("UP"));
}

#[test]
fn attach_is_repeatable_and_detach_too() {
    let Some(host) = Namespace::new() else { return };
    let Some(workload) = Namespace::new() else {
        return;
    };
    let name = host_interface("default.one");
    host.block_on(async || {
        let first = attach(&workload, "default.one", "172.17.8.2").await;
        let again = attach(&workload, "default.one", "172.17.8.2").await;
        assert_ne!(
            first.mac, again.mac,
            "a new veth took the place of the stale one"
        );
        assert!(host.ip("-br link show").contains(&name));
        for _ in 0..2 {
            detach_workload(name.clone())
                .await
                .expect("gone or already gone");
        }
    });
    assert!(!host.ip("-br link show").contains(&name));
    assert!(
        !workload.run("ip link show eth0").0,
        "the workload's end went too"
    );
}

#[test]
fn many_attach_and_detach_at_once() {
    const COUNT: usize = 150;
    let Some(host) = Namespace::new() else { return };
    let workloads: Vec<Namespace> = (0..COUNT).map_while(|_| Namespace::new()).collect();
    assert_eq!(workloads.len(), COUNT);
    let name = |index: usize| format!("default.crowd-{index}");
    host.block_on(async || {
        let mut dataplane = open().await;
        let start = Instant::now();
        let mut calls = tokio::task::JoinSet::new();
        for (index, workload) in workloads.iter().enumerate() {
            let address = format!("172.17.{}.{}", index / 250, index % 250 + 2);
            let spec = spec(workload, &name(index), &address);
            calls.spawn(async move {
                let attached = attach_workload(spec).await;
                attached.map(|_| ()).map_err(|error| format!("{error:?}"))
            });
        }
        // The tables that passes read change all the time meanwhile.
        let report = dataplane.apply(&Desired::default()).await;
        assert!(report.failed.is_empty(), "{report:?}");
        for outcome in calls.join_all().await {
            assert_eq!(outcome, Ok(()));
        }
        println!("{COUNT} attached in {:?}", start.elapsed());
        let mut calls = tokio::task::JoinSet::new();
        for index in 0..COUNT {
            let interface = host_interface(&name(index));
            calls.spawn(async move {
                let gone = detach_workload(interface).await;
                gone.map_err(|error| format!("{error:?}"))
            });
        }
        for outcome in calls.join_all().await {
            assert_eq!(outcome, Ok(()));
        }
        println!("and detached in {:?}", start.elapsed());
    });
    assert!(!host.ip("-br link show").contains("cara"));
}

#[test]
fn failed_attach_leaves_nothing() {
    let Some(host) = Namespace::new() else { return };
    let Some(workload) = Namespace::new() else {
        return;
    };
    workload.ip("link add eth0 type veth peer name lan0");
    host.block_on(async || {
        let error = attach_workload(spec(&workload, "default.one", "172.17.8.2")).await;
        assert!(
            matches!(&error, Err(AttachError::Occupied(name)) if name == "eth0"),
            "{error:?}"
        );

        // The veth is made, then its default route collides.
        workload.ip("link set lo up");
        workload.ip("route add default dev lo");
        let broken = WorkloadSpec {
            container_interface: "eth1".into(),
            ..spec(&workload, "default.one", "172.17.8.2")
        };
        let error = attach_workload(broken).await;
        assert!(
            matches!(error, Err(AttachError::Kernel { .. })),
            "{error:?}"
        );
    });
    assert_eq!(host.ip("-br link show type veth"), "");
    assert!(!workload.run("ip link show eth1").0);
}

#[test]
fn names_that_are_not_ours_are_refused() {
    let Some(host) = Namespace::new() else { return };
    let Some(workload) = Namespace::new() else {
        return;
    };
    host.ip("link add caraaaaaaaaaaaa type vxlan id 1 dstport 4789");
    host.block_on(async || {
        let foreign = WorkloadSpec {
            host_interface: "eth7".into(),
            ..spec(&workload, "x", "172.17.8.2")
        };
        let error = attach_workload(foreign).await;
        assert!(
            matches!(error, Err(AttachError::ForeignName(_))),
            "{error:?}"
        );
        let error = detach_workload("caraaaaaaaaaaaa".into()).await;
        assert!(
            matches!(error, Err(AttachError::ForeignLink { .. })),
            "{error:?}"
        );
    });
    assert!(host.ip("-br link show").contains("caraaaaaaaaaaaa"));
}

#[test]
fn many_learned_routes_do_not_slow_a_workload_down() {
    const LEARNED: u32 = 50_000;
    let Some(host) = crate::routes::host() else {
        return;
    };
    let Some(workload) = Namespace::new() else {
        return;
    };
    host.block_on(async || {
        let mut dataplane = open().await;
        let routes = (0..LEARNED).map(|i| {
            let [_, b, c, d] = (i << 4).to_be_bytes();
            crate::routes::learned(
                &format!("20.{b}.{c}.{d}/32"),
                Some(crate::routes::via("10.0.0.2", "eth0")),
            )
        });
        let routes: Vec<_> = routes.collect();
        let start = Instant::now();
        let report = dataplane.apply_learned(routes).await;
        let bulk = start.elapsed();
        assert!(report.failed.is_empty(), "{report:?}");
        dataplane.apply(&Desired::default()).await;

        let start = Instant::now();
        let link = attach(&workload, "default.one", "172.17.8.2").await;
        let attached = start.elapsed();
        let workloads = BTreeMap::from([(host_interface("default.one"), link)]);
        let start = Instant::now();
        let report = dataplane
            .apply(&Desired {
                workloads,
                ..Desired::default()
            })
            .await;
        let applied = start.elapsed();
        assert!(report.failed.is_empty(), "{report:?}");
        println!("{LEARNED} learned in {bulk:?}; attach {attached:?}, apply {applied:?}");
        assert!(applied < Duration::from_millis(500), "{applied:?}");
    });
}
