//! Kernel notifications, coalesced into "something changed".
//!
//! In: multicast messages about links, addresses, routes, neighbours and parameters. Out: flags on
//! the board. What is our own doing, or nobody's concern, is passed over.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bgp::types::Family;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};
use tracing::{debug, warn};

use super::board::{Board, KernelChange};
use super::link::Links;
use super::neigh;
use super::netconf;
use super::netlink::{Part, Parts};
use super::next_hop;
use super::ownership::{is_own_device, is_own_protocol, is_tunnel_device};

const GROUPS: [u32; 8] = [
    1,  // RTNLGRP_LINK
    3,  // RTNLGRP_NEIGH
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
    24, // RTNLGRP_IPV4_NETCONF
    25, // RTNLGRP_IPV6_NETCONF
];
/// Kernels before 5.3 have no such objects.
const NEXT_HOP_GROUP: u32 = 32; // RTNLGRP_NEXTHOP
/// Room for some ten thousand notifications, such as a foreign daemon's table arriving.
const RECEIVE_BUFFER: usize = 8 << 20;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNETCONF: u16 = 80;

/// What `tunnel` sets on its devices; of other links' rp_filter the host decides.
const TUNNEL_RP_FILTER: i32 = 2;

/// Subscribes in the calling thread's network namespace. Within a tokio runtime.
///
/// # Errors
/// If the socket cannot be made.
pub fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    // Without the privilege the default of some 200 KB stays, and overruns are handled anyway.
    let _ = setsockopt(&*inner, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    for group in GROUPS {
        inner.add_membership(group)?;
    }
    if let Err(error) = inner.add_membership(NEXT_HOP_GROUP) {
        debug!(%error, "next-hop objects are not watched");
    }
    Ok(socket)
}

/// Keeps notifications about routes written through the netlink socket `own_port` from being queued:
/// a table of learned routes would be read back whole, and push other notifications out.
///
/// # Errors
/// If the kernel refuses the filter; the notifications are then skipped one by one.
pub fn ignore_own_routes(socket: &TokioSocket, own_port: u32) -> io::Result<()> {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // The filter loads in network order what netlink writes in the host's.
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    let port = u32::from_be_bytes(own_port.to_ne_bytes());
    let filter = [
        SockFilter::new(LOAD_HALF, 0, 0, 4), // nlmsg_type
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, kind(RTM_NEWROUTE)),
        SockFilter::new(JUMP_IF_EQUAL, 0, 2, kind(RTM_DELROUTE)),
        SockFilter::new(LOAD_WORD, 0, 0, 12), // nlmsg_pid
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, port),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ];
    SockRef::from(socket.socket_ref()).attach_filter(&filter)
}

/// Reads notifications until the task is aborted. `links`: those there were before.
pub async fn run(socket: TokioSocket, board: Arc<Board>, links: Links) {
    let links = links
        .by_name
        .into_iter()
        .map(|(name, link)| (link.index, (name, Leads::of(link.is_up, link.is_running))))
        .collect();
    let mut monitor = Monitor { board, links };
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer).await {
            Ok(()) => monitor.handle_datagram(&buffer),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                debug!("kernel notifications were lost");
                monitor.board.report(
                    KernelChange {
                        overrun: true,
                        ..KernelChange::default()
                    },
                    &Family::ALL,
                );
            }
            Err(error) => {
                warn!(%error, "kernel changes are not watched any more, only the resync finds them");
                return;
            }
        }
    }
}

struct Monitor {
    board: Arc<Board>,
    /// By index.
    links: HashMap<u32, (String, Leads)>,
}

/// What a link lets stand: plain routes while it is up, those by a next-hop object while it has a
/// carrier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leads {
    Nothing,
    Routes,
    Objects,
}

impl Leads {
    fn of(is_up: bool, is_running: bool) -> Leads {
        match (is_up, is_running) {
            (false, _) => Leads::Nothing,
            (true, false) => Leads::Routes,
            (true, true) => Leads::Objects,
        }
    }
}

impl Monitor {
    fn handle_datagram(&mut self, datagram: &[u8]) {
        for part in Parts::new(datagram).map_while(Result::ok) {
            self.handle(&part);
        }
    }

    fn handle(&mut self, part: &Part<'_>) {
        let is_own_doing = self.board.is_own_port(part.port);
        let mut change = KernelChange::default();
        let mut stale: &[Family] = &[];
        match part.kind {
            RTM_NEWLINK | RTM_DELLINK => {
                let are_routes_gone = self.handle_link(part, is_own_doing, &mut change);
                stale = if are_routes_gone { &Family::ALL } else { &[] };
            }
            _ if is_own_doing => return,
            RTM_NEWADDR => change.addresses = true,
            RTM_DELADDR => {
                change.addresses = true;
                // Routes with this source address go silently.
                stale = family_of(part);
            }
            RTM_NEWROUTE | RTM_DELROUTE => match self.whose_route(part) {
                Some(Whose::Ours) => {
                    change.own = true;
                    stale = family_of(part);
                }
                Some(Whose::Foreign) => {
                    change.routes = true;
                    stale = family_of(part);
                }
                None => {}
            },
            RTM_NEWNEIGH | RTM_DELNEIGH => change.own = self.concerns_own_neighbour(part),
            RTM_NEWNETCONF => change.own = self.handle_parameters(part),
            _ if next_hop::concerns_own(part) => {
                // Routes by an object go silently with it.
                change.own = true;
                stale = &[Family::Ipv4];
            }
            _ => {}
        }
        self.board.report(change, stale);
    }

    /// Returns whether routes may have gone with the link: the kernel tells nobody.
    fn handle_link(
        &mut self,
        part: &Part<'_>,
        is_own_doing: bool,
        change: &mut KernelChange,
    ) -> bool {
        let Some(message) = decode_link(part) else {
            return false;
        };
        let index = message.header.index;
        let has = |flag| message.header.flags.contains(flag) && part.kind == RTM_NEWLINK;
        let leads = Leads::of(has(LinkFlags::Up), has(LinkFlags::Running));
        let name = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
        let Some(name) = name else { return false };
        let led = match part.kind {
            RTM_DELLINK => self.links.remove(&index),
            _ => self.links.insert(index, (name.clone(), leads)),
        }
        .map_or(Leads::Objects, |(_, led)| led);
        let is_ours = is_own_device(&name);
        if !is_own_doing {
            change.own |= is_ours;
            change.links |= !is_ours;
        }
        // Local routes, the only ones over a workload's link, are read in every pass anyway.
        leads < led && !super::ownership::is_workload_device(&name)
    }

    /// `None`: nobody cares. That is other tables, and what the kernel adds to each of our devices,
    /// such as fe80::/64.
    fn whose_route(&self, part: &Part<'_>) -> Option<Whose> {
        let header = RouteHeader::parse(part.payload()).ok()?;
        if header.table != RouteHeader::RT_TABLE_MAIN {
            return None;
        }
        if is_own_protocol(header.protocol.into()) {
            return Some(Whose::Ours);
        }
        if header.protocol != RouteProtocol::Kernel {
            return Some(Whose::Foreign);
        }
        let message = decode(part).and_then(|message| match message {
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                Some(message)
            }
            _ => None,
        })?;
        let device = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => self.links.get(index),
                _ => None,
            });
        match device {
            Some((name, _)) if is_own_device(name) => None,
            Some(_) | None => Some(Whose::Foreign),
        }
    }

    /// The kernel does not say who changed a parameter: the values that we set ourselves are passed
    /// over. Returns whether it is another.
    fn handle_parameters(&self, part: &Part<'_>) -> bool {
        let Some(changed) = netconf::decode(part.payload()) else {
            return false;
        };
        let is_switched_off = changed.is_forwarding == Some(false);
        let Some(index) = changed.link else {
            return is_switched_off;
        };
        let Some((name, _)) = self.links.get(&index) else {
            return false;
        };
        let is_right = |value| is_tunnel_device(name) && value == TUNNEL_RP_FILTER;
        let is_other = is_own_device(name)
            && (is_switched_off
                || changed.is_proxying == Some(false)
                || changed.rp_filter.is_some_and(|value| !is_right(value)));
        if is_other {
            self.board.mark_parameters_stale(index);
        }
        is_other
    }

    /// Neighbours come and go on every host, and as a workload likes that asks with made-up senders.
    /// What matters is ours or, on our devices, meant to stay.
    fn concerns_own_neighbour(&self, part: &Part<'_>) -> bool {
        let message: Option<NeighbourMessage> = decode(part).and_then(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message)
            | RouteNetlinkMessage::DelNeighbour(message) => Some(message),
            _ => None,
        });
        let Some(message) = message else { return false };
        let device = self.links.get(&message.header.ifindex);
        device.is_some_and(|(name, _)| is_own_device(name))
            && (message.header.family == AddressFamily::Bridge
                || message.header.state == NeighbourState::Permanent
                || neigh::address_of(&message).is_some_and(|address| {
                    let key = (message.header.ifindex, address);
                    self.board.is_own_neighbour(&key)
                }))
    }
}

enum Whose {
    Ours,
    Foreign,
}

/// Address and route messages begin with their family.
fn family_of(part: &Part<'_>) -> &'static [Family] {
    match part
        .payload()
        .first()
        .map(|family| AddressFamily::from(*family))
    {
        Some(AddressFamily::Inet) => &[Family::Ipv4],
        Some(AddressFamily::Inet6) => &[Family::Ipv6],
        _ => &[],
    }
}

fn decode_link(part: &Part<'_>) -> Option<LinkMessage> {
    match decode(part)? {
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
            Some(message)
        }
        _ => None,
    }
}

fn decode(part: &Part<'_>) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(part.bytes)
        .ok()?
        .payload
    {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    }
}
