//! RFC 7606 §7 attribute by attribute, with the RFCs whose attributes follow its approach: what is
//! malformed, and what becomes of the route or the session.

use Outcome::{Discarded, Kept, Reset, Withdrawn};
use bgp::wire::update::{UpdateContext, decode_update};

use crate::message::*;

/// What an attribute does to a route that is whole without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Kept,
    /// The attribute goes, the route stays.
    Discarded,
    /// Treat-as-withdraw.
    Withdrawn,
    /// The session ends with 3/x.
    Reset(u8),
}

/// An attribute, from which peer it comes, and what becomes of it.
struct Row {
    section: &'static str,
    name: &'static str,
    context: UpdateContext,
    flags: u8,
    code: u8,
    value: Vec<u8>,
    outcome: Outcome,
}

/// Rows of one attribute: (what of it, value, outcome).
fn rows(
    section: &'static str,
    context: UpdateContext,
    flags: u8,
    code: u8,
    cases: &[(&'static str, &[u8], Outcome)],
) -> Vec<Row> {
    let row = |&(name, value, outcome): &(&'static str, &[u8], Outcome)| Row {
        section,
        name,
        context,
        flags,
        code,
        value: value.to_vec(),
        outcome,
    };
    cases.iter().map(row).collect()
}

const WELL_KNOWN: u8 = 0x40;
const NON_TRANSITIVE: u8 = 0x80;
const TRANSITIVE: u8 = 0xC0;

#[rustfmt::skip]
fn basic() -> Vec<Row> {
    [
        rows("RFC 7606 §7.1 ORIGIN", EBGP, WELL_KNOWN, 1, &[
            ("IGP", &[0], Kept), ("EGP", &[1], Kept), ("INCOMPLETE", &[2], Kept),
            ("undefined", &[3], Withdrawn), ("undefined, highest", &[255], Withdrawn),
            ("of 0 octets", &[], Withdrawn), ("of 2", &[0, 0], Withdrawn),
        ]),
        rows("RFC 7606 §7.2 AS_PATH", EBGP, WELL_KNOWN, 2, &[
            ("a sequence", &[2, 1, 0, 0, 0, 1], Kept), ("a set", &[1, 1, 0, 0, 0, 1], Kept),
            ("unknown segment 0", &[0, 1, 0, 0, 0, 1], Withdrawn),
            ("unknown segment 5", &[5, 1, 0, 0, 0, 1], Withdrawn),
            ("segment overruns", &[2, 2, 0, 0, 0, 1], Withdrawn),
            ("one octet is left", &[2, 1, 0, 0, 0, 1, 2], Withdrawn),
            ("segment of none", &[2, 0], Withdrawn),
            ("segment of none after one", &[2, 1, 0, 0, 0, 1, 2, 0], Withdrawn),
            ("AS 0, RFC 7607 §2", &[2, 1, 0, 0, 0, 0], Withdrawn),
            ("confederation, RFC 5065 §5", &[3, 1, 0, 0, 0, 1], Withdrawn),
        ]),
        rows("RFC 7606 §7.2 AS_PATH, inside", IBGP, WELL_KNOWN, 2, &[
            ("empty", &[], Kept), ("confederation", &[3, 1, 0, 0, 0, 1], Kept),
        ]),
        rows("RFC 7606 §7.2 AS_PATH, two octets", TWO_OCTET, WELL_KNOWN, 2, &[
            ("a sequence", &[2, 1, 0, 1], Kept), ("segment overruns", &[2, 2, 0, 1, 0], Withdrawn),
        ]),
        rows("RFC 7606 §7.3 NEXT_HOP", EBGP, WELL_KNOWN, 3, &[
            ("of 4", &[192, 0, 2, 1], Kept), ("of 0", &[], Withdrawn),
            ("of 3", &[192, 0, 2], Withdrawn), ("of 5", &[192, 0, 2, 1, 0], Withdrawn),
            ("of 16", &[1; 16], Withdrawn),
        ]),
        rows("RFC 7606 §7.4 MULTI_EXIT_DISC", EBGP, NON_TRANSITIVE, 4, &[
            ("of 4", &[0; 4], Kept), ("of 0", &[], Withdrawn), ("of 3", &[0; 3], Withdrawn),
            ("of 5", &[0; 5], Withdrawn),
        ]),
        rows("RFC 7606 §7.5 LOCAL_PREF", IBGP, WELL_KNOWN, 5, &[
            ("of 4", &[0; 4], Kept), ("of 0", &[], Withdrawn), ("of 3", &[0; 3], Withdrawn),
            ("of 5", &[0; 5], Withdrawn),
        ]),
        rows("RFC 7606 §7.5 LOCAL_PREF, external", EBGP, WELL_KNOWN, 5, &[
            ("of 4", &[0; 4], Discarded), ("of 0", &[], Discarded), ("of 3", &[0; 3], Discarded),
        ]),
        rows("RFC 7606 §7.6 ATOMIC_AGGREGATE", EBGP, WELL_KNOWN, 6, &[
            ("of 0", &[], Kept), ("of 1", &[0], Discarded), ("of 4", &[0; 4], Discarded),
        ]),
        rows("RFC 7606 §7.7 AGGREGATOR", EBGP, TRANSITIVE, 7, &[
            ("of 8", &[1; 8], Kept), ("of 0", &[], Discarded), ("of 6", &[1; 6], Discarded),
            ("of 9", &[1; 9], Discarded),
            ("AS 0, RFC 7607 §2", &[0, 0, 0, 0, 1, 2, 3, 4], Discarded),
        ]),
        rows("RFC 7606 §7.7 AGGREGATOR, two octets", TWO_OCTET, TRANSITIVE, 7, &[
            ("of 6", &[1; 6], Kept), ("of 8", &[1; 8], Discarded), ("of 5", &[1; 5], Discarded),
        ]),
    ]
    .into_iter().flatten().collect()
}

#[rustfmt::skip]
fn optional() -> Vec<Row> {
    [
        rows("RFC 7606 §7.8 COMMUNITIES", EBGP, TRANSITIVE, 8, &[
            ("of 4", &[1; 4], Kept), ("of 8", &[1; 8], Kept), ("of 0", &[], Withdrawn),
            ("of 3", &[1; 3], Withdrawn), ("of 5", &[1; 5], Withdrawn),
        ]),
        rows("RFC 7606 §7.9 ORIGINATOR_ID", IBGP, NON_TRANSITIVE, 9, &[
            ("of 4", &[1; 4], Kept), ("of 0", &[], Withdrawn), ("of 3", &[1; 3], Withdrawn),
            ("of 5", &[1; 5], Withdrawn),
        ]),
        rows("RFC 7606 §7.9 ORIGINATOR_ID, external", EBGP, NON_TRANSITIVE, 9, &[
            ("of 4", &[1; 4], Discarded), ("of 3", &[1; 3], Discarded),
        ]),
        rows("RFC 7606 §7.10 CLUSTER_LIST", IBGP, NON_TRANSITIVE, 10, &[
            ("of 4", &[1; 4], Kept), ("of 0", &[], Withdrawn), ("of 5", &[1; 5], Withdrawn),
        ]),
        rows("RFC 7606 §7.10 CLUSTER_LIST, external", EBGP, NON_TRANSITIVE, 10, &[
            ("of 4", &[1; 4], Discarded), ("of 5", &[1; 5], Discarded),
        ]),
        rows("RFC 7606 §7.11 MP_REACH_NLRI", EBGP, NON_TRANSITIVE, 14, &[
            ("whole", &MP_REACH[3..], Kept), ("of 0", &[], Reset(9)),
            ("of 4", &[0, 2, 1, 0], Reset(9)),
            ("next hop of 4 for IPv6", &[0, 2, 1, 4, 1, 2, 3, 4, 0], Reset(9)),
            ("next hop of 15", &[&[0, 2, 1, 15][..], &[1; 16]].concat(), Reset(9)),
            ("next hop overruns", &[0, 2, 1, 16, 1, 2, 3], Reset(9)),
            ("prefix of 129", &[&MP_REACH[3..24], &[129], &[1; 17]].concat(), Reset(10)),
            ("prefix is cut", &MP_REACH[3..28], Reset(10)),
        ]),
        rows("RFC 7606 §7.11 MP_REACH_NLRI, flags", EBGP, TRANSITIVE, 14, &[
            ("transitive", &MP_REACH[3..], Reset(4)),
        ]),
        rows("RFC 7606 §7.12 MP_UNREACH_NLRI", EBGP, NON_TRANSITIVE, 15, &[
            ("whole", &MP_UNREACH[3..], Kept), ("of 0", &[], Reset(9)),
            ("of 2", &[0, 2], Reset(9)), ("prefix of 129", &[0, 2, 1, 129, 1], Reset(10)),
            ("prefix is cut", &[0, 2, 1, 48, 0x20, 1], Reset(10)),
        ]),
        rows("RFC 7606 §7.12 MP_UNREACH_NLRI, flags", EBGP, WELL_KNOWN, 15, &[
            ("well-known", &MP_UNREACH[3..], Reset(4)),
        ]),
        // Not ours, so passed on as they are, malformed or not: TE path, IPv6 extended communities,
        // PMSI tunnel (RFC 6514), tunnel encapsulation (RFC 9012), ATTR_SET (RFC 6368).
        rows("RFC 7606 §7.13 traffic engineering", EBGP, TRANSITIVE, 24, &[("any", &[1], Kept)]),
        rows("RFC 7606 §7.15 IPv6 extended", EBGP, TRANSITIVE, 25, &[("of 7", &[1; 7], Kept)]),
        rows("RFC 7606 §7.16 ATTR_SET", EBGP, TRANSITIVE, 128, &[("of 1", &[1], Kept)]),
        rows("RFC 6514 §5 PMSI tunnel", EBGP, TRANSITIVE, 22, &[("of 1", &[1], Kept)]),
        rows("RFC 9012 tunnel encapsulation", EBGP, TRANSITIVE, 23, &[("of 1", &[1], Kept)]),
        // Not ours and not transitive: dropped without a word.
        rows("RFC 7311 AIGP", EBGP, NON_TRANSITIVE, 26, &[("of 1", &[1], Kept)]),
        rows("RFC 6938 DPA", EBGP, NON_TRANSITIVE, 11, &[("of 1", &[1], Kept)]),
        rows("RFC 7606 §7.14 extended communities", EBGP, TRANSITIVE, 16, &[
            ("of 8", &[1; 8], Kept), ("of an unknown type", &[0x7F; 8], Kept),
            ("of 0", &[], Withdrawn), ("of 7", &[1; 7], Withdrawn), ("of 9", &[1; 9], Withdrawn),
        ]),
        rows("RFC 8092 §6 large communities", EBGP, TRANSITIVE, 32, &[
            ("of 12", &[1; 12], Kept), ("the same twice", &[1; 24], Kept),
            ("of 0", &[], Withdrawn), ("of 11", &[1; 11], Withdrawn),
            ("of 13", &[1; 13], Withdrawn),
        ]),
        rows("RFC 9234 §5 OTC", EBGP, TRANSITIVE, 35, &[
            ("of 4", &[0, 0, 0, 1], Kept), ("of 0", &[], Withdrawn), ("of 3", &[1; 3], Withdrawn),
            ("of 8", &[1; 8], Withdrawn),
        ]),
    ]
    .into_iter().flatten().collect()
}

#[rustfmt::skip]
fn four_octet_as() -> Vec<Row> {
    [
        rows("RFC 6793 §6 AS4_PATH", TWO_OCTET, TRANSITIVE, 17, &[
            ("a sequence", &[2, 1, 0, 1, 0, 1], Kept),
            ("confederation, §4.2.3", &[3, 1, 0, 0, 0, 9, 2, 1, 0, 1, 0, 1], Kept),
            ("of 0", &[], Discarded), ("of 5", &[2, 1, 0, 1, 0], Discarded),
            ("stray octet", &[2, 1, 0, 1, 0, 1, 2], Discarded),
            ("unknown segment", &[5, 1, 0, 1, 0, 1], Discarded),
            ("segment of none", &[2, 0, 2, 1, 0, 1, 0, 1], Discarded),
            ("AS 0, RFC 7607 §2", &[2, 1, 0, 0, 0, 0], Discarded),
        ]),
        rows("RFC 6793 §6 AS4_AGGREGATOR", TWO_OCTET, TRANSITIVE, 18, &[
            ("of 8", &[1; 8], Kept), ("of 0", &[], Discarded), ("of 6", &[1; 6], Discarded),
            ("of 9", &[1; 9], Discarded),
            ("AS 0, RFC 7607 §2", &[0, 0, 0, 0, 1, 2, 3, 4], Discarded),
        ]),
        rows("RFC 6793 §4.1 AS4_PATH, four octets", EBGP, TRANSITIVE, 17, &[
            ("a sequence", &[2, 1, 0, 1, 0, 1], Discarded), ("of 1", &[2], Discarded),
        ]),
        rows("RFC 6793 §4.1 AS4_AGGREGATOR, four octets", EBGP, TRANSITIVE, 18, &[
            ("of 8", &[1; 8], Discarded), ("of 1", &[1], Discarded),
        ]),
    ]
    .into_iter().flatten().collect()
}

/// The outcome of a route of 10.1.0.0/16 with this attribute beside the mandatory ones, or in the
/// place of one of them.
fn outcome(row: &Row) -> Outcome {
    let judged = attribute(row.flags, row.code, &row.value);
    // 65001 in two octets.
    let short_path: &[u8] = &[0x40, 2, 4, 2, 1, 0xFD, 0xE9];
    let as_path = if row.context.four_octet_as {
        AS_PATH
    } else {
        short_path
    };
    let mut attributes: Vec<&[u8]> = vec![ORIGIN, as_path, NEXT_HOP];
    attributes.retain(|attribute| attribute[1] != row.code);
    attributes.push(&judged);
    let octets = body(&[], &attributes, NLRI);
    let update = match decode_update(&octets, &row.context) {
        Ok(update) => update,
        Err(error) => {
            assert_eq!(error.notification.code, 3);
            return Reset(error.notification.subcode);
        }
    };
    // What else is wrong would hide what is tested.
    assert!(update.errors.iter().all(|error| error.code == row.code));
    let announced: Vec<_> = update.announced.iter().map(|a| a.nlri).collect();
    let is_announced = prefixes(&announced).contains(&"10.1.0.0/16".to_owned());
    let is_withdrawn = prefixes(&update.withdrawn).contains(&"10.1.0.0/16".to_owned());
    assert_ne!(is_announced, is_withdrawn);
    match (&update.errors[..], is_withdrawn) {
        ([], false) => Kept,
        ([error], false) if !error.treat_as_withdraw => Discarded,
        ([error], true) if error.treat_as_withdraw => Withdrawn,
        (errors, _) => panic!("{errors:?}"),
    }
}

#[test]
fn every_attribute_has_the_outcome_of_its_rfc() {
    for row in [basic(), optional(), four_octet_as()].iter().flatten() {
        assert_eq!(outcome(row), row.outcome, "{}: {}", row.section, row.name);
    }
}

#[test]
fn attributes_that_are_not_ours_are_passed_on_or_dropped_by_their_flags() {
    for (flags, code, is_passed_on) in [
        (TRANSITIVE, 22, true),
        (TRANSITIVE, 24, true),
        (TRANSITIVE, 25, true),
        (TRANSITIVE, 128, true),
        (NON_TRANSITIVE, 11, false),
        (NON_TRANSITIVE, 26, false),
    ] {
        let judged = attribute(flags, code, &[1, 2, 3]);
        let octets = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &judged], NLRI);
        let update = decode_update(&octets, &EBGP).expect("session stays");
        let unknown = &update.announced[0].attributes.unknown;
        let values: Vec<_> = unknown.iter().map(|u| (u.code, &u.value[..])).collect();
        let expected = if is_passed_on {
            vec![(code, &[1, 2, 3][..])]
        } else {
            vec![]
        };
        assert_eq!(values, expected, "{code}");
    }
}
