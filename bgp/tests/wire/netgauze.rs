//! What netgauze makes of every kind of message that we encode: it must read it, and write what it
//! read as the same octets, so that no octet meant something else to it.
//!
//! Where it is stricter or wrong it is not asked: it refuses multicast prefixes and identifiers that
//! are no unicast address, does not know RFC 9072, and reads confederation segments and role codes otherwise than their RFCs.

use std::collections::HashMap;
use std::net::IpAddr;

use bgp::types::{Asn, Family, FamilySet, HoldTime, PathPrefix, Prefix, RouterId};
use bgp::wire::capability::Capability;
use bgp::wire::frame::{MAX_EXTENDED_LEN, MAX_LEN};
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::refresh::{RefreshKind, RouteRefresh};
use bgp::wire::update::{
    EncodeContext, UpdateContext, encode_announce, encode_end_of_rib, encode_withdraw,
};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use proptest::prelude::*;

use crate::message::{IBGP, TWO_OCTET, add_path};
use crate::roundtrip::{any_asn, any_capability, any_router_id, any_routes, config};
use crate::vectors;

fn read(octets: &[u8], session: &UpdateContext) -> Result<BgpMessage, String> {
    let mut context = BgpParsingContext::new(
        session.four_octet_as,
        HashMap::new(),
        HashMap::new(),
        true,
        true,
        true,
        true,
    );
    if !session.add_path.is_empty() {
        learn_add_path(session.add_path, &mut context);
    }
    let mut reader = SliceReader::new(octets);
    BgpMessage::parse(&mut reader, &mut context).map_err(|error| format!("{error:?}"))
}

/// It learns of path identifiers as in a session: by the receiver's OPEN.
fn learn_add_path(families: FamilySet, context: &mut BgpParsingContext) {
    let entries = families.iter().map(|family| (family.afi(), 1, 1)).collect();
    let open = Open {
        asn: Asn(64512),
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId([192, 0, 2, 1].into()),
        capabilities: vec![Capability::AddPath(entries)],
    };
    let Ok(BgpMessage::Open(open)) = read(&open.encode(), &IBGP) else {
        panic!("an OPEN");
    };
    for capability in open.capabilities() {
        context.update_capabilities(capability, false);
    }
}

/// Reads the message and writes it again.
fn through(octets: &[u8], session: &UpdateContext) -> Result<Vec<u8>, String> {
    let message = read(octets, session)?;
    let mut out = Vec::new();
    message
        .write(&mut out)
        .map_err(|error| format!("{error:?}"))?;
    Ok(out)
}

fn prefixes(octets: &[u8]) -> Vec<String> {
    match read(octets, &IBGP) {
        Ok(BgpMessage::Update(update)) => {
            let all = update.nlri().iter().chain(update.withdraw_routes());
            all.map(|nlri| nlri.network().to_string()).collect()
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn updates_are_read_by_netgauze((family, attributes, sent) in any_routes()) {
        let sent: Vec<Prefix> = sent.into_iter().filter(is_unicast).collect();
        let ids = (0..).map(|n: u32| n.wrapping_mul(0x9E37_79B9));
        let sent: Vec<PathPrefix> = sent
            .into_iter()
            .zip(ids)
            .map(|(prefix, path_id)| PathPrefix { prefix, path_id })
            .collect();
        for (session, max_len) in [
            (IBGP, MAX_LEN),
            (TWO_OCTET, MAX_LEN),
            (IBGP, MAX_EXTENDED_LEN),
            (add_path(), MAX_LEN),
        ] {
            let UpdateContext { four_octet_as, add_path, .. } = session;
            let context = EncodeContext { four_octet_as, max_len, add_path };
            let announced = encode_announce(family, &attributes, sent.iter().copied(), &context);
            let mut messages = announced.expect("attributes are bounded");
            messages.extend(encode_withdraw(family, sent.iter().copied(), &context));
            for message in messages {
                let again = through(&message, &session);
                prop_assert_eq!(again.as_deref(), Ok(&message[..]));
            }
        }
    }

    #[test]
    fn opens_are_read_by_netgauze(
        asn in any_asn(),
        hold_time in prop_oneof![Just(0), 3..=u16::MAX],
        router_id in any_router_id(),
        capabilities in proptest::collection::vec(any_capability(), 0..15),
    ) {
        let mut capabilities = capabilities;
        capabilities.retain(is_common);
        capabilities.push(Capability::FourOctetAs(asn));
        prop_assume!(!router_id.0.is_multicast() && !router_id.0.is_broadcast());
        let hold_time = HoldTime::new(hold_time).expect("not 1 or 2");
        let open = Open { asn, hold_time, router_id, capabilities }.encode();
        // It does not know RFC 9072.
        prop_assume!(open.len() <= 29 + 255);
        let again = through(&open, &IBGP);
        prop_assert_eq!(again.as_deref(), Ok(&open[..]));
    }
}

fn is_unicast(prefix: &Prefix) -> bool {
    match prefix.network() {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast(),
        IpAddr::V6(address) => !address.is_multicast(),
    }
}

/// Capabilities with any numbers whatever are ours alone: netgauze knows the assigned ones only.
fn is_common(capability: &Capability) -> bool {
    match capability {
        Capability::RouteRefresh
        | Capability::ExtendedMessage
        | Capability::GracefulRestart(_)
        | Capability::FourOctetAs(_)
        | Capability::EnhancedRouteRefresh
        | Capability::Fqdn { .. } => true,
        // Those it knows by numbers of vendors have a form to it.
        Capability::Unknown { code, .. } => !(128..=131).contains(code),
        Capability::MultiProtocol { .. }
        | Capability::ExtendedNextHop(_)
        | Capability::Role(_)
        | Capability::AddPath(_)
        | Capability::LongLivedGracefulRestart(_) => false,
    }
}

#[test]
fn our_prefixes_are_netgauzes() {
    let sent: Vec<Prefix> = ["0.0.0.0/0", "10.1.0.0/17", "10.1.2.3/32", "128.0.0.0/1"]
        .map(|text| text.parse().expect(text))
        .into();
    let context = EncodeContext {
        four_octet_as: true,
        max_len: MAX_LEN,
        add_path: FamilySet::EMPTY,
    };
    let texts: Vec<String> = sent.iter().map(ToString::to_string).collect();
    let withdrawn = encode_withdraw(Family::Ipv4, sent.into_iter(), &context);
    assert_eq!(prefixes(&withdrawn[0]), texts);
}

#[test]
fn capabilities_with_assigned_numbers_are_read_by_netgauze() {
    let capabilities = vec![
        Capability::from(Family::Ipv4),
        Capability::from(Family::Ipv6),
        Capability::ExtendedNextHop(vec![(1, 1, 2)]),
        Capability::AddPath(vec![(1, 1, 3), (2, 1, 1)]),
        Capability::LongLivedGracefulRestart(vec![(1, 1, 0x80, 3600)]),
    ];
    let open = Open {
        asn: Asn(64512),
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId([192, 0, 2, 1].into()),
        capabilities,
    };
    let octets = open.encode();
    assert_eq!(through(&octets, &IBGP).as_deref(), Ok(&octets[..]));
}

#[test]
fn small_messages_are_read_by_netgauze() {
    let mut messages = vec![bgp::wire::frame::keepalive()];
    for family in Family::ALL {
        messages.push(encode_end_of_rib(family));
        for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
            messages.push(RouteRefresh { family, kind }.encode());
        }
    }
    for (code, subcode, data) in [
        (1, 1, vec![]),
        (1, 2, vec![0, 18]),
        (1, 3, vec![9]),
        (2, 1, vec![0, 4]),
        (2, 2, vec![]),
        (2, 6, vec![]),
        (3, 1, vec![]),
        (3, 5, vec![0x40, 1, 2, 0, 0]),
        (3, 10, vec![]),
        (4, 0, vec![]),
        (5, 1, vec![]),
        (5, 2, vec![]),
        (5, 3, vec![]),
        (6, 1, vec![0, 1, 1, 0, 0, 0, 5]),
        (6, 2, vec![3, b'b', b'y', b'e']),
        (6, 3, vec![]),
        (6, 4, vec![]),
        (6, 5, vec![]),
        (6, 6, vec![]),
        (6, 7, vec![]),
        (6, 8, vec![]),
        (6, 9, vec![]),
        (7, 1, vec![]),
    ] {
        messages.push(Notification::with_data(code, subcode, data).encode());
    }
    for message in messages {
        let again = through(&message, &IBGP);
        assert_eq!(again.as_deref(), Ok(&message[..]), "{message:02x?}");
    }
}

/// The rows of the vector files are messages to others than us and their own reader too.
#[test]
fn captured_messages_are_read_by_netgauze() {
    for vector in &vectors::all() {
        // It knows no unassigned subcodes; a receiver must (RFC 4271 §6).
        if let Err(error) = read(&vector.octets, &vector.context())
            && !error.contains("UndefinedOpenMessageErrorSubCode")
        {
            panic!("{} ({}): {error}", vector.place, vector.means);
        }
    }
}
