//! The library reads what is written here.

use std::sync::Arc;

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteScope, RouteType, RouteVia,
};
use smallvec::SmallVec;

use super::*;

const IPV4: &str = "172.17.9.0/24";
const IPV6: &str = "fd00:9::/64";

fn hop(gateway: Option<&str>, device: u32, is_onlink: bool) -> KernelHop {
    KernelHop {
        gateway: gateway.map(|text| text.parse().expect(text)),
        device: Some(device),
        is_onlink,
        ..KernelHop::default()
    }
}

fn route(prefix: &str, hops: &[KernelHop], source: Option<&str>) -> KernelRoute {
    KernelRoute {
        prefix: prefix.parse().expect(prefix),
        tos: 0,
        info: Arc::new(FibInfo {
            metric: 202,
            protocol: 203,
            kind: match hops {
                [] => RouteKind::Blackhole,
                _ => RouteKind::Unicast,
            },
            scope: 0,
            hops: SmallVec::from(hops),
            source: source.map(|text| text.parse().expect(text)),
            has_extras: false,
        }),
    }
}

fn read(octets: &[u8]) -> RouteMessage {
    RouteMessage::parse(octets).expect("a message")
}

/// As the library would write it.
fn expected(prefix: &str, kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let prefix: Prefix = prefix.parse().expect(prefix);
    let mut message = RouteMessage::default();
    message.header.address_family = match prefix {
        Prefix::V4 { .. } => AddressFamily::Inet,
        Prefix::V6 { .. } => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = prefix.length();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = 203.into();
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    message.attributes = vec![
        RouteAttribute::Destination(prefix.network().into()),
        RouteAttribute::Priority(202),
    ];
    message.attributes.extend(attributes);
    message
}

fn octets(message: &RouteMessage) -> Vec<u8> {
    let mut octets = vec![0; message.buffer_len()];
    message.emit(&mut octets);
    octets
}

fn gateway(text: &str) -> RouteAttribute {
    let address: IpAddr = text.parse().expect(text);
    RouteAttribute::Gateway(address.into())
}

fn next_hop(attribute: RouteAttribute, device: u32) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    next_hop.flags = RouteNextHopFlags::Onlink;
    next_hop.interface_index = device;
    next_hop.attributes = vec![attribute];
    next_hop
}

#[test]
fn routes_are_written_as_the_library_writes_them() {
    let onlink = |mut message: RouteMessage| {
        message.header.flags = RouteFlags::Onlink;
        message
    };
    let source = |text: &str| {
        let address: IpAddr = text.parse().expect(text);
        RouteAttribute::PrefSource(address.into())
    };
    let via6 = || RouteAttribute::Via(RouteVia::Inet6("fe80::9".parse().expect("an address")));
    for (name, route, message) in [
        (
            "a blackhole",
            route(IPV4, &[], None),
            expected(IPV4, RouteType::BlackHole, vec![]),
        ),
        (
            "a link",
            route(IPV4, &[hop(None, 7, false)], None),
            expected(IPV4, RouteType::Unicast, vec![RouteAttribute::Oif(7)]),
        ),
        (
            "a gateway with a source",
            route(IPV4, &[hop(Some("10.0.0.9"), 7, true)], Some("172.17.8.1")),
            onlink(expected(
                IPV4,
                RouteType::Unicast,
                vec![
                    source("172.17.8.1"),
                    RouteAttribute::Oif(7),
                    gateway("10.0.0.9"),
                ],
            )),
        ),
        (
            "IPv6",
            route(IPV6, &[hop(Some("fd00::9"), 7, true)], None),
            onlink(expected(
                IPV6,
                RouteType::Unicast,
                vec![RouteAttribute::Oif(7), gateway("fd00::9")],
            )),
        ),
        (
            "IPv4 by an IPv6 neighbour",
            route(IPV4, &[hop(Some("fe80::9"), 7, true)], None),
            onlink(expected(
                IPV4,
                RouteType::Unicast,
                vec![RouteAttribute::Oif(7), via6()],
            )),
        ),
        (
            "several hops",
            route(
                IPV4,
                &[
                    hop(Some("10.0.0.9"), 7, true),
                    hop(Some("fe80::9"), 8, true),
                ],
                None,
            ),
            expected(
                IPV4,
                RouteType::Unicast,
                vec![RouteAttribute::MultiPath(vec![
                    next_hop(gateway("10.0.0.9"), 7),
                    next_hop(via6(), 8),
                ])],
            ),
        ),
    ] {
        let mut written = Vec::new();
        put(&route, None, &mut written);
        assert_eq!(read(&written), message, "{name}");
        assert_eq!(written, octets(&message), "{name}");
    }
}

#[test]
fn a_key_names_one_hop_and_not_several() {
    let one = [hop(Some("10.0.0.9"), 7, true)];
    let two = [
        hop(Some("10.0.0.8"), 7, true),
        hop(Some("10.0.0.9"), 7, true),
    ];
    for (name, hops, expected) in [("one", &one[..], 0), ("several", &two[..], 0)] {
        let mut written = Vec::new();
        put_key(&route(IPV4, hops, Some("172.17.8.1")), &mut written);
        let message = read(&written);
        assert_eq!(message.header.scope, RouteScope::NoWhere, "{name}");
        assert_eq!(message.header.flags, RouteFlags::empty(), "{name}");
        // Destination and metric, and what names a hop.
        assert_eq!(message.attributes.len(), 2 + expected, "{name}");
    }
}
