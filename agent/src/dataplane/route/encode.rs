//! A route as the kernel wants to be told of it: `rtmsg` and its attributes (linux/rtnetlink.h).
//!
//! Written by hand because a table of learned routes passes through here: the library's messages are
//! lists of lists.

use std::net::IpAddr;

use bgp::types::Prefix;

use crate::dataplane::diff::{FibInfo, KernelHop, KernelRoute, RouteKind};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TABLE_MAIN: u8 = 254;
const SCOPE_NOWHERE: u8 = 255;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTNH_F_ONLINK: u8 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;

/// Appends the whole route.
pub fn put(route: &KernelRoute, out: &mut Vec<u8>) {
    let info = &*route.info;
    let only = match info.hops.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    let is_onlink = only.is_some_and(|hop| hop.is_onlink);
    put_header(route, info.scope, is_onlink, out);
    put_attribute(RTA_DST, route.prefix.network(), out);
    put_octets(RTA_PRIORITY, &info.metric.to_ne_bytes(), out);
    if let Some(source) = info.source {
        put_attribute(RTA_PREFSRC, source, out);
    }
    put_hops(&route.prefix, info, out);
}

/// Appends what names the route to be removed.
pub fn put_key(route: &KernelRoute, out: &mut Vec<u8>) {
    let info = &*route.info;
    let scope = match route.prefix.network() {
        IpAddr::V4(_) => SCOPE_NOWHERE,
        IpAddr::V6(_) => info.scope,
    };
    put_header(route, scope, false, out);
    put_attribute(RTA_DST, route.prefix.network(), out);
    put_octets(RTA_PRIORITY, &info.metric.to_ne_bytes(), out);
    // Of several hops IPv6 would remove the named ones, and stop at the first that is gone already.
    if info.hops.len() == 1 {
        put_hops(&route.prefix, info, out);
    }
}

fn put_header(route: &KernelRoute, scope: u8, is_onlink: bool, out: &mut Vec<u8>) {
    let family = match route.prefix {
        Prefix::V4 { .. } => AF_INET,
        Prefix::V6 { .. } => AF_INET6,
    };
    let kind = match route.info.kind {
        RouteKind::Unicast => RTN_UNICAST,
        RouteKind::Blackhole => RTN_BLACKHOLE,
        RouteKind::Other(kind) => kind,
    };
    let source_length = 0;
    out.extend([
        family,
        route.prefix.length(),
        source_length,
        route.tos,
        TABLE_MAIN,
        route.info.protocol,
        scope,
        kind,
    ]);
    let flags = if is_onlink { RTNH_F_ONLINK } else { 0 };
    out.extend(u32::from(flags).to_ne_bytes());
}

fn put_hops(prefix: &Prefix, info: &FibInfo, out: &mut Vec<u8>) {
    match info.hops.as_slice() {
        [] => {}
        [hop] => {
            if let Some(device) = hop.device {
                put_octets(RTA_OIF, &device.to_ne_bytes(), out);
            }
            put_gateway(prefix, hop, out);
        }
        hops => put_nested(out, Some(RTA_MULTIPATH), |out| {
            for hop in hops {
                put_nested(out, None, |out| put_next_hop(prefix, hop, out));
            }
        }),
    }
}

/// What follows the length in an `rtnexthop`.
fn put_next_hop(prefix: &Prefix, hop: &KernelHop, out: &mut Vec<u8>) {
    out.push(if hop.is_onlink { RTNH_F_ONLINK } else { 0 });
    out.push(hop.extra_weight);
    out.extend(hop.device.unwrap_or_default().to_ne_bytes());
    put_gateway(prefix, hop, out);
}

fn put_gateway(prefix: &Prefix, hop: &KernelHop, out: &mut Vec<u8>) {
    match (prefix, hop.gateway) {
        (_, None) => {}
        // RFC 8950: an IPv4 destination by an IPv6 neighbour.
        (Prefix::V4 { .. }, Some(IpAddr::V6(gateway))) => put_nested(out, Some(RTA_VIA), |out| {
            out.extend(u16::from(AF_INET6).to_ne_bytes());
            out.extend(gateway.octets());
        }),
        (_, Some(gateway)) => put_attribute(RTA_GATEWAY, gateway, out),
    }
}

fn put_attribute(kind: u16, address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => put_octets(kind, &address.octets(), out),
        IpAddr::V6(address) => put_octets(kind, &address.octets(), out),
    }
}

fn put_octets(kind: u16, octets: &[u8], out: &mut Vec<u8>) {
    put_nested(out, Some(kind), |out| out.extend_from_slice(octets));
}

/// Puts the length in front of what `put` writes, and the attribute's kind if it has one.
fn put_nested(out: &mut Vec<u8>, kind: Option<u16>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 2]);
    if let Some(kind) = kind {
        out.extend(kind.to_ne_bytes());
    }
    put(out);
    // A route has no more hops than a BGP speaker keeps paths, so this fits.
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests;
