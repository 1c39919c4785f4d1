//! Which routes are written, which are left alone, and what is said of each.

use std::fmt::Write;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent::dataplane::desired::{Desired, Hop, LearnedChange, Route, RouteState};
use agent::dataplane::{ApplyReport, Changes, Dataplane, DataplaneOptions, KernelChange};
use bgp::types::Prefix;

use crate::netns::{Namespace, wait_until};
use crate::passes::pass_until;

pub fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub fn hop(gateway: &str, device: &str) -> Hop {
    Hop {
        gateway: gateway.parse().expect("an address"),
        device: device.into(),
    }
}

pub fn via(gateway: &str, device: &str) -> Route {
    Route::via(hop(gateway, device), None)
}

pub fn learned(text: &str, route: Option<Route>) -> LearnedChange {
    LearnedChange {
        prefix: prefix(text),
        route: route.map(Arc::new),
    }
}

pub async fn open() -> Dataplane {
    let options = DataplaneOptions {
        tunnel_linger: Duration::ZERO,
        ..DataplaneOptions::new("/nonexistent".into())
    };
    Dataplane::open(options).await.expect("kernel can be read")
}

/// Waits until a change of the wanted kind is signalled; others may come first.
pub async fn wait_for(changes: &mut Changes, is_wanted: fn(&KernelChange) -> bool) {
    let signalled = async { while !is_wanted(&changes.changed().await) {} };
    tokio::time::timeout(Duration::from_secs(5), signalled)
        .await
        .expect("change is signalled");
}

pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// A host with one NIC, 10.0.0.1/24.
pub fn host() -> Option<Namespace> {
    let host = Namespace::new()?;
    host.ip("link add eth0 type veth peer name lan0");
    host.ip("addr add 10.0.0.1/24 dev eth0");
    host.ip("link set eth0 up");
    host.ip("link set lan0 up");
    wait_until(
        "the NIC runs",
        Duration::from_secs(5),
        || host.ip("link show eth0").contains("state UP"),
        || host.ip("link show"),
    );
    Some(host)
}

fn blackholes(prefixes: &[&str]) -> Desired {
    let routes = prefixes
        .iter()
        .map(|text| (prefix(text), Route::Blackhole))
        .collect();
    Desired {
        routes,
        ..Desired::default()
    }
}

#[test]
fn routes_appear_as_specified() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane.apply(&blackholes(&["172.17.8.0/24"])).await;
        assert_eq!(report, ApplyReport::default());
        let changes = vec![learned("172.17.9.0/24", Some(via("10.0.0.2", "eth0")))];
        assert_eq!(
            dataplane.apply_learned(changes).await,
            ApplyReport::default()
        );
    });
    let routes = host.ip("-d route show");
    assert!(
        routes.contains("blackhole 172.17.8.0/24 proto 202 scope global metric 202"),
        "{routes}"
    );
    assert!(
        routes.contains(
            "unicast 172.17.9.0/24 via 10.0.0.2 dev eth0 proto 203 scope global metric 202 onlink"
        ),
        "{routes}"
    );
}

#[test]
fn restart_writes_nothing() {
    let Some(host) = host() else { return };
    let desired = blackholes(&["172.17.8.0/24", "172.17.12.0/24"]);
    let changes = || {
        vec![
            learned("172.17.9.0/24", Some(via("10.0.0.2", "eth0"))),
            learned("172.17.10.0/24", Some(via("10.0.0.3", "eth0"))),
        ]
    };
    host.block_on(async || {
        let mut first = open().await;
        assert!(!first.learned_present_at_start());
        first.apply(&desired).await;
        first.apply_learned(changes()).await;
        assert_eq!(first.writes().await, 4);
    });
    let before = host.ip("route show");
    let after = host.block_on(async || {
        let mut second = open().await;
        assert!(second.learned_present_at_start());
        assert_eq!(second.apply(&desired).await, ApplyReport::default());
        second.apply_learned(changes()).await;
        second.settle_learned().await;
        second.request_resync().await;
        second.apply(&desired).await;
        second.writes().await
    });
    assert_eq!(after, 0);
    assert_eq!(host.ip("route show"), before);
}

#[test]
fn stale_learned_routes_stay_until_the_speaker_settles() {
    let Some(host) = host() else { return };
    host.ip("route add 172.17.9.0/24 via 10.0.0.2 dev eth0 onlink proto 203 metric 202");
    host.ip("route add 172.17.10.0/24 via 10.0.0.2 dev eth0 onlink proto 203 metric 202");
    host.ip("route add 172.17.11.0/24 via 10.0.0.2 dev eth0 onlink proto 203 metric 202");
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&Desired::default()).await;
        let changes = vec![
            learned("172.17.9.0/24", Some(via("10.0.0.3", "eth0"))),
            // Gone before it was told: by another peer than the one that is still to come, perhaps.
            learned("172.17.10.0/24", None),
            learned("172.17.11.0/24", Some(via("10.0.0.2", "eth0"))),
        ];
        dataplane.apply_learned(changes).await;
        let withdrawn = vec![learned("172.17.11.0/24", None)];
        dataplane.apply_learned(withdrawn).await;
        dataplane.request_resync().await;
        dataplane.apply(&Desired::default()).await;
        let routes = host.ip("route show proto 203");
        assert!(
            routes.contains("172.17.9.0/24 via 10.0.0.3"),
            "replaced: {routes}"
        );
        assert!(
            routes.contains("172.17.10.0/24 via 10.0.0.2"),
            "kept: {routes}"
        );
        assert!(!routes.contains("172.17.11.0/24"), "withdrawn: {routes}");
        dataplane.settle_learned().await;
        let routes = host.ip("route show proto 203");
        assert!(
            !routes.contains("172.17.10.0/24"),
            "removed after settling: {routes}"
        );
        assert!(routes.contains("172.17.9.0/24"), "{routes}");
    });
}

#[test]
fn foreign_holder_of_our_key_is_left_and_named() {
    let Some(host) = host() else { return };
    host.ip("route add 172.17.8.0/24 via 10.0.0.9 dev eth0 proto static metric 202");
    host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane
            .apply(&blackholes(&["172.17.8.0/24", "172.17.12.0/24"]))
            .await;
        let reason = "blocked by proto static via 10.0.0.9 dev eth0".to_owned();
        assert_eq!(
            report.failed,
            [("route 172.17.8.0/24".to_owned(), reason.clone())]
        );
        assert_eq!(
            dataplane.route_state(prefix("172.17.8.0/24")).await,
            Some((Some(Route::Blackhole.into()), RouteState::Failed { reason }))
        );
        let routes = host.ip("route show");
        assert!(
            routes.contains("172.17.8.0/24 via 10.0.0.9 dev eth0 proto static"),
            "{routes}"
        );
        assert!(
            routes.contains("blackhole 172.17.12.0/24"),
            "the others are written: {routes}"
        );

        host.ip("route del 172.17.8.0/24 via 10.0.0.9 metric 202");
        let wanted = blackholes(&["172.17.8.0/24"]);
        pass_until("its end", &mut dataplane, &wanted, async |_, report| {
            *report == ApplyReport::default()
        })
        .await;
        assert!(host.ip("route show").contains("blackhole 172.17.8.0/24"));
    });
}

#[test]
fn foreign_route_that_came_unseen_is_not_replaced() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&Desired::default()).await;
        // Before any notification is read.
        host.ip("route add 172.17.8.0/24 via 10.0.0.9 dev eth0 proto static metric 202");
        let change = learned("172.17.8.0/24", Some(via("10.0.0.2", "eth0")));
        let report = dataplane.apply_learned(vec![change]).await;
        assert_eq!(report.failed.len(), 1, "{report:?}");
        assert!(
            report.failed[0].1.starts_with("blocked by proto static"),
            "{report:?}"
        );
    });
    assert!(
        host.ip("route show")
            .contains("via 10.0.0.9 dev eth0 proto static")
    );
}

#[test]
fn route_behind_a_foreign_one_of_lower_metric_is_shadowed() {
    let Some(host) = host() else { return };
    host.ip("route add 172.17.9.0/24 via 10.0.0.9 dev eth0 proto static metric 50");
    host.block_on(async || {
        let mut dataplane = open().await;
        let change = learned("172.17.9.0/24", Some(via("10.0.0.2", "eth0")));
        let report = dataplane.apply_learned(vec![change]).await;
        assert_eq!(report, ApplyReport::default());
        let state = dataplane
            .route_state(prefix("172.17.9.0/24"))
            .await
            .expect("is wanted")
            .1;
        let reason = "shadowed by proto static via 10.0.0.9 dev eth0 metric 50".to_owned();
        assert_eq!(state, RouteState::Shadowed { reason });
    });
    assert!(host.ip("route show").contains("172.17.9.0/24 via 10.0.0.2"));
}

#[test]
fn route_over_a_missing_device_waits_for_it() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = open().await;
        let change = learned("172.17.9.0/24", Some(via("10.1.0.2", "eth1")));
        let report = dataplane.apply_learned(vec![change]).await;
        assert_eq!(report, ApplyReport::default(), "waiting is no failure");
        let state = dataplane
            .route_state(prefix("172.17.9.0/24"))
            .await
            .expect("is wanted")
            .1;
        let reason = "device eth1 does not exist".to_owned();
        assert_eq!(state, RouteState::Pending { reason });

        host.ip("link add eth1 type veth peer name lan1");
        host.ip("link set eth1 up");
        let nothing = Desired::default();
        pass_until(
            "it is there",
            &mut dataplane,
            &nothing,
            async |dataplane, _| {
                let state = dataplane.route_state(prefix("172.17.9.0/24")).await;
                state.expect("is wanted").1 == RouteState::Installed
            },
        )
        .await;
    });
    assert!(
        host.ip("route show")
            .contains("172.17.9.0/24 via 10.1.0.2 dev eth1")
    );
}

#[test]
fn undesired_routes_of_ours_go_and_foreign_ones_stay() {
    let Some(host) = host() else { return };
    host.ip("route add blackhole 172.17.8.0/24 proto 202 metric 202");
    host.ip("route add blackhole 172.17.9.0/24 proto 202 metric 77");
    host.ip("route add 172.17.10.0/24 dev eth0 proto static metric 202");
    host.block_on(async || open().await.apply(&Desired::default()).await);
    let routes = host.ip("route show");
    assert!(!routes.contains("proto 202"), "{routes}");
    assert!(
        routes.contains("172.17.10.0/24 dev eth0 proto static"),
        "{routes}"
    );
}

#[test]
fn uninstall_leaves_only_what_is_foreign() {
    let Some(host) = host() else { return };
    let before = host.ip("route show");
    host.ip("link add cara0123456789a type veth peer name c0");
    host.ip("link add cara0123456789b type vxlan id 1 dstport 4789");
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&blackholes(&["172.17.8.0/24"])).await;
        dataplane
            .apply_learned(vec![learned(
                "172.17.9.0/24",
                Some(via("10.0.0.2", "eth0")),
            )])
            .await;
        assert_eq!(dataplane.uninstall().await, ApplyReport::default());
    });
    assert_eq!(host.ip("route show"), before);
    let links = host.ip("-o link show");
    assert!(!links.contains("cara0123456789a"), "{links}");
    assert!(
        links.contains("cara0123456789b"),
        "another kind is not ours: {links}"
    );
}

#[test]
fn ipv6_routes_are_written_and_compared_alike() {
    let Some(host) = host() else { return };
    if !has_ipv6() {
        println!("SKIPPED: this kernel has no IPv6");
        return;
    }
    host.ip("addr add 2001:db8::1/64 dev eth0 nodad");
    let desired = blackholes(&["2001:db8:8::/64"]);
    let changes = || vec![learned("2001:db8:9::/64", Some(via("2001:db8::2", "eth0")))];
    host.block_on(async || {
        let mut first = open().await;
        assert_eq!(first.apply(&desired).await, ApplyReport::default());
        assert_eq!(first.apply_learned(changes()).await, ApplyReport::default());
        let mut second = open().await;
        second.apply(&desired).await;
        second.apply_learned(changes()).await;
        assert_eq!(second.writes().await, 0, "{}", host.ip("-6 -d route show"));
    });
    let routes = host.ip("-6 route show");
    assert!(routes.contains("blackhole 2001:db8:8::/64"), "{routes}");
    assert!(
        routes.contains("2001:db8:9::/64 via 2001:db8::2 dev eth0"),
        "{routes}"
    );
}

/// Runs the lines as one `ip -batch`.
fn batch(host: &Namespace, lines: &str) {
    host.enter(|| {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped());
        let mut ip = command.spawn().expect("ip starts");
        let mut input = ip.stdin.take().expect("its input");
        input.write_all(lines.as_bytes()).expect("it reads");
        drop(input);
        assert!(ip.wait().expect("it ends").success());
    });
}

/// Between the parts of a dump of IPv6 routes the kernel loses its place if others are deleted.
#[test]
fn ipv6_routes_that_stand_still_are_seen_however_many_others_come_and_go() {
    const STANDING: u16 = 3000;
    const COMING: u16 = 2000;
    let Some(host) = host() else { return };
    if !has_ipv6() {
        println!("SKIPPED: this kernel has no IPv6");
        return;
    }
    let lines = |verb: &str, prefix: &str, count: u16| {
        (0..count).fold(String::new(), |mut lines, number| {
            let _ = writeln!(
                lines,
                "route {verb} {prefix}:{number:x}::/64 dev eth0 proto static"
            );
            lines
        })
    };
    batch(&host, &lines("add", "fd00", STANDING));
    let (add, remove) = (
        lines("add", "2001:db8", COMING),
        lines("del", "2001:db8", COMING),
    );
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut rounds = 0;
            while !is_over.load(Ordering::Relaxed) && rounds < 200 {
                batch(&host, &add);
                batch(&host, &remove);
                rounds += 1;
            }
            rounds
        });
        let worst = host.block_on(async || {
            let mut dataplane = open().await;
            let mut worst = usize::from(STANDING);
            for _ in 0..15 {
                let view = dataplane.observe_host().await.expect("host is read");
                let stands = |text: String| text.starts_with("fd00:");
                let routes = view.routes.iter();
                let seen = routes
                    .filter(|route| stands(route.prefix.to_string()))
                    .count();
                worst = worst.min(seen);
            }
            worst
        });
        is_over.store(true, Ordering::Relaxed);
        let rounds = churn.join().expect("the churn ends");
        assert!(rounds > 1, "nothing came and went");
        assert_eq!(worst, usize::from(STANDING), "the fewest that were seen");
    });
}
