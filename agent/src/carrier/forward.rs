//! Moves packets: TAP to wire on one thread, here; wire to TAP on another, in `inward`.
//!
//! Stateless: the neighbour that the kernel's route chose names the outer destination, in the MAC
//! of the frame. Each direction owns its buffers, allocates nothing per packet, and reads until
//! there is nothing more. The queues are the kernel's: the TAP's (its txqueuelen) and the socket's
//! receive buffer; when they are full, the kernel drops, and counts.
//!
//! System calls are what costs. Large packets of TCP and UDP cross the TAP whole: cut into segments
//! here on the way out (`segment`), joined again on the way in; the wire's side takes and gives many
//! packets a call (`batch`). What waits is only what the kernel has already: nothing is held back for
//! more.

use std::io::{self, ErrorKind, Read};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::batch::{Outgoing, SLOTS};
use super::counters::{Counters, add, count};
use super::packet::{self, Ipv4, TAP_HEADER, Unfinished};
use super::segment::Segmenter;
use super::tap::{Tap, VNET_HEADER};
use super::wire::{Sender, Wire};

/// Of an IP packet: larger ones do not exist.
pub const PACKET_MAX: usize = 65_535;

/// What both directions work on.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    pub tap: &'a Tap,
    pub wire: &'a Wire,
    pub local: Ipv4Addr,
    pub counters: &'a Counters,
    /// Another carrier takes what comes from now on.
    pub is_leaving: &'a AtomicBool,
}

impl Ends<'_> {
    /// Whether another carrier takes over. To be asked with nothing in hand.
    pub fn are_left(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }
}

/// Sends what comes out of the TAP, until another carrier takes over.
///
/// # Errors
/// The TAP's, which end the carrier: it is gone.
pub fn tap_to_wire(ends: Ends<'_>) -> io::Result<()> {
    let mut outbox = Outbox {
        ends,
        sender: Sender::new(ends.wire, ends.local)?,
        bytes: Vec::with_capacity(2 * PACKET_MAX),
        packets: Vec::with_capacity(SLOTS),
        reply: vec![0; TAP_HEADER + PACKET_MAX],
    };
    let mut frame = vec![0; TAP_HEADER + PACKET_MAX];
    loop {
        match (&ends.tap.file).read(&mut frame) {
            Ok(length) => {
                if outbox.take(&mut frame[..length]).is_none() {
                    count(&ends.counters.dropped_frame);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                outbox.flush();
                if !ends.are_left() {
                    wait_for(ends.tap.file.as_fd())?;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // Also where the TAP never runs dry.
        if ends.are_left() {
            outbox.flush();
            return Ok(());
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
    to: Destination,
}

/// What the packets of one frame have in common.
#[derive(Clone, Copy)]
struct Destination {
    node: Ipv4Addr,
    /// Of the outer header.
    tos: u8,
    is_unfragmentable: bool,
}

impl Outbox<'_> {
    /// `None`: the frame is not IPv4, or for no node.
    fn take(&mut self, frame: &mut [u8]) -> Option<()> {
        let unfinished = packet::unfinished(frame)?;
        if let Unfinished::Checksum { start, field } = unfinished {
            packet::finish_checksum(frame.get_mut(TAP_HEADER..)?, start, field);
        }
        let (node, inner) = packet::parse_frame(frame)?;
        let to = Destination {
            node,
            tos: packet::outer_tos(inner.tos()),
            is_unfragmentable: inner.is_unfragmentable(),
        };
        let mut start = self.bytes.len();
        let Unfinished::Segments { length } = unfinished else {
            self.bytes.extend_from_slice(inner.bytes());
            self.queue(start, to);
            return Some(());
        };
        let mut segmenter = Segmenter::new(&inner, length)?;
        while segmenter.append_next(&mut self.bytes) {
            self.queue(start, to);
            start = self.bytes.len();
        }
        Some(())
    }

    /// Queues what `bytes` holds from `start` on.
    fn queue(&mut self, start: usize, to: Destination) {
        let range = start..self.bytes.len();
        self.packets.push(Queued { range, to });
        if self.packets.len() == SLOTS {
            self.flush();
        }
    }

    /// Sends all that is queued.
    fn flush(&mut self) {
        let none = Outgoing {
            bytes: &[],
            node: Ipv4Addr::UNSPECIFIED,
            tos: 0,
            is_unfragmentable: false,
        };
        let mut outgoing = [none; SLOTS];
        for (target, Queued { range, to }) in outgoing.iter_mut().zip(&self.packets) {
            *target = Outgoing {
                bytes: &self.bytes[range.clone()],
                node: to.node,
                tos: to.tos,
                is_unfragmentable: to.is_unfragmentable,
            };
        }
        let mut rest = &outgoing[..self.packets.len()];
        while let Some((first, others)) = rest.split_first() {
            match self.sender.send(rest) {
                Ok(sent) => {
                    add(&self.ends.counters.sent, sent);
                    rest = rest.get(sent..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // About the first, or late news that hit it: it alone knows.
                Err(_) => {
                    send_alone(&mut self.sender, self.ends, &mut self.reply, *first);
                    rest = others;
                }
            }
        }
        self.packets.clear();
        self.bytes.clear();
    }
}

fn send_alone(sender: &mut Sender<'_>, ends: Ends<'_>, reply: &mut [u8], packet: Outgoing<'_>) {
    let counters = ends.counters;
    let Some(inner) = Ipv4::parse(packet.bytes) else {
        return count(&counters.dropped_frame);
    };
    match try_send(sender, packet) {
        Sent::Yes => count(&counters.sent),
        Sent::Refused => count(&counters.dropped_send),
        Sent::TooBig { mtu } => {
            count(&counters.dropped_too_big);
            if packet.is_unfragmentable {
                answer_too_big(ends, reply, &inner, packet.node, mtu);
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

fn try_send(sender: &mut Sender<'_>, packet: Outgoing<'_>) -> Sent {
    // An ICMP error about an earlier packet is reported by the next send, which then sends nothing.
    let mut may_be_late_news = true;
    loop {
        let Err(error) = sender.send(&[packet]) else {
            return Sent::Yes;
        };
        match error.kind() {
            ErrorKind::Interrupted => {}
            _ if may_be_late_news => may_be_late_news = false,
            _ if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                let mtu = sender.inner_mtu(packet.node);
                return Sent::TooBig { mtu };
            }
            _ => return Sent::Refused,
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
        let _ = nix::unistd::write(&ends.tap.file, &reply[..TAP_HEADER + length]);
    }
}

fn wait_for(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptor = PollFd::new(descriptor, PollFlags::POLLIN);
    match poll(&mut [descriptor], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
