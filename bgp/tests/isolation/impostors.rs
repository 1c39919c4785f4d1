//! Those who say they are somebody else: from a listed peer's address, with somebody's identifier,
//! or with routes that have been here before.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use bgp::speaker::secret::Secret;
use bgp::speaker::status::PeerStatus;
use bgp::types::{Asn, ClusterId, Family, HoldTime, Prefix, RouterId};
use bgp::wire::as_path::AsPath;
use bgp::wire::attribute::PathAttributes;
use bgp::wire::capability::Capability;
use bgp::wire::frame::{self, MAX_LEN, MessageKind};
use bgp::wire::open::Open;
use bytes::{Bytes, BytesMut};

use crate::bystanders::{BYSTANDERS, Bystanders};
use crate::peer::{Heard, Peer, announce, attributes, connect, open};
use crate::scene::{
    AS, SPEAKER, Scene, address, config_with, eventually, in_namespace, with_range,
};

/// The listed peer whose address is misused.
const LISTED: u8 = 21;
const OTHER: u8 = 22;
const HOLD_TIME_SECS: u16 = 90;

fn scene() -> (Scene, Bystanders) {
    let [left, right] = BYSTANDERS;
    let scene = Scene::start(&[left, right, LISTED, OTHER]);
    let bystanders = Bystanders::meet(&scene);
    (scene, bystanders)
}

fn open_as(asn: Asn, router_id: Ipv4Addr) -> Bytes {
    let open = Open {
        asn,
        hold_time: HoldTime::new(HOLD_TIME_SECS).expect("allowed"),
        router_id: RouterId(router_id),
        capabilities: vec![Family::Ipv4.into(), Capability::FourOctetAs(asn)],
    };
    open.encode()
}

/// Code and subcode of the NOTIFICATION that ends the connection; `None` if it ends without one.
fn last_word(mut stream: TcpStream) -> Option<(u8, u8)> {
    let mut octets = Vec::new();
    // A reset in place of an end is as good; what was read before counts.
    let _ = stream.read_to_end(&mut octets);
    let mut buffer = BytesMut::from(&octets[..]);
    let mut last = None;
    while let Ok(Some(frame)) = frame::next_frame(&mut buffer, MAX_LEN) {
        if frame.kind == MessageKind::Notification {
            last = frame.body.first().copied().zip(frame.body.get(1).copied());
        }
    }
    last
}

#[test]
fn a_thousand_opens_from_a_peers_address_leave_its_session_alone() {
    in_namespace(|| {
        let (scene, mut bystanders) = scene();
        let mut real = Peer::establish(LISTED, HOLD_TIME_SECS);
        scene.wait_established(LISTED);
        let opens = [
            open(LISTED, HOLD_TIME_SECS),
            open_as(AS, [192, 0, 2, 250].into()),
            open_as(Asn(64999), [192, 0, 2, 250].into()),
            open_as(AS, address(SPEAKER)),
        ];
        let mut words = std::collections::BTreeMap::new();
        bystanders.exchange_during(|| {
            for round in 0..1000 {
                let mut impostor = connect(LISTED);
                // Refused before it said a word, perhaps.
                let _ = impostor.write_all(&opens[round % opens.len()]);
                *words.entry(last_word(impostor)).or_insert(0) += 1;
            }
        });
        println!("1000 OPENs were answered by {words:?}");
        let route: Prefix = "10.255.21.0/24".parse().expect("a prefix");
        real.send(&announce(&attributes(LISTED, 0), &[route]));
        bystanders.right_hears(
            "the peer's route",
            |heard| matches!(heard, Heard::Announced(prefixes) if prefixes.contains(&route)),
        );
        let peer = scene.peer(LISTED);
        assert_eq!((peer.state.as_str(), peer.flaps), ("established", 0));
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn ten_thousand_opens_on_one_connection_end_it_with_the_second() {
    in_namespace(|| {
        let (scene, mut bystanders) = scene();
        let word = bystanders.exchange_during(|| {
            let mut flood = connect(LISTED);
            let opens = open(LISTED, HOLD_TIME_SECS).repeat(10_000);
            // The speaker ends it before all are written.
            let _ = flood.write_all(&opens);
            last_word(flood)
        });
        println!("10,000 OPENs on one connection were answered by {word:?}");
        // RFC 6608 §4: 5/2, unexpected message in OpenConfirm.
        scene.wait_peer("the speaker says why", LISTED, |peer| {
            let error = peer.last_error.as_ref();
            error.is_some_and(|error| (error.code, error.subcode) == (5, 2))
        });
        let mut real = None;
        eventually("the real peer comes up", || {
            real = Peer::establish_on(connect(LISTED), LISTED, HOLD_TIME_SECS);
            real.is_none().then(|| format!("{:?}", scene.peer(LISTED)))
        });
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn a_peer_with_our_identifier_or_another_as_is_told_so_and_has_no_session() {
    in_namespace(|| {
        let (scene, bystanders) = scene();
        for (name, open, code) in [
            ("our identifier", open_as(AS, address(SPEAKER)), (2, 3)),
            (
                "another AS",
                open_as(Asn(64999), [192, 0, 2, 21].into()),
                (2, 2),
            ),
        ] {
            let mut word = None;
            // Idle for a while after each refusal.
            eventually(name, || {
                let mut stream = connect(LISTED);
                let _ = stream.write_all(&open);
                word = last_word(stream);
                word.is_none().then(|| "no word yet".to_owned())
            });
            assert_eq!(word, Some(code), "{name}");
            assert_ne!(scene.peer(LISTED).state, "established", "{name}");
        }
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn a_peer_of_a_range_that_was_refused_is_shown_with_the_reason_until_it_is_back() {
    in_namespace(|| {
        let range = with_range(config_with(&[], |_, _| {}), "127.0.0.0/24", 10);
        let scene = Scene::start_as(range);
        let mut stream = connect(OTHER);
        stream
            .write_all(&open_as(Asn(64999), [192, 0, 2, 22].into()))
            .expect("written");
        assert_eq!(last_word(stream), Some((2, 2)));
        let shown = |state: &'static str, flaps: u64| {
            eventually(state, || {
                let peers = scene.peers();
                let is_right = |peer: &PeerStatus| {
                    let error = peer.last_error.as_ref();
                    (peer.state.as_str(), peer.flaps) == (state, flaps)
                        && error.is_some_and(|error| (error.code, error.subcode) == (2, 2))
                };
                let [peer] = &peers[..] else {
                    return Some(format!("{peers:?}"));
                };
                (!is_right(peer)).then(|| format!("{peer:?}"))
            });
        };
        shown("idle", 0);
        for flaps in 0..3 {
            let back = Peer::establish(OTHER, HOLD_TIME_SECS);
            shown("established", flaps);
            drop(back);
            shown("idle", flaps + 1);
        }
        // One that only connected is not worth a word.
        drop(connect(LISTED));
        let _last = Peer::establish(BYSTANDERS[0], HOLD_TIME_SECS);
        eventually("the stranger is gone", || {
            let peers = scene.peers();
            (peers.len() != 2).then(|| format!("{peers:?}"))
        });
    });
}

#[test]
fn two_clients_with_one_identifier_are_both_up_and_shown() {
    in_namespace(|| {
        let (scene, bystanders) = scene();
        let open = open_as(AS, [192, 0, 2, 99].into());
        let establish = |last| Peer::establish_with(connect(last), &open).expect("taken");
        let [_one, two] = [LISTED, OTHER].map(establish);
        for last in [LISTED, OTHER] {
            scene.wait_established(last);
        }
        let expected = "127.0.0.21 and 127.0.0.22 both have the router id 192.0.2.99: neither uses routes of the other's that we pass on; give each one of its own";
        scene.wait_problems("it is shown", |problems| problems == [expected]);
        drop(two);
        scene.wait_problems("it is over", <[String]>::is_empty);
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn routes_that_have_been_here_before_are_shown_and_passed_to_nobody() {
    in_namespace(|| {
        let (scene, bystanders) = scene();
        let mut peer = Peer::establish(LISTED, HOLD_TIME_SECS);
        scene.wait_established(LISTED);
        let plain = || attributes(LISTED, 0);
        let own_cluster = ClusterId(address(SPEAKER));
        let loops = [
            (
                "10.1.0.0/16",
                PathAttributes {
                    as_path: AsPath::sequence([Asn(64900), AS]),
                    ..plain()
                },
            ),
            (
                "10.2.0.0/16",
                PathAttributes {
                    originator_id: Some(RouterId([192, 0, 2, 77].into())),
                    cluster_list: vec![ClusterId([192, 0, 2, 78].into()), own_cluster].into(),
                    ..plain()
                },
            ),
            (
                "10.3.0.0/16",
                PathAttributes {
                    originator_id: Some(RouterId(address(SPEAKER))),
                    ..plain()
                },
            ),
        ];
        for (route, attributes) in &loops {
            let route: Prefix = route.parse().expect("a prefix");
            peer.send(&announce(attributes, &[route]));
        }
        let good: Prefix = "10.4.0.0/16".parse().expect("a prefix");
        peer.send(&announce(&plain(), &[good]));
        let mut before = Vec::new();
        let is_good =
            |heard: &Heard| matches!(heard, Heard::Announced(prefixes) if prefixes.contains(&good));
        bystanders.right_hears("the one that was not here", |heard| {
            if let Heard::Announced(prefixes) = heard {
                before.extend(prefixes.iter().copied().filter(|prefix| *prefix != good));
            }
            is_good(heard)
        });
        assert_eq!(before, [], "and nothing before");
        let shown = scene.routes_of(LISTED);
        for (prefix, _) in loops {
            let route = shown
                .iter()
                .find(|route| route.prefix.to_string() == prefix);
            let route = route.unwrap_or_else(|| panic!("{prefix} of {shown:?}"));
            println!("{prefix}: {:?}", route.rejected_reason);
            assert!(route.rejected_reason.is_some() && !route.best, "{route:?}");
        }
        assert_eq!(scene.peer(LISTED).flaps, 0);
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn connections_without_the_password_are_none_and_the_peer_comes_up_beside_them() {
    in_namespace(|| {
        let [left, right] = BYSTANDERS;
        let password = || Some(Secret::new("of the listed one").expect("length"));
        let scene = Scene::start_with(&[left, right, LISTED], |last, config| {
            if last == LISTED {
                config.password = password();
                config.passive = true;
            }
        });
        let mut bystanders = Bystanders::meet(&scene);
        // Their SYNs are dropped, so they are no more than attempts, and none is waited for.
        let unsigned: Vec<socket2::Socket> = bystanders.exchange_during(|| {
            let attempt = |_| begin_to_connect(address(LISTED));
            (0..1000).map(attempt).collect()
        });
        let mut real = config_with(&[], |_, _| {});
        real.router_id = RouterId([192, 0, 2, LISTED].into());
        real.listen.clear();
        let key = bgp::speaker::config::PeerKey {
            address: IpAddr::from(address(SPEAKER)),
            port: 179,
        };
        let source = bgp::speaker::config::PeerSource::Peer;
        let mut ours = bgp::speaker::config::PeerConfig::new("speaker", source, Some(AS));
        ours.local_address = Some(address(LISTED).into());
        ours.password = password();
        real.peers.insert(key, ours);
        let _real = scene.start_another(real);
        bystanders.exchange_during(|| scene.wait_established(LISTED));
        for socket in &unsigned {
            assert!(
                socket.peer_addr().is_err(),
                "an unsigned connection came about"
            );
        }
        let peer = scene.peer(LISTED);
        assert_eq!((peer.flaps, peer.last_error), (0, None));
        bystanders.expect_unharmed(&scene);
    });
}

/// A connection of which the answer is not waited for.
fn begin_to_connect(from: Ipv4Addr) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("socket");
    socket.set_nonblocking(true).expect("set");
    let from = std::net::SocketAddr::from((from, 0));
    socket.bind(&from.into()).expect("bound");
    let to = std::net::SocketAddr::from((address(SPEAKER), 179));
    let begun = socket.connect(&to.into());
    assert!(begun.is_err(), "nobody has answered yet");
    socket
}
