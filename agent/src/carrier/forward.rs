//! Moves packets: TAP to wire on one thread, here; wire to TAP on another, in `inward`.
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
use std::io::{self, ErrorKind, Read};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::batch::{Outgoing, SLOTS};
use super::packet::{self, Ipv4, TAP_HEADER, Unfinished};
use super::segment::Segmenter;
use super::tap::VNET_HEADER;
use super::wire::{Sender, Wire};

/// Of an IP packet: larger ones do not exist.
pub const PACKET_MAX: usize = 65_535;

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

pub fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub fn add(counter: &AtomicU64, packets: usize) {
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
        bytes: Vec::with_capacity(2 * PACKET_MAX),
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

pub fn wait_for(descriptor: std::os::fd::BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(descriptor, events)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
