//! Hears the BGP messages on a site's cable, as they are on the wire, in both directions.
//!
//! What both ends say of themselves is one thing; which messages passed is another. Not for sessions
//! whose segments get lost: a gap ends what is heard of a connection.

use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agent::lab::Namespace;
use agent::lab::capture::make_room;
use anyhow::Result;
use bgp::wire::frame::{self, Frame, MAX_EXTENDED_LEN};
use bytes::BytesMut;
use socket2::{Domain, Protocol, Socket, Type};

use crate::product::eventually;
use crate::site::TIMEOUT;

const ETH_P_ALL: u16 = 0x0003;
const PROTOCOL_TCP: u8 = 6;
const BGP: u16 = 179;
/// Longer than what the kernel hands over as one segment.
const LONGEST_PACKET: usize = 1 << 17;

/// A message and who sent it.
#[derive(Clone, Debug)]
pub struct Heard {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub frame: Frame,
}

/// A running capture; dropping it ends it.
pub struct Wiretap {
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wiretap {
    /// Hears everything from the time this returns.
    pub fn start(namespace: &Namespace) -> Result<Wiretap> {
        let mut socket = namespace.enter(|| {
            // Datagram: the kernel takes the Ethernet header off.
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
            make_room(&socket)?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(socket)
        })?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, stopped) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut connections = HashMap::new();
            let mut buffer = vec![0; LONGEST_PACKET];
            while !stopped.load(Ordering::Relaxed) {
                // A timeout is no packet.
                let Ok(length) = socket.read(&mut buffer) else {
                    continue;
                };
                if let Some(segment) = buffer.get(..length).and_then(Segment::parse) {
                    let new = follow(&mut connections, &segment);
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    told.extend(new);
                }
            }
        });
        Ok(Wiretap {
            heard,
            stop,
            thread: Some(thread),
        })
    }

    /// All so far.
    pub fn heard(&self) -> Vec<Heard> {
        let heard = self.heard.lock();
        heard.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until such a message was heard.
    pub fn expect(&self, what: &str, holds: impl Fn(&Heard) -> bool) -> Result<()> {
        eventually(what, TIMEOUT, || {
            let heard = self.heard();
            let kinds = heard.iter().map(|heard| (heard.from, heard.frame.kind));
            let kinds: Vec<_> = kinds.collect();
            Ok((!heard.iter().any(&holds)).then(|| format!("heard {kinds:?}")))
        })
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// One direction of a connection.
type Direction = (SocketAddr, SocketAddr);

struct Stream {
    next_sequence: u32,
    octets: BytesMut,
}

/// The messages that end in this segment.
fn follow(connections: &mut HashMap<Direction, Stream>, segment: &Segment<'_>) -> Vec<Heard> {
    let new = Stream {
        next_sequence: segment.sequence.wrapping_add(u32::from(segment.is_syn)),
        octets: BytesMut::new(),
    };
    if segment.is_syn {
        connections.insert(segment.direction, new);
        return Vec::new();
    }
    let stream = connections.entry(segment.direction).or_insert(new);
    // Negative: sent before; its end may be new.
    let ahead = segment.sequence.wrapping_sub(stream.next_sequence) as i32;
    let Ok(known) = usize::try_from(-i64::from(ahead)) else {
        return Vec::new();
    };
    let fresh = segment.payload.get(known..).unwrap_or_default();
    stream.octets.extend_from_slice(fresh);
    stream.next_sequence = stream.next_sequence.wrapping_add(fresh.len() as u32);
    let (from, to) = segment.direction;
    let mut heard = Vec::new();
    while let Ok(Some(frame)) = frame::next_frame(&mut stream.octets, MAX_EXTENDED_LEN) {
        heard.push(Heard { from, to, frame });
    }
    heard
}

/// A TCP segment of a BGP connection.
struct Segment<'a> {
    direction: Direction,
    sequence: u32,
    is_syn: bool,
    payload: &'a [u8],
}

impl Segment<'_> {
    fn parse(packet: &[u8]) -> Option<Segment<'_>> {
        let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
            4 if *packet.get(9)? == PROTOCOL_TCP => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let total = usize::from(u16::from_be_bytes(array(packet, 2)?));
                let address = |at| array(packet, at).map(|octets| Ipv4Addr::from(octets).into());
                (address(12)?, address(16)?, packet.get(header..total)?)
            }
            6 if *packet.get(6)? == PROTOCOL_TCP => {
                let total = 40 + usize::from(u16::from_be_bytes(array(packet, 4)?));
                let address = |at| array(packet, at).map(|octets| Ipv6Addr::from(octets).into());
                (address(8)?, address(24)?, packet.get(40..total)?)
            }
            _ => return None,
        };
        let port = |at| array(tcp, at).map(u16::from_be_bytes);
        let (source, target) = (port(0)?, port(2)?);
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        (source == BGP || target == BGP).then_some(Segment {
            direction: (SocketAddr::new(from, source), SocketAddr::new(to, target)),
            sequence: u32::from_be_bytes(array(tcp, 4)?),
            is_syn: tcp.get(13)? & 0x02 != 0,
            payload: tcp.get(header..)?,
        })
    }
}

fn array<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..at + N)?.try_into().ok()
}
