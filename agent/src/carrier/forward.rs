//! Moves packets: TAP to wire on one thread, wire to TAP on another.
//!
//! Stateless: the neighbour that the kernel's route chose names the outer destination, in the MAC
//! of the frame. Each direction owns its buffers, allocates nothing per packet, and reads until
//! there is nothing more. The queues are the kernel's: the TAP's (its txqueuelen) and the socket's
//! receive buffer; when they are full, the kernel drops.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::packet::{self, Ipv4, OUTER_HEADER, TAP_HEADER};
use super::tap::VNET_HEADER;
use super::wire::{self, Sender, Wire};

/// Of an IP packet: larger ones do not exist.
const PACKET_MAX: usize = 65_535;
/// Room in front of a received packet, so that the TAP's header, longer than the shortest outer one,
/// fits before the inner packet.
const HEADROOM: usize = TAP_HEADER - OUTER_HEADER;
/// How long a path's MTU is believed when joined segments are cut.
const MTU_AGE: Duration = Duration::from_secs(10);
const MTU_SLOTS: usize = 64;

/// Packets since start. Dropped ones are in exactly one of the `dropped_*`.
#[derive(Debug, Default)]
pub struct Counters {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// From the TAP: not IPv4, or for a MAC that is no node's.
    pub dropped_frame: AtomicU64,
    /// Larger than the path's MTU; the sender was told if it asked (DF).
    pub dropped_too_big: AtomicU64,
    /// The kernel refused to send, e.g. without a route.
    pub dropped_send: AtomicU64,
    /// From the wire: not IPv4 in IPv4, or marked in a way the inner packet does not allow.
    pub dropped_malformed: AtomicU64,
    /// The kernel did not take the frame, e.g. while the TAP is down.
    pub dropped_tap: AtomicU64,
}

/// `Counters` at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CounterValues {
    pub sent: u64,
    pub received: u64,
    pub dropped_frame: u64,
    pub dropped_too_big: u64,
    pub dropped_send: u64,
    pub dropped_malformed: u64,
    pub dropped_tap: u64,
}

impl Counters {
    pub fn values(&self) -> CounterValues {
        CounterValues {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            dropped_frame: self.dropped_frame.load(Ordering::Relaxed),
            dropped_too_big: self.dropped_too_big.load(Ordering::Relaxed),
            dropped_send: self.dropped_send.load(Ordering::Relaxed),
            dropped_malformed: self.dropped_malformed.load(Ordering::Relaxed),
            dropped_tap: self.dropped_tap.load(Ordering::Relaxed),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Sends what comes out of the TAP. Returns only on an error that ends the carrier: the TAP is gone.
///
/// # Errors
/// The TAP's.
pub fn tap_to_wire(
    tap: &File,
    wire: &Wire,
    local: Ipv4Addr,
    counters: &Counters,
) -> io::Result<()> {
    let mut sender = Sender::new(wire, local)?;
    let mut frame = vec![0; TAP_HEADER + PACKET_MAX];
    let mut reply = vec![0; TAP_HEADER + PACKET_MAX];
    loop {
        let length = match (&*tap).read(&mut frame) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_for(tap.as_fd(), PollFlags::POLLIN)?;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some((node, inner)) = packet::parse_frame(&frame[..length]) else {
            count(&counters.dropped_frame);
            continue;
        };
        match send(&mut sender, wire, &inner, node)? {
            Sent::Yes => count(&counters.sent),
            Sent::Refused => count(&counters.dropped_send),
            Sent::TooBig { mtu } => {
                count(&counters.dropped_too_big);
                answer_too_big(tap, &mut reply, &inner, node, local, mtu);
            }
        }
    }
}

enum Sent {
    Yes,
    Refused,
    /// The largest inner packet that would pass.
    TooBig {
        mtu: usize,
    },
}

/// # Errors
/// Only if waiting fails.
fn send(
    sender: &mut Sender<'_>,
    wire: &Wire,
    inner: &Ipv4<'_>,
    node: Ipv4Addr,
) -> io::Result<Sent> {
    let tos = packet::outer_tos(inner.tos());
    // An ICMP error about an earlier packet is reported by the next send, which then sends nothing.
    let mut may_be_late_news = true;
    loop {
        let Err(error) = sender.send(inner.bytes(), tos, node) else {
            return Ok(Sent::Yes);
        };
        match error.kind() {
            ErrorKind::WouldBlock => wait_for(wire.as_fd(), PollFlags::POLLOUT)?,
            ErrorKind::Interrupted => {}
            _ if may_be_late_news => may_be_late_news = false,
            _ if error.raw_os_error() != Some(Errno::EMSGSIZE as i32) => return Ok(Sent::Refused),
            _ if inner.is_unfragmentable() => {
                let outer = sender.path_mtu(node).unwrap_or_default();
                return Ok(Sent::TooBig {
                    mtu: outer.saturating_sub(OUTER_HEADER),
                });
            }
            _ => {
                let sent = sender.send_fragmented(inner.bytes(), tos, node);
                return Ok(if sent.is_ok() {
                    Sent::Yes
                } else {
                    Sent::Refused
                });
            }
        }
    }
}

/// Tells the sender of a packet that it was too big for the path (RFC 1191 §3).
fn answer_too_big(
    tap: &File,
    reply: &mut [u8],
    inner: &Ipv4<'_>,
    node: Ipv4Addr,
    local: Ipv4Addr,
    mtu: usize,
) {
    let Ok(mtu) = u16::try_from(mtu) else { return };
    let Some((header, rest)) = reply.split_first_chunk_mut::<TAP_HEADER>() else {
        return;
    };
    packet::write_tap_header(header, &[0; VNET_HEADER], node, local);
    if let Some(length) = packet::write_fragmentation_needed(rest, inner, mtu) {
        // As with every ICMP error, its loss is made good by the next packet.
        let _ = nix::unistd::write(tap, &reply[..TAP_HEADER + length]);
    }
}

/// Writes what comes from the wire into the TAP. Returns only on an error that ends the carrier.
///
/// # Errors
/// The socket's.
pub fn wire_to_tap(
    wire: &Wire,
    tap: &File,
    local: Ipv4Addr,
    counters: &Counters,
) -> io::Result<()> {
    let mut mtus = MtuMemory::new(local)?;
    let mut buffer = vec![0; HEADROOM + PACKET_MAX];
    loop {
        let length = match wire.receive(&mut buffer[HEADROOM..]) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_for(wire.as_fd(), PollFlags::POLLIN)?;
                continue;
            }
            // An ICMP error about a packet sent: news for the other thread, at most.
            Err(_) => continue,
        };
        let Some(start) = decapsulate(&mut buffer[..HEADROOM + length], local, &mut mtus) else {
            count(&counters.dropped_malformed);
            continue;
        };
        // One frame per write: it is taken whole or not at all.
        match nix::unistd::write(tap, &buffer[start..HEADROOM + length]) {
            Ok(_) => count(&counters.received),
            Err(_) => count(&counters.dropped_tap),
        }
    }
}

/// Turns the packet at `HEADROOM` into a frame for the TAP, in place, and returns where it starts.
/// `None`: not ours, or not sane.
fn decapsulate(buffer: &mut [u8], local: Ipv4Addr, mtus: &mut MtuMemory) -> Option<usize> {
    let outer = Ipv4::parse(&buffer[HEADROOM..])?;
    if outer.destination() != local {
        return None;
    }
    let (from, outer_tos) = (outer.source(), outer.tos());
    let start = HEADROOM + outer.header_length();
    let inner = &mut buffer[start..];
    Ipv4::parse(inner)?;
    if !packet::decapsulate_ecn(outer_tos, inner) {
        return None;
    }
    let offload = packet::offload(inner, || mtus.inner_mtu(from));
    let header = start.checked_sub(TAP_HEADER)?;
    let target = buffer.get_mut(header..start)?.first_chunk_mut()?;
    packet::write_tap_header(target, &offload, from, local);
    Some(header)
}

/// The MTU of the paths to the nodes that sent last.
struct MtuMemory {
    probe: UdpSocket,
    /// By the last octet of the node's address; a node that shares it takes the place.
    slots: [MtuSlot; MTU_SLOTS],
}

#[derive(Clone, Copy)]
struct MtuSlot {
    node: Ipv4Addr,
    inner_mtu: usize,
    expires: Instant,
}

impl MtuMemory {
    fn new(local: Ipv4Addr) -> io::Result<MtuMemory> {
        let empty = MtuSlot {
            node: Ipv4Addr::UNSPECIFIED,
            inner_mtu: PACKET_MAX,
            expires: Instant::now(),
        };
        Ok(MtuMemory {
            probe: UdpSocket::bind((local, 0))?,
            slots: [empty; MTU_SLOTS],
        })
    }

    /// The largest inner packet that `node` can have sent in one piece, taking the path to be alike
    /// in both directions. Unknown: any.
    fn inner_mtu(&mut self, node: Ipv4Addr) -> usize {
        let slot = &mut self.slots[usize::from(node.octets()[3]) % MTU_SLOTS];
        let now = Instant::now();
        if slot.node != node || now >= slot.expires {
            let outer = wire::path_mtu(&self.probe, node);
            let inner_mtu = outer.map_or(PACKET_MAX, |mtu| mtu.saturating_sub(OUTER_HEADER));
            *slot = MtuSlot {
                node,
                inner_mtu,
                expires: now + MTU_AGE,
            };
        }
        slot.inner_mtu
    }
}

fn wait_for(descriptor: std::os::fd::BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(descriptor, events)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
