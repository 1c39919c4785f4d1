//! Path identifiers before prefixes (RFC 7911 §3): octets laid out by hand, faults, and room.

use std::net::IpAddr;

use bgp::types::{Family, FamilySet, PathPrefix};
use bgp::wire::attribute::PathAttributes;
use bgp::wire::frame::MAX_LEN;
use bgp::wire::nlri::Nlri;
use bgp::wire::update::{
    EncodeContext, Update, UpdateContext, decode_update, encode_announce, encode_withdraw,
};

use crate::message::*;

fn encoding() -> EncodeContext {
    EncodeContext {
        four_octet_as: true,
        max_len: MAX_LEN,
        add_path: FamilySet::from_iter(Family::ALL),
    }
}

fn path(text: &str, path_id: u32) -> PathPrefix {
    PathPrefix {
        prefix: prefix(text),
        path_id,
    }
}

fn paths(runs: &[Nlri<'_>]) -> Vec<PathPrefix> {
    runs.iter().flat_map(Nlri::paths).collect()
}

fn announced(update: &Update<'_>) -> Vec<PathPrefix> {
    update
        .announced
        .iter()
        .flat_map(|a| a.nlri.paths())
        .collect()
}

/// Path identifier 7, 10.1.0.0/16.
const NLRI_7: &[u8] = &[0, 0, 0, 7, 16, 10, 1];
/// Path identifier 0x01020304, 10.2.0.0/16.
const NLRI_HIGH: &[u8] = &[1, 2, 3, 4, 16, 10, 2];

#[test]
fn path_identifiers_precede_prefixes_in_every_field() {
    let reach: Vec<u8> = [&MP_REACH[3..24], &[0, 0, 0, 9], &MP_REACH[24..]].concat();
    let unreach: Vec<u8> = [&MP_UNREACH[3..6], &[0, 0, 0, 8], &MP_UNREACH[6..]].concat();
    let octets = body(
        NLRI_HIGH,
        &[
            &attribute(0x80, 14, &reach),
            &attribute(0x80, 15, &unreach),
            ORIGIN,
            AS_PATH,
            NEXT_HOP,
        ],
        NLRI_7,
    );
    let update = decode_update(&octets, &add_path()).expect("well-formed");
    assert_eq!(
        paths(&update.withdrawn),
        [path("10.2.0.0/16", 0x0102_0304), path("2001:db8:2::/48", 8)]
    );
    assert_eq!(
        announced(&update),
        [path("10.1.0.0/16", 7), path("2001:db8:1::/48", 9)]
    );
}

#[test]
fn a_family_without_add_path_has_no_path_identifiers() {
    let context = UpdateContext {
        add_path: FamilySet::from_iter([Family::Ipv6]),
        ..IBGP
    };
    let octets = body(NLRI, &[], &[]);
    let update = decode_update(&octets, &context).expect("well-formed");
    assert_eq!(paths(&update.withdrawn), [path("10.1.0.0/16", 0)]);
}

#[test]
fn what_ends_within_a_path_identifier_is_no_prefix() {
    for (name, run) in [
        ("one octet", &[0][..]),
        ("no length", &[0, 0, 0, 7]),
        ("length 33", &[0, 0, 0, 7, 33, 10, 1, 0, 0, 0]),
        ("cut prefix", &[0, 0, 0, 7, 16, 10]),
        ("second identifier cut", &[0, 0, 0, 7, 16, 10, 1, 0, 0]),
    ] {
        let octets = body(run, &[], &[]);
        let error = decode_update(&octets, &add_path()).expect_err(name);
        let found = (error.notification.code, error.notification.subcode);
        assert_eq!(found, (3, 10), "{name}: withdrawn");
        let octets = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], run);
        let error = decode_update(&octets, &add_path()).expect_err(name);
        let found = (error.notification.code, error.notification.subcode);
        assert_eq!(found, (3, 10), "{name}: NLRI");
    }
}

#[test]
fn our_updates_carry_path_identifiers() {
    let mut attributes = PathAttributes::originated(IpAddr::from([192, 0, 2, 1]));
    attributes.as_path = bgp::wire::as_path::AsPath::sequence([bgp::types::Asn(65001)]);
    let sent = [path("10.1.0.0/16", 7), path("10.2.0.0/16", 0x0102_0304)];
    let messages = encode_announce(Family::Ipv4, &attributes, sent.into_iter(), &encoding());
    let nlri = [NLRI_7, NLRI_HIGH].concat();
    let expected = message(2, &body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &nlri));
    assert_eq!(messages.expect("room"), [expected]);
    let messages = encode_withdraw(Family::Ipv4, sent.into_iter(), &encoding());
    assert_eq!(messages, [message(2, &body(&nlri, &[], &[]))]);
}

#[test]
fn messages_with_path_identifiers_keep_their_limit_and_lose_nothing() {
    let attributes = PathAttributes::originated(IpAddr::from([192, 0, 2, 1]));
    let sent: Vec<PathPrefix> = (0..3000)
        .map(|path_id| path("10.1.0.0/16", path_id))
        .collect();
    let announce = encode_announce(Family::Ipv4, &attributes, sent.iter().copied(), &encoding());
    let withdraw = encode_withdraw(Family::Ipv4, sent.iter().copied(), &encoding());
    for messages in [announce.expect("room"), withdraw] {
        let mut found = Vec::new();
        for message in &messages {
            assert!(message.len() <= MAX_LEN);
            let frame = frame(message);
            let update = decode_update(&frame.body, &add_path()).expect("well-formed");
            found.extend(announced(&update));
            found.extend(paths(&update.withdrawn));
        }
        assert_eq!(found, sent);
    }
}
