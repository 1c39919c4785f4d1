//! UPDATEs of ours, octet by octet where an RFC says how they look.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::{Asn, ClusterId, Family, FamilySet, LocalPref, Med, Prefix, RouterId};
use bgp::wire::as_path::AsPath;
use bgp::wire::attribute::{Aggregator, NextHop, PathAttributes, UnknownAttribute};
use bgp::wire::community::Community;
use bgp::wire::frame::{MAX_EXTENDED_LEN, MAX_LEN};
use bgp::wire::update::{
    EncodeContext, decode_update, encode_announce, encode_end_of_rib, encode_withdraw,
};

use crate::message::*;

const CONTEXT: EncodeContext = EncodeContext {
    four_octet_as: true,
    max_len: MAX_LEN,
    add_path: FamilySet::EMPTY,
};
const OLD: EncodeContext = EncodeContext {
    four_octet_as: false,
    max_len: MAX_LEN,
    add_path: FamilySet::EMPTY,
};
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn v6() -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1))
}

fn attributes(next_hop: IpAddr) -> PathAttributes {
    let mut attributes = PathAttributes::originated(next_hop);
    attributes.as_path = AsPath::sequence([Asn(65001)]);
    attributes
}

fn announced(attributes: &PathAttributes, prefixes: &[&str], context: &EncodeContext) -> Vec<u8> {
    let prefixes: Vec<Prefix> = prefixes.iter().map(|text| prefix(text)).collect();
    let family = prefixes[0].family();
    let messages = encode_announce(family, attributes, prefixes.into_iter(), context);
    let [message] = &messages.expect("room")[..] else {
        panic!("one message")
    };
    message.to_vec()
}

/// `count` different /24 prefixes.
fn many(count: u32) -> impl Iterator<Item = Prefix> {
    (0..count).map(|n| {
        let address = Ipv4Addr::from(0x0A00_0000 + (n << 8));
        Prefix::new(IpAddr::V4(address), 24).expect("24 is a length")
    })
}

#[test]
fn a_plain_ipv4_route_has_the_octets_of_rfc_4271() {
    let expected = message(2, &body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], NLRI));
    assert_eq!(
        announced(&attributes(V4), &["10.1.0.0/16"], &CONTEXT),
        expected
    );
}

#[test]
fn an_ipv6_route_has_mp_reach_first_and_no_next_hop() {
    let expected = message(2, &body(&[], &[MP_REACH, ORIGIN, AS_PATH], &[]));
    assert_eq!(
        announced(&attributes(v6()), &["2001:db8:1::/48"], &CONTEXT),
        expected
    );
}

#[test]
fn attributes_come_in_the_order_of_their_codes() {
    let mut attributes = attributes(V4);
    attributes.med = Some(Med(50));
    attributes.local_pref = Some(LocalPref(100));
    attributes.atomic_aggregate = true;
    let address = [192, 0, 2, 7].into();
    attributes.aggregator = Some(Aggregator {
        asn: Asn(65002),
        address,
    });
    attributes.communities = thin_vec::thin_vec![Community(0xFDE9_0007)];
    attributes.originator_id = Some(RouterId([192, 0, 2, 8].into()));
    attributes.cluster_list = thin_vec::thin_vec![ClusterId([10, 0, 0, 1].into())];
    attributes.extended_communities = thin_vec::thin_vec!["rt:65001:7".parse().expect("valid")];
    attributes.large_communities = thin_vec::thin_vec!["1:2:3".parse().expect("valid")];
    attributes.only_to_customer = Some(Asn(65003));
    let unknown = |code| UnknownAttribute {
        flags: 0xE0,
        code,
        value: vec![1],
    };
    attributes.unknown = thin_vec::thin_vec![unknown(25), unknown(33), unknown(200)];
    let expected = body(
        &[],
        &[
            ORIGIN,
            AS_PATH,
            NEXT_HOP,
            MED,
            &attribute(0x40, 5, &[0, 0, 0, 100]),
            &attribute(0x40, 6, &[]),
            &attribute(0xC0, 7, &[0, 0, 0xFD, 0xEA, 192, 0, 2, 7]),
            COMMUNITIES,
            &attribute(0x80, 9, &[192, 0, 2, 8]),
            &attribute(0x80, 10, &[10, 0, 0, 1]),
            &attribute(0xC0, 16, &[0, 2, 0xFD, 0xE9, 0, 0, 0, 7]),
            &attribute(0xE0, 25, &[1]),
            &attribute(0xC0, 32, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]),
            &attribute(0xE0, 33, &[1]),
            &attribute(0xC0, 35, &[0, 0, 0xFD, 0xEB]),
            &attribute(0xE0, 200, &[1]),
        ],
        NLRI,
    );
    assert_eq!(
        announced(&attributes, &["10.1.0.0/16"], &CONTEXT),
        message(2, &expected)
    );
}

#[test]
fn two_octet_sessions_get_as_trans_and_as4() {
    let mut attributes = attributes(V4);
    attributes.as_path = AsPath::sequence([Asn(1), Asn(4_200_000_000)]);
    let address = [192, 0, 2, 7].into();
    attributes.aggregator = Some(Aggregator {
        asn: Asn(4_200_000_000),
        address,
    });
    let expected = body(
        &[],
        &[
            ORIGIN,
            &attribute(0x40, 2, &[2, 2, 0, 1, 0x5B, 0xA0]),
            NEXT_HOP,
            &attribute(0xC0, 7, &[0x5B, 0xA0, 192, 0, 2, 7]),
            &attribute(0xC0, 17, &[2, 2, 0, 0, 0, 1, 0xFA, 0x56, 0xEA, 0]),
            &attribute(0xC0, 18, &[0xFA, 0x56, 0xEA, 0, 192, 0, 2, 7]),
        ],
        NLRI,
    );
    assert_eq!(
        announced(&attributes, &["10.1.0.0/16"], &OLD),
        message(2, &expected)
    );
    attributes.as_path = AsPath::sequence([Asn(65001)]);
    attributes.aggregator = None;
    let as_path = attribute(0x40, 2, &[2, 1, 0xFD, 0xE9]);
    let expected = body(&[], &[ORIGIN, &as_path, NEXT_HOP], NLRI);
    assert_eq!(
        announced(&attributes, &["10.1.0.0/16"], &OLD),
        message(2, &expected)
    );
}

#[test]
fn extended_lengths_are_used_only_when_needed() {
    for (count, header) in [(63, vec![0xC0, 8, 252]), (64, vec![0xD0, 8, 1, 0])] {
        let mut attributes = attributes(V4);
        attributes.communities = thin_vec::thin_vec![Community(7); count];
        let encoded = announced(&attributes, &["10.1.0.0/16"], &CONTEXT);
        let start = 19 + 4 + ORIGIN.len() + AS_PATH.len() + NEXT_HOP.len();
        assert_eq!(&encoded[start..start + header.len()], header, "{count}");
    }
}

#[test]
fn partial_once_set_stays_set() {
    let partial = attribute(0xE0, 8, &COMMUNITIES[3..]);
    let received = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &partial], NLRI);
    let update = decode_update(&received, &EBGP).expect("session stays");
    let attributes = &update.announced[0].attributes;
    assert_eq!(
        announced(attributes, &["10.1.0.0/16"], &CONTEXT),
        message(2, &received)
    );
}

#[test]
fn next_hops_take_the_form_their_family_needs() {
    let local: Ipv6Addr = "fe80::9".parse().expect("address");
    let v6_octets = &MP_REACH[7..23];
    let both = NextHop {
        address: v6(),
        link_local: Some(local),
    };
    let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
    let two = [v6_octets, &local.octets()].concat();
    for (name, prefix, next_hop, afi, octets) in [
        ("RFC 8950", "10.1.0.0/16", v6().into(), 1, v6_octets),
        ("RFC 8950 with link-local", "10.1.0.0/16", both, 1, &two),
        ("RFC 2545 with link-local", "2001:db8:1::/48", both, 2, &two),
        ("IPv6 over IPv4", "2001:db8:1::/48", V4.into(), 2, &mapped),
    ] {
        let mut attributes = attributes(V4);
        attributes.next_hop = next_hop;
        let encoded = announced(&attributes, &[prefix], &CONTEXT);
        let length = u8::try_from(octets.len()).expect("short");
        let expected = [&[0, afi, 1, length][..], octets, &[0]].concat();
        assert_eq!(&encoded[26..26 + expected.len()], expected, "{name}");
        let frame = frame(&encoded);
        let update = decode_update(&frame.body, &IBGP).expect(name);
        assert_eq!(
            update.announced[0]
                .nlri
                .iter()
                .next()
                .map(|p| p.to_string()),
            Some(prefix.into())
        );
    }
}

#[test]
fn withdrawals_use_the_field_of_their_family() {
    let encoded = encode_withdraw(Family::Ipv4, [prefix("10.1.0.0/16")].into_iter(), &CONTEXT);
    assert_eq!(encoded, [message(2, &body(NLRI, &[], &[]))]);
    let encoded = encode_withdraw(
        Family::Ipv6,
        [prefix("2001:db8:2::/48")].into_iter(),
        &CONTEXT,
    );
    assert_eq!(encoded, [message(2, &body(&[], &[MP_UNREACH], &[]))]);
}

#[test]
fn end_of_rib_has_the_octets_of_rfc_4724() {
    assert_eq!(encode_end_of_rib(Family::Ipv4), message(2, &[0, 0, 0, 0]));
    let expected = message(2, &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]);
    assert_eq!(encode_end_of_rib(Family::Ipv6), expected);
}

#[test]
fn no_prefixes_make_no_messages() {
    let none = std::iter::empty::<Prefix>;
    for family in Family::ALL {
        let next_hop = if family == Family::Ipv4 { V4 } else { v6() };
        let messages = encode_announce(family, &attributes(next_hop), none(), &CONTEXT);
        assert_eq!(messages, Ok(vec![]));
        assert!(encode_withdraw(family, none(), &CONTEXT).is_empty());
    }
}

#[test]
fn messages_are_filled_and_lose_nothing() {
    let all: Vec<Prefix> = many(5000).collect();
    let messages = encode_announce(Family::Ipv4, &attributes(V4), many(5000), &CONTEXT);
    let messages = messages.expect("room");
    // 4096 - 23 - 20 octets of attributes leave room for 1013 prefixes of 4 octets.
    assert_eq!(messages.len(), 5);
    let mut found = Vec::new();
    for message in &messages {
        let frame = frame(message);
        let update = decode_update(&frame.body, &EBGP).expect("ours");
        found.extend(update.announced[0].nlri.iter());
    }
    assert_eq!(found, all);
    let messages = encode_withdraw(Family::Ipv4, many(5000), &CONTEXT);
    assert_eq!(messages.len(), 5);
    let large = EncodeContext {
        max_len: MAX_EXTENDED_LEN,
        ..CONTEXT
    };
    assert_eq!(encode_withdraw(Family::Ipv4, many(5000), &large).len(), 1);
}

#[test]
fn never_larger_than_4096() {
    let host = |family| match family {
        Family::Ipv4 => prefix("10.1.2.3/32"),
        Family::Ipv6 => prefix("2001:db8::1/128"),
    };
    let mut refused = 0;
    for family in Family::ALL {
        for filler in 3980..4100 {
            for grown in [false, true] {
                let mut attributes = attributes(if family == Family::Ipv4 { V4 } else { v6() });
                let value = vec![7; filler];
                attributes.unknown = thin_vec::thin_vec![UnknownAttribute {
                    flags: 0xE0,
                    code: 99,
                    value,
                }];
                if grown {
                    attributes.as_path.prepend(Asn(1), 1);
                    attributes.originator_id = Some(RouterId([1; 4].into()));
                    attributes.cluster_list = thin_vec::thin_vec![ClusterId([1; 4].into())];
                }
                let prefixes = std::iter::repeat_n(host(family), 3);
                match encode_announce(family, &attributes, prefixes, &CONTEXT) {
                    Ok(messages) => {
                        for message in messages {
                            assert!(message.len() <= MAX_LEN, "{family} {filler}");
                            let frame = frame(&message);
                            let update = decode_update(&frame.body, &IBGP).expect("ours");
                            assert_eq!(update.announced[0].attributes, attributes);
                        }
                    }
                    Err(error) => {
                        refused += 1;
                        assert!(error.attributes_len > 3980, "{error}");
                    }
                }
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn attributes_that_fill_the_message_exactly_still_go() {
    // 19 + 4 + 20 of mandatory attributes + 4 of header + 5 of a host prefix.
    let filler = MAX_LEN - 52;
    for (filler, fits) in [(filler, true), (filler + 1, false)] {
        let mut attributes = attributes(V4);
        let value = vec![7; filler];
        attributes.unknown = thin_vec::thin_vec![UnknownAttribute {
            flags: 0xE0,
            code: 99,
            value,
        }];
        let prefixes = [prefix("10.1.2.3/32")].into_iter();
        let messages = encode_announce(Family::Ipv4, &attributes, prefixes, &CONTEXT);
        assert_eq!(messages.is_ok(), fits, "{filler}");
        if let Ok(messages) = messages {
            assert_eq!(messages[0].len(), MAX_LEN);
        }
    }
}

#[test]
fn attributes_no_length_can_count_are_refused() {
    let mut attributes = attributes(V4);
    attributes.communities = thin_vec::thin_vec![Community(7); 20_000];
    let large = EncodeContext {
        max_len: usize::MAX,
        ..CONTEXT
    };
    let messages = encode_announce(Family::Ipv4, &attributes, many(1), &large);
    assert!(messages.is_err());
}
