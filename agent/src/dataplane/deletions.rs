//! What others did to IPv6 routes while those were read, and since.
//!
//! Between the parts of a dump the kernel remembers of IPv6 how many prefixes it has sent, not which
//! was the last. What is deleted in front of that place hides as many behind it, and unlike links
//! and addresses the kernel does not mark such a dump (NLM_F_DUMP_INTR): on Linux 6.18, 3,000 routes
//! that stood still beside 2,000 that came and went lost up to 1,604 in one dump of four. IPv4
//! remembers the route.
//!
//! The kernel tells of every deletion, except of routes by a next-hop object that goes where
//! `nexthop_compat_mode` is 0, and by a link that goes down where `skip_notify_on_dev_down` is 1:
//! those are missed until a dump is undisturbed.

use std::io;
use std::net::Ipv6Addr;

use bgp::types::Prefix;
use hashbrown::HashSet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NlasIterator};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};
use tracing::debug;

use super::netlink::{Part, Parts};

const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RT_TABLE_MAIN: u32 = 254;
const RTA_DST: u16 = 1;
/// `rtmsg`
const HEADER: usize = 12;
/// A route was changed in place.
const CHANGES: u16 = NLM_F_REPLACE | NLM_F_APPEND;
/// Any message: each has one of them.
const ADDITIONS: u16 = CHANGES | NLM_F_CREATE | NLM_F_EXCL;
/// Room for some ten thousand messages: nobody reads them while there is no pass.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Octets: a route of some 500 next hops.
const MESSAGE: usize = 16 << 10;
/// Of more it is not kept which they were.
const REMEMBERED: usize = 1 << 16;

/// What was heard in some time.
#[derive(Clone, Default, Debug)]
pub struct Heard {
    /// Routes of which were deleted, changed, or (if asked for) added.
    pub prefixes: HashSet<Prefix>,
    pub has_deletions: bool,
    /// There was more than is known.
    pub is_lost: bool,
}

impl Heard {
    fn lose(&mut self) {
        *self = Heard {
            prefixes: HashSet::new(),
            has_deletions: true,
            is_lost: true,
        };
    }

    pub fn merge(&mut self, later: &Heard) {
        self.has_deletions |= later.has_deletions;
        self.is_lost |= later.is_lost;
        self.prefixes.extend(&later.prefixes);
        if self.is_lost || self.prefixes.len() > REMEMBERED {
            self.lose();
        }
    }
}

/// Of table main, by hands other than ours.
pub struct Deletions {
    socket: Socket,
    own_port: u32,
    hears_additions: bool,
    /// Since there is a view of all routes.
    since: Option<Heard>,
}

impl Deletions {
    /// Hears of deletions from now on, in the calling thread's network namespace. What is done through
    /// the netlink socket `own_port` is not heard of.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn subscribe(own_port: u32) -> io::Result<Deletions> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        // Without the privilege the default of some 200 KB stays.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        socket.set_non_blocking(true)?;
        let deletions = Deletions {
            socket,
            own_port,
            hears_additions: false,
            since: None,
        };
        deletions.filter(CHANGES)?;
        deletions.socket.add_membership(RTNLGRP_IPV6_ROUTE)?;
        Ok(deletions)
    }

    /// Whether additions are heard of as well.
    pub fn hear_additions(&mut self, are_heard: bool) {
        if are_heard == self.hears_additions {
            return;
        }
        let flags = if are_heard { ADDITIONS } else { CHANGES };
        match self.filter(flags) {
            Ok(()) => self.hears_additions = are_heard,
            Err(error) => debug!(%error, "additions of IPv6 routes are heard of as before"),
        }
    }

    /// Lets pass deletions, and new routes whose message has one of `flags`.
    fn filter(&self, flags: u16) -> io::Result<()> {
        const LOAD_WORD: u16 = 0x20;
        const LOAD_HALF: u16 = 0x28;
        const LOAD_BYTE: u16 = 0x30;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const JUMP_IF_SET: u16 = 0x45;
        const RETURN: u16 = 0x06;
        // The filter loads in network order what netlink writes in the host's.
        let half = |half: u16| u32::from(u16::from_be_bytes(half.to_ne_bytes()));
        let port = u32::from_be_bytes(self.own_port.to_ne_bytes());
        let filter = [
            SockFilter::new(LOAD_HALF, 0, 0, 4), // nlmsg_type
            SockFilter::new(JUMP_IF_EQUAL, 3, 0, half(RTM_DELROUTE)),
            SockFilter::new(JUMP_IF_EQUAL, 0, 7, half(RTM_NEWROUTE)),
            SockFilter::new(LOAD_HALF, 0, 0, 6), // nlmsg_flags
            SockFilter::new(JUMP_IF_SET, 0, 5, half(flags)),
            SockFilter::new(LOAD_BYTE, 0, 0, 20), // rtm_table
            SockFilter::new(JUMP_IF_EQUAL, 0, 3, RT_TABLE_MAIN),
            SockFilter::new(LOAD_WORD, 0, 0, 12), // nlmsg_pid
            SockFilter::new(JUMP_IF_EQUAL, 1, 0, port),
            // Whole: listeners share a message, and what a filter shortens is short for all of them.
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(RETURN, 0, 0, 0),
        ];
        SockRef::from(&self.socket).attach_filter(&filter)
    }

    /// What there was since the last call.
    pub fn take(&mut self) -> Heard {
        let mut heard = Heard::default();
        let mut message = Vec::with_capacity(MESSAGE);
        loop {
            message.clear();
            match self.socket.recv(&mut message, 0) {
                Ok(_) => note(&message, &mut heard),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // So many that not all were kept.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard.is_lost = true,
                // Nothing more is heard: no dump can be trusted.
                Err(_) => {
                    heard.is_lost = true;
                    break;
                }
            }
        }
        if heard.is_lost {
            heard.lose();
        }
        if let Some(since) = &mut self.since {
            since.merge(&heard);
        }
        heard
    }

    /// What was heard since the last view of everything. `None` if there is none, or some was lost.
    pub fn since(&self) -> Option<&Heard> {
        self.since.as_ref().filter(|since| !since.is_lost)
    }

    /// There is a view of everything, in whose last dump this was heard.
    pub fn begin(&mut self, heard: Heard) {
        self.since = Some(heard);
    }
}

fn note(datagram: &[u8], heard: &mut Heard) {
    for part in Parts::new(datagram) {
        // Longer than what is read of it, for one.
        let Ok(part) = part else {
            heard.is_lost = true;
            return;
        };
        heard.has_deletions |= part.kind == RTM_DELROUTE;
        match prefix_of(&part) {
            Some(prefix) => drop(heard.prefixes.insert(prefix)),
            None => heard.is_lost = true,
        }
    }
}

fn prefix_of(part: &Part<'_>) -> Option<Prefix> {
    let length = *part.payload().get(1)?;
    let attributes = NlasIterator::new(part.payload().get(HEADER..)?).map_while(Result::ok);
    let mut network = attributes.filter(|attribute| attribute.kind() == RTA_DST);
    let network = match network.next() {
        Some(attribute) => <[u8; 16]>::try_from(attribute.value()).ok()?.into(),
        None => Ipv6Addr::UNSPECIFIED,
    };
    Prefix::new(network.into(), length)
}
