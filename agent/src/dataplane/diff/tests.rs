use super::*;
use crate::dataplane::desired::{Hop, Hops};

fn prefix() -> Prefix {
    "172.17.9.0/24".parse().expect("a prefix")
}

fn links() -> Links {
    let mut links = Links::default();
    for (name, index, is_up) in [("eth0", 2, true), ("eth1", 3, false)] {
        let addresses = vec![("10.0.0.1".parse().expect("an address"), 24)];
        links.insert(
            name.into(),
            LinkState {
                index,
                is_up,
                addresses,
                ..LinkState::default()
            },
        );
    }
    links
}

fn hop(gateway: &str, device: &str) -> Hop {
    Hop {
        gateway: gateway.parse().expect("an address"),
        device: device.into(),
    }
}

fn via(device: &str, source: Option<&str>) -> Route {
    let hop = hop("10.0.0.2", device);
    Route::via(hop, source.map(|text| text.parse().expect("an address")))
}

fn wanted() -> Arc<FibInfo> {
    resolve(Family::Ipv4, &via("eth0", None), PROTOCOL_LEARNED, &links())
        .expect("resolves")
        .info
}

fn foreign(metric: u32) -> KernelRoute {
    KernelRoute {
        prefix: prefix(),
        tos: 0,
        info: Arc::new(FibInfo {
            protocol: 4,
            metric,
            hops: not_onlink(),
            ..FibInfo::clone(&wanted())
        }),
    }
}

fn not_onlink() -> SmallVec<[KernelHop; 1]> {
    let mut hops = wanted().hops.clone();
    hops[0].is_onlink = false;
    hops
}

#[test]
fn routes_wait_for_what_they_need() {
    for (name, route, expected) in [
        (
            "no such device",
            via("eth9", None),
            Err("device eth9 does not exist"),
        ),
        ("device down", via("eth1", None), Err("device eth1 is down")),
        (
            "source elsewhere",
            via("eth0", Some("10.0.0.9")),
            Err("source address 10.0.0.9 is not on this host"),
        ),
        ("all there", via("eth0", Some("10.0.0.1")), Ok(())),
        (
            "link on a device that is down",
            Route::Link {
                device: "eth1".into(),
            },
            Err("device eth1 is down"),
        ),
        ("blackhole needs nothing", Route::Blackhole, Ok(())),
    ] {
        let resolved = resolve(Family::Ipv4, &route, PROTOCOL_LEARNED, &links()).map(|_| ());
        assert_eq!(resolved, expected.map_err(str::to_owned), "{name}");
    }
}

#[test]
fn hops_that_cannot_be_used_now_are_left_out_while_one_can() {
    let over = |hops: [Hop; 2]| Route::Via {
        hops: Hops::all(hops).expect("hops"),
        source: None,
    };
    let down = || Some("device eth1 is down".to_owned());
    for (name, route, expected) in [
        (
            "both",
            over([hop("10.0.0.3", "eth0"), hop("10.0.0.2", "eth0")]),
            Ok((2, None)),
        ),
        (
            "one is down",
            over([hop("10.0.0.2", "eth0"), hop("10.1.0.2", "eth1")]),
            Ok((1, down())),
        ),
        (
            "the same the other way round",
            over([hop("10.1.0.2", "eth1"), hop("10.0.0.2", "eth0")]),
            Ok((1, down())),
        ),
        (
            "both are down",
            over([hop("10.1.0.2", "eth1"), hop("10.1.0.3", "eth1")]),
            Err("device eth1 is down".to_owned()),
        ),
    ] {
        let resolved = resolve(Family::Ipv4, &route, PROTOCOL_LEARNED, &links());
        let shown = resolved.map(|writable| (writable.info.hops.len(), writable.missing));
        assert_eq!(shown, expected, "{name}");
    }
}

#[test]
fn step_follows_from_wanted_and_held() {
    let changed = Arc::new(FibInfo {
        hops: not_onlink(),
        ..FibInfo::clone(&wanted())
    });
    for (name, want, held, others, expected) in [
        ("nothing at all", None, None, vec![], Step::Keep),
        (
            "right already",
            Some(wanted()),
            Some(wanted()),
            vec![],
            Step::Keep,
        ),
        (
            "missing",
            Some(wanted()),
            None,
            vec![],
            Step::Create(wanted()),
        ),
        (
            "differs",
            Some(wanted()),
            Some(changed.clone()),
            vec![],
            Step::Replace(wanted()),
        ),
        (
            "of our other protocol",
            Some(wanted()),
            Some(Arc::new(FibInfo {
                protocol: PROTOCOL_LOCAL,
                ..FibInfo::clone(&wanted())
            })),
            vec![],
            Step::Replace(wanted()),
        ),
        (
            "no longer wanted",
            None,
            Some(wanted()),
            vec![],
            Step::Remove(wanted()),
        ),
        (
            "only a foreign one, not wanted",
            None,
            None,
            vec![foreign(ROUTE_METRIC)],
            Step::Keep,
        ),
        (
            "foreign holds our key",
            Some(wanted()),
            None,
            vec![foreign(ROUTE_METRIC)],
            Step::Blocked(RouteState::Failed {
                reason: "blocked by proto static via 10.0.0.2 dev eth0".into(),
            }),
        ),
        (
            "foreign of another metric",
            Some(wanted()),
            None,
            vec![foreign(100)],
            Step::Create(wanted()),
        ),
        (
            "foreign of another TOS",
            Some(wanted()),
            None,
            vec![KernelRoute {
                tos: 8,
                ..foreign(ROUTE_METRIC)
            }],
            Step::Create(wanted()),
        ),
    ] {
        let step = step(want.map(Ok), held.as_ref(), &others, &links());
        assert_eq!(step, expected, "{name}");
    }
}

#[test]
fn route_that_waits_leaves_no_old_one_behind() {
    let reason = || "device eth9 does not exist".to_owned();
    let state = RouteState::Pending { reason: reason() };
    for (name, held) in [
        ("nothing there", None),
        ("an old one there", Some(wanted())),
    ] {
        let step = step(Some(Err(reason())), held.as_ref(), &[], &links());
        assert_eq!(
            step,
            Step::Wait {
                state: state.clone(),
                stale: held
            },
            "{name}"
        );
    }
}

#[test]
fn foreign_route_of_lower_metric_shadows() {
    for (name, others, expected) in [
        ("none", vec![], RouteState::Installed),
        ("higher metric", vec![foreign(1024)], RouteState::Installed),
        (
            "the lowest of several",
            vec![foreign(100), foreign(0)],
            RouteState::Shadowed {
                reason: "shadowed by proto static via 10.0.0.2 dev eth0 metric 0".into(),
            },
        ),
    ] {
        assert_eq!(installed_state(&others, &links()), expected, "{name}");
    }
}

#[test]
fn renamed_device_still_leads_unless_its_name_is_taken() {
    let link = |index| LinkState {
        index,
        is_up: true,
        ..LinkState::default()
    };
    let with = |others: &[(&str, u32)], before: &Links| {
        let mut links = Links::default();
        for (name, index) in others {
            links.insert((*name).into(), link(*index));
        }
        links.succeed(before);
        links
    };
    let renamed = |others: &[(&str, u32)]| {
        // What is remembered is handed on.
        let later = with(others, &with(others, &links()));
        let resolved = resolve(Family::Ipv4, &via("eth0", None), PROTOCOL_LEARNED, &later);
        resolved.map(|writable| writable.info.hops[0].device)
    };
    let missing = Err("device eth0 does not exist".to_owned());
    for (name, others, expected) in [
        ("renamed", &[("wan0", 2)][..], Ok(Some(2))),
        ("gone", &[("eth1", 3)], missing),
        (
            "its name is taken",
            &[("wan0", 2), ("eth0", 7)],
            Ok(Some(7)),
        ),
    ] {
        assert_eq!(renamed(others), expected, "{name}");
    }
    let workload = Route::Link {
        device: "eth0".into(),
    };
    let now = with(&[("wan0", 2)], &links());
    let resolved = resolve(Family::Ipv4, &workload, PROTOCOL_LOCAL, &now);
    assert!(resolved.is_err(), "a workload's link is known by its name");
}
