//! Wire to TAP: takes the outer headers off, joins TCP segments that follow each other.
//!
//! In: what the socket gave, many packets a call. Out: frames for the TAP, in the order in which they
//! came, none held back for more.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::Encapsulation;
use super::batch::{Batch, Incoming, SLOTS};
use super::forward::{Ends, PACKET_MAX, add, count, wait_for};
use super::packet::{self, Ipv4, TAP_HEADER};
use super::segment::Joint;
use super::tap::VNET_HEADER;
use super::wire;

/// One received packet with room in front for the TAP's header. Slots are not a power of two apart:
/// the usual short packets, all at their beginnings, would contend for the same lines of the caches.
const SLOT: usize = (TAP_HEADER + PACKET_MAX).next_multiple_of(64) + 25 * 64;
/// How long a path's MTU is believed when joined segments are cut.
const MTU_AGE: Duration = Duration::from_secs(10);
const MTU_SLOTS: usize = 64;

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
