//! Connections by the thousand: of strangers, and of those who never say a word.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Instant;

use bgp::speaker::status::PeerStatus;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bystanders::{BYSTANDERS, Bystanders};
use crate::half_open::SynSender;
use crate::kernel;
use crate::memory;
use crate::peer::{Peer, connect_from, connect_socket, connect_to_be_refused, open};
use crate::scene::{Scene, address, config_with, eventually, in_namespace, set_net, with_range};

const HOLD_TIME_SECS: u16 = 90;
/// What may wait to be closed, or to be told to tasks, when a flood has just ended.
const LITTLE: usize = 512 << 10;

/// The `number`th address of 127.1.0.0/16.
fn numbered(number: usize) -> Ipv4Addr {
    let number = u16::try_from(number).expect("a /16");
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

/// Reads to the end of the connection; how many octets came.
fn octets_heard(mut stream: TcpStream) -> usize {
    let mut heard = Vec::new();
    // A reset is as good an end as any.
    let _ = stream.read_to_end(&mut heard);
    heard.len()
}

#[test]
fn updates_about_nothing_without_end_leave_the_others_their_turn() {
    // One more than the runtime has threads.
    const FLOODING: [u8; 3] = [21, 22, 23];
    // Withdraws no route of a family that nobody has: there is nothing to hand on, or to wait for.
    let about_nothing = [
        &[0xff; 16][..],
        &[0, 29, 2, 0, 0, 0, 6],
        &[0x80, 15, 3, 0, 2, 128],
    ];
    let flood = about_nothing.concat().repeat(2000);
    in_namespace(|| {
        let [left, right] = BYSTANDERS;
        let scene = Scene::start(&[left, right, FLOODING[0], FLOODING[1], FLOODING[2]]);
        let mut bystanders = Bystanders::meet(&scene);
        std::thread::scope(|scope| {
            let streams = FLOODING.map(|last| {
                let mut stream = Peer::establish(last, HOLD_TIME_SECS).stream;
                let control = stream.try_clone().expect("a descriptor");
                // Until it is shut down.
                let flood = &flood;
                scope.spawn(move || while stream.write_all(flood).is_ok() {});
                control
            });
            (0..50).for_each(|round| bystanders.exchange(round));
            for stream in streams {
                stream.shutdown(Shutdown::Both).expect("still up");
            }
        });
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn ten_thousand_strangers_leave_nothing_behind() {
    const STRANGERS: usize = 10_000;
    in_namespace(|| {
        let scene = Scene::start(&BYSTANDERS);
        let mut bystanders = Bystanders::meet(&scene);
        let descriptors = kernel::descriptors();
        let memory = memory::held();
        let begun = Instant::now();
        let heard: usize = bystanders.exchange_during(|| {
            let numbers: Vec<usize> = (0..STRANGERS).collect();
            let waves = numbers.chunks(500).map(|wave| {
                let connect = |number: &usize| connect_to_be_refused(numbered(*number));
                let strangers: Vec<TcpStream> = wave.iter().filter_map(connect).collect();
                let hear = |(number, mut stranger): (usize, TcpStream)| {
                    // Every other one only waits.
                    if number % 2 == 0 {
                        // It may have been refused before.
                        let _ = stranger.write_all(&open(66, HOLD_TIME_SECS));
                    }
                    octets_heard(stranger)
                };
                strangers.into_iter().enumerate().map(hear).sum::<usize>()
            });
            waves.sum()
        });
        println!(
            "{STRANGERS} strangers refused in {} ms",
            begun.elapsed().as_millis()
        );
        assert_eq!(heard, 0, "octets said to strangers");
        eventually("only the sessions are left", || {
            let states = kernel::states_of_the_speaker();
            (states.len() != BYSTANDERS.len()).then(|| format!("{} sockets", states.len()))
        });
        assert_eq!(kernel::descriptors(), descriptors);
        let grown = memory::held().saturating_sub(memory);
        println!("{} KiB more memory than before", grown >> 10);
        assert!(grown < LITTLE, "{grown} octets");
        assert_eq!(scene.peers().len(), BYSTANDERS.len());
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn a_peer_that_finds_no_descriptor_left_is_taken_when_there_is_one() {
    const LATE: u8 = 21;
    in_namespace(|| {
        let [left, right] = BYSTANDERS;
        let scene = Scene::start(&[left, right, LATE]);
        let mut bystanders = Bystanders::meet(&scene);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
        let late = connect_without_descriptors(LATE, || {
            scene.wait_problems("the lack is shown", |problems| {
                problems.iter().any(|problem| {
                    problem.starts_with("cannot accept on 127.0.0.1:179: Too many open files")
                })
            });
            (0..100).for_each(|round| bystanders.exchange(round));
        });
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((soft, hard)));
        let _late = Peer::establish_on(late, LATE, HOLD_TIME_SECS).expect("taken after all");
        scene.wait_established(LATE);
        scene.wait_problems("nothing is lacking", <[String]>::is_empty);
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn what_the_machine_allows_too_little_of_is_shown_and_the_peers_come_up() {
    in_namespace(|| {
        set_net("core/somaxconn", "1");
        let scene = Scene::start(&BYSTANDERS);
        let bystanders = Bystanders::meet(&scene);
        let expected = "1 connections can wait to be accepted and 2 may come at once: raise net.core.somaxconn from 1 to 2 and restart";
        assert_eq!(scene.problems(), [expected]);
        bystanders.expect_unharmed(&scene);
    });
}

/// Connects, when no descriptor is left for the other end, and ends that want after `meanwhile`.
fn connect_without_descriptors(last: u8, meanwhile: impl FnOnce()) -> TcpStream {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
    let limit = |descriptors| setrlimit(Resource::RLIMIT_NOFILE, descriptors, hard).expect("set");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("socket");
    // A limit is on the number that a new descriptor would have. The other tests open none: they
    // wait for their turn.
    limit(0);
    let connected = connect_socket(socket, address(last));
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
    limit(soft);
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
    connected
}

/// The places of the range in these tests.
const PLACES: usize = 100;
const RANGE: &str = "127.1.0.0/16";

fn ranged() -> (Scene, Bystanders) {
    let config = with_range(config_with(&BYSTANDERS, |_, _| {}), RANGE, PLACES);
    let scene = Scene::start_as(config);
    let bystanders = Bystanders::meet(&scene);
    (scene, bystanders)
}

fn is_up(peer: &PeerStatus) -> bool {
    peer.state == "established"
}

fn established(scene: &Scene) -> usize {
    let peers = scene.peers();
    peers.iter().filter(|peer| is_up(peer)).count()
}

fn peers_without_session(scene: &Scene) -> usize {
    let peers = scene.peers();
    peers.iter().filter(|peer| !is_up(peer)).count()
}

/// Of each silent connection the speaker has a socket, three tasks and room for an OPEN.
const COST_OF_SILENCE: usize = 24 << 10;

#[test]
fn a_thousand_silent_connections_from_a_range_do_not_keep_its_peers_out() {
    const SILENT: usize = 1000;
    in_namespace(|| {
        let (scene, mut bystanders) = ranged();
        let memory = memory::held();
        let silent: Vec<TcpStream> = bystanders.exchange_during(|| {
            let connect = |number| connect_from(numbered(number), None);
            (0..SILENT).map(connect).collect()
        });
        let mut most = 0;
        eventually("their number is bounded", || {
            let peers = peers_without_session(&scene);
            most = most.max(peers);
            (peers != PLACES).then(|| format!("{peers} peers without a session"))
        });
        let grown = memory::held().saturating_sub(memory);
        println!(
            "{SILENT} silent connections: {most} peers at most, {} KiB",
            grown >> 10
        );
        assert!(grown < PLACES * COST_OF_SILENCE + LITTLE, "{grown} octets");

        let begun = Instant::now();
        let real: Vec<Peer> = bystanders.exchange_during(|| {
            let establish = |number| {
                let open = open(number as u8, HOLD_TIME_SECS);
                let mut peer = None;
                // As a router does that is turned away while others are on their way out.
                eventually("who speaks has a place", || {
                    let stream = connect_from(numbered(number), None);
                    peer = Peer::establish_with(stream, &open);
                    peer.is_none()
                        .then(|| format!("{} is refused", numbered(number)))
                });
                peer.expect("waited for")
            };
            (SILENT + 1..SILENT + 51).map(establish).collect()
        });
        println!(
            "{} peers came up in {} ms",
            real.len(),
            begun.elapsed().as_millis()
        );
        eventually("the peers that speak are up", || {
            let up = established(&scene);
            (up != BYSTANDERS.len() + real.len()).then(|| format!("{up} up"))
        });
        // Nobody who is up makes way.
        let more: Vec<TcpStream> = bystanders.exchange_during(|| {
            let connect = |number| connect_from(numbered(number), None);
            (2000..2000 + SILENT).map(connect).collect()
        });
        eventually("their number is bounded again", || {
            let without = peers_without_session(&scene);
            (without != PLACES - real.len()).then(|| format!("{without} without a session"))
        });
        assert_eq!(established(&scene), BYSTANDERS.len() + real.len());
        let flaps: u64 = scene.peers().iter().map(|peer| peer.flaps).sum();
        assert_eq!(flaps, 0, "a session ended on the way");
        bystanders.expect_unharmed(&scene);
        drop((silent, more));
    });
}

#[test]
fn a_thousand_half_open_connections_keep_nobody_out() {
    const LATE: u8 = 21;
    in_namespace(|| {
        // What is answered to them goes nowhere.
        let route = std::process::Command::new("ip")
            .args(["route", "add", "10.9.0.0/16", "dev", "lo"])
            .status();
        assert!(route.expect("ip starts").success());
        let [left, right] = BYSTANDERS;
        let scene = Scene::start(&[left, right, LATE]);
        let mut bystanders = Bystanders::meet(&scene);
        let memory = memory::held();
        let sender = SynSender::new();
        bystanders.exchange_during(|| {
            for number in 0..1000_u16 {
                let [high, low] = number.to_be_bytes();
                sender.send(Ipv4Addr::new(10, 9, high, low), 40_000);
            }
        });
        eventually("the kernel waits for some of them", || {
            let waiting = kernel::half_open();
            (waiting == 0).then(|| "none is half open".to_owned())
        });
        println!("1000 SYNs: {} half open", kernel::half_open());
        let begun = Instant::now();
        let _late = bystanders.exchange_during(|| {
            let peer = Peer::establish(LATE, HOLD_TIME_SECS);
            scene.wait_established(LATE);
            peer
        });
        println!("a peer came up in {} ms", begun.elapsed().as_millis());
        let grown = memory::held().saturating_sub(memory);
        assert!(grown < LITTLE, "{grown} octets");
        bystanders.expect_unharmed(&scene);
    });
}
