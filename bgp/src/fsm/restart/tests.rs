mod deferral;
mod long_lived;

use std::net::{Ipv4Addr, SocketAddr};

use Decision::{FlushAll, FlushStale, KeepLongLived, KeepStale};
use Family::{Ipv4, Ipv6};

use super::*;
use crate::fsm::session::Direction;
use crate::types::{Asn, FamilySet, HoldTime, RouterId};
use crate::wire::Notification;

fn config() -> HelperConfig {
    HelperConfig {
        max_restart_time: Duration::from_secs(300),
        stale_time: HelperConfig::DEFAULT_STALE_TIME,
        strict_consecutive_restart: false,
        long_lived_stale_time: None,
        notification: true,
    }
}

fn strict() -> HelperConfig {
    HelperConfig {
        strict_consecutive_restart: true,
        ..config()
    }
}

/// A session of both families whose peer preserves the forwarding state of both.
fn capability() -> GracefulRestart {
    GracefulRestart {
        restart_state: false,
        notification: true,
        restart_time_secs: 120,
        families: vec![(Ipv4, true), (Ipv6, true)],
    }
}

fn negotiated(graceful_restart: Option<GracefulRestart>) -> Negotiated {
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Negotiated {
        direction: Direction::Incoming,
        local: anywhere,
        remote: anywhere,
        remote_asn: Asn(64512),
        remote_router_id: RouterId(Ipv4Addr::new(192, 0, 2, 1)),
        hold_time: HoldTime::DEFAULT,
        keepalive_time: Duration::from_secs(30),
        families: vec![Ipv4, Ipv6],
        four_octet_as: true,
        route_refresh: true,
        enhanced_route_refresh: true,
        extended_message: true,
        graceful_restart,
        long_lived: None,
        add_path_send: FamilySet::EMPTY,
        add_path_receive: FamilySet::EMPTY,
        ipv4_over_ipv6: false,
        role: None,
        capabilities: Vec::new(),
    }
}

fn both() -> Negotiated {
    negotiated(Some(capability()))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cease(subcode: u8) -> Notification {
    Notification::cease(subcode)
}

fn keep_both() -> Vec<Decision> {
    vec![KeepStale { family: Ipv4 }, KeepStale { family: Ipv6 }]
}

fn flush_stale_of_both() -> Vec<Decision> {
    vec![FlushStale { family: Ipv4 }, FlushStale { family: Ipv6 }]
}

fn flush_both() -> Vec<Decision> {
    vec![FlushAll { family: Ipv4 }, FlushAll { family: Ipv6 }]
}

#[test]
fn graceful_restart_keeps_then_flushes_stale_after_eor() {
    let start = Instant::now();
    let mut helper = HelperState::new(config());
    assert_eq!(
        helper.handle_down(&DownReason::ConnectionLost, &both(), start),
        keep_both()
    );
    assert_eq!(helper.handle_established(&both()), []);
    assert_eq!(
        helper.handle_end_of_rib(Ipv4),
        [FlushStale { family: Ipv4 }]
    );
    assert!(helper.is_stale(Ipv6));
    assert_eq!(
        helper.handle_end_of_rib(Ipv6),
        [FlushStale { family: Ipv6 }]
    );
    assert_eq!(helper.next_timeout(), None);
}

#[test]
fn end_of_rib_without_a_restart_flushes_nothing() {
    let mut helper = HelperState::new(config());
    assert_eq!(helper.handle_established(&both()), []);
    assert_eq!(helper.handle_end_of_rib(Ipv4), []);
}

#[test]
fn reason_decides_what_is_kept() {
    let no_bit = || GracefulRestart {
        notification: false,
        ..capability()
    };
    let ours_without = || HelperConfig {
        notification: false,
        ..config()
    };
    for (name, reason, helper, theirs, is_kept) in [
        (
            "connection lost",
            DownReason::ConnectionLost,
            config(),
            no_bit(),
            true,
        ),
        ("replaced", DownReason::Replaced, config(), no_bit(), true),
        (
            "we stop silently",
            DownReason::StoppedSilently,
            config(),
            no_bit(),
            true,
        ),
        (
            "hold, N",
            DownReason::HoldTimerExpired,
            config(),
            capability(),
            true,
        ),
        (
            "hold, they lack N",
            DownReason::HoldTimerExpired,
            config(),
            no_bit(),
            false,
        ),
        (
            "hold, we lack N",
            DownReason::HoldTimerExpired,
            ours_without(),
            capability(),
            false,
        ),
        (
            "send hold, N",
            DownReason::SendHoldTimerExpired,
            config(),
            capability(),
            true,
        ),
        (
            "send hold, no N",
            DownReason::SendHoldTimerExpired,
            config(),
            no_bit(),
            false,
        ),
        (
            "sent, N",
            DownReason::NotificationSent(cease(4)),
            config(),
            capability(),
            true,
        ),
        (
            "sent, no N",
            DownReason::NotificationSent(cease(4)),
            config(),
            no_bit(),
            false,
        ),
        (
            "received, N",
            DownReason::NotificationReceived(cease(2)),
            config(),
            capability(),
            true,
        ),
        (
            "received, no N",
            DownReason::NotificationReceived(cease(2)),
            config(),
            no_bit(),
            false,
        ),
        (
            "hard reset",
            DownReason::NotificationReceived(cease(9)),
            config(),
            capability(),
            false,
        ),
        (
            "our hard reset",
            DownReason::NotificationSent(cease(9)),
            config(),
            capability(),
            false,
        ),
    ] {
        let mut helper = HelperState::new(helper);
        let decisions = helper.handle_down(&reason, &negotiated(Some(theirs)), Instant::now());
        assert_eq!(
            decisions,
            if is_kept { keep_both() } else { flush_both() },
            "{name}"
        );
        assert_eq!(helper.next_timeout().is_some(), is_kept, "{name}");
    }
}

#[test]
fn nothing_is_kept_without_the_capability_or_restart_time() {
    let none = GracefulRestart {
        restart_time_secs: 0,
        ..capability()
    };
    for (name, capability) in [("no capability", None), ("restart time 0", Some(none))] {
        let mut helper = HelperState::new(config());
        let session = negotiated(capability);
        let decisions = helper.handle_down(&DownReason::ConnectionLost, &session, Instant::now());
        assert_eq!(decisions, flush_both(), "{name}");
        assert_eq!(helper.next_timeout(), None, "{name}");
    }
}

#[test]
fn only_families_of_the_capability_are_kept() {
    let session = negotiated(Some(GracefulRestart {
        families: vec![(Ipv6, false)],
        ..capability()
    }));
    let mut helper = HelperState::new(config());
    assert_eq!(
        helper.handle_down(&DownReason::ConnectionLost, &session, Instant::now()),
        [FlushAll { family: Ipv4 }, KeepStale { family: Ipv6 }],
    );
}

#[test]
fn a_peer_that_stays_away_loses_its_routes_after_the_restart_time() {
    let start = Instant::now();
    for (name, max_restart_time, deadline) in [
        ("as asked", seconds(300), seconds(120)),
        ("bounded", seconds(60), seconds(60)),
    ] {
        let mut helper = HelperState::new(HelperConfig {
            max_restart_time,
            ..config()
        });
        let _ = helper.handle_down(&DownReason::ConnectionLost, &both(), start);
        assert_eq!(helper.next_timeout(), Some(start + deadline), "{name}");
        let early = start + deadline - Duration::from_millis(1);
        assert_eq!(helper.handle_timeout(early), [], "{name}");
        assert_eq!(
            helper.handle_timeout(start + deadline),
            flush_stale_of_both(),
            "{name}"
        );
        assert_eq!(helper.next_timeout(), None, "{name}");
    }
}

#[test]
fn a_peer_that_is_back_without_end_of_rib_is_flushed_at_the_stale_deadline() {
    let start = Instant::now();
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &both(), start);
    assert_eq!(helper.handle_established(&both()), []);
    assert_eq!(helper.next_timeout(), Some(start + seconds(180)));
    assert_eq!(
        helper.handle_timeout(start + seconds(180)),
        flush_stale_of_both()
    );
}

#[test]
fn what_the_new_capability_lacks_is_flushed_at_once() {
    let forgot = GracefulRestart {
        families: vec![(Ipv4, false), (Ipv6, true)],
        ..capability()
    };
    let left_out = GracefulRestart {
        families: vec![(Ipv6, true)],
        ..capability()
    };
    let not_carried = Negotiated {
        families: vec![Ipv6],
        ..both()
    };
    for (name, session, flushed) in [
        (
            "F=0",
            negotiated(Some(forgot)),
            vec![FlushStale { family: Ipv4 }],
        ),
        (
            "not listed",
            negotiated(Some(left_out)),
            vec![FlushStale { family: Ipv4 }],
        ),
        (
            "not negotiated",
            not_carried,
            vec![FlushStale { family: Ipv4 }],
        ),
        ("no capability", negotiated(None), flush_stale_of_both()),
    ] {
        let mut helper = HelperState::new(config());
        let _ = helper.handle_down(&DownReason::ConnectionLost, &both(), Instant::now());
        assert_eq!(helper.handle_established(&session), flushed, "{name}");
    }
}

#[test]
fn stale_routes_survive_a_second_loss_until_the_first_deadline() {
    let start = Instant::now();
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &both(), start);
    let _ = helper.handle_established(&both());
    let second_loss = start + seconds(100);
    assert_eq!(
        helper.handle_down(&DownReason::ConnectionLost, &both(), second_loss),
        keep_both()
    );
    assert_eq!(helper.next_timeout(), Some(start + seconds(180)));
    assert_eq!(
        helper.handle_timeout(start + seconds(180)),
        flush_stale_of_both()
    );
}

#[test]
fn a_loss_after_end_of_rib_begins_anew() {
    let start = Instant::now();
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &both(), start);
    let _ = helper.handle_established(&both());
    let _ = helper.handle_end_of_rib(Ipv4);
    let _ = helper.handle_end_of_rib(Ipv6);
    let second_loss = start + seconds(170);
    let _ = helper.handle_down(&DownReason::ConnectionLost, &both(), second_loss);
    let _ = helper.handle_established(&both());
    assert_eq!(helper.next_timeout(), Some(second_loss + seconds(180)));
}

#[test]
fn strict_consecutive_restart_flushes_at_the_second_loss() {
    let start = Instant::now();
    let mut helper = HelperState::new(strict());
    assert_eq!(
        helper.handle_down(&DownReason::ConnectionLost, &both(), start),
        keep_both()
    );
    let _ = helper.handle_established(&both());
    let second_loss = start + seconds(100);
    // RFC 4724 §4.2: what was stale before goes, what was learned since is kept.
    let decisions = helper.handle_down(&DownReason::ConnectionLost, &both(), second_loss);
    assert_eq!(decisions, [flush_stale_of_both(), keep_both()].concat());
    let _ = helper.handle_established(&both());
    assert_eq!(helper.next_timeout(), Some(second_loss + seconds(180)));
}

#[test]
fn a_hard_reset_during_recovery_flushes_everything() {
    let start = Instant::now();
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &both(), start);
    let _ = helper.handle_established(&both());
    let reason = DownReason::NotificationReceived(cease(9));
    assert_eq!(
        helper.handle_down(&reason, &both(), start + seconds(5)),
        flush_both()
    );
    assert_eq!(helper.next_timeout(), None);
}

#[test]
fn a_peer_that_is_gone_is_flushed_at_once() {
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &both(), Instant::now());
    assert_eq!(helper.handle_peer_gone(), flush_stale_of_both());
    assert_eq!(helper.handle_peer_gone(), []);
}
