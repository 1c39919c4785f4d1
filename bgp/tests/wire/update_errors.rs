//! Malformed UPDATEs, and which of the three ends RFC 7606 gives each of them.

use bgp::wire::Notification;
use bgp::wire::update::{Update, UpdateContext, decode_update};

use crate::message::*;

const DISCARD: bool = false;
const WITHDRAW: bool = true;

/// (attribute code, treat-as-withdraw) of every error.
fn errors(update: &Update<'_>) -> Vec<(u8, bool)> {
    update
        .errors
        .iter()
        .map(|e| (e.code, e.treat_as_withdraw))
        .collect()
}

fn reset(body: &[u8], context: &UpdateContext, name: &str) -> Notification {
    decode_update(body, context).expect_err(name).notification
}

/// Attributes that RFC 7606 §7 and its kin want answered by treat-as-withdraw, from an internal
/// peer with 4-octet AS numbers.
fn treated_as_withdraw() -> Vec<(&'static str, Vec<u8>)> {
    let mut cases = vec![
        ("ORIGIN of 0", attribute(0x40, 1, &[])),
        ("ORIGIN of 2", attribute(0x40, 1, &[0, 0])),
        ("ORIGIN undefined", attribute(0x40, 1, &[3])),
        (
            "AS_PATH unknown segment",
            attribute(0x40, 2, &[5, 1, 0, 0, 0, 1]),
        ),
        ("AS_PATH empty segment", attribute(0x40, 2, &[2, 0])),
        ("AS_PATH overrun", attribute(0x40, 2, &[2, 2, 0, 0, 0, 1])),
        (
            "AS_PATH stray octet",
            attribute(0x40, 2, &[2, 1, 0, 0, 0, 1, 2]),
        ),
        ("AS_PATH with AS 0", attribute(0x40, 2, &[2, 1, 0, 0, 0, 0])),
        ("NEXT_HOP of 0", attribute(0x40, 3, &[])),
        ("NEXT_HOP of 3", attribute(0x40, 3, &[1, 2, 3])),
        ("NEXT_HOP of 5", attribute(0x40, 3, &[1, 2, 3, 4, 5])),
        ("NEXT_HOP of 16", attribute(0x40, 3, &[1; 16])),
        ("MED of 0", attribute(0x80, 4, &[])),
        ("MED of 3", attribute(0x80, 4, &[0, 0, 1])),
        ("MED of 5", attribute(0x80, 4, &[0, 0, 1, 0, 0])),
        ("LOCAL_PREF of 3", attribute(0x40, 5, &[0, 0, 1])),
        ("LOCAL_PREF of 5", attribute(0x40, 5, &[0, 0, 1, 0, 0])),
        ("COMMUNITIES of 0", attribute(0xC0, 8, &[])),
        ("COMMUNITIES of 5", attribute(0xC0, 8, &[0, 1, 0, 2, 0])),
        ("ORIGINATOR_ID of 3", attribute(0x80, 9, &[1, 2, 3])),
        ("ORIGINATOR_ID of 8", attribute(0x80, 9, &[1; 8])),
        ("CLUSTER_LIST of 0", attribute(0x80, 10, &[])),
        ("CLUSTER_LIST of 6", attribute(0x80, 10, &[1; 6])),
        ("EXTENDED COMMUNITIES of 0", attribute(0xC0, 16, &[])),
        ("EXTENDED COMMUNITIES of 7", attribute(0xC0, 16, &[1; 7])),
        ("LARGE_COMMUNITY of 0", attribute(0xC0, 32, &[])),
        ("LARGE_COMMUNITY of 13", attribute(0xC0, 32, &[1; 13])),
        ("OTC of 3", attribute(0xC0, 35, &[1; 3])),
        ("OTC of 5", attribute(0xC0, 35, &[1; 5])),
    ];
    for (code, value, right) in [
        (1, &ORIGIN[3..], 0x40),
        (2, &AS_PATH[3..], 0x40),
        (3, &NEXT_HOP[3..], 0x40),
        (4, &[0; 4], 0x80),
        (5, &[0; 4], 0x40),
        (6, &[], 0x40),
        (7, &[1; 8], 0xC0),
        (8, &[1; 4], 0xC0),
        (9, &[1; 4], 0x80),
        (10, &[1; 4], 0x80),
        (16, &[1; 8], 0xC0),
        (32, &[1; 12], 0xC0),
        (35, &[1; 4], 0xC0),
    ] {
        for flags in [0, 0x40, 0x80, 0xC0] {
            if flags != right {
                cases.push(("wrong flags", attribute(flags, code, value)));
            }
        }
    }
    cases
}

/// The mandatory attributes, in order, but not one of this code.
fn mandatory_without(code: u8) -> Vec<&'static [u8]> {
    let mut attributes = vec![ORIGIN, AS_PATH, NEXT_HOP];
    attributes.retain(|attribute| attribute[1] != code);
    attributes
}

#[test]
fn every_attribute_error_first_middle_last() {
    for (name, bad) in treated_as_withdraw() {
        let code = bad[1];
        for position in 0..3 {
            let mut attributes = mandatory_without(code);
            attributes.insert(position.min(attributes.len()), &bad);
            let body = body(&[8, 11], &attributes, NLRI);
            let update = decode_update(&body, &IBGP).expect(name);
            assert!(
                update.announced.is_empty(),
                "{name}, attribute {code} at {position}"
            );
            assert_eq!(
                prefixes(&update.withdrawn),
                ["11.0.0.0/8", "10.1.0.0/16"],
                "{name}, attribute {code} at {position}"
            );
            assert!(
                errors(&update).contains(&(code, WITHDRAW)),
                "{name}, attribute {code} at {position}"
            );
        }
    }
}

#[test]
fn prefixes_in_mp_reach_are_withdrawn_wherever_the_error_is() {
    for (name, bad) in treated_as_withdraw() {
        for position in 0..4 {
            let mut attributes = mandatory_without(bad[1]);
            attributes.insert(0, MP_REACH);
            attributes.insert(position.min(attributes.len()), &bad);
            let update_body = body(&[], &attributes, &[]);
            let update = decode_update(&update_body, &IBGP).expect(name);
            assert!(update.announced.is_empty(), "{name} at {position}");
            assert_eq!(
                prefixes(&update.withdrawn),
                ["2001:db8:1::/48"],
                "{name} at {position}"
            );
        }
    }
}

#[test]
fn two_octet_peers_are_held_to_the_same() {
    let overrun = attribute(0x40, 2, &[2, 2, 0, 1, 0]);
    let update_body = body(&[], &[ORIGIN, &overrun, NEXT_HOP], NLRI);
    let update = decode_update(&update_body, &TWO_OCTET).expect("session stays");
    assert_eq!(errors(&update), [(2, WITHDRAW)]);
    assert_eq!(prefixes(&update.withdrawn), ["10.1.0.0/16"]);
}

#[test]
fn missing_mandatory_attributes_withdraw() {
    for (name, attributes, nlri, missing) in [
        ("ORIGIN", vec![AS_PATH, NEXT_HOP], NLRI, Some(1)),
        ("AS_PATH", vec![ORIGIN, NEXT_HOP], NLRI, Some(2)),
        ("NEXT_HOP", vec![ORIGIN, AS_PATH], NLRI, Some(3)),
        ("all", vec![], NLRI, Some(1)),
        (
            "ORIGIN beside MP_REACH",
            vec![MP_REACH, AS_PATH],
            &[],
            Some(1),
        ),
        (
            "AS_PATH beside MP_REACH",
            vec![MP_REACH, ORIGIN],
            &[],
            Some(2),
        ),
        (
            "NEXT_HOP with both",
            vec![MP_REACH, ORIGIN, AS_PATH],
            NLRI,
            Some(3),
        ),
        ("nothing announced", vec![MP_UNREACH], &[], None),
        ("only withdrawn", vec![ORIGIN], &[], None),
    ] {
        let update_body = body(&[8, 11], &attributes, nlri);
        let update = decode_update(&update_body, &EBGP).expect(name);
        assert!(update.announced.is_empty(), "{name}");
        let expected: Vec<_> = missing.into_iter().map(|code| (code, WITHDRAW)).collect();
        assert_eq!(errors(&update), expected, "{name}");
    }
}

#[test]
fn confederation_segments_are_malformed_from_outside_only() {
    let inside = attribute(0x40, 2, &[3, 1, 0, 0, 0, 9, 2, 1, 0, 0, 0, 1]);
    let update_body = body(&[], &[ORIGIN, &inside, NEXT_HOP], NLRI);
    let update = decode_update(&update_body, &EBGP).expect("session stays");
    assert_eq!(errors(&update), [(2, WITHDRAW)]);
    let update = decode_update(&update_body, &IBGP).expect("session stays");
    assert_eq!(update.announced[0].attributes.as_path.to_string(), "(9) 1");
}

#[test]
fn attribute_discard_keeps_route() {
    for (name, context, bad) in [
        ("ATOMIC_AGGREGATE of 1", IBGP, attribute(0x40, 6, &[0])),
        ("AGGREGATOR of 0", IBGP, attribute(0xC0, 7, &[])),
        (
            "AGGREGATOR of 6 from a 4-octet peer",
            IBGP,
            attribute(0xC0, 7, &[1; 6]),
        ),
        ("AGGREGATOR of 9", IBGP, attribute(0xC0, 7, &[1; 9])),
        (
            "AGGREGATOR AS 0",
            IBGP,
            attribute(0xC0, 7, &[0, 0, 0, 0, 1, 2, 3, 4]),
        ),
        (
            "AS4_PATH from a 4-octet peer",
            IBGP,
            attribute(0xC0, 17, &[9]),
        ),
        (
            "AS4_AGGREGATOR from a 4-octet peer",
            IBGP,
            attribute(0xC0, 18, &[9]),
        ),
    ] {
        for position in 0..4 {
            let mut attributes = vec![ORIGIN, AS_PATH, NEXT_HOP];
            attributes.insert(position, &bad);
            let update_body = body(&[], &attributes, NLRI);
            let update = decode_update(&update_body, &context).expect(name);
            assert_eq!(errors(&update), [(bad[1], DISCARD)], "{name} at {position}");
            let attributes = &update.announced[0].attributes;
            assert!(!attributes.atomic_aggregate, "{name}");
            assert_eq!(attributes.aggregator, None, "{name}");
        }
    }
    let long = attribute(0xC0, 7, &[0, 0, 0, 1, 1, 2, 3, 4]);
    let as_path = attribute(0x40, 2, &[2, 1, 0, 1]);
    let update_body = body(&[], &[ORIGIN, &as_path, NEXT_HOP, &long], NLRI);
    let update = decode_update(&update_body, &TWO_OCTET).expect("session stays");
    assert_eq!(
        errors(&update),
        [(7, DISCARD)],
        "AGGREGATOR of 8 from a 2-octet peer"
    );
}

#[test]
fn ebgp_discards_localpref_originator_clusterlist() {
    for code in [5, 9, 10] {
        for (name, flags, value) in [
            (
                "well-formed",
                if code == 5 { 0x40 } else { 0x80 },
                &[1; 4][..],
            ),
            ("malformed", if code == 5 { 0x40 } else { 0x80 }, &[1; 3]),
            ("empty", if code == 5 { 0x40 } else { 0x80 }, &[]),
            ("wrong flags", 0xC0, &[1; 4]),
        ] {
            let bad = attribute(flags, code, value);
            let update_body = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &bad], NLRI);
            let update = decode_update(&update_body, &EBGP).expect(name);
            assert_eq!(errors(&update), [(code, DISCARD)], "{name} {code}");
            let attributes = &update.announced[0].attributes;
            assert_eq!(attributes.local_pref, None, "{name} {code}");
            assert_eq!(attributes.originator_id, None, "{name} {code}");
            assert!(attributes.cluster_list.is_empty(), "{name} {code}");
        }
    }
}

#[test]
fn duplicate_attribute_first_wins() {
    let other_med = attribute(0x80, 4, &[0, 0, 0, 99]);
    let bad_med = attribute(0x80, 4, &[1]);
    let unknown = attribute(0xC0, 99, &[1]);
    let other_unknown = attribute(0xC0, 99, &[2]);
    let attributes = [
        ORIGIN,
        MED,
        AS_PATH,
        NEXT_HOP,
        &unknown,
        &other_med,
        &bad_med,
        &other_unknown,
    ];
    let update_body = body(&[], &attributes, NLRI);
    let update = decode_update(&update_body, &EBGP).expect("session stays");
    assert_eq!(errors(&update), [(4, DISCARD), (4, DISCARD), (99, DISCARD)]);
    let attributes = &update.announced[0].attributes;
    assert_eq!(attributes.med.map(|med| med.0), Some(50));
    assert_eq!(attributes.unknown.len(), 1);
    assert_eq!(attributes.unknown[0].value, [1]);

    for (name, twice) in [("MP_REACH", MP_REACH), ("MP_UNREACH", MP_UNREACH)] {
        let update_body = body(&[], &[twice, ORIGIN, AS_PATH, NEXT_HOP, twice], NLRI);
        assert_eq!(
            reset(&update_body, &EBGP, name),
            Notification::new(3, 1),
            "{name}"
        );
    }
}

#[test]
fn a_malformed_first_attribute_is_not_healed_by_a_second() {
    let bad = attribute(0x40, 1, &[9]);
    let update_body = body(&[], &[&bad, ORIGIN, AS_PATH, NEXT_HOP], NLRI);
    let update = decode_update(&update_body, &EBGP).expect("session stays");
    assert!(update.announced.is_empty());
    assert_eq!(errors(&update), [(1, WITHDRAW), (1, DISCARD)]);
}

#[test]
fn taw_without_nlri_resets() {
    let bad_origin = attribute(0x40, 1, &[9]);
    let bad_path = attribute(0x40, 2, &[2, 0]);
    let bad_flags = attribute(0xC0, 4, &[0; 4]);
    let discarded = attribute(0x40, 6, &[1]);
    for (name, withdrawn, attributes, subcode) in [
        ("nothing at all", &[][..], vec![&bad_origin[..]], 6),
        ("with withdrawn routes", &[8, 10], vec![&bad_path], 11),
        ("with MP_UNREACH", &[], vec![MP_UNREACH, &bad_flags], 4),
        (
            "the first error is told",
            &[],
            vec![&bad_flags, &bad_path],
            4,
        ),
    ] {
        let update_body = body(withdrawn, &attributes, &[]);
        let notification = reset(&update_body, &IBGP, name);
        assert_eq!(
            (notification.code, notification.subcode),
            (3, subcode),
            "{name}"
        );
        let guilty = attributes.iter().find(|a| **a != MP_UNREACH).expect(name);
        assert_eq!(notification.data, **guilty, "{name}: data is the attribute");
    }
    let update_body = body(&[8, 10], &[&discarded], &[]);
    let update = decode_update(&update_body, &IBGP).expect("discard is harmless");
    assert_eq!(errors(&update), [(6, DISCARD)]);
}

#[test]
fn nlri_len_33_and_cut_reset_3_10() {
    let mp = |value: &[u8]| {
        let next_hop = &MP_REACH[7..23];
        attribute(0x80, 14, &[&[0, 2, 1, 16], next_hop, &[0], value].concat())
    };
    let mp_v4 =
        |value: &[u8]| attribute(0x80, 14, &[&[0, 1, 1, 4, 192, 0, 2, 1, 0], value].concat());
    let unreach = |value: &[u8]| attribute(0x80, 15, &[&[0, 2, 1], value].concat());
    let with = |attribute: Vec<u8>| body(&[], &[&attribute, ORIGIN, AS_PATH, NEXT_HOP], &[]);
    let mandatory = [ORIGIN, AS_PATH, NEXT_HOP];
    let long = [&[129][..], &[1; 17]].concat();
    for (name, update_body) in [
        ("33 in NLRI", body(&[], &mandatory, &[33, 1, 2, 3, 4, 5])),
        ("255 in NLRI", body(&[], &mandatory, &[255])),
        ("cut in NLRI", body(&[], &mandatory, &[8, 10, 24, 10, 1])),
        ("33 in withdrawn", body(&[33, 1, 2, 3, 4, 5], &[], &[])),
        ("cut in withdrawn", body(&[16, 10], &[], &[])),
        ("129 in MP_REACH", with(mp(&long))),
        ("cut in MP_REACH", with(mp(&[64, 0x20, 1]))),
        ("33 in MP_REACH of IPv4", with(mp_v4(&[33, 1, 2, 3, 4, 5]))),
        ("129 in MP_UNREACH", with(unreach(&long))),
        ("cut in MP_UNREACH", with(unreach(&[48, 0x20, 1]))),
    ] {
        let notification = reset(&update_body, &EBGP, name);
        assert_eq!((notification.code, notification.subcode), (3, 10), "{name}");
    }
    // The same behind a path identifier, and path identifiers that are cut.
    let long = [&[0, 0, 0, 7, 129][..], &[1; 17]].concat();
    for (name, update_body) in [
        (
            "33 in NLRI",
            body(&[], &mandatory, &[0, 0, 0, 7, 33, 1, 2, 3, 4, 5]),
        ),
        (
            "cut in NLRI",
            body(&[], &mandatory, &[0, 0, 0, 7, 24, 10, 1]),
        ),
        ("identifier cut in NLRI", body(&[], &mandatory, &[0, 0, 0])),
        (
            "identifier without a prefix in NLRI",
            body(&[], &mandatory, &[0, 0, 0, 7]),
        ),
        (
            "no identifiers though negotiated",
            body(&[], &mandatory, &[16, 10, 1]),
        ),
        (
            "33 in withdrawn",
            body(&[0, 0, 0, 7, 33, 1, 2, 3, 4, 5], &[], &[]),
        ),
        (
            "identifier cut in withdrawn",
            body(&[0, 0, 0, 7, 8, 10, 0], &[], &[]),
        ),
        ("129 in MP_REACH", with(mp(&long))),
        ("identifier cut in MP_REACH", with(mp(&[0, 0]))),
        ("129 in MP_UNREACH", with(unreach(&long))),
        ("identifier cut in MP_UNREACH", with(unreach(&[0, 0, 7]))),
    ] {
        let notification = reset(&update_body, &add_path(), name);
        assert_eq!(
            (notification.code, notification.subcode),
            (3, 10),
            "{name}, path identifiers"
        );
    }
}

#[test]
fn malformed_mp_attributes_reset() {
    let reach = |afi: u8, length: u8, next_hop: &[u8]| {
        attribute(
            0x80,
            14,
            &[&[0, afi, 1, length], next_hop, &[0, 8, 10]].concat(),
        )
    };
    for (name, bad, subcode) in [
        ("MP_REACH of 0", attribute(0x80, 14, &[]), 9),
        ("MP_REACH of 3", attribute(0x80, 14, &[0, 2, 1]), 9),
        ("MP_REACH of 4", attribute(0x80, 14, &[0, 2, 1, 0]), 9),
        (
            "MP_REACH without reserved octet",
            attribute(0x80, 14, &[0, 1, 1, 4, 1, 2, 3, 4]),
            9,
        ),
        (
            "next hop overruns",
            attribute(0x80, 14, &[0, 2, 1, 16, 1, 2, 3]),
            9,
        ),
        ("next hop of 0", reach(2, 0, &[]), 9),
        ("next hop of 4 for IPv6", reach(2, 4, &[1; 4]), 9),
        ("next hop of 15", reach(2, 15, &[1; 15]), 9),
        ("next hop of 24", reach(2, 24, &[1; 24]), 9),
        ("next hop of 8 for IPv4", reach(1, 8, &[1; 8]), 9),
        ("MP_REACH flags", attribute(0xC0, 14, &MP_REACH[3..]), 4),
        ("MP_UNREACH of 0", attribute(0x80, 15, &[]), 9),
        ("MP_UNREACH of 2", attribute(0x80, 15, &[0, 2]), 9),
        ("MP_UNREACH flags", attribute(0x40, 15, &MP_UNREACH[3..]), 4),
    ] {
        let update_body = body(&[], &[ORIGIN, &bad, AS_PATH, NEXT_HOP], NLRI);
        let notification = reset(&update_body, &EBGP, name);
        assert_eq!(
            (notification.code, notification.subcode),
            (3, subcode),
            "{name}"
        );
        assert_eq!(notification.data, bad, "{name}");
    }
}

#[test]
fn unknown_well_known_attributes_reset() {
    for flags in [0x40, 0x00, 0x60] {
        let unknown = attribute(flags, 99, &[1, 2]);
        let update_body = body(&[], &[ORIGIN, &unknown, AS_PATH, NEXT_HOP], NLRI);
        let notification = reset(&update_body, &EBGP, "unknown");
        assert_eq!(
            (notification.code, notification.subcode),
            (3, 2),
            "{flags:#x}"
        );
        assert_eq!(notification.data, unknown);
    }
}

#[test]
fn attr_length_overrun_uses_total_length() {
    for (name, left_over) in [
        ("1 octet left", &[0x40][..]),
        ("2 octets left", &[0x40, 5]),
        ("3 octets left of an extended attribute", &[0x50, 5, 0]),
        ("value beyond the block", &[0x40, 5, 4, 0, 0]),
        (
            "extended value beyond the block",
            &[0xD0, 8, 0xFF, 0xFF, 1, 2, 3, 4],
        ),
    ] {
        let update_body = body(&[8, 11], &[ORIGIN, AS_PATH, NEXT_HOP, left_over], NLRI);
        let update = decode_update(&update_body, &IBGP).expect(name);
        assert!(update.announced.is_empty(), "{name}");
        assert_eq!(
            prefixes(&update.withdrawn),
            ["11.0.0.0/8", "10.1.0.0/16"],
            "{name}"
        );
        assert_eq!(update.errors.len(), 1, "{name}");

        let update_body = body(&[], &[MP_REACH, ORIGIN, AS_PATH, left_over], &[]);
        let update = decode_update(&update_body, &IBGP).expect(name);
        assert_eq!(prefixes(&update.withdrawn), ["2001:db8:1::/48"], "{name}");

        let update_body = body(&[8, 11], &[ORIGIN, left_over], &[]);
        assert_eq!(reset(&update_body, &IBGP, name).code, 3, "{name}");
    }
}

#[test]
fn an_overrun_that_swallows_mp_reach_resets() {
    let swallowing = [&[0x40, 1, 200][..], MP_REACH].concat();
    let cut = [ORIGIN, AS_PATH, NEXT_HOP, &MP_REACH[..20]];
    for (name, update_body) in [
        ("inside another attribute", body(&[], &[&swallowing], &[])),
        ("itself", body(&[], &cut, NLRI)),
    ] {
        let notification = reset(&update_body, &EBGP, name);
        assert_eq!((notification.code, notification.subcode), (3, 1), "{name}");
    }
}

#[test]
fn lengths_beyond_the_message_reset() {
    for (name, update_body) in [
        ("empty", &[][..]),
        ("cut before the attributes", &[0, 0, 0]),
        ("withdrawn too long", &[0, 1, 0, 0]),
        ("withdrawn longest", &[255, 255, 0, 0]),
        ("attributes too long", &[0, 0, 0, 1]),
        ("attributes longest", &[0, 0, 255, 255, 1, 2, 3]),
    ] {
        assert_eq!(
            reset(update_body, &EBGP, name),
            Notification::new(3, 1),
            "{name}"
        );
    }
}

#[test]
fn faults_beside_foreign_prefixes_do_not_reset() {
    let foreign = attribute(0x80, 14, &[0, 25, 70, 4, 192, 0, 2, 1, 0, 1]);
    let bad = attribute(0x40, 1, &[9]);
    let update_body = body(&[], &[&foreign, &bad, AS_PATH], &[]);
    let update = decode_update(&update_body, &EBGP).expect("session stays");
    assert!(update.withdrawn.is_empty() && update.announced.is_empty());
    assert_eq!(errors(&update), [(1, WITHDRAW)]);
}
