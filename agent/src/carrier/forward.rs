//! Moves packets: TAP to wire on one thread, wire to TAP on another.
//!
//! Stateless: the neighbour that the kernel's route chose names the outer destination, in the MAC
//! of the frame. Each direction owns its buffers, allocates nothing per packet, and reads until
//! there is nothing more. The queues are the kernel's: the TAP's (its txqueuelen) and the socket's
//! receive buffer; when they are full, the kernel drops.
//!
//! System calls are what costs. Large TCP packets cross the TAP whole: cut into segments here on the
//! way out (`segment`), joined again on the way in; the wire's side takes and gives many packets a
//! call (`batch`). What waits is only what the kernel has already: nothing is held back for more.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::Encapsulation;
use super::batch::{Batch, Incoming, Outgoing, SLOTS};
use super::packet::{self, Ipv4, TAP_HEADER, Unfinished};
use super::segment::{Joint, Segmenter};
use super::tap::VNET_HEADER;
use super::wire::{self, Sender, Wire};

/// Of an IP packet: larger ones do not exist.
const PACKET_MAX: usize = 65_535;
/// One received packet with room in front for the TAP's header. Slots are not a power of two apart:
/// the usual short packets, all at their beginnings, would contend for the same lines of the caches.
const SLOT: usize = (TAP_HEADER + PACKET_MAX).next_multiple_of(64) + 25 * 64;
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
    add(counter, 1);
}

fn add(counter: &AtomicU64, packets: usize) {
    counter.fetch_add(packets as u64, Ordering::Relaxed);
}

/// What both directions work on.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    pub tap: &'a File,
    pub wire: &'a Wire,
    pub local: Ipv4Addr,
    pub counters: &'a Counters,
}

/// Sends what comes out of the TAP. Returns only on an error that ends the carrier: the TAP is gone.
///
/// # Errors
/// The TAP's.
pub fn tap_to_wire(ends: Ends<'_>) -> io::Result<()> {
    let mut outbox = Outbox {
        ends,
        sender: Sender::new(ends.wire, ends.local)?,
        bytes: Vec::with_capacity(2 * SLOT),
        packets: Vec::with_capacity(SLOTS),
        reply: vec![0; TAP_HEADER + PACKET_MAX],
    };
    let mut frame = vec![0; TAP_HEADER + PACKET_MAX];
    loop {
        match (&*ends.tap).read(&mut frame) {
            Ok(length) => outbox.take(&mut frame[..length])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                outbox.flush()?;
                wait_for(ends.tap.as_fd(), PollFlags::POLLIN)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Packets on their way to the wire, at most `SLOTS`.
struct Outbox<'a> {
    ends: Ends<'a>,
    sender: Sender<'a>,
    bytes: Vec<u8>,
    packets: Vec<Queued>,
    /// Room for an ICMP error.
    reply: Vec<u8>,
}

struct Queued {
    range: Range<usize>,
    node: Ipv4Addr,
    tos: u8,
}

impl Outbox<'_> {
    /// # Errors
    /// Only if waiting fails.
    fn take(&mut self, frame: &mut [u8]) -> io::Result<()> {
        let unfinished = packet::unfinished(frame);
        if let Some(Unfinished::Checksum { start, field }) = unfinished
            && let Some(packet) = frame.get_mut(TAP_HEADER..)
        {
            packet::finish_checksum(packet, start, field);
        }
        let parsed = packet::parse_frame(frame);
        let (Some(unfinished), Some((node, inner))) = (unfinished, parsed) else {
            count(&self.ends.counters.dropped_frame);
            return Ok(());
        };
        let tos = packet::outer_tos(inner.tos());
        let Unfinished::Segments { length } = unfinished else {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(inner.bytes());
            return self.queue(start, node, tos);
        };
        let Some(mut segmenter) = Segmenter::new(&inner, length) else {
            count(&self.ends.counters.dropped_frame);
            return Ok(());
        };
        let mut start = self.bytes.len();
        while segmenter.append_next(&mut self.bytes) {
            self.queue(start, node, tos)?;
            start = self.bytes.len();
        }
        Ok(())
    }

    /// Queues what `bytes` holds from `start` on.
    fn queue(&mut self, start: usize, node: Ipv4Addr, tos: u8) -> io::Result<()> {
        let range = start..self.bytes.len();
        self.packets.push(Queued { range, node, tos });
        if self.packets.len() == SLOTS {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends all that is queued.
    fn flush(&mut self) -> io::Result<()> {
        let empty = Outgoing {
            bytes: &[],
            node: Ipv4Addr::UNSPECIFIED,
            tos: 0,
        };
        let mut outgoing = [empty; SLOTS];
        for (target, queued) in outgoing.iter_mut().zip(&self.packets) {
            *target = Outgoing {
                bytes: &self.bytes[queued.range.clone()],
                node: queued.node,
                tos: queued.tos,
            };
        }
        let mut rest = &outgoing[..self.packets.len()];
        while let Some((first, others)) = rest.split_first() {
            match self.sender.send(rest) {
                Ok(sent) => {
                    add(&self.ends.counters.sent, sent);
                    rest = rest.get(sent..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait_for(self.ends.wire.as_fd(), PollFlags::POLLOUT)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // About the first, or late news that hit it: it alone knows.
                Err(_) => {
                    send_alone(&mut self.sender, self.ends, &mut self.reply, *first)?;
                    rest = others;
                }
            }
        }
        self.packets.clear();
        self.bytes.clear();
        Ok(())
    }
}

/// # Errors
/// Only if waiting fails.
fn send_alone(
    sender: &mut Sender<'_>,
    ends: Ends<'_>,
    reply: &mut [u8],
    packet: Outgoing<'_>,
) -> io::Result<()> {
    let counters = ends.counters;
    let Some(inner) = Ipv4::parse(packet.bytes) else {
        count(&counters.dropped_frame);
        return Ok(());
    };
    match try_send(sender, ends.wire, &inner, packet)? {
        Sent::Yes => count(&counters.sent),
        Sent::Refused => count(&counters.dropped_send),
        Sent::TooBig { mtu } => {
            count(&counters.dropped_too_big);
            answer_too_big(ends, reply, &inner, packet.node, mtu);
        }
    }
    Ok(())
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
fn try_send(
    sender: &mut Sender<'_>,
    wire: &Wire,
    inner: &Ipv4<'_>,
    packet: Outgoing<'_>,
) -> io::Result<Sent> {
    // An ICMP error about an earlier packet is reported by the next send, which then sends nothing.
    let mut may_be_late_news = true;
    loop {
        let Err(error) = sender.send(&[packet]) else {
            return Ok(Sent::Yes);
        };
        match error.kind() {
            ErrorKind::WouldBlock => wait_for(wire.as_fd(), PollFlags::POLLOUT)?,
            ErrorKind::Interrupted => {}
            _ if may_be_late_news => may_be_late_news = false,
            _ if error.raw_os_error() != Some(Errno::EMSGSIZE as i32) => return Ok(Sent::Refused),
            _ if inner.is_unfragmentable() => {
                let mtu = sender.inner_mtu(packet.node);
                return Ok(Sent::TooBig { mtu });
            }
            _ => {
                let sent = sender.send_fragmented(packet);
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
fn answer_too_big(ends: Ends<'_>, reply: &mut [u8], inner: &Ipv4<'_>, node: Ipv4Addr, mtu: usize) {
    let Ok(mtu) = u16::try_from(mtu) else { return };
    let Some((header, rest)) = reply.split_first_chunk_mut::<TAP_HEADER>() else {
        return;
    };
    packet::write_tap_header(header, &[0; VNET_HEADER], node, ends.local);
    if let Some(length) = packet::write_fragmentation_needed(rest, inner, mtu) {
        // As with every ICMP error, its loss is made good by the next packet.
        let _ = nix::unistd::write(ends.tap, &reply[..TAP_HEADER + length]);
    }
}

/// Writes what comes from the wire into the TAP. Returns only on an error that ends the carrier.
///
/// # Errors
/// The socket's.
pub fn wire_to_tap(ends: Ends<'_>) -> io::Result<()> {
    let encapsulation = ends.wire.encapsulation();
    let headroom = TAP_HEADER - encapsulation.received_header();
    let mut mtus = MtuMemory::new(ends.local, encapsulation)?;
    let mut batch = Batch::new();
    let mut room = vec![0; SLOTS * SLOT];
    let mut received = Vec::with_capacity(SLOTS);
    let mut pending = Pending::default();
    loop {
        match batch.receive(ends.wire.as_fd(), &mut room, SLOT, headroom, &mut received) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_for(ends.wire.as_fd(), PollFlags::POLLIN)?;
                continue;
            }
            // An ICMP error about a packet sent: news for the other thread, at most.
            Err(_) => continue,
        }
        for (slot, incoming) in received.iter().enumerate() {
            let bytes = &mut room[slot * SLOT..][..headroom + incoming.length];
            match decapsulate(bytes, headroom, *incoming, ends.local, &mut mtus) {
                Some(frame) => pending.take(ends, &mut room, slot, frame),
                None => count(&ends.counters.dropped_malformed),
            }
        }
        pending.flush(ends, &mut room);
    }
}

/// A frame for the TAP within its slot.
struct Frame {
    start: usize,
    end: usize,
    /// Nothing is left to the kernel: it may be joined to others.
    is_finished: bool,
}

/// One frame, or several whose TCP segments follow each other. In order: nothing overtakes.
#[derive(Default)]
struct Pending {
    /// Ranges of the room: the first frame with its headers, then payload.
    parts: Vec<Range<usize>>,
    joint: Option<Joint>,
}

impl Pending {
    fn take(&mut self, ends: Ends<'_>, room: &mut [u8], slot: usize, frame: Frame) {
        let base = slot * SLOT;
        let whole = base + frame.start..base + frame.end;
        let packet = whole.start + TAP_HEADER..whole.end;
        if frame.is_finished
            && let (Some(joint), Some(first)) = (&mut self.joint, self.parts.first())
            && joint.extend(
                &room[first.start + TAP_HEADER..first.end],
                &room[packet.clone()],
            )
        {
            self.parts.push(packet.start + joint.headers()..packet.end);
            return;
        }
        self.flush(ends, room);
        self.joint = frame
            .is_finished
            .then(|| Joint::begin(&room[packet]))
            .flatten();
        self.parts.push(whole);
    }

    /// Writes what there is. One frame per write: it is taken whole or not at all.
    fn flush(&mut self, ends: Ends<'_>, room: &mut [u8]) {
        let Some(first) = self.parts.first().cloned() else {
            return;
        };
        let frames = self.parts.len();
        if let Some(joint) = self.joint.take().filter(|_| frames > 1) {
            let (header, packet) = room[first].split_at_mut(TAP_HEADER);
            let segment_length = joint.finish(packet);
            let vnet = packet::joined_header(joint.headers(), segment_length);
            header[..VNET_HEADER].copy_from_slice(&vnet);
        }
        let mut slices = [IoSlice::new(&[]); SLOTS];
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(&room[part.clone()]);
        }
        match nix::sys::uio::writev(ends.tap, &slices[..frames]) {
            Ok(_) => add(&ends.counters.received, frames),
            Err(_) => add(&ends.counters.dropped_tap, frames),
        }
        self.parts.clear();
    }
}

/// Turns what was received at `headroom` into a frame for the TAP, in place. `None`: not ours, or not
/// sane.
fn decapsulate(
    buffer: &mut [u8],
    headroom: usize,
    incoming: Incoming,
    local: Ipv4Addr,
    mtus: &mut MtuMemory,
) -> Option<Frame> {
    let (from, outer_tos, start) = match mtus.encapsulation {
        Encapsulation::Ipip => {
            let outer = Ipv4::parse(buffer.get(headroom..)?)?;
            if outer.destination() != local {
                return None;
            }
            let start = headroom + outer.header_length();
            (outer.source(), outer.tos(), start)
        }
        Encapsulation::Udp => (incoming.from, incoming.tos.unwrap_or_default(), headroom),
    };
    let inner = buffer.get_mut(start..)?;
    let length = Ipv4::parse(inner)?.len();
    if !packet::decapsulate_ecn(outer_tos, inner) {
        return None;
    }
    let offload = packet::offload(inner, || mtus.inner_mtu(from));
    let header = start.checked_sub(TAP_HEADER)?;
    let target = buffer.get_mut(header..start)?.first_chunk_mut()?;
    packet::write_tap_header(target, &offload, from, local);
    Some(Frame {
        start: header,
        end: start + length,
        is_finished: offload == [0; VNET_HEADER],
    })
}

/// The MTU of the paths to the nodes that sent last.
struct MtuMemory {
    encapsulation: Encapsulation,
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
    fn new(local: Ipv4Addr, encapsulation: Encapsulation) -> io::Result<MtuMemory> {
        let empty = MtuSlot {
            node: Ipv4Addr::UNSPECIFIED,
            inner_mtu: PACKET_MAX,
            expires: Instant::now(),
        };
        Ok(MtuMemory {
            encapsulation,
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
            let overhead = self.encapsulation.overhead();
            let inner_mtu = outer.map_or(PACKET_MAX, |mtu| mtu.saturating_sub(overhead));
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
