//! Kernel notifications, coalesced into "something changed".
//!
//! In: multicast messages about links, addresses, routes and neighbours. Out: flags, one set for
//! the dataplane's thread (what to read again) and one for the reconcile loop (a reason for a pass).
//! Flags carry no news, only the kind of it: whoever sees one reads the kernel. So nothing grows,
//! and lost notifications are one more flag.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bgp::types::Family;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::link::Links;
use super::netlink::{Part, Parts};
use super::next_hop;
use super::ownership::{is_own_device, is_own_protocol};

const GROUPS: [u32; 6] = [
    1,  // RTNLGRP_LINK
    3,  // RTNLGRP_NEIGH
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
];
/// Kernels before 5.3 have no such objects.
const NEXT_HOP_GROUP: u32 = 32; // RTNLGRP_NEXTHOP
/// Of our last nft processes: what they did is told before they have ended, and read soon after.
const OWN_PROCESSES: usize = 16;
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

/// What kinds of things changed since last asked, by hands other than ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelChange {
    /// Links that are not ours: `HostView` differs.
    pub links: bool,
    pub addresses: bool,
    /// Foreign routes.
    pub routes: bool,
    /// Something of ours: a workload's veth appeared or went, a route, a neighbour or our table in
    /// nftables was changed.
    pub own: bool,
    /// Notifications were lost: anything may have changed.
    pub overrun: bool,
}

impl KernelChange {
    fn is_any(self) -> bool {
        self != KernelChange::default()
    }

    fn merge(&mut self, other: KernelChange) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.routes |= other.routes;
        self.own |= other.own;
        self.overrun |= other.overrun;
    }
}

/// Shared by the monitor, the dataplane's thread and the reconcile loop.
#[derive(Default)]
pub struct Board {
    state: Mutex<BoardState>,
    woken: Notify,
}

#[derive(Default)]
struct BoardState {
    change: KernelChange,
    /// The routes of these families must be read again as a whole.
    stale_families: BTreeSet<Family>,
    /// Links and addresses must be read again.
    are_links_stale: bool,
    /// Sockets whose changes are our own doing.
    own_ports: HashSet<u32>,
    /// Our table in nftables must be read again.
    are_tables_stale: bool,
    /// The newest last. A netlink socket is named after the process that opened it.
    own_processes: VecDeque<u32>,
}

impl Board {
    fn with<T>(&self, work: impl FnOnce(&mut BoardState) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes made through the netlink socket `port` are not reported.
    pub fn add_own_port(&self, port: u32) {
        self.with(|state| state.own_ports.insert(port));
    }

    /// The families whose routes changed other than by us since the last call.
    pub fn take_stale_families(&self) -> BTreeSet<Family> {
        self.with(|state| std::mem::take(&mut state.stale_families))
    }

    pub fn mark_stale(&self, families: &BTreeSet<Family>) {
        self.with(|state| state.stale_families.extend(families));
    }

    /// Whether links or addresses changed since the last call, by us or others.
    pub fn take_stale_links(&self) -> bool {
        self.with(|state| std::mem::take(&mut state.are_links_stale))
    }

    /// Changes of nftables made by the process are not reported.
    pub fn add_own_process(&self, process: u32) {
        self.with(|state| {
            if state.own_processes.len() >= OWN_PROCESSES {
                state.own_processes.pop_front();
            }
            state.own_processes.push_back(process);
        });
    }

    pub fn is_own_process(&self, process: u32) -> bool {
        self.with(|state| state.own_processes.contains(&process))
    }

    /// Whether our table in nftables was changed by others since the last call.
    pub fn take_stale_tables(&self) -> bool {
        self.with(|state| std::mem::take(&mut state.are_tables_stale))
    }

    /// Others changed our table in nftables.
    pub fn report_tables(&self) {
        self.with(|state| {
            state.are_tables_stale = true;
            state.change.own = true;
        });
        self.woken.notify_one();
    }

    fn report(&self, change: KernelChange, stale: &[Family]) {
        self.with(|state| {
            state.stale_families.extend(stale);
            state.are_links_stale |= change.links | change.addresses | change.own | change.overrun;
            state.change.merge(change);
        });
        if change.is_any() {
            self.woken.notify_one();
        }
    }
}

/// The reconcile loop's end. For one consumer.
#[derive(Clone)]
pub struct Changes {
    board: Arc<Board>,
}

impl Changes {
    pub fn new(board: Arc<Board>) -> Changes {
        Changes { board }
    }

    /// Waits until something changed and returns all that did since the last call. Safe to cancel.
    pub async fn changed(&mut self) -> KernelChange {
        loop {
            let change = self.board.with(|state| std::mem::take(&mut state.change));
            if change.is_any() {
                return change;
            }
            self.board.woken.notified().await;
        }
    }
}

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
        let is_own_doing = self
            .board
            .with(|state| state.own_ports.contains(&part.port));
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

    /// Neighbours come and go on every host; only those on our devices matter.
    fn concerns_own_neighbour(&self, part: &Part<'_>) -> bool {
        let message: Option<NeighbourMessage> = decode(part).and_then(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message)
            | RouteNetlinkMessage::DelNeighbour(message) => Some(message),
            _ => None,
        });
        message
            .and_then(|message| self.links.get(&message.header.ifindex))
            .is_some_and(|(name, _)| is_own_device(name))
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
