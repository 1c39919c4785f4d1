//! Routes of table main: reads them, and says in the kernel's messages what is to be written.

mod encode;
mod joined;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::types::{Family, Prefix};
use hashbrown::HashSet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use smallvec::SmallVec;
use tracing::debug;

use self::joined::Joined;
use super::deletions::{Deletions, Heard};
use super::diff::{FibInfo, KernelHop, KernelRoute, RouteKind};
use super::netlink::{Ask, Netlink, NetlinkError};
use super::next_hop::NextHops;

/// What is to be done with a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// Refused with EEXIST if any route holds its key.
    Create,
    /// Of the holder of its key, refused with ENOENT if there is none.
    Replace,
    /// The kernel compares the protocol too, so a foreign route that took the place of ours meanwhile
    /// stays.
    Remove,
}

/// One route to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteWrite {
    pub write: Write,
    pub route: KernelRoute,
    /// The object for its hop, to be written in its place.
    pub next_hop: Option<u32>,
}

impl RouteWrite {
    /// At our key.
    pub fn ours(write: Write, prefix: Prefix, info: Arc<FibInfo>) -> RouteWrite {
        let route = KernelRoute {
            prefix,
            tos: 0,
            info,
        };
        RouteWrite::new(write, route)
    }

    pub fn new(write: Write, route: KernelRoute) -> RouteWrite {
        RouteWrite {
            write,
            route,
            next_hop: None,
        }
    }
}

impl Ask for RouteWrite {
    fn kind(&self) -> (u16, u16) {
        match self.write {
            Write::Create => (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),
            Write::Replace => (RTM_NEWROUTE, NLM_F_REPLACE),
            Write::Remove => (RTM_DELROUTE, 0),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self.write {
            Write::Create | Write::Replace => encode::put(&self.route, self.next_hop, out),
            Write::Remove => encode::put_key(&self.route, out),
        }
    }
}

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

/// Each once, however many routes have it.
#[derive(Default)]
pub struct FibInfos {
    all: HashSet<Arc<FibInfo>>,
    /// Neighbours in a dump mostly go the same way.
    last: Option<Arc<FibInfo>>,
}

impl FibInfos {
    pub fn share(&mut self, info: FibInfo) -> Arc<FibInfo> {
        if let Some(last) = self.last.as_ref().filter(|last| ***last == info) {
            return last.clone();
        }
        let shared = match self.all.get(&info) {
            Some(known) => known.clone(),
            None => {
                let new = Arc::new(info);
                self.all.insert(new.clone());
                new
            }
        };
        self.last = Some(shared.clone());
        shared
    }

    /// Forgets those that nobody else has.
    pub fn prune(&mut self) {
        self.last = None;
        self.all.retain(|info| Arc::strong_count(info) > 1);
    }
}

/// Of IPv6, where an earlier view tells of what they may lack.
const DISTURBED_DUMPS: u32 = 4;
/// Where none does: as many in a row that bring nothing new, or what there is after that time.
const QUIET_DUMPS: u32 = 3;
const DISTURBED_TIME: Duration = Duration::from_secs(1);
/// Before each further one, and so much longer each time, to the second number.
const DISTURBED_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(4));

/// What was read of one family.
pub struct Reading {
    joined: Joined,
    /// It may lack what an earlier view had and nobody touched since.
    since: Option<Heard>,
}

impl Reading {
    fn whole(routes: Vec<KernelRoute>) -> Reading {
        Reading {
            joined: Joined::from(routes),
            since: None,
        }
    }

    /// Everything there is. `known`: what was, as of the last view.
    pub fn routes<I: Iterator<Item = KernelRoute>>(
        mut self,
        known: impl FnOnce() -> I,
    ) -> Vec<KernelRoute> {
        if let Some(since) = &self.since {
            self.joined.add_known(known(), since);
        }
        self.joined.routes
    }
}

/// Reads one family of table main: all of it, or the routes of one protocol (the kernel then
/// filters). A dump of IPv6 that may lack what is there (see `deletions`) is read again; where
/// routes go all the time it is joined with others and with what was known.
///
/// # Errors
/// As `Netlink::dump`.
pub fn observe(
    netlink: &mut Netlink,
    family: Family,
    protocol: Option<u8>,
    infos: &mut FibInfos,
    next_hops: &mut NextHops,
    deletions: Option<&mut Deletions>,
) -> Result<Reading, NetlinkError> {
    let mut read = || read(netlink, family, protocol, infos, next_hops);
    match deletions {
        Some(deletions) if family == Family::Ipv6 => {
            let reading = read_undisturbed(deletions, protocol.is_none(), read);
            deletions.hear_additions(false);
            reading
        }
        _ => Ok(Reading::whole(read()?)),
    }
}

fn read_undisturbed(
    deletions: &mut Deletions,
    is_everything: bool,
    mut read: impl FnMut() -> Result<Vec<KernelRoute>, NetlinkError>,
) -> Result<Reading, NetlinkError> {
    let deadline = Instant::now() + DISTURBED_TIME;
    let mut joined = Joined::default();
    let mut dumps = 0;
    let (reading, last) = loop {
        std::thread::sleep((DISTURBED_PAUSE.0 * dumps).min(DISTURBED_PAUSE.1));
        dumps += 1;
        let between = deletions.take();
        let dump = read()?;
        let during = deletions.take();
        if !during.has_deletions {
            break (Reading::whole(dump), during);
        }
        joined.add(dump, &between, &during);
        let is_enough = match deletions.since() {
            Some(_) => dumps >= DISTURBED_DUMPS,
            None => joined.quiet >= QUIET_DUMPS || Instant::now() >= deadline,
        };
        if is_enough {
            debug!(dumps, "IPv6 routes are deleted all the time");
            let since = deletions.since().cloned();
            break (Reading { joined, since }, during);
        }
        deletions.hear_additions(deletions.since().is_none());
    };
    if is_everything {
        deletions.begin(last);
    }
    Ok(reading)
}

fn read(
    netlink: &mut Netlink,
    family: Family,
    protocol: Option<u8>,
    infos: &mut FibInfos,
    next_hops: &mut NextHops,
) -> Result<Vec<KernelRoute>, NetlinkError> {
    let mut request = RouteMessage::default();
    request.header.address_family = match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    };
    request.header.table = RouteHeader::RT_TABLE_MAIN;
    request.header.protocol = protocol.unwrap_or_default().into();
    let take = |object| match object {
        // Where the kernel is too old to filter, it sends everything.
        RouteNetlinkMessage::NewRoute(message) => decode(message, infos, next_hops)
            .filter(|route| protocol.is_none_or(|protocol| route.info.protocol == protocol)),
        _ => None,
    };
    match netlink.dump_as("routes", RouteNetlinkMessage::GetRoute(request), take) {
        // A namespace that never had a route has no table main; a kernel may have no IPv6.
        Err(error)
            if matches!(
                error.errno(),
                Some(Errno::ENOENT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)
            ) =>
        {
            Ok(Vec::new())
        }
        answer => answer,
    }
}

/// `None` for other families and other tables than main.
pub fn decode(
    message: RouteMessage,
    infos: &mut FibInfos,
    next_hops: &mut NextHops,
) -> Option<KernelRoute> {
    let header = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let kind = match header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        other => RouteKind::Other(other.into()),
    };
    let mut table = u32::from(header.table);
    let mut destination = unspecified;
    let mut info = FibInfo {
        metric: 0,
        protocol: header.protocol.into(),
        kind,
        scope: if unspecified.is_ipv4() {
            header.scope.into()
        } else {
            0
        },
        hops: SmallVec::new(),
        source: None,
        has_extras: false,
    };
    let mut only = KernelHop {
        is_onlink: header.flags.contains(RouteFlags::Onlink),
        ..KernelHop::default()
    };
    let mut by_object = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip_of(address)?,
            RouteAttribute::Priority(metric) => info.metric = *metric,
            RouteAttribute::Oif(index) => only.device = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => {
                only.gateway = gateway_of(attribute);
            }
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    info.has_extras |= hop.attributes.iter().any(is_extra);
                    info.hops.push(decode_hop(hop));
                }
                info.hops.sort_unstable();
            }
            // The hop is told as well, unless the kernel is set not to (nexthop_compat_mode).
            RouteAttribute::NhId(id) => match next_hops.hop_of(*id) {
                Some(hop) => by_object = Some(hop.clone()),
                None => info.has_extras = true,
            },
            RouteAttribute::PrefSource(address) => info.source = ip_of(address),
            RouteAttribute::Table(id) => table = *id,
            // IPv6 sends an empty list with every route.
            RouteAttribute::Metrics(metrics) => info.has_extras |= !metrics.is_empty(),
            other => info.has_extras |= is_extra(other),
        }
    }
    if let Some(hop) = by_object {
        info.hops = SmallVec::from_buf([hop]);
    }
    match info.kind {
        // IPv6 blackholes are dumped with the loopback device.
        RouteKind::Blackhole => info.hops.clear(),
        RouteKind::Unicast | RouteKind::Other(_) if info.hops.is_empty() => info.hops.push(only),
        RouteKind::Unicast | RouteKind::Other(_) => {}
    }
    let prefix = Prefix::new(destination, header.destination_prefix_length)?;
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then(|| KernelRoute {
        prefix,
        tos: header.tos,
        info: infos.share(info),
    })
}

fn decode_hop(hop: &RouteNextHop) -> KernelHop {
    KernelHop {
        gateway: hop.attributes.iter().find_map(gateway_of),
        device: Some(hop.interface_index),
        is_onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        extra_weight: hop.hops,
        is_dead: hop.flags.contains(RouteNextHopFlags::Dead),
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip_of(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn is_extra(attribute: &RouteAttribute) -> bool {
    matches!(
        attribute,
        RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) | RouteAttribute::Realm(_)
    )
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
