//! Next-hop objects: hops that many routes share are in the kernel once.

use std::sync::Arc;
use std::time::Duration;

use agent::dataplane::desired::{Desired, LearnedChange, Route};
use agent::dataplane::{ApplyReport, Dataplane};
use bgp::types::Prefix;

use crate::netns::{Namespace, wait_until};
use crate::passes::pass_until;
use crate::routes::{host, open, via};

/// As many as are worth an object.
const MANY: u32 = 300;

fn destinations() -> impl Iterator<Item = Prefix> {
    let number = |number: u32| format!("172.{}.{}.0/24", 16 + number / 256, number % 256);
    (0..MANY).map(move |it| number(it).parse().expect("a prefix"))
}

fn changes(route: Option<Route>) -> Vec<LearnedChange> {
    let route = route.map(Arc::new);
    let change = |prefix| LearnedChange {
        prefix,
        route: route.clone(),
    };
    destinations().map(change).collect()
}

async fn learn(dataplane: &mut Dataplane, route: Option<Route>) {
    let report = dataplane.apply_learned(changes(route)).await;
    assert_eq!(report, ApplyReport::default());
}

/// Routes of ours that lead by this text.
fn count(host: &Namespace, hop: &str) -> usize {
    let routes = host.ip("-4 route show proto 203");
    let is_whole = |line: &&str| line.contains(hop) && line.contains("metric 202 onlink");
    routes.lines().filter(is_whole).count()
}

fn objects(host: &Namespace) -> Vec<String> {
    let all = host.ip("nexthop show");
    all.lines().map(|line| line.trim().to_owned()).collect()
}

/// Lets all routes lead by one object.
async fn installed(host: &Namespace) -> Dataplane {
    let mut dataplane = open().await;
    dataplane.apply(&Desired::default()).await;
    learn(&mut dataplane, Some(via("10.0.0.2", "eth0"))).await;
    let objects = objects(host);
    assert_eq!(objects.len(), 1, "{objects:?}");
    for part in ["via 10.0.0.2 dev eth0", "proto 203", "onlink"] {
        assert!(objects[0].contains(part), "{part}: {objects:?}");
    }
    let routes = host.ip("-4 route show proto 203");
    assert_eq!(
        count(host, "via 10.0.0.2 dev eth0"),
        MANY as usize,
        "{routes}"
    );
    assert!(routes.contains("nhid"), "{routes}");
    dataplane
}

/// Passes until all routes are there.
async fn heal(host: &Namespace, dataplane: &mut Dataplane) {
    pass_until("routes", dataplane, &Desired::default(), async |_, _| {
        count(host, "via 10.0.0.2 dev eth0") == MANY as usize
    })
    .await;
}

#[test]
fn many_routes_share_an_object_and_few_have_none() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = installed(&host).await;
        let few = changes(Some(via("10.0.0.3", "eth0"))).into_iter().take(20);
        dataplane.apply_learned(few.collect()).await;
    });
    assert_eq!(count(&host, "via 10.0.0.3 dev eth0"), 20);
    let objects = objects(&host);
    assert_eq!(objects.len(), 1, "{objects:?}");
}

#[test]
fn restart_knows_routes_by_an_object_again() {
    let Some(host) = host() else { return };
    host.block_on(async || drop(installed(&host).await));
    let before = host.ip("route show");
    host.block_on(async || {
        let mut second = open().await;
        second.apply(&Desired::default()).await;
        learn(&mut second, Some(via("10.0.0.2", "eth0"))).await;
        second.settle_learned().await;
        second.request_resync().await;
        second.apply(&Desired::default()).await;
        assert_eq!(second.writes().await, 0);
    });
    assert_eq!(host.ip("route show"), before);
}

#[test]
fn routes_are_known_where_the_kernel_tells_the_object_alone() {
    let Some(host) = host() else { return };
    host.block_on(async || drop(installed(&host).await));
    host.set_sysctl("ipv4/nexthop_compat_mode", "0");
    host.block_on(async || {
        let mut second = open().await;
        second.apply(&Desired::default()).await;
        learn(&mut second, Some(via("10.0.0.2", "eth0"))).await;
        assert_eq!(second.writes().await, 0);
    });
}

#[test]
fn object_without_routes_goes_and_others_stay() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = installed(&host).await;
        host.ip("nexthop add id 77 via 10.0.0.7 dev eth0");
        learn(&mut dataplane, None).await;
        dataplane.request_resync().await;
        dataplane.apply(&Desired::default()).await;
    });
    assert_eq!(host.ip("-4 route show proto 203"), "");
    let objects = objects(&host);
    assert_eq!(objects.len(), 1, "{objects:?}");
    assert!(objects[0].starts_with("id 77 "), "{objects:?}");
}

#[test]
fn removed_object_is_replaced_with_its_routes() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = installed(&host).await;
        host.ip("nexthop flush proto 203");
        assert_eq!(count(&host, "via"), 0, "the kernel takes its routes along");
        heal(&host, &mut dataplane).await;
    });
}

#[test]
fn object_that_leads_elsewhere_is_left_to_whom_it_is_now() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = installed(&host).await;
        let shown = objects(&host);
        let id = shown[0].split_whitespace().nth(1).expect("an id");
        host.ip(&format!("nexthop replace id {id} via 10.0.0.66 dev eth0"));
        heal(&host, &mut dataplane).await;
    });
    assert_eq!(count(&host, "10.0.0.66"), 0);
}

#[test]
fn routes_outlive_the_carrier() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let mut dataplane = installed(&host).await;
        host.ip("link set lan0 down");
        wait_until(
            "the kernel has dropped the object",
            Duration::from_secs(5),
            || objects(&host).is_empty(),
            || host.ip("nexthop show"),
        );
        heal(&host, &mut dataplane).await;
    });
    let routes = host.ip("-4 route show proto 203");
    assert!(!routes.contains("nhid"), "{routes}");
}

#[test]
fn uninstall_takes_objects_along() {
    let Some(host) = host() else { return };
    host.block_on(async || {
        let dataplane = installed(&host).await;
        host.ip("nexthop add id 77 via 10.0.0.7 dev eth0");
        let report = dataplane.uninstall().await;
        assert_eq!(report, ApplyReport::default());
    });
    let objects = objects(&host);
    assert_eq!(objects.len(), 1, "{objects:?}");
    assert!(objects[0].starts_with("id 77 "), "{objects:?}");
}
