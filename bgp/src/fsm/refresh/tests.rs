use std::net::{Ipv4Addr, SocketAddr};

use Family::{Ipv4, Ipv6};

use super::*;
use crate::fsm::session::Direction;
use crate::types::{Asn, FamilySet, HoldTime, RouterId};
use crate::wire::capability::GracefulRestart;

const LIMIT: Duration = Duration::from_secs(180);

fn negotiated() -> Negotiated {
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Negotiated {
        direction: Direction::Incoming,
        local: anywhere,
        remote: anywhere,
        remote_asn: Asn(64512),
        remote_router_id: RouterId(Ipv4Addr::new(192, 0, 2, 1)),
        hold_time: HoldTime::DEFAULT,
        keepalive_time: Duration::from_secs(30),
        families: vec![Ipv4],
        four_octet_as: true,
        route_refresh: true,
        enhanced_route_refresh: true,
        extended_message: true,
        graceful_restart: None,
        long_lived: None,
        add_path_send: FamilySet::EMPTY,
        add_path_receive: FamilySet::EMPTY,
        ipv4_over_ipv6: false,
        role: None,
        capabilities: Vec::new(),
    }
}

#[test]
fn routes_are_stale_from_begin_and_flushed_at_end() {
    let now = Instant::now();
    let mut refresh = RefreshState::new(&negotiated(), LIMIT);
    assert!(!refresh.handle_end(Ipv4), "an end without a begin");
    assert!(refresh.handle_begin(Ipv4, now));
    assert_eq!(refresh.next_timeout(), Some(now + LIMIT));
    assert!(refresh.handle_end(Ipv4));
    assert!(!refresh.handle_end(Ipv4), "the same end again");
    assert_eq!(refresh.next_timeout(), None);
}

#[test]
fn an_end_that_does_not_come_is_not_waited_for_for_ever() {
    let now = Instant::now();
    let mut refresh = RefreshState::new(&negotiated(), LIMIT);
    refresh.handle_begin(Ipv4, now);
    let early = now + LIMIT - Duration::from_nanos(1);
    assert_eq!(refresh.handle_timeout(early), []);
    assert_eq!(refresh.handle_timeout(now + LIMIT), [Ipv4]);
    assert_eq!(refresh.handle_timeout(now + LIMIT), []);
    assert!(!refresh.handle_end(Ipv4));
}

#[test]
fn what_was_not_negotiated_is_ignored() {
    let now = Instant::now();
    let plain = Negotiated {
        enhanced_route_refresh: false,
        ..negotiated()
    };
    for (name, negotiated, family) in [
        (
            "a family that the session does not carry",
            negotiated(),
            Ipv6,
        ),
        ("a peer without enhanced refresh", plain, Ipv4),
    ] {
        let mut refresh = RefreshState::new(&negotiated, LIMIT);
        assert!(!refresh.handle_begin(family, now), "{name}");
        assert!(!refresh.handle_end(family), "{name}");
    }
}

#[test]
fn with_graceful_restart_nothing_begins_before_end_of_rib() {
    let now = Instant::now();
    let restart = Negotiated {
        graceful_restart: Some(GracefulRestart::default()),
        ..negotiated()
    };
    let mut refresh = RefreshState::new(&restart, LIMIT);
    assert!(!refresh.handle_begin(Ipv4, now));
    refresh.handle_end_of_rib(Ipv6);
    assert!(!refresh.handle_begin(Ipv4, now));
    refresh.handle_end_of_rib(Ipv4);
    assert!(refresh.handle_begin(Ipv4, now));
}

#[test]
fn begins_in_a_row_cost_one_walk_a_second() {
    let now = Instant::now();
    let mut refresh = RefreshState::new(&negotiated(), LIMIT);
    let walks = (0..5000u64)
        .filter(|millis| {
            let begun = refresh.handle_begin(Ipv4, now + Duration::from_millis(*millis));
            if millis % 2 == 0 {
                refresh.handle_end(Ipv4);
            }
            begun
        })
        .count();
    assert_eq!(walks, 5);
}
