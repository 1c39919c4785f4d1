use std::net::Ipv4Addr;

use Family::{Ipv4, Ipv6};

use super::*;

const OURS: Asn = Asn(64512);
const THEIRS: Asn = Asn(64513);

fn router_id(last_octet: u8) -> RouterId {
    RouterId(Ipv4Addr::new(192, 0, 2, last_octet))
}

/// Both families, and graceful restart for both.
fn config() -> SessionConfig {
    SessionConfig {
        families: vec![Ipv4, Ipv6],
        graceful_restart: Some(restart()),
        ..SessionConfig::new(OURS, Some(THEIRS), router_id(1))
    }
}

fn restart() -> GracefulRestart {
    GracefulRestart {
        restart_time_secs: 120,
        families: vec![(Ipv4, true), (Ipv6, false)],
        ..GracefulRestart::default()
    }
}

/// A peer of both families with these capabilities besides.
fn open(asn: Asn, capabilities: &[Capability]) -> Open {
    let families = Family::ALL.map(Capability::from);
    Open {
        asn,
        hold_time: HoldTime::DEFAULT,
        router_id: router_id(2),
        capabilities: [&families[..], capabilities].concat(),
    }
}

fn agree(config: &SessionConfig, open: Open) -> Result<Negotiated, ProtocolError> {
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let endpoints = Endpoints {
        direction: Direction::Incoming,
        local: anywhere,
        remote: anywhere,
    };
    negotiate(config, endpoints, open)
}

fn agreed(config: &SessionConfig, capabilities: &[Capability]) -> Negotiated {
    agree(config, open(THEIRS, capabilities)).expect("compatible")
}

/// Those of our OPEN with this code.
fn offered(config: &SessionConfig, code: u8) -> Vec<Capability> {
    let mut capabilities = our_open(config).capabilities;
    capabilities.retain(|capability| capability.code() == code);
    capabilities
}

fn set(families: &[Family]) -> FamilySet {
    families.iter().copied().collect()
}

/// Sends in the first, receives in the second.
fn with_add_path(send: &[Family], receive: &[Family]) -> SessionConfig {
    SessionConfig {
        add_path_send: set(send),
        add_path_receive: set(receive),
        ..config()
    }
}

#[test]
fn add_path_is_offered_once_with_the_direction_of_each_family() {
    let only_ipv4 = SessionConfig {
        families: vec![Ipv4],
        ..with_add_path(&[Ipv4, Ipv6], &[Ipv6])
    };
    for (name, config, entries) in [
        ("off", config(), vec![]),
        ("receive", with_add_path(&[], &[Ipv4]), vec![(1, 1, 1)]),
        ("send", with_add_path(&[Ipv6], &[]), vec![(2, 1, 2)]),
        (
            "both",
            with_add_path(&[Ipv4], &[Ipv6, Ipv4]),
            vec![(1, 1, 3), (2, 1, 1)],
        ),
        ("not carried", only_ipv4, vec![(1, 1, 2)]),
    ] {
        let expected: Vec<Capability> = [entries]
            .into_iter()
            .filter(|entries| !entries.is_empty())
            .map(Capability::AddPath)
            .collect();
        assert_eq!(offered(&config, 69), expected, "{name}");
    }
}

#[test]
fn add_path_needs_one_to_send_and_the_other_to_receive() {
    let both = || with_add_path(&[Ipv4, Ipv6], &[Ipv4, Ipv6]);
    let listing = |entries: &[(u16, u8, u8)]| vec![Capability::AddPath(entries.to_vec())];
    let twice = |first, second| [listing(&[first]), listing(&[second])].concat();
    for (name, config, capabilities, send, receive) in [
        ("they do not know it", both(), vec![], vec![], vec![]),
        (
            "we do not offer it",
            config(),
            listing(&[(1, 1, 3)]),
            vec![],
            vec![],
        ),
        (
            "they receive",
            both(),
            listing(&[(1, 1, 1)]),
            vec![Ipv4],
            vec![],
        ),
        (
            "they send",
            both(),
            listing(&[(2, 1, 2)]),
            vec![],
            vec![Ipv6],
        ),
        (
            "each its own way",
            both(),
            listing(&[(1, 1, 1), (2, 1, 3)]),
            vec![Ipv4, Ipv6],
            vec![Ipv6],
        ),
        (
            "we only receive",
            with_add_path(&[], &[Ipv4]),
            listing(&[(1, 1, 3)]),
            vec![],
            vec![Ipv4],
        ),
        (
            "both send and nobody receives",
            with_add_path(&[Ipv4], &[]),
            listing(&[(1, 1, 2)]),
            vec![],
            vec![],
        ),
        (
            "families of others",
            both(),
            listing(&[(1, 128, 3), (25, 70, 3)]),
            vec![],
            vec![],
        ),
        (
            "no such direction",
            both(),
            listing(&[(1, 1, 0), (2, 1, 4), (2, 1, 255)]),
            vec![],
            vec![],
        ),
        (
            "no such direction for one family",
            both(),
            listing(&[(1, 1, 4), (2, 1, 1)]),
            vec![Ipv6],
            vec![],
        ),
        (
            "the last entry of a family counts",
            both(),
            listing(&[(1, 1, 1), (1, 1, 2)]),
            vec![],
            vec![Ipv4],
        ),
        (
            "across instances too",
            both(),
            twice((1, 1, 3), (1, 1, 1)),
            vec![Ipv4],
            vec![],
        ),
        (
            "instances add up over families",
            both(),
            twice((1, 1, 1), (2, 1, 1)),
            vec![Ipv4, Ipv6],
            vec![],
        ),
    ] {
        let negotiated = agreed(&config, &capabilities);
        assert_eq!(negotiated.add_path_send, set(&send), "{name}");
        assert_eq!(negotiated.add_path_receive, set(&receive), "{name}");
    }
}

#[test]
fn add_path_is_off_in_families_that_the_session_does_not_carry() {
    let both = with_add_path(&[Ipv4, Ipv6], &[Ipv4, Ipv6]);
    let mut open = open(THEIRS, &[Capability::AddPath(vec![(1, 1, 3), (2, 1, 3)])]);
    open.capabilities.remove(1);
    let negotiated = agree(&both, open).expect("IPv4 is common");
    assert_eq!(negotiated.families, [Ipv4]);
    assert_eq!(negotiated.add_path_send, set(&[Ipv4]));
    assert_eq!(negotiated.add_path_receive, set(&[Ipv4]));
}

#[test]
fn ipv4_over_ipv6_needs_both_sides_and_ipv4() {
    let offering = |families: &[Family]| SessionConfig {
        families: families.to_vec(),
        extended_next_hop: true,
        ..config()
    };
    let listed = || vec![Capability::ExtendedNextHop(vec![(1, 128, 2), (1, 1, 2)])];
    let ours = Capability::ExtendedNextHop(vec![(1, 1, 2)]);
    for (name, config, capabilities, is_offered, is_on) in [
        ("both", offering(&[Ipv4, Ipv6]), listed(), true, true),
        ("we do not", config(), listed(), false, false),
        ("they do not", offering(&[Ipv4]), vec![], true, false),
        ("IPv6 only", offering(&[Ipv6]), listed(), false, false),
        (
            "they list VPN routes only",
            offering(&[Ipv4]),
            vec![Capability::ExtendedNextHop(vec![(1, 128, 2)])],
            true,
            false,
        ),
    ] {
        let expected: Vec<Capability> = is_offered.then(|| ours.clone()).into_iter().collect();
        assert_eq!(offered(&config, 5), expected, "{name}");
        let negotiated = agreed(&config, &capabilities);
        assert_eq!(negotiated.ipv4_over_ipv6, is_on, "{name}");
    }
}

fn with_role(role: Role) -> SessionConfig {
    SessionConfig {
        role: Some(role),
        ..config()
    }
}

fn strict(role: Role) -> SessionConfig {
    SessionConfig {
        role_strict: true,
        ..with_role(role)
    }
}

#[test]
fn role_is_announced_on_external_sessions_only() {
    let towards = |remote_asn| SessionConfig {
        remote_asn,
        ..with_role(Role::Customer)
    };
    for (name, config, values) in [
        ("external", towards(Some(THEIRS)), vec![3]),
        ("internal", towards(Some(OURS)), vec![]),
        ("any AS", towards(None), vec![3]),
        ("none configured", config(), vec![]),
    ] {
        let expected: Vec<Capability> = values.into_iter().map(Capability::Role).collect();
        assert_eq!(offered(&config, 9), expected, "{name}");
    }
}

#[test]
fn role_pairs_of_the_rfc_and_no_others_go_together() {
    // RFC 9234 §4.2, table 2, as values of the capability; 5 and 255 are unassigned.
    let pairs = [(0, 3), (3, 0), (1, 2), (2, 1), (4, 4)];
    for ours in 0..5 {
        let role = Role::from_octet(ours).expect("assigned");
        assert_eq!(role.octet(), ours);
        for theirs in (0..=5).chain([255]) {
            let result = agree(&with_role(role), open(THEIRS, &[Capability::Role(theirs)]));
            if pairs.contains(&(ours, theirs)) {
                assert_eq!(result.expect("a pair").role, Some(role), "{ours} {theirs}");
            } else {
                let notification = result.expect_err("no pair").notification;
                assert_eq!(notification, Notification::new(2, 11), "{ours} {theirs}");
            }
        }
    }
}

#[test]
fn role_that_is_missing_or_said_twice_is_judged_by_the_rfc() {
    let (customer, peer) = (|| with_role(Role::Customer), || strict(Role::Peer));
    let any_as = || SessionConfig {
        remote_asn: None,
        ..strict(Role::Customer)
    };
    let no_role_but_strict = || SessionConfig {
        role_strict: true,
        ..config()
    };
    let refused = Err((2, 11));
    for (name, config, asn, roles, expected) in [
        (
            "none",
            customer(),
            THEIRS,
            &[][..],
            Ok(Some(Role::Customer)),
        ),
        ("none, strict", peer(), THEIRS, &[], refused),
        (
            "strict and there",
            peer(),
            THEIRS,
            &[4],
            Ok(Some(Role::Peer)),
        ),
        (
            "the same twice",
            customer(),
            THEIRS,
            &[0, 0],
            Ok(Some(Role::Customer)),
        ),
        ("two that differ", customer(), THEIRS, &[0, 3], refused),
        (
            "the right one first and last",
            customer(),
            THEIRS,
            &[0, 1, 0],
            refused,
        ),
        ("we have none", config(), THEIRS, &[2], Ok(None)),
        (
            "we have none and they two",
            config(),
            THEIRS,
            &[2, 3],
            refused,
        ),
        (
            "strict without a role",
            no_role_but_strict(),
            THEIRS,
            &[],
            Ok(None),
        ),
        (
            "any AS, external",
            any_as(),
            THEIRS,
            &[0],
            Ok(Some(Role::Customer)),
        ),
        ("any AS, external, none", any_as(), THEIRS, &[], refused),
        ("any AS, internal", any_as(), OURS, &[4], Ok(None)),
        ("any AS, internal, two", any_as(), OURS, &[0, 1], Ok(None)),
    ] {
        let roles: Vec<Capability> = roles.iter().copied().map(Capability::Role).collect();
        let result = agree(&config, open(asn, &roles));
        let result = result
            .map(|negotiated| negotiated.role)
            .map_err(|error| (error.notification.code, error.notification.subcode));
        assert_eq!(result, expected, "{name}");
    }
}

fn with_long_lived(seconds: u64) -> SessionConfig {
    SessionConfig {
        long_lived_stale_time: Some(Duration::from_secs(seconds)),
        ..config()
    }
}

#[test]
fn long_lived_stale_time_is_offered_only_beside_graceful_restart() {
    let alone = SessionConfig {
        graceful_restart: None,
        ..with_long_lived(3600)
    };
    let entries = |seconds| vec![(1, 1, 0x80, seconds), (2, 1, 0, seconds)];
    for (name, config, expected) in [
        ("off", config(), None),
        ("alone", alone, None),
        ("an hour", with_long_lived(3600), Some(entries(3600))),
        (
            "too long",
            with_long_lived(1 << 40),
            Some(entries(0xFF_FFFF)),
        ),
    ] {
        let expected: Vec<Capability> = expected
            .into_iter()
            .map(Capability::LongLivedGracefulRestart)
            .collect();
        assert_eq!(offered(&config, 71), expected, "{name}");
    }
}

#[test]
fn long_lived_stale_time_needs_both_capabilities_of_both_sides() {
    let long_lived =
        |entries: &[(u16, u8, u8, u32)]| Capability::LongLivedGracefulRestart(entries.to_vec());
    let graceful = || Capability::GracefulRestart(restart());
    let hour = |family, preserved| LongLivedFamily {
        family,
        preserved,
        stale_time: Duration::from_secs(3600),
    };
    let without_restart = || SessionConfig {
        graceful_restart: None,
        ..with_long_lived(60)
    };
    let (of_ipv4, of_others) = ((1, 1, 0x80, 3600), (25, 70, 0x80, 3600));
    for (name, config, capabilities, expected) in [
        (
            "both",
            with_long_lived(60),
            vec![long_lived(&[of_ipv4, of_others]), graceful()],
            Some(vec![hour(Ipv4, true)]),
        ),
        (
            "we do not offer it",
            config(),
            vec![graceful(), long_lived(&[of_ipv4])],
            None,
        ),
        (
            "we have no graceful restart",
            without_restart(),
            vec![graceful(), long_lived(&[of_ipv4])],
            None,
        ),
        (
            "they do not offer it",
            with_long_lived(60),
            vec![graceful()],
            None,
        ),
        (
            "they have no graceful restart",
            with_long_lived(60),
            vec![long_lived(&[of_ipv4])],
            None,
        ),
        (
            "they keep ours and ask for nothing",
            with_long_lived(60),
            vec![graceful(), long_lived(&[])],
            Some(vec![]),
        ),
        (
            "reserved bits are ignored",
            with_long_lived(60),
            vec![graceful(), long_lived(&[(2, 1, 0x7F, 3600)])],
            Some(vec![hour(Ipv6, false)]),
        ),
        (
            "the last entry and the last instance count",
            with_long_lived(60),
            vec![
                graceful(),
                long_lived(&[(2, 1, 0, 1)]),
                long_lived(&[(1, 1, 0, 1), of_ipv4]),
            ],
            Some(vec![hour(Ipv4, true)]),
        ),
    ] {
        let negotiated = agreed(&config, &capabilities);
        assert_eq!(negotiated.long_lived, expected, "{name}");
        let of_ipv4 = expected.iter().flatten().find(|entry| entry.family == Ipv4);
        assert_eq!(negotiated.long_lived_of(Ipv4), of_ipv4.copied(), "{name}");
    }
}

#[test]
fn long_lived_stale_time_of_families_that_are_not_carried_counts_for_nothing() {
    let capabilities = [
        Capability::GracefulRestart(restart()),
        Capability::LongLivedGracefulRestart(vec![(1, 1, 0, 60), (2, 1, 0, 60)]),
    ];
    let mut open = open(THEIRS, &capabilities);
    open.capabilities.remove(0);
    let negotiated = agree(&with_long_lived(60), open).expect("IPv6 is common");
    assert_eq!(negotiated.long_lived_of(Ipv4), None);
    assert!(negotiated.long_lived_of(Ipv6).is_some());
}
