//! Connection tracking: forgets the connections of addresses that are no longer where they were.
//!
//! In: addresses. Out: no entry that names one of them, in either direction, so that the next packet
//! is looked at anew: a translation to a workload that is gone would send it to whoever has the
//! address now. The table is read once, whatever the number of addresses.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::netlink::{Parts, Refusal};
use super::rehearsal::{Difference, Rehearsal};
use super::sysctl;
use crate::crash::crash_point;

/// NFNL_SUBSYS_CTNETLINK, the upper octet of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const HEADER: usize = 16;
/// struct nfgenmsg: family, version, resource id.
const GENERIC_HEADER: usize = 4;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const IP_ADDRESSES: std::ops::RangeInclusive<u16> = 1..=4;
/// Of an attribute's type: without the flags for nested and network order.
const KIND: u16 = 0x3fff;
const BATCH: usize = 64;
const RECEIVE_BUFFER: usize = 128 * 1024;
/// A million entries are read in about a second; routes wait for this.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    #[error("failed to read how many connections are tracked: {0}")]
    Count(#[source] io::Error),
    #[error("netlink socket failed: {0}")]
    Socket(#[source] io::Error),
    #[error("kernel refused: {0}")]
    Refused(#[source] Refusal),
    #[error("the table was not worked off within {LONGEST:?}")]
    TooLong,
}

/// Removes every entry that has one of `addresses` as source or destination, translated or not, in
/// the calling thread's network namespace. Returns how many. Nothing is done where nothing is
/// tracked.
///
/// # Errors
/// What kept it from removing all.
pub fn forget(
    rehearsal: &Rehearsal,
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, ConntrackError> {
    if addresses.is_empty() {
        return Ok(0);
    }
    match sysctl::read("netfilter/nf_conntrack_count") {
        Ok(count) if count == "0" => return Ok(0),
        Ok(_) => {}
        // Connection tracking is not in this kernel, or not loaded.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(ConntrackError::Count(error)),
    }
    let mut connection = Connection::open()?;
    let mut removed = 0;
    for (family, is_wanted) in [
        (libc::AF_INET, addresses.iter().any(IpAddr::is_ipv4)),
        (libc::AF_INET6, addresses.iter().any(IpAddr::is_ipv6)),
    ] {
        let family = u8::try_from(family).expect("small numbers");
        if is_wanted {
            let entries = connection.find(family, addresses)?;
            let is_held_back = !entries.is_empty()
                && rehearsal.takes(|| Difference {
                    object: "connections of addresses that move".to_owned(),
                    present: Some(format!("{} are tracked", entries.len())),
                    wanted: None,
                });
            if !is_held_back {
                removed += connection.delete(family, &entries)?;
            }
        }
    }
    Ok(removed)
}

struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    deadline: Instant,
}

impl Connection {
    fn open() -> Result<Connection, ConntrackError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(ConntrackError::Socket)?;
        socket.bind_auto().map_err(ConntrackError::Socket)?;
        let timeout = TimeVal::seconds(LONGEST.as_secs().try_into().unwrap_or(i64::MAX));
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)
            .map_err(|errno| ConntrackError::Socket(errno.into()))?;
        Ok(Connection {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            deadline: Instant::now() + LONGEST,
        })
    }

    /// What names the entries that have one of the addresses: attributes for a `DELETE`.
    fn find(
        &mut self,
        family: u8,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<Vec<Vec<u8>>, ConntrackError> {
        self.sequence += 1;
        let mut request = Vec::new();
        write_message(&mut request, GET, NLM_F_DUMP, self.sequence, family, &[]);
        self.send(&request)?;
        let mut found = Vec::new();
        loop {
            self.receive()?;
            for part in Parts::new(&self.buffer).map_while(Result::ok) {
                if part.sequence != self.sequence {
                    continue;
                }
                match part.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match part.refusal() {
                            Some(refusal) => Err(ConntrackError::Refused(refusal)),
                            None => Ok(found),
                        };
                    }
                    _ => {
                        let entry = part.payload().get(GENERIC_HEADER..).unwrap_or_default();
                        if concerns(entry, addresses) {
                            found.extend(names_of(entry));
                        }
                    }
                }
            }
        }
    }

    /// Returns how many were still there.
    fn delete(&mut self, family: u8, entries: &[Vec<u8>]) -> Result<usize, ConntrackError> {
        let mut removed = 0;
        for batch in entries.chunks(BATCH) {
            let mut request = Vec::new();
            let first = self.sequence.wrapping_add(1);
            for entry in batch {
                self.sequence = self.sequence.wrapping_add(1);
                write_message(
                    &mut request,
                    DELETE,
                    NLM_F_ACK,
                    self.sequence,
                    family,
                    entry,
                );
            }
            self.send(&request)?;
            let mut answers = 0;
            while answers < batch.len() {
                self.receive()?;
                for part in Parts::new(&self.buffer).map_while(Result::ok) {
                    let is_of_batch = (part.sequence.wrapping_sub(first) as usize) < batch.len();
                    if part.kind != NLMSG_ERROR || !is_of_batch {
                        continue;
                    }
                    answers += 1;
                    match part.refusal() {
                        None => removed += 1,
                        // It ended by itself.
                        Some(refusal) if refusal.errno == Errno::ENOENT => {}
                        Some(refusal) => return Err(ConntrackError::Refused(refusal)),
                    }
                }
            }
            crash_point(format_args!("{} connections forgotten", batch.len()));
        }
        Ok(removed)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), ConntrackError> {
        loop {
            match self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConntrackError::Socket(error)),
            }
        }
    }

    fn receive(&mut self) -> Result<(), ConntrackError> {
        loop {
            if Instant::now() >= self.deadline {
                return Err(ConntrackError::TooLong);
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ConntrackError::TooLong);
                }
                Err(error) => return Err(ConntrackError::Socket(error)),
            }
        }
    }
}

fn write_message(
    to: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    attributes: &[u8],
) {
    let length = HEADER + GENERIC_HEADER + attributes.len();
    to.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    to.extend(sequence.to_ne_bytes());
    to.extend([0; 4]); // the port: the kernel knows it
    to.extend([family, 0, 0, 0]);
    to.extend(attributes);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Whether a tuple of the entry has one of the addresses.
fn concerns(entry: &[u8], addresses: &BTreeSet<IpAddr>) -> bool {
    let tuples = Attributes(entry).filter(|one| [TUPLE_ORIGINAL, TUPLE_REPLY].contains(&one.kind));
    let ips = tuples
        .flat_map(|tuple| Attributes(tuple.value))
        .filter(|one| one.kind == TUPLE_IP);
    ips.flat_map(|ip| Attributes(ip.value))
        .filter(|one| IP_ADDRESSES.contains(&one.kind))
        .filter_map(|one| address_of(one.value))
        .any(|address| addresses.contains(&address))
}

/// The original tuple, the zone and the id, as the entry has them. `None` without a tuple: a
/// `DELETE` that names none removes everything.
fn names_of(entry: &[u8]) -> Option<Vec<u8>> {
    let mut names = Vec::new();
    let mut has_tuple = false;
    for attribute in Attributes(entry) {
        if [TUPLE_ORIGINAL, ID, ZONE].contains(&attribute.kind) {
            has_tuple |= attribute.kind == TUPLE_ORIGINAL;
            names.extend(attribute.whole);
            names.resize(names.len().next_multiple_of(4), 0);
        }
    }
    has_tuple.then_some(names)
}

struct Attribute<'a> {
    kind: u16,
    /// With its header, and without the octets to the next.
    whole: &'a [u8],
    value: &'a [u8],
}

/// Walks attributes; ends at a malformed one.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let [length, more_length, kind, more_kind] = *self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([length, more_length]));
        let whole = self.0.get(..length)?;
        let value = whole.get(4..)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([kind, more_kind]) & KIND;
        Some(Attribute { kind, whole, value })
    }
}

fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = || <[u8; 16]>::try_from(octets).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    v4.or_else(|_| v6()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.18 dumped of a UDP packet from 10.0.0.1:7000 to 10.0.0.2:7001, translated to
    /// 10.0.0.3.
    const ENTRY: [u8; 144] = [
        0x34, 0x00, 0x01, 0x80, 0x14, 0x00, 0x01, 0x80, 0x08, 0x00, 0x01, 0x00, 0x0a, 0x00, 0x00,
        0x01, 0x08, 0x00, 0x02, 0x00, 0x0a, 0x00, 0x00, 0x02, 0x1c, 0x00, 0x02, 0x80, 0x05, 0x00,
        0x01, 0x00, 0x11, 0x00, 0x00, 0x00, 0x06, 0x00, 0x02, 0x00, 0x1b, 0x58, 0x00, 0x00, 0x06,
        0x00, 0x03, 0x00, 0x1b, 0x59, 0x00, 0x00, 0x34, 0x00, 0x02, 0x80, 0x14, 0x00, 0x01, 0x80,
        0x08, 0x00, 0x01, 0x00, 0x0a, 0x00, 0x00, 0x03, 0x08, 0x00, 0x02, 0x00, 0x0a, 0x00, 0x00,
        0x01, 0x1c, 0x00, 0x02, 0x80, 0x05, 0x00, 0x01, 0x00, 0x11, 0x00, 0x00, 0x00, 0x06, 0x00,
        0x02, 0x00, 0x1b, 0x59, 0x00, 0x00, 0x06, 0x00, 0x03, 0x00, 0x1b, 0x58, 0x00, 0x00, 0x08,
        0x00, 0x03, 0x00, 0x00, 0x00, 0x01, 0xa8, 0x08, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x08, 0x00, 0x0c, 0x00, 0x34, 0xb7, 0xda, 0xa0, 0x08, 0x00, 0x0b, 0x00, 0x00, 0x00, 0x00,
        0x01, 0x08, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00, 0x1d,
    ];

    fn only(address: &str) -> BTreeSet<IpAddr> {
        BTreeSet::from([address.parse().expect("an address")])
    }

    #[test]
    fn entry_concerns_all_its_addresses_and_no_others() {
        for (address, is_in) in [
            ("10.0.0.1", true),
            ("10.0.0.2", true),
            ("10.0.0.3", true),
            ("10.0.0.4", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(concerns(&ENTRY, &only(address)), is_in, "{address}");
        }
    }

    #[test]
    fn entry_is_named_by_its_tuple_and_id() {
        let expected = [&ENTRY[..52], &ENTRY[120..128]].concat();
        assert_eq!(names_of(&ENTRY), Some(expected));
    }

    #[test]
    fn nothing_without_a_tuple_is_ever_deleted() {
        assert_eq!(names_of(&ENTRY[52..]), None);
        for length in 0..52 {
            assert_eq!(names_of(&ENTRY[..length]), None, "{length} octets");
        }
    }

    #[test]
    fn damaged_entries_end_in_an_answer() {
        for at in 0..ENTRY.len() {
            for bit in 0..8 {
                let mut entry = ENTRY;
                entry[at] ^= 1 << bit;
                let _ = concerns(&entry, &only("10.0.0.9"));
                let _ = names_of(&entry);
            }
        }
    }
}
