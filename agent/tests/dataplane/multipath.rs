//! Routes with several hops, and IPv4 by IPv6 neighbours (RFC 8950), as the kernel keeps them.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent::dataplane::desired::{Desired, Hop, Hops, LearnedChange, Route, RouteState};
use agent::dataplane::{ApplyReport, Dataplane};

use crate::netns::Namespace;
use crate::passes::pass_until;
use crate::routes::{has_ipv6, hop, host, learned, open, prefix, via, wait_for};

const DESTINATION: &str = "172.17.9.0/24";
const DESTINATION6: &str = "2001:db8:9::/64";

/// A host with two NICs, 10.0.0.1/24 and 10.1.0.1/24, and IPv6 on both where there is any.
fn two_links() -> Option<Namespace> {
    let host = host()?;
    host.ip("link add eth1 type veth peer name lan1");
    host.ip("addr add 10.1.0.1/24 dev eth1");
    host.ip("link set lan1 up");
    host.ip("link set eth1 up");
    if has_ipv6() {
        host.ip("addr add 2001:db8::1/64 dev eth0 nodad");
        host.ip("addr add 2001:db8:1::1/64 dev eth1 nodad");
    }
    Some(host)
}

fn over(hops: impl IntoIterator<Item = Hop>) -> Route {
    let hops = Hops::all(hops).expect("a hop");
    Route::Via { hops, source: None }
}

fn both4() -> Route {
    over([hop("10.0.0.2", "eth0"), hop("10.1.0.2", "eth1")])
}

fn both6() -> Route {
    over([hop("2001:db8::2", "eth0"), hop("2001:db8:1::2", "eth1")])
}

/// The destinations of both families, as far as this kernel has them.
fn destinations() -> Vec<(&'static str, Route, Vec<&'static str>)> {
    let mut all = vec![(
        DESTINATION,
        both4(),
        vec![
            "nexthop via 10.0.0.2 dev eth0 weight 1 onlink",
            "nexthop via 10.1.0.2 dev eth1 weight 1 onlink",
        ],
    )];
    if has_ipv6() {
        all.push((
            DESTINATION6,
            both6(),
            vec![
                "nexthop via 2001:db8::2 dev eth0 weight 1 onlink",
                "nexthop via 2001:db8:1::2 dev eth1 weight 1 onlink",
            ],
        ));
    } else {
        println!("SKIPPED: this kernel has no IPv6");
    }
    all
}

fn shown(host: &Namespace, destination: &str) -> String {
    let family = if destination.contains(':') {
        "-6"
    } else {
        "-4"
    };
    host.ip(&format!("{family} route show {destination}"))
}

/// How many hops the kernel has for it; one is not shown as `nexthop`.
fn count(host: &Namespace, destination: &str) -> usize {
    let text = shown(host, destination);
    match text.matches("nexthop").count() {
        0 => usize::from(!text.trim().is_empty()),
        hops => hops,
    }
}

#[test]
fn several_hops_are_written_once_and_known_again() {
    let Some(host) = two_links() else { return };
    let changes = || -> Vec<LearnedChange> {
        let all = destinations().into_iter();
        all.map(|(destination, route, _)| learned(destination, Some(route)))
            .collect()
    };
    let writes = host.block_on(async || {
        let report = open().await.apply_learned(changes()).await;
        assert_eq!(report, ApplyReport::default());
        let mut again = open().await;
        again.apply_learned(changes()).await;
        again.settle_learned().await;
        again.request_resync().await;
        assert_eq!(
            again.apply(&Desired::default()).await,
            ApplyReport::default()
        );
        again.writes().await
    });
    for (destination, _, expected) in destinations() {
        let text = shown(&host, destination);
        for hop in expected {
            assert!(text.contains(hop), "{hop}: {text}");
        }
        assert_eq!(writes, 0, "{text}");
    }
}

#[test]
fn hops_come_and_go_and_the_route_with_the_last() {
    let Some(host) = two_links() else { return };
    for (destination, both, _) in destinations() {
        let Route::Via { hops, .. } = &both else {
            panic!("{both:?}")
        };
        let single = |index| {
            let hop: &Hop = hops.iter().nth(index).expect("two hops");
            over([hop.clone()])
        };
        let backwards: Vec<Hop> = hops.iter().rev().cloned().collect();
        host.block_on(async || {
            let mut dataplane = open().await;
            for (name, route, count_after) in [
                ("one", Some(single(0)), 1),
                ("both", Some(both.clone()), 2),
                ("both, said otherwise", Some(over(backwards.clone())), 2),
                ("the other one", Some(single(1)), 1),
                ("a blackhole", Some(Route::Blackhole), 1),
                ("both again", Some(both.clone()), 2),
                ("none", None, 0),
            ] {
                let change = LearnedChange {
                    prefix: prefix(destination),
                    route: route.map(Arc::new),
                };
                let report = dataplane.apply_learned(vec![change]).await;
                assert_eq!(report, ApplyReport::default(), "{name}");
                assert_eq!(
                    count(&host, destination),
                    count_after,
                    "{name}: {}",
                    shown(&host, destination)
                );
            }
        });
    }
}

#[test]
fn what_others_do_to_a_hop_is_put_right() {
    let Some(host) = two_links() else { return };
    let mut cases = vec![
        (
            "a hop replaced",
            DESTINATION,
            both4(),
            "route replace 172.17.9.0/24 proto 203 metric 202 \
             nexthop via 10.0.0.2 dev eth0 onlink nexthop via 10.1.0.7 dev eth1 onlink",
        ),
        (
            "a weight changed",
            DESTINATION,
            both4(),
            "route replace 172.17.9.0/24 proto 203 metric 202 \
             nexthop via 10.0.0.2 dev eth0 onlink weight 9 nexthop via 10.1.0.2 dev eth1 onlink",
        ),
        (
            "only one left",
            DESTINATION,
            both4(),
            "route replace 172.17.9.0/24 proto 203 metric 202 via 10.0.0.2 dev eth0 onlink",
        ),
    ];
    if has_ipv6() {
        cases.push((
            "a hop removed",
            DESTINATION6,
            both6(),
            "-6 route del 2001:db8:9::/64 proto 203 metric 202 via 2001:db8::2 dev eth0",
        ));
        cases.push((
            "a hop added",
            DESTINATION6,
            both6(),
            "-6 route append 2001:db8:9::/64 proto 203 metric 202 via 2001:db8::7 dev eth0 onlink",
        ));
    }
    for (name, destination, route, meddling) in cases {
        host.block_on(async || {
            let mut dataplane = open().await;
            dataplane
                .apply_learned(vec![learned(destination, Some(route.clone()))])
                .await;
            dataplane.apply(&Desired::default()).await;
            let before = shown(&host, destination);
            host.ip(meddling);
            assert_ne!(shown(&host, destination), before, "{name}: has an effect");
            wait_for(&mut dataplane.changes(), |change| change.own).await;
            let report = dataplane.apply(&Desired::default()).await;
            assert_eq!(report.repairs.get("route"), Some(&1), "{name}: {report:?}");
            assert_eq!(shown(&host, destination), before, "{name}");
            let writes = dataplane.writes().await;
            dataplane.apply(&Desired::default()).await;
            assert_eq!(dataplane.writes().await, writes, "{name}: once");
        });
    }
}

#[test]
fn a_hop_over_a_link_that_is_down_is_left_out_until_it_is_up() {
    let Some(host) = two_links() else { return };
    for (destination, route, expected) in destinations() {
        let down = || RouteState::Pending {
            reason: "not by all of its paths: device eth1 is down".to_owned(),
        };
        host.block_on(async || {
            let mut dataplane = open().await;
            let change = learned(destination, Some(route.clone()));
            dataplane.apply_learned(vec![change]).await;
            host.ip("link set eth1 down");
            let state = async |dataplane: &Dataplane| {
                let state = dataplane.route_state(prefix(destination)).await;
                state.map(|(_, state)| state)
            };
            let nothing = Desired::default();
            pass_until(
                "one hop",
                &mut dataplane,
                &nothing,
                async |dataplane, report| {
                    assert_eq!(report.failed, [], "waiting is no failure");
                    state(dataplane).await == Some(down()) && count(&host, destination) == 1
                },
            )
            .await;

            host.ip("link set eth1 up");
            if has_ipv6() {
                // IPv6 forgets its addresses with the link.
                host.ip("addr replace 2001:db8:1::1/64 dev eth1 nodad");
            }
            pass_until(
                "both hops",
                &mut dataplane,
                &nothing,
                async |dataplane, _| {
                    let text = shown(&host, destination);
                    let is_whole = expected.iter().all(|hop| text.contains(hop));
                    let is_installed = state(dataplane).await == Some(RouteState::Installed);
                    is_installed && is_whole && !text.contains("dead")
                },
            )
            .await;
        });
    }
}

#[test]
fn ipv4_goes_by_ipv6_neighbours_alone_and_beside_others() {
    let Some(host) = two_links() else { return };
    if !has_ipv6() {
        println!("SKIPPED: this kernel has no IPv6");
        return;
    }
    let mixed = over([hop("10.0.0.2", "eth0"), hop("2001:db8:1::2", "eth1")]);
    for (name, route, expected) in [
        (
            "alone",
            via("2001:db8::2", "eth0"),
            vec!["172.17.9.0/24 via inet6 2001:db8::2 dev eth0 proto 203 metric 202 onlink"],
        ),
        (
            "beside an IPv4 one",
            mixed,
            vec![
                "nexthop via 10.0.0.2 dev eth0 weight 1 onlink",
                "nexthop via inet6 2001:db8:1::2 dev eth1 weight 1 onlink",
            ],
        ),
    ] {
        let writes = host.block_on(async || {
            let change = || vec![learned(DESTINATION, Some(route.clone()))];
            let report = open().await.apply_learned(change()).await;
            assert_eq!(report, ApplyReport::default(), "{name}");
            let mut again = open().await;
            again.apply_learned(change()).await;
            again.writes().await
        });
        let text = shown(&host, DESTINATION);
        for hop in expected {
            assert!(text.contains(hop), "{name}: {hop}: {text}");
        }
        assert_eq!(writes, 0, "{name}: known again: {text}");
    }
}

/// Sends datagrams as fast as it can until `is_over`; returns how many went and how many found no
/// route.
fn send_steadily(to: &str, is_over: &AtomicBool) -> (u64, u64) {
    let any = if to.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any).expect("a socket");
    let (mut sent, mut lost) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        match socket.send_to(b"x", to) {
            Ok(_) => sent += 1,
            // The link's queue is full: it had a route.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => sent += 1,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => sent += 1,
            Err(_) => lost += 1,
        }
    }
    (sent, lost)
}

#[test]
fn hops_are_replaced_without_a_gap() {
    const ROUNDS: usize = 200;
    let Some(host) = two_links() else { return };
    let mut cases = vec![(
        DESTINATION,
        "172.17.9.9:9",
        vec![
            ("10.0.0.2", "eth0"),
            ("10.1.0.2", "eth1"),
            ("10.0.0.3", "eth0"),
        ],
    )];
    if has_ipv6() {
        cases.push((
            DESTINATION6,
            "[2001:db8:9::9]:9",
            vec![
                ("2001:db8::2", "eth0"),
                ("2001:db8:1::2", "eth1"),
                ("2001:db8::3", "eth0"),
            ],
        ));
    }
    for (destination, to, hops) in cases {
        for (gateway, device) in &hops {
            host.ip(&format!(
                "neigh replace {gateway} lladdr 02:00:00:00:00:01 nud permanent dev {device}"
            ));
        }
        let all: Vec<Hop> = hops
            .iter()
            .map(|(gateway, device)| hop(gateway, device))
            .collect();
        let turns = [
            vec![0, 1],
            vec![0],
            vec![0, 1, 2],
            vec![1, 2],
            vec![1],
            vec![2],
            vec![0, 2],
        ];
        let is_over = AtomicBool::new(false);
        let (sent, lost) = std::thread::scope(|scope| {
            host.block_on(async || {
                let mut dataplane = open().await;
                let first = over([all[0].clone()]);
                dataplane
                    .apply_learned(vec![learned(destination, Some(first))])
                    .await;
                let sender = scope.spawn(|| host.enter(|| send_steadily(to, &is_over)));
                for turn in turns.iter().cycle().take(ROUNDS) {
                    let route = over(turn.iter().map(|index| all[*index].clone()));
                    let change = learned(destination, Some(route));
                    let report = dataplane.apply_learned(vec![change]).await;
                    assert_eq!(report, ApplyReport::default(), "{turn:?}");
                }
                is_over.store(true, Ordering::Relaxed);
                sender.join().expect("sender ends")
            })
        });
        println!(
            "{destination}: {ROUNDS} replacements, {sent} datagrams sent, {lost} without a route"
        );
        assert!(sent > 0 && lost == 0, "{destination}: {lost} of {sent}");
    }
}
