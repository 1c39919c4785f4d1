//! Routes of table main as netlink messages.

use std::net::IpAddr;

use bgp::types::{Family, Prefix};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use smallvec::SmallVec;

use super::diff::{KernelHop, KernelRoute, RouteKind};
use super::netlink::{Netlink, NetlinkError, Request};

/// Reads one family of table main: all of it, or the routes of one protocol (the kernel then
/// filters).
///
/// # Errors
/// As `Netlink::dump`.
pub fn observe(
    netlink: &mut Netlink,
    family: Family,
    protocol: Option<u8>,
) -> Result<Vec<KernelRoute>, NetlinkError> {
    let mut request = RouteMessage::default();
    request.header.address_family = address_family(family);
    request.header.table = RouteHeader::RT_TABLE_MAIN;
    request.header.protocol = protocol.unwrap_or_default().into();
    let objects = match netlink.dump("routes", RouteNetlinkMessage::GetRoute(request)) {
        Ok(objects) => objects,
        // A namespace that never had a route has no table main; a kernel may have no IPv6.
        Err(error)
            if matches!(
                error.errno(),
                Some(Errno::ENOENT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)
            ) =>
        {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let routes = objects.into_iter().filter_map(|object| match object {
        RouteNetlinkMessage::NewRoute(message) => decode(message),
        _ => None,
    });
    // Where the kernel is too old to filter, it sends everything.
    let is_asked = |route: &KernelRoute| protocol.is_none_or(|protocol| route.protocol == protocol);
    Ok(routes.filter(is_asked).collect())
}

/// Creates the route, refused with EEXIST if any route holds its key.
pub fn create(route: &KernelRoute) -> Request {
    Request {
        message: RouteNetlinkMessage::NewRoute(encode(route)),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Replaces the holder of the route's key, refused with ENOENT if there is none.
pub fn replace(route: &KernelRoute) -> Request {
    Request {
        message: RouteNetlinkMessage::NewRoute(encode(route)),
        flags: NLM_F_REPLACE,
    }
}

/// Removes the route. The kernel compares the protocol too, so a foreign route that took the place
/// of ours meanwhile stays.
pub fn remove(route: &KernelRoute) -> Request {
    let mut named = KernelRoute {
        source: None,
        ..route.clone()
    };
    // Of several hops IPv6 would remove the named ones, and stop at the first that is gone already.
    if named.hops.len() > 1 {
        named.hops.clear();
    }
    let mut message = encode(&named);
    message.header.flags = RouteFlags::empty();
    if route.prefix.network().is_ipv4() {
        message.header.scope = RouteScope::NoWhere;
    }
    Request {
        message: RouteNetlinkMessage::DelRoute(message),
        flags: 0,
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn encode(route: &KernelRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = address_family(route.prefix.family());
    header.destination_prefix_length = route.prefix.length();
    header.tos = route.tos;
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = route.protocol.into();
    header.scope = route.scope.into();
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Other(kind) => kind.into(),
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(route.prefix.network().into()));
    attributes.push(RouteAttribute::Priority(route.metric));
    attributes.extend(
        route
            .source
            .map(|source| RouteAttribute::PrefSource(source.into())),
    );
    match route.hops.as_slice() {
        [] => {}
        [hop] => {
            if hop.is_onlink {
                header.flags |= RouteFlags::Onlink;
            }
            attributes.extend(hop.device.map(RouteAttribute::Oif));
            attributes.extend(gateway_attribute(&route.prefix, hop));
        }
        hops => {
            let hops = hops.iter().map(|hop| encode_hop(&route.prefix, hop));
            attributes.push(RouteAttribute::MultiPath(hops.collect()));
        }
    }
    message
}

fn encode_hop(prefix: &Prefix, hop: &KernelHop) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    if hop.is_onlink {
        next_hop.flags |= RouteNextHopFlags::Onlink;
    }
    next_hop.hops = hop.extra_weight;
    next_hop.interface_index = hop.device.unwrap_or_default();
    next_hop.attributes.extend(gateway_attribute(prefix, hop));
    next_hop
}

fn gateway_attribute(prefix: &Prefix, hop: &KernelHop) -> Option<RouteAttribute> {
    hop.gateway.map(|gateway| match (prefix, gateway) {
        // RFC 8950: an IPv4 destination by an IPv6 neighbour.
        (Prefix::V4 { .. }, IpAddr::V6(gateway)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        _ => RouteAttribute::Gateway(gateway.into()),
    })
}

fn decode(message: RouteMessage) -> Option<KernelRoute> {
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
    let mut route = KernelRoute {
        prefix: Prefix::host(unspecified),
        tos: header.tos,
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
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip_of(address)?,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(index) => only.device = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => {
                only.gateway = gateway_of(attribute);
            }
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    route.has_extras |= hop.attributes.iter().any(is_extra);
                    route.hops.push(decode_hop(hop));
                }
                route.hops.sort_unstable();
            }
            RouteAttribute::PrefSource(address) => route.source = ip_of(address),
            RouteAttribute::Table(id) => table = *id,
            // IPv6 sends an empty list with every route.
            RouteAttribute::Metrics(metrics) => route.has_extras |= !metrics.is_empty(),
            other => route.has_extras |= is_extra(other),
        }
    }
    match route.kind {
        // IPv6 blackholes are dumped with the loopback device.
        RouteKind::Blackhole => route.hops.clear(),
        RouteKind::Unicast | RouteKind::Other(_) if route.hops.is_empty() => route.hops.push(only),
        RouteKind::Unicast | RouteKind::Other(_) => {}
    }
    route.prefix = Prefix::new(destination, header.destination_prefix_length)?;
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(route)
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
        RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::NhId(_)
            | RouteAttribute::Realm(_)
    )
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
