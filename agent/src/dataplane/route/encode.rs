//! A route as the kernel wants to be told of it: `rtmsg` and its attributes (linux/rtnetlink.h).
//!
//! Written by hand because a table of learned routes passes through here: the library's messages are
//! lists of lists.

use std::net::IpAddr;

use bgp::types::Prefix;

use crate::dataplane::attribute::{put_address, put_nested, put_octets};
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
const RTA_NH_ID: u16 = 30;

/// Appends the whole route, by the next-hop object if there is one for its hop.
pub fn put(route: &KernelRoute, next_hop: Option<u32>, out: &mut Vec<u8>) {
    let info = &*route.info;
    let only = match info.hops.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    let is_onlink = next_hop.is_none() && only.is_some_and(|hop| hop.is_onlink);
    put_header(route, info.scope, is_onlink, out);
    put_address(RTA_DST, route.prefix.network(), out);
    put_octets(RTA_PRIORITY, &info.metric.to_ne_bytes(), out);
    if let Some(source) = info.source {
        put_address(RTA_PREFSRC, source, out);
    }
    match next_hop {
        Some(id) => put_octets(RTA_NH_ID, &id.to_ne_bytes(), out),
        None => put_hops(&route.prefix, info, out),
    }
}

/// Appends what names the route to be removed.
pub fn put_key(route: &KernelRoute, out: &mut Vec<u8>) {
    let info = &*route.info;
    let scope = match route.prefix.network() {
        IpAddr::V4(_) => SCOPE_NOWHERE,
        IpAddr::V6(_) => info.scope,
    };
    put_header(route, scope, false, out);
    put_address(RTA_DST, route.prefix.network(), out);
    put_octets(RTA_PRIORITY, &info.metric.to_ne_bytes(), out);
    // Named hops are not those of a route by a next-hop object. Of several hops IPv6 would remove the
    // named ones, and stop at the first that is gone already.
    if info.hops.len() == 1 && route.prefix.network().is_ipv6() {
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
        (_, Some(gateway)) => put_address(RTA_GATEWAY, gateway, out),
    }
}

#[cfg(test)]
mod tests;
