use bgp::types::{Asn, Family, HoldTime, RouterId};
use bgp::wire::capability::{Capability, GracefulRestart};
use bgp::wire::frame::MAX_LEN;
use bgp::wire::open::Open;

use crate::message::{frame, message};

/// Version 4, AS 65001, hold time 90, 192.0.2.1, then the length of `parameters` and these.
fn open(parameters: &[u8]) -> Vec<u8> {
    let length = u8::try_from(parameters.len()).expect("short parameters");
    [
        &[4, 0xFD, 0xE9, 0, 90, 192, 0, 2, 1, length][..],
        parameters,
    ]
    .concat()
}

fn with_capabilities(capabilities: &[u8]) -> Vec<u8> {
    let length = u8::try_from(capabilities.len()).expect("short capabilities");
    open(&[&[2, length][..], capabilities].concat())
}

fn patched(at: usize, octets: &[u8]) -> Vec<u8> {
    let mut body = open(&[]);
    body[at..at + octets.len()].copy_from_slice(octets);
    body
}

fn ours(capabilities: Vec<Capability>) -> Open {
    Open {
        asn: Asn(65001),
        hold_time: HoldTime::DEFAULT,
        router_id: RouterId([192, 0, 2, 1].into()),
        capabilities,
    }
}

#[test]
fn open_matrix() {
    let hundred = with_capabilities(&[65, 4, 0, 0, 0, 100]);
    for (name, body, subcode, data) in [
        ("version 3", patched(0, &[3]), 1, &[0, 4][..]),
        ("version 5", patched(0, &[5]), 1, &[0, 4]),
        ("AS 0", patched(1, &[0, 0]), 2, &[]),
        (
            "4-octet AS 0",
            with_capabilities(&[65, 4, 0, 0, 0, 0]),
            2,
            &[],
        ),
        ("two different ASes", hundred, 2, &[]),
        ("identifier 0", patched(5, &[0; 4]), 3, &[]),
        ("hold time 1", patched(3, &[0, 1]), 6, &[]),
        ("hold time 2", patched(3, &[0, 2]), 6, &[]),
        ("authentication parameter", open(&[1, 1, 0]), 4, &[]),
        ("unknown parameter", open(&[200, 0]), 4, &[]),
        (
            "unknown parameter after a known one",
            open(&[2, 2, 2, 0, 3, 0]),
            4,
            &[],
        ),
        (
            "parameters longer than the message",
            patched(9, &[1]),
            0,
            &[],
        ),
        (
            "octets after the parameters",
            [open(&[]), vec![0]].concat(),
            0,
            &[],
        ),
        ("parameter without length", open(&[2]), 0, &[]),
        ("parameter cut short", open(&[2, 3, 2, 0]), 0, &[]),
        ("capability without length", with_capabilities(&[2]), 0, &[]),
        (
            "capability cut short",
            with_capabilities(&[65, 4, 0, 0, 0]),
            0,
            &[],
        ),
        (
            "4-octet AS of 3",
            with_capabilities(&[65, 3, 0, 0, 1]),
            0,
            &[],
        ),
        (
            "multiprotocol of 3",
            with_capabilities(&[1, 3, 0, 1, 1]),
            0,
            &[],
        ),
        ("route refresh of 1", with_capabilities(&[2, 1, 0]), 0, &[]),
        (
            "graceful restart of 1",
            with_capabilities(&[64, 1, 0]),
            0,
            &[],
        ),
        (
            "graceful restart of 5",
            with_capabilities(&[64, 5, 0, 9, 0, 1, 1]),
            0,
            &[],
        ),
        (
            "extended next hop of 4",
            with_capabilities(&[5, 4, 0, 1, 0, 1]),
            0,
            &[],
        ),
        ("role of 2", with_capabilities(&[9, 2, 0, 0]), 0, &[]),
        ("extended parameters cut", open(&[255, 0]), 0, &[]),
        (
            "extended parameter cut",
            open(&[255, 0, 3, 2, 0, 9]),
            0,
            &[],
        ),
        (
            "extended length too small",
            open(&[255, 0, 3, 2, 0, 2, 2, 0]),
            0,
            &[],
        ),
    ] {
        let error = Open::decode(&body).expect_err(name);
        let notification = error.notification;
        assert_eq!(
            (notification.code, notification.subcode),
            (2, subcode),
            "{name}"
        );
        assert_eq!(notification.data, data, "{name}");
    }
    // What looks odd and is right.
    for (name, body, asn) in [
        ("no capability", open(&[]), 65001),
        (
            "AS_TRANS, and no other AS",
            patched(1, &[0x5B, 0xA0]),
            23456,
        ),
        ("hold time 0", patched(3, &[0, 0]), 65001),
        ("hold time 3", patched(3, &[0, 3]), 65001),
        ("identifier of all ones", patched(5, &[255; 4]), 65001),
    ] {
        let decoded = Open::decode(&body).expect(name);
        assert_eq!(decoded.asn, Asn(asn), "{name}");
        assert_eq!(decoded.capabilities, [], "{name}");
    }
    for length in 0..10 {
        let error = Open::decode(&open(&[])[..length]).expect_err("cut");
        assert_eq!(
            (error.notification.code, error.notification.subcode),
            (1, 2),
            "{length}"
        );
    }
}

#[test]
fn what_peers_send_is_accepted() {
    let as_trans = |capabilities: &[u8]| {
        let mut body = with_capabilities(capabilities);
        body[1..3].copy_from_slice(&[0x5B, 0xA0]);
        body
    };
    for (name, body, asn) in [
        ("no capability", open(&[]), 65001),
        ("empty capabilities parameter", open(&[2, 0]), 65001),
        ("two parameters", open(&[2, 2, 2, 0, 2, 2, 70, 0]), 65001),
        (
            "4-octet AS",
            with_capabilities(&[65, 4, 0, 0, 0xFD, 0xE9]),
            65001,
        ),
        (
            "AS_TRANS for a large AS",
            as_trans(&[65, 4, 0xFA, 0x56, 0xEA, 0]),
            4_200_000_000,
        ),
        ("AS_TRANS without 4-octet AS", as_trans(&[]), 23456),
        ("unknown capability", with_capabilities(&[200, 1, 7]), 65001),
        ("hold time 0", patched(3, &[0, 0]), 65001),
        ("hold time 3", patched(3, &[0, 3]), 65001),
        ("malformed names", with_capabilities(&[73, 2, 9, 9]), 65001),
        (
            "identifier that is no host address",
            patched(5, &[255; 4]),
            65001,
        ),
        (
            "extended parameters, RFC 9072",
            open(&[255, 0, 5, 2, 0, 2, 2, 0]),
            65001,
        ),
    ] {
        let decoded = Open::decode(&body).expect(name);
        assert_eq!(decoded.asn, Asn(asn), "{name}");
    }
}

#[test]
fn an_open_as_frr_lays_it_out_is_decoded() {
    // One parameter for each capability, in FRR's order, FQDN capability included; laid out by hand.
    let body = open(&[
        2, 6, 1, 4, 0, 1, 0, 1, // multiprotocol, IPv4 unicast
        2, 2, 128, 0, // route refresh before its RFC
        2, 2, 2, 0, // route refresh
        2, 2, 70, 0, // enhanced route refresh
        2, 6, 65, 4, 0, 0, 0xFD, 0xE9, // 4-octet AS 65001
        2, 2, 6, 0, // extended message
        2, 6, 69, 4, 0, 1, 1, 1, // add-path, receive
        2, 10, 73, 8, 3, b'f', b'o', b'o', 3, b'b', b'a', b'r', // names
        2, 8, 64, 6, 0xC0, 120, 0, 1, 1, 0x80, // graceful restart: R, N, 120 s, F
        2, 9, 71, 7, 0, 1, 1, 0, 0, 0x0E, 0x10, // long-lived graceful restart: 3600 s
    ]);
    let decoded = Open::decode(&frame(&message(1, &body)).body).expect("well-formed");
    let restart = GracefulRestart {
        restart_state: true,
        notification: true,
        restart_time_secs: 120,
        families: vec![(Family::Ipv4, true)],
    };
    assert_eq!(
        decoded,
        ours(vec![
            Capability::from(Family::Ipv4),
            Capability::Unknown {
                code: 128,
                data: vec![]
            },
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
            Capability::FourOctetAs(Asn(65001)),
            Capability::ExtendedMessage,
            Capability::AddPath(vec![(1, 1, 1)]),
            Capability::Fqdn {
                host: "foo".into(),
                domain: "bar".into()
            },
            Capability::GracefulRestart(restart.clone()),
            Capability::LongLivedGracefulRestart(vec![(1, 1, 0, 3600)]),
        ])
    );
    assert!(decoded.route_refresh() && decoded.enhanced_route_refresh());
    assert!(decoded.extended_message());
    assert_eq!(decoded.four_octet_as(), Some(Asn(65001)));
    assert_eq!(decoded.graceful_restart(), Some(&restart));
    assert_eq!(decoded.families(), [Family::Ipv4]);
}

#[test]
fn families_default_to_ipv4_only_without_any_multiprotocol_capability() {
    let foreign = Capability::MultiProtocol { afi: 25, safi: 70 };
    let (v4, v6) = (
        Capability::from(Family::Ipv4),
        Capability::from(Family::Ipv6),
    );
    for (name, capabilities, families) in [
        ("none", vec![Capability::RouteRefresh], vec![Family::Ipv4]),
        ("foreign only", vec![foreign.clone()], vec![]),
        ("IPv6 only", vec![v6.clone(), foreign], vec![Family::Ipv6]),
        (
            "both, one twice",
            vec![v6.clone(), v4, v6],
            vec![Family::Ipv6, Family::Ipv4],
        ),
    ] {
        assert_eq!(ours(capabilities).families(), families, "{name}");
    }
}

#[test]
fn the_last_graceful_restart_capability_counts() {
    let restart = |restart_time_secs| GracefulRestart {
        restart_time_secs,
        ..Default::default()
    };
    let open = ours(vec![
        Capability::GracefulRestart(restart(1)),
        Capability::GracefulRestart(restart(2)),
    ]);
    assert_eq!(open.graceful_restart(), Some(&restart(2)));
}

#[test]
fn extended_next_hop_is_recognized_for_ipv4_unicast_only() {
    for (entry, expected) in [((1, 1, 2), true), ((1, 128, 2), false), ((2, 1, 1), false)] {
        let open = ours(vec![Capability::ExtendedNextHop(vec![entry])]);
        assert_eq!(open.ipv4_over_ipv6_next_hop(), expected, "{entry:?}");
        assert_eq!(Open::decode(&frame(&open.encode()).body), Ok(open));
    }
}

#[test]
fn our_open_has_the_octets_of_the_rfcs() {
    let mut open = ours(vec![
        Capability::from(Family::Ipv6),
        Capability::RouteRefresh,
        Capability::FourOctetAs(Asn(4_200_000_000)),
        Capability::Role(3),
    ]);
    open.asn = Asn(4_200_000_000);
    let body = [
        4, 0x5B, 0xA0, 0, 90, 192, 0, 2, 1, 19, 2, 17, // AS_TRANS, one parameter
        1, 4, 0, 2, 0, 1, 2, 0, 65, 4, 0xFA, 0x56, 0xEA, 0, 9, 1, 3,
    ];
    assert_eq!(open.encode(), message(1, &body));
    assert_eq!(ours(vec![]).encode(), message(1, &self::open(&[])));
}

#[test]
fn many_capabilities_use_extended_parameters_and_never_exceed_a_message() {
    let capability = |length| Capability::Unknown {
        code: 200,
        data: vec![7; length],
    };
    for (name, sizes, length) in [
        // RFC 9072 §2: 255 octets of parameters still have the short form.
        ("255", vec![251], 29 + 255),
        ("256", vec![252], 29 + 256 + 4),
        ("two", vec![200, 200], 29 + 3 + 3 + 404),
    ] {
        let open = ours(sizes.into_iter().map(capability).collect());
        let encoded = open.encode();
        assert_eq!(encoded.len(), length, "{name}");
        assert_eq!(Open::decode(&frame(&encoded).body), Ok(open), "{name}");
    }
    let open = ours(vec![capability(255); 20]);
    let encoded = open.encode();
    assert!(encoded.len() <= MAX_LEN);
    let decoded = Open::decode(&frame(&encoded).body).expect("well-formed");
    assert_eq!(decoded.capabilities.len(), 15);
}

#[test]
fn a_capability_too_long_for_its_length_is_left_out() {
    let names = Capability::Fqdn {
        host: "h".repeat(300),
        domain: String::new(),
    };
    let open = ours(vec![names, Capability::RouteRefresh]);
    let decoded = Open::decode(&frame(&open.encode()).body).expect("well-formed");
    assert_eq!(decoded.capabilities, [Capability::RouteRefresh]);
}
