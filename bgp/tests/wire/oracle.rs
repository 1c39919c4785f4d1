//! What another implementation makes of our messages: zettabgp, which is safe to ask about octets
//! that we wrote ourselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::{Asn, Family, FamilySet, HoldTime, LocalPref, Med, Prefix, RouterId};
use bgp::wire::as_path::AsPath;
use bgp::wire::attribute::{Aggregator, PathAttributes};
use bgp::wire::capability::Capability;
use bgp::wire::community::{Community, LargeCommunity};
use bgp::wire::frame::MAX_LEN;
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::update::{EncodeContext, encode_announce, encode_withdraw};
use zettabgp::prelude::*;

use crate::message::{frame, prefix};

fn session(four_octet_as: bool) -> BgpSessionParams {
    let router_id = Ipv4Addr::new(192, 0, 2, 1);
    let caps = vec![
        BgpCapability::SafiIPv4u,
        BgpCapability::SafiIPv6u,
        BgpCapability::CapASN32(65001),
    ];
    let mut params = BgpSessionParams::new(65001, 90, BgpTransportMode::IPv4, router_id, caps);
    params.has_as32bit = four_octet_as;
    // It guesses at ADD-PATH otherwise.
    params.fuzzy_pathid = false;
    params
}

fn attributes(next_hop: IpAddr) -> PathAttributes {
    let mut attributes = PathAttributes::originated(next_hop);
    attributes.as_path = AsPath::sequence([Asn(65001), Asn(65002)]);
    attributes.med = Some(Med(50));
    attributes.local_pref = Some(LocalPref(200));
    attributes.atomic_aggregate = true;
    let address = [192, 0, 2, 7].into();
    attributes.aggregator = Some(Aggregator {
        asn: Asn(65002),
        address,
    });
    attributes.communities = (0..80).map(Community).collect();
    attributes.large_communities = thin_vec::thin_vec![LargeCommunity([1, 2, 3])];
    attributes.extended_communities = thin_vec::thin_vec!["rt:65001:7".parse().expect("valid")];
    attributes.originator_id = Some(RouterId([192, 0, 2, 8].into()));
    attributes
}

fn read(message: &[u8], params: &BgpSessionParams) -> BgpUpdateMessage {
    let frame = frame(message);
    let mut update = BgpUpdateMessage::new();
    update
        .decode_from(params, &frame.body)
        .expect("zettabgp reads our message");
    update
}

fn v4_texts(addresses: &BgpAddrs) -> Vec<String> {
    match addresses {
        BgpAddrs::IPV4U(all) => all
            .iter()
            .map(|a| format!("{}/{}", a.addr, a.prefixlen))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn v6_texts(addresses: &BgpAddrs) -> Vec<String> {
    match addresses {
        BgpAddrs::IPV6U(all) => all
            .iter()
            .map(|a| format!("{}/{}", a.addr, a.prefixlen))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn texts(prefixes: &[Prefix]) -> Vec<String> {
    prefixes.iter().map(Prefix::to_string).collect()
}

#[test]
fn ipv4_routes_are_understood() {
    let next_hop = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let prefixes = [
        prefix("0.0.0.0/0"),
        prefix("10.1.0.0/17"),
        prefix("10.1.2.3/32"),
    ];
    for four_octet_as in [true, false] {
        let context = EncodeContext {
            four_octet_as,
            max_len: MAX_LEN,
            add_path: FamilySet::EMPTY,
        };
        let sent = attributes(next_hop);
        let messages = encode_announce(Family::Ipv4, &sent, prefixes.into_iter(), &context);
        let update = read(&messages.expect("room")[0], &session(four_octet_as));
        assert_eq!(v4_texts(&update.updates), texts(&prefixes));
        let as_path = update.get_attr_aspath().expect("AS_PATH");
        assert_eq!(
            as_path.to_string().replace(',', " "),
            sent.as_path.to_string()
        );
        let communities = update.get_attr_communitylist().expect("COMMUNITIES");
        let values: Vec<u32> = communities.value.iter().map(|c| c.value).collect();
        assert_eq!(values, (0..80).collect::<Vec<u32>>());
        let large = update
            .get_attr_largecommunitylist()
            .expect("LARGE_COMMUNITY");
        assert_eq!(large.to_string(), "1:2:3");
        assert_eq!(update.get_attr_nexthop().map(|n| n.value), Some(next_hop));
        let withdrawn = encode_withdraw(Family::Ipv4, prefixes.into_iter(), &context);
        let update = read(&withdrawn[0], &session(four_octet_as));
        assert_eq!(v4_texts(&update.withdraws), texts(&prefixes));
    }
}

#[test]
fn ipv6_routes_are_understood() {
    let next_hop = IpAddr::V6(Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1));
    let prefixes = [
        prefix("::/0"),
        prefix("2001:db8:1::/48"),
        prefix("2001:db8::7/128"),
    ];
    let context = EncodeContext {
        four_octet_as: true,
        max_len: MAX_LEN,
        add_path: FamilySet::EMPTY,
    };
    let sent = attributes(next_hop);
    let messages = encode_announce(Family::Ipv6, &sent, prefixes.into_iter(), &context);
    let update = read(&messages.expect("room")[0], &session(true));
    let reach = update.get_mpupdates().expect("MP_REACH_NLRI");
    assert_eq!(v6_texts(&reach.addrs), texts(&prefixes));
    let withdrawn = encode_withdraw(Family::Ipv6, prefixes.into_iter(), &context);
    let update = read(&withdrawn[0], &session(true));
    let unreach = update.get_mpwithdraws().expect("MP_UNREACH_NLRI");
    assert_eq!(v6_texts(&unreach.addrs), texts(&prefixes));
}

#[test]
fn our_open_is_understood() {
    let open = Open {
        asn: Asn(4_200_000_000),
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId([192, 0, 2, 1].into()),
        capabilities: vec![
            Capability::from(Family::Ipv4),
            Capability::from(Family::Ipv6),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(4_200_000_000)),
        ],
    };
    let mut read = BgpOpenMessage::new();
    let frame = frame(&open.encode());
    read.decode_from(&session(true), &frame.body)
        .expect("zettabgp reads our OPEN");
    assert_eq!(read.as_num, 23456);
    assert_eq!(read.hold_time, 90);
    assert_eq!(read.router_id, Ipv4Addr::new(192, 0, 2, 1));
    for wanted in [
        BgpCapability::SafiIPv4u,
        BgpCapability::SafiIPv6u,
        BgpCapability::CapRR,
        BgpCapability::CapASN32(4_200_000_000),
    ] {
        assert!(read.caps.contains(&wanted), "{wanted:?}");
    }
}

#[test]
fn our_notification_is_understood() {
    let frame = frame(&Notification::with_data(2, 1, [0, 4]).encode());
    let mut read = BgpNotificationMessage::new();
    read.decode_from(&session(true), &frame.body)
        .expect("zettabgp reads our NOTIFICATION");
    assert_eq!((read.error_code, read.error_subcode), (2, 1));
}
