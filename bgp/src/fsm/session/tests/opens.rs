//! What is agreed on, and what is refused.

use super::*;

#[test]
fn unacceptable_opens_are_refused() {
    let ibgp = || SessionConfig {
        remote_asn: Some(LOCAL_AS),
        ..config()
    };
    let any_as = || SessionConfig {
        remote_asn: None,
        ..config()
    };
    let same_id = || Open {
        router_id: router_id(5),
        ..open()
    };
    let ipv6_only = || Open {
        capabilities: vec![multiprotocol(Family::Ipv6)],
        ..open()
    };
    let ipv6 = || SessionConfig {
        families: vec![Family::Ipv6],
        ..config()
    };
    for (name, config, open, answer) in [
        (
            "another AS",
            config(),
            Open {
                asn: Asn(65000),
                ..open()
            },
            Some("2/2"),
        ),
        (
            "any AS is allowed",
            any_as(),
            Open {
                asn: Asn(65000),
                ..open()
            },
            None,
        ),
        (
            "our identifier in our AS",
            ibgp(),
            Open {
                asn: LOCAL_AS,
                ..same_id()
            },
            Some("2/3"),
        ),
        (
            "the same, AS not configured",
            any_as(),
            Open {
                asn: LOCAL_AS,
                ..same_id()
            },
            Some("2/3"),
        ),
        ("our identifier in another AS", config(), same_id(), None),
        ("no common family", config(), ipv6_only(), Some("2/7")),
        (
            "no capability means IPv4",
            config(),
            Open {
                capabilities: vec![],
                ..open()
            },
            None,
        ),
        (
            "which is not enough for IPv6",
            ipv6(),
            Open {
                capabilities: vec![],
                ..open()
            },
            Some("2/7"),
        ),
    ] {
        let mut rig = Rig::started(config);
        rig.feed([connected(1, Direction::Outgoing)]);
        let expected = match answer {
            Some(code) => format!("error sent {code}, notify 1 {code}, OpenSent>Idle"),
            None => "keepalive 1, OpenSent>OpenConfirm".to_owned(),
        };
        assert_eq!(rig.feed([opened(1, open)]), expected, "{name}");
    }
}

#[test]
fn unsupported_capability_lists_what_was_needed() {
    let mut rig = Rig::started(SessionConfig {
        families: vec![Family::Ipv6],
        ..config()
    });
    rig.feed([connected(1, Direction::Outgoing)]);
    rig.session.handle(opened(1, open()), rig.now, Jitter::NONE);
    let data = std::iter::from_fn(|| rig.session.poll_action()).find_map(|action| match action {
        Action::SendNotification { notification, .. } => Some(notification.data),
        _ => None,
    });
    // RFC 5492 §5, RFC 4760 §8: code 1, length 4, AFI 2, reserved, SAFI 1.
    assert_eq!(data, Some(vec![1, 4, 0, 2, 0, 1]));
}

#[test]
fn capabilities_of_both_sides_are_combined() {
    let old = || GracefulRestart {
        restart_time_secs: 1,
        ..graceful_restart()
    };
    let mut open = open();
    open.capabilities
        .insert(0, Capability::GracefulRestart(old()));
    open.capabilities.push(multiprotocol(Family::Ipv6));
    open.capabilities
        .push(Capability::MultiProtocol { afi: 25, safi: 70 });
    let both = SessionConfig {
        families: vec![Family::Ipv6, Family::Ipv4],
        ..with_graceful_restart()
    };
    let mut rig = Rig::started(both);
    rig.feed([
        connected(1, Direction::Outgoing),
        opened(1, open),
        keepalive(1),
    ]);
    let (_, negotiated) = rig.session.established().unwrap();
    assert_eq!(negotiated.families, [Family::Ipv6, Family::Ipv4]);
    assert!(negotiated.four_octet_as && negotiated.route_refresh);
    assert_eq!(
        negotiated.graceful_restart,
        Some(graceful_restart()),
        "the last one counts"
    );
    assert_eq!(negotiated.capabilities.len(), 7);
}

#[test]
fn graceful_restart_needs_both_sides() {
    let rig = Rig::established(config());
    assert_eq!(rig.session.established().unwrap().1.graceful_restart, None);
}

#[test]
fn refresh_is_passed_on_only_for_what_was_negotiated() {
    let mut rig = Rig::established(config());
    for (family, kind, actions) in [
        (Family::Ipv4, RefreshKind::Request, "refresh 1"),
        (Family::Ipv6, RefreshKind::Request, ""),
        (Family::Ipv4, RefreshKind::Begin, ""),
        (Family::Ipv4, RefreshKind::End, ""),
    ] {
        assert_eq!(
            rig.feed([refresh(1, family, kind)]),
            actions,
            "{family} {kind:?}"
        );
    }
}
