//! Peers that flap, that say nothing, that say half of something or nonsense, and strangers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bgp::types::Prefix;
use bgp::wire::Notification;
use bgp::wire::frame::MessageKind;
use bgp::wire::notification::cease;
use bytes::Bytes;

use crate::bystanders::{BYSTANDERS, Bystanders};
use crate::peer::{Heard, Peer, announce, attributes, connect, connect_to_be_refused, open, reset};
use crate::scene::{DEADLINE, Scene, address, eventually, in_namespace};

/// The configured peer that misbehaves, or whose address is misused.
const ROGUE: u8 = 21;
const STRANGER: u8 = 66;
const HOLD_TIME_SECS: u16 = 90;
/// Of sixty connections each.
const WAVES: usize = 50;

fn scene() -> (Scene, Bystanders) {
    let [left, right] = BYSTANDERS;
    let scene = Scene::start(&[left, right, ROGUE]);
    let bystanders = Bystanders::meet(&scene);
    (scene, bystanders)
}

fn route() -> Prefix {
    "10.255.21.0/24".parse().expect("a prefix")
}

fn route_of_rogue() -> Vec<u8> {
    announce(&attributes(ROGUE, 0), &[route()])
}

/// Dials until the speaker takes the session, as a router does that is turned away for a while.
fn establish_in_the_end(scene: &Scene) -> Peer {
    let mut peer = None;
    eventually("the real peer comes up", || {
        peer = Peer::establish_on(connect(ROGUE), ROGUE, HOLD_TIME_SECS);
        peer.is_none().then(|| format!("{:?}", scene.peer(ROGUE)))
    });
    scene.wait_established(ROGUE);
    peer.expect("waited for")
}

#[test]
fn silent_connection_does_not_block_peer() {
    in_namespace(|| {
        let (scene, mut bystanders) = scene();
        let (mut peer, _silent) = bystanders.exchange_during(|| {
            let before = connect(ROGUE);
            let peer = establish_in_the_end(&scene);
            (peer, [before, connect(ROGUE)])
        });
        peer.send(&route_of_rogue());
        bystanders.right_hears(
            "the peer's route",
            |heard| matches!(heard, Heard::Announced(prefixes) if prefixes.contains(&route())),
        );
        (0..100).for_each(|round| bystanders.exchange(round));
        assert_eq!(scene.peer(ROGUE).flaps, 0);
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn a_peer_that_flaps_a_hundred_times_costs_only_itself() {
    in_namespace(|| {
        let (scene, mut bystanders) = scene();
        bystanders.exchange_during(|| {
            for flap in 0..100 {
                let mut peer = establish_in_the_end(&scene);
                peer.send(&route_of_rogue());
                if flap % 2 == 0 {
                    reset(peer.stream);
                }
            }
        });
        scene.wait_peer("the last end is noticed", ROGUE, |peer| peer.flaps == 100);
        assert_eq!(scene.routes_of(ROGUE), []);
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn ten_flaps_leave_no_route() {
    in_namespace(|| {
        let (scene, mut bystanders) = scene();
        for flap in 0..10 {
            let mut peer = establish_in_the_end(&scene);
            peer.send(&route_of_rogue());
            bystanders.right_hears(
                "the route",
                |heard| matches!(heard, Heard::Announced(prefixes) if prefixes.contains(&route())),
            );
            let ended = Instant::now();
            let how = match flap % 3 {
                0 => {
                    peer.stream.shutdown(Shutdown::Both).expect("shut down");
                    "FIN"
                }
                1 => {
                    reset(peer.stream);
                    "RST"
                }
                _ => {
                    let cease = Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN);
                    peer.send(&cease.encode());
                    "Cease"
                }
            };
            let gone = bystanders.right_hears(
                "the withdrawal",
                |heard| matches!(heard, Heard::Withdrawn(prefixes) if prefixes.contains(&route())),
            );
            println!("{how}: withdrawn after {} µs", (gone - ended).as_micros());
            bystanders.exchange(flap);
        }
        assert_eq!(scene.routes_of(ROGUE), []);
        bystanders.expect_unharmed(&scene);
    });
}

/// Reads to the end of the connection; whether anything was said before.
fn is_spoken_to(mut stream: TcpStream) -> bool {
    let mut octets = [0; 1];
    matches!(stream.read(&mut octets), Ok(1..))
}

#[test]
fn unknown_source_refused() {
    in_namespace(|| {
        let (scene, mut bystanders) = scene();
        bystanders.exchange_during(|| {
            for _ in 0..WAVES {
                let strangers: Vec<TcpStream> = (0..60)
                    .filter_map(|_| connect_to_be_refused(address(STRANGER)))
                    .collect();
                for mut stranger in strangers {
                    // It may have been closed before.
                    let _ = stranger.write_all(&open(STRANGER, HOLD_TIME_SECS));
                    assert!(!is_spoken_to(stranger), "an unknown address hears nothing");
                }
            }
        });
        bystanders.expect_unharmed(&scene);
    });
}

/// Sixty connections from the peer's address, all but two of which the speaker ends.
fn crowd() -> Vec<TcpStream> {
    let crowd: Vec<TcpStream> = (0..60).map(|_| connect(ROGUE)).collect();
    let (tell, told) = mpsc::channel();
    for stream in &crowd {
        let mut stream = stream.try_clone().expect("a descriptor");
        let tell = tell.clone();
        std::thread::spawn(move || {
            let ended = stream.read_to_end(&mut Vec::new());
            // Nobody counts the last two.
            let _ = tell.send(ended.is_ok());
        });
    }
    for ended in 0..58 {
        told.recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("only {ended} of 58 were ended"));
    }
    crowd
}

#[test]
fn sixty_connections_of_one_peer_leave_two_and_the_others_unharmed() {
    in_namespace(|| {
        let (scene, mut bystanders) = scene();
        bystanders.exchange_during(|| {
            for _ in 0..WAVES {
                let crowd = crowd();
                let peer = establish_in_the_end(&scene);
                drop(peer);
                // With them end the threads that read.
                for stream in crowd {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        });
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn port_scanners_and_garbage_cost_only_their_address() {
    in_namespace(|| {
        let (scene, mut bystanders) = scene();
        let halves = bystanders.exchange_during(|| {
            let mut halves = Vec::new();
            for round in 0..50_u8 {
                for source in [STRANGER, ROGUE] {
                    reset(connect(source));
                    // The speaker may have closed any of these before.
                    let mut garbage = connect(source);
                    let octets: Vec<u8> = (0..4096).map(|at| round ^ at as u8).collect();
                    let _ = garbage.write_all(&octets);
                    let mut half = connect(source);
                    let message = open(source, HOLD_TIME_SECS);
                    let _ = half.write_all(&message[..usize::from(round) % message.len()]);
                    halves.push(half);
                }
            }
            halves
        });
        let begun = Instant::now();
        let mut peer = bystanders.exchange_during(|| establish_in_the_end(&scene));
        println!(
            "the real peer is up after {} ms",
            begun.elapsed().as_millis()
        );
        peer.send(&route_of_rogue());
        bystanders.right_hears(
            "the peer's route",
            |heard| matches!(heard, Heard::Announced(prefixes) if prefixes.contains(&route())),
        );
        bystanders.expect_unharmed(&scene);
        drop(halves);
    });
}

/// Sends one octet each second until `is_over`; returns how many.
fn trickle(stream: &mut TcpStream, message: &Bytes, is_over: &mpsc::Receiver<()>) -> usize {
    let mut sent = 0;
    for octet in message.chunks(1) {
        if stream.write_all(octet).is_err() {
            break;
        }
        sent += 1;
        if is_over.recv_timeout(Duration::from_secs(1)) != Err(mpsc::RecvTimeoutError::Timeout) {
            break;
        }
    }
    sent
}

#[test]
fn one_octet_a_second_costs_only_its_sender() {
    in_namespace(|| {
        let [left, right] = BYSTANDERS;
        let scene = Scene::start(&[left, right, ROGUE, 22]);
        let mut bystanders = Bystanders::meet(&scene);
        bystanders.exchange_during(|| {
            std::thread::scope(|scope| {
                let (stop, is_over) = mpsc::channel();
                scope.spawn(move || {
                    let mut opening = connect(ROGUE);
                    trickle(&mut opening, &open(ROGUE, HOLD_TIME_SECS), &is_over)
                });
                // RFC 4271 §6.5: a part of a message keeps no session alive.
                let mut slow = Peer::establish(22, 3);
                let mut writing = slow.stream.try_clone().expect("a descriptor");
                let (end, is_ended) = mpsc::channel();
                let writer = scope.spawn(move || {
                    let message = announce(&attributes(22, 0), &[route()]);
                    trickle(&mut writing, &message.into(), &is_ended)
                });
                let last = loop {
                    let frame = slow.receive().expect("the speaker says why");
                    if frame.kind == MessageKind::Notification {
                        break frame.body;
                    }
                };
                assert_eq!(last[..], [4, 0], "hold timer expired");
                // One that ended by itself is not there to be told.
                let _ = end.send(());
                let sent = writer.join().expect("no panic");
                println!("ended by the hold timer after {sent} octets");
                let _ = stop.send(());
            });
        });
        bystanders.expect_unharmed(&scene);
    });
}
