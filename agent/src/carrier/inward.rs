//! Wire to TAP: takes the outer headers off, joins segments that follow each other.
//!
//! In: what the socket gave, many packets a call. Out: frames for the TAP, in the order in which they
//! came, none held back for more.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Encapsulation;
use super::batch::{Batch, Incoming, SLOTS};
use super::counters::{add, count};
use super::forward::{Ends, PACKET_MAX};
use super::packet::{self, Ipv4, TAP_HEADER, Transport};
use super::segment::Joint;
use super::tap::VNET_HEADER;
use super::wire;

/// Room for what one message holds. Slots are not a power of two apart: the usual short packets, all
/// at their beginnings, would contend for the same lines of the caches.
const SLOT: usize = PACKET_MAX.next_multiple_of(64) + 25 * 64;
/// How long a path's MTU is believed when joined segments are cut.
const MTU_AGE: Duration = Duration::from_secs(10);
const MTU_SLOTS: usize = 64;

/// Writes what comes from the wire into the TAP, until another carrier takes over.
///
/// # Errors
/// If the system has no socket left.
pub fn wire_to_tap(ends: Ends<'_>) -> io::Result<()> {
    let mut mtus = MtuMemory::new(ends.local, ends.wire.encapsulation())?;
    let mut batch = Batch::new();
    let mut room = vec![0; SLOTS * SLOT];
    let mut received = Vec::with_capacity(SLOTS);
    let mut pending = Pending::default();
    while !ends.are_left() {
        // An error is about a packet sent: news for the other thread, at most.
        if batch
            .receive(ends.wire.as_fd(), &mut room, SLOT, &mut received)
            .is_err()
        {
            continue;
        }
        for (slot, incoming) in received.iter().enumerate() {
            let (mut start, end) = (slot * SLOT, slot * SLOT + incoming.length);
            while start < end {
                let datagram = start..end.min(start + incoming.datagram);
                let inner =
                    decapsulate(&mut room[datagram.clone()], incoming, ends.local, &mut mtus);
                match inner {
                    Some(inner) => pending.take(ends, &mut room, start, inner),
                    None => count(&ends.counters.dropped_malformed),
                }
                start = datagram.end;
            }
        }
        pending.flush(ends, &mut room);
    }
    Ok(())
}

/// The packet within a datagram.
struct Inner {
    range: Range<usize>,
    from: Ipv4Addr,
    /// What is left to the kernel. If nothing is, it may be joined to others.
    offload: [u8; VNET_HEADER],
}

/// One packet, or several whose segments follow each other. In order: nothing overtakes.
struct Pending {
    header: [u8; TAP_HEADER],
    /// Ranges of the room: the first packet, then payload.
    parts: Vec<Range<usize>>,
    joint: Option<Joint>,
}

impl Default for Pending {
    fn default() -> Pending {
        Pending {
            header: [0; TAP_HEADER],
            parts: Vec::with_capacity(SLOTS),
            joint: None,
        }
    }
}

impl Pending {
    /// `inner` lies in the room from `base` on.
    fn take(&mut self, ends: Ends<'_>, room: &mut [u8], base: usize, inner: Inner) {
        let packet = base + inner.range.start..base + inner.range.end;
        let is_finished = inner.offload == [0; VNET_HEADER];
        if is_finished
            && self.parts.len() < SLOTS
            && let (Some(joint), Some(first)) = (&mut self.joint, self.parts.first())
            && joint.extend(&room[first.clone()], &room[packet.clone()])
        {
            self.parts.push(packet.start + joint.headers()..packet.end);
            return;
        }
        self.flush(ends, room);
        packet::write_tap_header(&mut self.header, &inner.offload, inner.from, ends.local);
        let is_joinable = |joint: &Joint| match joint.transport() {
            Transport::Tcp => true,
            Transport::Udp => ends.tap.joins_datagrams,
        };
        self.joint = is_finished
            .then(|| Joint::begin(&room[packet.clone()]).filter(is_joinable))
            .flatten();
        self.parts.push(packet);
    }

    /// Writes what there is. One frame per write: it is taken whole or not at all.
    fn flush(&mut self, ends: Ends<'_>, room: &mut [u8]) {
        let Some(first) = self.parts.first().cloned() else {
            return;
        };
        let packets = self.parts.len();
        if let Some(joint) = self.joint.take().filter(|_| packets > 1) {
            let segment_length = joint.finish(&mut room[first]);
            let vnet = packet::joined_header(joint.transport(), joint.headers(), segment_length);
            self.header[..VNET_HEADER].copy_from_slice(&vnet);
        }
        let mut slices = [IoSlice::new(&[]); 1 + SLOTS];
        slices[0] = IoSlice::new(&self.header);
        for (slice, part) in slices[1..].iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(&room[part.clone()]);
        }
        match nix::sys::uio::writev(&ends.tap.file, &slices[..1 + packets]) {
            Ok(_) => add(&ends.counters.received, packets),
            Err(_) => add(&ends.counters.dropped_tap, packets),
        }
        self.parts.clear();
    }
}

/// Finds the packet within what was received, and makes it ready for the TAP. `None`: not ours, or
/// not sane.
fn decapsulate(
    datagram: &mut [u8],
    incoming: &Incoming,
    local: Ipv4Addr,
    mtus: &mut MtuMemory,
) -> Option<Inner> {
    let (from, outer_tos, start) = match mtus.encapsulation {
        Encapsulation::Ipip => {
            let outer = Ipv4::parse(datagram)?;
            if outer.destination() != local {
                return None;
            }
            (outer.source(), outer.tos(), outer.header_length())
        }
        Encapsulation::Udp => (incoming.from, incoming.tos.unwrap_or_default(), 0),
    };
    let inner = datagram.get_mut(start..)?;
    let length = Ipv4::parse(inner)?.len();
    if !packet::decapsulate_ecn(outer_tos, inner) {
        return None;
    }
    Some(Inner {
        range: start..start + length,
        from,
        offload: packet::offload(inner, || mtus.inner_mtu(from)),
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
