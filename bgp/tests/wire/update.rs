//! Well-formed UPDATEs and what we make of them.

use bgp::types::{Asn, ClusterId, Family, LocalPref, Med, RouterId};
use bgp::wire::attribute::{Aggregator, NextHop, Origin, UnknownAttribute};
use bgp::wire::community::{Community, ExtendedCommunity, LargeCommunity};
use bgp::wire::update::{UpdateContext, decode_update};

use crate::message::*;

fn as_path_of(context: &UpdateContext, attributes: &[&[u8]]) -> String {
    let body = body(&[], &[&[ORIGIN, NEXT_HOP], attributes].concat(), NLRI);
    let update = decode_update(&body, context).expect("session stays");
    update.announced[0].attributes.as_path.to_string()
}

#[test]
fn every_attribute_we_know_is_decoded() {
    let body = body(
        &[24, 198, 51, 100],
        &[
            &[0x40, 1, 1, 2],
            &[
                0x50, 2, 0, 16, 2, 2, 0, 0, 0xFD, 0xE9, 0xFA, 0x56, 0xEA, 0, 1, 1, 0, 0, 0, 9,
            ],
            NEXT_HOP,
            MED,
            &attribute(0x40, 5, &[0, 0, 0, 200]),
            &attribute(0x40, 6, &[]),
            &attribute(0xC0, 7, &[0, 0, 0xFD, 0xEA, 192, 0, 2, 7]),
            &attribute(0xC0, 8, &[0xFD, 0xE9, 0, 7, 0xFF, 0xFF, 0xFF, 1]),
            &attribute(0x80, 9, &[192, 0, 2, 8]),
            &attribute(0x80, 10, &[10, 0, 0, 1, 10, 0, 0, 2]),
            &attribute(0xC0, 16, &[0, 2, 0xFD, 0xE9, 0, 0, 0, 7]),
            &attribute(0xC0, 32, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]),
            &attribute(0xC0, 35, &[0, 0, 0xFD, 0xEB]),
            &attribute(0xC0, 99, &[1, 2, 3]),
        ],
        &[16, 10, 1, 0, 25, 203, 0, 113, 255],
    );
    let update = decode_update(&body, &IBGP).expect("session stays");
    assert_eq!(prefixes(&update.withdrawn), ["198.51.100.0/24"]);
    assert_eq!(update.errors, []);
    let [announcement] = &update.announced[..] else {
        panic!("one announcement")
    };
    let (nlri, attributes) = (&announcement.nlri, &announcement.attributes);
    assert_eq!(
        prefixes(&[*nlri]),
        ["10.1.0.0/16", "0.0.0.0/0", "203.0.113.128/25"]
    );
    assert_eq!((nlri.len(), nlri.family()), (3, Family::Ipv4));
    assert_eq!(attributes.origin, Origin::Incomplete);
    assert_eq!(attributes.as_path.to_string(), "65001 4200000000 {9}");
    assert_eq!(attributes.next_hop.to_string(), "192.0.2.1");
    assert_eq!(attributes.med, Some(Med(50)));
    assert_eq!(attributes.local_pref, Some(LocalPref(200)));
    assert!(attributes.atomic_aggregate);
    let address = [192, 0, 2, 7].into();
    assert_eq!(
        attributes.aggregator,
        Some(Aggregator {
            asn: Asn(65002),
            address
        })
    );
    assert_eq!(
        attributes.communities,
        [Community(0xFDE9_0007), Community::NO_EXPORT]
    );
    assert_eq!(
        attributes.originator_id,
        Some(RouterId([192, 0, 2, 8].into()))
    );
    let cluster = |last| ClusterId([10, 0, 0, last].into());
    assert_eq!(attributes.cluster_list, [cluster(1), cluster(2)]);
    let target = ExtendedCommunity([0, 2, 0xFD, 0xE9, 0, 0, 0, 7]);
    assert_eq!(attributes.extended_communities, [target]);
    assert_eq!(attributes.large_communities, [LargeCommunity([1, 2, 3])]);
    assert_eq!(attributes.only_to_customer, Some(Asn(65003)));
    let unknown = UnknownAttribute {
        flags: 0xE0,
        code: 99,
        value: vec![1, 2, 3],
    };
    assert_eq!(attributes.unknown, [unknown]);
}

#[test]
fn next_hops_of_both_families_go_with_mp_reach() {
    let global = "2001:db8::1";
    let (v6, v4) = (&MP_REACH[7..23], [192, 0, 2, 9]);
    let local = [&[0xFE, 0x80][..], &[0; 13], &[9]].concat();
    let both = [v6, &local].concat();
    let twice = [v6, v6].concat();
    for (name, afi, next_hop, address, link_local) in [
        ("IPv6 of 16", 2, v6, global, None),
        ("IPv6 of 32", 2, &both, global, Some("fe80::9")),
        ("IPv6 of 32 without link-local", 2, &twice, global, None),
        ("IPv4 of 4", 1, &v4, "192.0.2.9", None),
        ("IPv4 over IPv6, RFC 8950", 1, v6, global, None),
        ("IPv4 over IPv6 of 32", 1, &both, global, Some("fe80::9")),
    ] {
        let length = u8::try_from(next_hop.len()).expect("short");
        let value = [&[0, afi, 1, length][..], next_hop, &[0, 8, 10]].concat();
        let body = body(&[], &[&attribute(0x80, 14, &value), ORIGIN, AS_PATH], &[]);
        let update = decode_update(&body, &EBGP).expect(name);
        let expected = NextHop {
            address: address.parse().expect(address),
            link_local: link_local.map(|address| address.parse().expect(address)),
        };
        assert_eq!(update.announced[0].attributes.next_hop, expected, "{name}");
        assert_eq!(update.announced[0].nlri.len(), 1, "{name}");
    }
}

#[test]
fn both_families_in_one_message_keep_their_next_hops() {
    let body = body(
        &[8, 11],
        &[MP_REACH, MP_UNREACH, ORIGIN, AS_PATH, NEXT_HOP],
        NLRI,
    );
    let update = decode_update(&body, &EBGP).expect("session stays");
    assert_eq!(
        prefixes(&update.withdrawn),
        ["11.0.0.0/8", "2001:db8:2::/48"]
    );
    let announced: Vec<_> = update
        .announced
        .iter()
        .map(|a| (prefixes(&[a.nlri]), a.attributes.next_hop.to_string()))
        .collect();
    assert_eq!(
        announced,
        [
            (vec!["10.1.0.0/16".to_owned()], "192.0.2.1".to_owned()),
            (vec!["2001:db8:1::/48".to_owned()], "2001:db8::1".to_owned()),
        ]
    );
}

#[test]
fn next_hop_is_optional_beside_mp_reach() {
    let body = body(&[], &[MP_REACH, ORIGIN, AS_PATH], &[]);
    let update = decode_update(&body, &EBGP).expect("session stays");
    assert_eq!(update.announced.len(), 1);
    assert_eq!(update.errors, []);
}

#[test]
fn host_bits_are_cleared() {
    let body = body(&[9, 10, 0xFF], &[ORIGIN, AS_PATH, NEXT_HOP], &[12, 172, 31]);
    let update = decode_update(&body, &EBGP).expect("session stays");
    assert_eq!(prefixes(&update.withdrawn), ["10.128.0.0/9"]);
    assert_eq!(prefixes(&[update.announced[0].nlri]), ["172.16.0.0/12"]);
}

#[test]
fn end_of_rib_is_recognized() {
    let empty_v6 = attribute(0x80, 15, &[0, 2, 1]);
    let empty_v4 = attribute(0x90, 15, &[0, 1, 1]);
    let extended = [0x90, 15, 0, 3, 0, 2, 1];
    for (name, body, expected) in [
        ("IPv4", body(&[], &[], &[]), Some(Family::Ipv4)),
        ("IPv6", body(&[], &[&empty_v6], &[]), Some(Family::Ipv6)),
        (
            "IPv6, extended length",
            body(&[], &[&extended], &[]),
            Some(Family::Ipv6),
        ),
        (
            "IPv6 with another attribute",
            body(&[], &[&empty_v6, ORIGIN], &[]),
            None,
        ),
        (
            "IPv6 with IPv4 withdrawn",
            body(&[8, 10], &[&empty_v6], &[]),
            None,
        ),
        ("IPv6 with routes", body(&[], &[MP_UNREACH], &[]), None),
        (
            "foreign family",
            body(&[], &[&attribute(0x80, 15, &[0, 25, 70])], &[]),
            None,
        ),
        ("withdrawal", body(&[8, 10], &[], &[]), None),
        ("attributes alone", body(&[], &[ORIGIN, AS_PATH], &[]), None),
    ] {
        let update = decode_update(&body, &EBGP).expect(name);
        assert_eq!(update.end_of_rib, expected, "{name}");
        assert!(update.announced.is_empty(), "{name}");
    }
    // 0x90 claims an extended length, so the short form is one octet short.
    let error = decode_update(&body(&[], &[&empty_v4], &[]), &EBGP).expect_err("cut");
    assert_eq!(error.notification.code, 3);
}

#[test]
fn foreign_families_are_ignored() {
    let reach = attribute(0x80, 14, &[0, 25, 70, 4, 192, 0, 2, 1, 0, 200, 1, 2, 3]);
    let unreach = attribute(0x80, 15, &[0, 1, 128, 200, 1]);
    let body = body(&[], &[&reach, &unreach, ORIGIN, AS_PATH, NEXT_HOP], NLRI);
    let update = decode_update(&body, &EBGP).expect("session stays");
    assert_eq!(prefixes(&[update.announced[0].nlri]), ["10.1.0.0/16"]);
    assert!(update.withdrawn.is_empty() && update.errors.is_empty());
}

#[test]
fn unknown_transitive_partial_bit() {
    let body = body(
        &[],
        &[
            &attribute(0xE0, 201, &[2]),
            &attribute(0xC0, 200, &[1]),
            &attribute(0x80, 202, &[3]),
            &attribute(0xC0, 203, &[]),
            ORIGIN,
            AS_PATH,
            NEXT_HOP,
        ],
        NLRI,
    );
    let update = decode_update(&body, &EBGP).expect("session stays");
    let unknown = |code, value: &[u8]| UnknownAttribute {
        flags: 0xE0,
        code,
        value: value.to_vec(),
    };
    assert_eq!(
        update.announced[0].attributes.unknown,
        [unknown(200, &[1]), unknown(201, &[2]), unknown(203, &[])],
        "sorted, Partial set, and the non-transitive one dropped"
    );
    assert_eq!(update.errors, []);
}

#[test]
fn redundant_large_communities_are_removed() {
    let value = [[0, 0, 0, 1], [0; 4], [0; 4]].concat().repeat(2);
    let large = attribute(0xC0, 32, &value);
    let body = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &large], NLRI);
    let update = decode_update(&body, &EBGP).expect("session stays");
    let attributes = &update.announced[0].attributes;
    assert_eq!(attributes.large_communities, [LargeCommunity([1, 0, 0])]);
}

#[test]
fn as4_path_merge_rules() {
    // 1 23456 23456 in two octets.
    let old = &attribute(0x40, 2, &[2, 3, 0, 1, 0x5B, 0xA0, 0x5B, 0xA0])[..];
    let as4 = |value: &[u8]| attribute(0xC0, 17, value);
    let two = as4(&[2, 2, 0xFA, 0x56, 0xEA, 0, 0xFA, 0x56, 0xEA, 1]);
    let four = as4(&[2, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]);
    let confed = as4(&[3, 1, 0, 0, 0, 9, 2, 1, 0xFA, 0x56, 0xEA, 0]);
    let aggregator = |asn: [u8; 2]| attribute(0xC0, 7, &[&asn[..], &[192, 0, 2, 7]].concat());
    let (trans, old_as) = (aggregator([0x5B, 0xA0]), aggregator([0, 5]));
    let as4_aggregator = attribute(0xC0, 18, &[0xFA, 0x56, 0xEA, 0, 192, 0, 2, 7]);
    let unmerged = "1 23456 23456";
    for (name, attributes, expected) in [
        (
            "shorter is merged",
            vec![old, &two],
            "1 4200000000 4200000001",
        ),
        (
            "order does not matter",
            vec![&two, old],
            "1 4200000000 4200000001",
        ),
        ("longer is ignored", vec![old, &four], unmerged),
        (
            "stray octet is discarded",
            vec![old, &as4(&[2, 1, 0, 0, 0, 9, 0])],
            unmerged,
        ),
        (
            "unknown segment is discarded",
            vec![old, &as4(&[9, 1, 0, 0, 0, 9])],
            unmerged,
        ),
        (
            "AS 0 is discarded",
            vec![old, &as4(&[2, 1, 0, 0, 0, 0])],
            unmerged,
        ),
        ("empty is discarded", vec![old, &as4(&[])], unmerged),
        (
            "confederation segments are skipped",
            vec![old, &confed],
            "1 23456 4200000000",
        ),
        ("absent", vec![old], unmerged),
        (
            "aggregated by an old speaker since",
            vec![old, &two, &old_as, &as4_aggregator],
            unmerged,
        ),
        (
            "aggregated by a new speaker",
            vec![old, &two, &trans, &as4_aggregator],
            "1 4200000000 4200000001",
        ),
    ] {
        assert_eq!(as_path_of(&TWO_OCTET, &attributes), expected, "{name}");
    }
    assert_eq!(
        as_path_of(&EBGP, &[AS_PATH, &two]),
        "65001",
        "discarded from a 4-octet peer"
    );
}

#[test]
fn as4_aggregator_replaces_as_trans_only() {
    let as_path = attribute(0x40, 2, &[2, 1, 0, 1]);
    let as4 = attribute(0xC0, 18, &[0xFA, 0x56, 0xEA, 0, 192, 0, 2, 8]);
    let cut = attribute(0xC0, 18, &[0xFA, 0x56]);
    for (name, aggregator, as4, asn, last) in [
        ("AS_TRANS", Some([0x5B, 0xA0]), &as4, Some(4_200_000_000), 8),
        ("another AS", Some([0, 5]), &as4, Some(5), 7),
        (
            "malformed AS4_AGGREGATOR",
            Some([0x5B, 0xA0]),
            &cut,
            Some(23456),
            7,
        ),
        ("AS4_AGGREGATOR alone", None, &as4, None, 0),
    ] {
        let aggregator = aggregator.map_or(vec![], |asn| {
            attribute(0xC0, 7, &[&asn[..], &[192, 0, 2, 7]].concat())
        });
        let body = body(&[], &[ORIGIN, &as_path, NEXT_HOP, &aggregator, as4], NLRI);
        let update = decode_update(&body, &TWO_OCTET).expect(name);
        let address = [192, 0, 2, last].into();
        let expected = asn.map(|asn| Aggregator {
            asn: Asn(asn),
            address,
        });
        assert_eq!(
            update.announced[0].attributes.aggregator, expected,
            "{name}"
        );
    }
}
