//! A peer that never reads, and one that reads slowly.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use bgp::types::Prefix;
use bgp::wire::attribute::PathAttributes;
use bgp::wire::community::Community;
use bgp::wire::frame;

use crate::bystanders::{BYSTANDERS, Bystanders};
use crate::memory;
use crate::peer::{Heard, Live, Peer, announce, attributes, connect_with};
use crate::scene::{DEADLINE, POLL, Scene, eventually, in_namespace, set_net};

const DEAF: u8 = 31;
const LOADER: u8 = 32;
const RECEIVER: u8 = 33;
const SEND_HOLD: Duration = Duration::from_secs(10);
/// Routes that share their attributes: as many messages as can be.
const SHARING: usize = 2;
/// Rounds that show what the table takes while everybody reads.
const FIRST_ROUNDS: u32 = 8;
/// What may wait for one peer: its outbox, and the prefixes it has yet to hear of.
const BOUND: usize = 5 << 20;

/// A table with many attribute sets, of which every round has its own.
struct Table {
    prefixes: Vec<Prefix>,
    /// In every set, four octets each.
    communities: u32,
}

impl Table {
    fn new(routes: u32, communities: u32) -> Table {
        let network = |number: u32| format!("20.{}.{}.0/24", number >> 8, number & 0xff);
        Table {
            prefixes: (0..routes)
                .map(|number| network(number).parse().expect("a prefix"))
                .collect(),
            communities,
        }
    }

    fn round(&self, round: u32) -> Vec<u8> {
        let said = |(prefixes, number): (&[Prefix], u32)| {
            let attributes = PathAttributes {
                communities: (0..self.communities).map(Community).collect(),
                ..attributes(LOADER, number)
            };
            announce(&attributes, prefixes)
        };
        let chunks = self.prefixes.chunks(SHARING);
        chunks.zip(round << 16..).flat_map(said).collect()
    }
}

/// One peer says its table again and again, another hears it.
struct Stream {
    table: Table,
    loader: Live,
    _receiver: Live,
    heard: Arc<AtomicUsize>,
    rounds: u32,
    octets: usize,
}

impl Stream {
    fn start(table: Table) -> Stream {
        let heard = Arc::new(AtomicUsize::new(0));
        let hearing = Arc::clone(&heard);
        let receiver = Peer::establish(RECEIVER, 90).live(DEADLINE, move |_, what| {
            if let Heard::Announced(prefixes) = what {
                hearing.fetch_add(prefixes.len(), Ordering::Relaxed);
            }
        });
        Stream {
            table,
            loader: Peer::establish(LOADER, 90).live(DEADLINE, |_, _| {}),
            _receiver: receiver,
            heard,
            rounds: 0,
            octets: 0,
        }
    }

    /// One round. Returns the memory that is held after it.
    fn say_all(&mut self) -> usize {
        let octets = self.table.round(self.rounds);
        self.loader.send(&octets);
        self.octets += octets.len();
        drop(octets);
        self.rounds += 1;
        let count = self.table.prefixes.len() * self.rounds as usize;
        eventually("the receiver hears the table", || {
            let heard = self.heard.load(Ordering::Relaxed);
            (heard < count).then(|| format!("{heard} of {count} routes"))
        });
        memory::held()
    }
}

/// Sends KEEPALIVEs and reads nothing, until `is_over`.
fn speak(mut stream: TcpStream, is_over: &mpsc::Receiver<()>) {
    let second = Duration::from_secs(1);
    while is_over.recv_timeout(second) == Err(RecvTimeoutError::Timeout) {
        // In the end the speaker closes.
        let _ = stream.write_all(&frame::keepalive());
    }
}

#[test]
fn non_reading_peer_is_isolated() {
    in_namespace(|| {
        // With the usual buffers the kernel would take megabytes before the speaker feels it.
        set_net("ipv4/tcp_wmem", "4096 16384 65536");
        let [left, right] = BYSTANDERS;
        let scene = Scene::start_with(&[left, right, DEAF, LOADER, RECEIVER], |last, config| {
            if last == DEAF {
                config.send_hold_time = Some(SEND_HOLD);
            }
        });
        let mut bystanders = Bystanders::meet(&scene);
        let mut stream = Stream::start(Table::new(10_000, 128));
        let before = bystanders
            .exchange_during(|| (0..FIRST_ROUNDS).map(|_| stream.say_all()).max())
            .expect("some rounds");

        let said_before = stream.octets;
        let deaf = Peer::establish_on(connect_with(DEAF, Some(4096)), DEAF, 3).expect("taken");
        scene.wait_established(DEAF);
        let begun = Instant::now();
        let most = bystanders.exchange_during(|| {
            std::thread::scope(|scope| {
                let speaking = deaf.stream.try_clone().expect("a descriptor");
                let (_end, is_over) = mpsc::channel();
                scope.spawn(move || speak(speaking, &is_over));
                let mut most = 0;
                while scene.peer(DEAF).state == "established" {
                    assert!(begun.elapsed() < DEADLINE, "{:?}", scene.peer(DEAF));
                    most = most.max(stream.say_all());
                }
                most
            })
        });
        let missed = stream.octets - said_before;
        println!(
            "ended {} ms after its session began, having missed {} KiB of UPDATEs in {} rounds",
            begun.elapsed().as_millis(),
            missed >> 10,
            stream.rounds - FIRST_ROUNDS,
        );
        let grown = most.saturating_sub(before);
        println!(
            "memory: {} KiB without it, {} KiB more with it",
            before >> 10,
            grown >> 10
        );
        assert!(
            missed > 2 * BOUND,
            "too little was said to tell: {missed} octets"
        );
        assert!(grown < BOUND, "{grown} octets");

        let error = scene.peer(DEAF).last_error.expect("said why");
        assert_eq!((error.code, error.subcode), (8, 0), "RFC 9687: {error:?}");
        assert_eq!(error.reason, "the peer read nothing for the send hold time");

        let mut unread = Vec::new();
        let mut deaf = deaf.stream;
        // A reset in place of an end is as good; what was read before counts.
        let _ = deaf.read_to_end(&mut unread);
        println!("the kernel had {} KiB for it", unread.len() >> 10);
        assert!(unread.len() < missed / 4, "it did read");
        drop(stream);
        bystanders.expect_unharmed(&scene);
    });
}

/// Reads 32 KiB of it now and then.
fn sip(stream: &mut TcpStream, is_over: &mpsc::Receiver<()>) {
    let mut octets = vec![0; 32 << 10];
    while is_over.recv_timeout(Duration::from_millis(300)) == Err(RecvTimeoutError::Timeout) {
        stream.read_exact(&mut octets).expect("more to read");
    }
}

#[test]
fn a_slow_reader_outlives_the_send_hold_time() {
    in_namespace(|| {
        set_net("ipv4/tcp_wmem", "4096 16384 32768");
        let scene = Scene::start_with(&[DEAF, LOADER, RECEIVER], |last, config| {
            if last == DEAF {
                config.send_hold_time = Some(Duration::from_secs(1));
            }
        });
        let mut stream = Stream::start(Table::new(1000, 900));
        stream.say_all();
        let slow = connect_with(DEAF, Some(16 << 10));
        let mut slow = Peer::establish_on(slow, DEAF, 90).expect("taken");
        let (_end, is_over) = mpsc::channel();
        let deadline = Instant::now() + Duration::from_secs(4);
        std::thread::scope(|scope| {
            let _end = _end;
            scope.spawn(move || sip(&mut slow.stream, &is_over));
            // RFC 9687 §3: every message that leaves starts the timer anew.
            while Instant::now() < deadline {
                let peer = scene.peer(DEAF);
                assert_eq!((peer.flaps, peer.last_error), (0, None));
                std::thread::sleep(POLL);
            }
        });
    });
}
