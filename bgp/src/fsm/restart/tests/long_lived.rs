//! Routes that outlive the restart time (RFC 9494).

use super::*;
use crate::wire::capability::LongLivedFamily;

/// A quarter of an hour at most.
fn config() -> HelperConfig {
    HelperConfig {
        long_lived_stale_time: Some(seconds(900)),
        ..super::config()
    }
}

fn entry(family: Family, stale_time: u64) -> LongLivedFamily {
    LongLivedFamily {
        family,
        preserved: true,
        stale_time: seconds(stale_time),
    }
}

/// A session of both families; the peer asks for 120 s of graceful restart for both, and for the
/// long-lived stale times in `entries`.
fn asking(entries: &[LongLivedFamily]) -> Negotiated {
    Negotiated {
        long_lived: Some(entries.to_vec()),
        ..both()
    }
}

/// Ten minutes for both.
fn long() -> Negotiated {
    asking(&[entry(Ipv4, 600), entry(Ipv6, 600)])
}

fn long_lived_both() -> Vec<Decision> {
    vec![
        KeepLongLived { family: Ipv4 },
        KeepLongLived { family: Ipv6 },
    ]
}

/// Lost at `start`, in the long-lived stage since 120 s later.
fn long_lived_since_120(start: Instant) -> HelperState {
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &long(), start);
    let _ = helper.handle_timeout(start + seconds(120));
    helper
}

#[test]
fn routes_become_the_last_resort_after_the_restart_time_and_go_after_the_stale_time() {
    let start = Instant::now();
    let mut helper = HelperState::new(config());
    let down = helper.handle_down(&DownReason::ConnectionLost, &long(), start);
    assert_eq!(down, keep_both());
    assert_eq!(helper.next_timeout(), Some(start + seconds(120)));
    assert_eq!(helper.handle_timeout(start + seconds(119)), []);
    assert_eq!(
        helper.handle_timeout(start + seconds(120)),
        long_lived_both()
    );
    // The bound of graceful restart, 180 s, counts no more.
    assert_eq!(helper.next_timeout(), Some(start + seconds(720)));
    assert_eq!(helper.handle_timeout(start + seconds(719)), []);
    assert!(helper.is_stale(Ipv4));
    assert_eq!(
        helper.handle_timeout(start + seconds(720)),
        flush_stale_of_both()
    );
    assert_eq!(helper.next_timeout(), None);
}

#[test]
fn each_family_is_kept_as_long_as_both_sides_allow() {
    let start = Instant::now();
    let bounded = |seconds_| HelperConfig {
        long_lived_stale_time: seconds_,
        ..config()
    };
    // What is said at the end of the restart time of IPv4, and for how long it is kept from there.
    for (name, config, session, said, kept) in [
        ("as asked", config(), asking(&[entry(Ipv4, 600)]), true, 600),
        (
            "at most our bound",
            config(),
            asking(&[entry(Ipv4, 1000)]),
            true,
            900,
        ),
        ("our bound is off", bounded(None), long(), false, 0),
        (
            "our bound is zero",
            bounded(Some(seconds(0))),
            long(),
            false,
            0,
        ),
        ("not asked for", config(), both(), false, 0),
        (
            "asked for another family",
            config(),
            asking(&[entry(Ipv6, 600)]),
            false,
            0,
        ),
        (
            "asked for no time",
            config(),
            asking(&[entry(Ipv4, 0)]),
            false,
            0,
        ),
    ] {
        let mut helper = HelperState::new(config);
        let _ = helper.handle_down(&DownReason::ConnectionLost, &session, start);
        let decisions = helper.handle_timeout(start + seconds(120));
        let expected = match said {
            true => KeepLongLived { family: Ipv4 },
            false => FlushStale { family: Ipv4 },
        };
        assert_eq!(decisions[0], expected, "{name}");
        if said {
            let end = start + seconds(120 + kept);
            assert_eq!(helper.next_timeout(), Some(end), "{name}");
            let decisions = helper.handle_timeout(end);
            assert_eq!(decisions, [FlushStale { family: Ipv4 }], "{name}");
        }
    }
}

#[test]
fn without_a_restart_time_routes_are_the_last_resort_at_once() {
    let start = Instant::now();
    let zero = GracefulRestart {
        restart_time_secs: 0,
        ..capability()
    };
    let not_listed = GracefulRestart {
        families: vec![(Ipv6, true)],
        ..capability()
    };
    let with = |graceful_restart| Negotiated {
        graceful_restart,
        ..long()
    };
    let reset = || DownReason::NotificationReceived(cease(2));
    let hard = || DownReason::NotificationReceived(cease(9));
    for (name, reason, session, decisions) in [
        (
            "restart time 0",
            DownReason::ConnectionLost,
            with(Some(zero.clone())),
            long_lived_both(),
        ),
        (
            "a family that graceful restart does not list",
            DownReason::ConnectionLost,
            with(Some(not_listed)),
            vec![KeepLongLived { family: Ipv4 }, KeepStale { family: Ipv6 }],
        ),
        (
            "a NOTIFICATION, N",
            reset(),
            with(Some(zero.clone())),
            long_lived_both(),
        ),
        ("a hard reset", hard(), with(Some(zero)), flush_both()),
    ] {
        let mut helper = HelperState::new(config());
        assert_eq!(
            helper.handle_down(&reason, &session, start),
            decisions,
            "{name}"
        );
    }
}

#[test]
fn a_peer_that_is_back_in_the_long_lived_stage_is_flushed_at_its_end_of_rib() {
    let start = Instant::now();
    let mut helper = long_lived_since_120(start);
    assert_eq!(helper.handle_established(&long()), []);
    assert_eq!(
        helper.handle_end_of_rib(Ipv4),
        [FlushStale { family: Ipv4 }]
    );
    assert_eq!(helper.next_timeout(), Some(start + seconds(720)));
    assert_eq!(
        helper.handle_end_of_rib(Ipv6),
        [FlushStale { family: Ipv6 }]
    );
    assert_eq!(helper.next_timeout(), None);
}

#[test]
fn in_the_long_lived_stage_its_own_capability_says_what_was_preserved() {
    let lost = |family| LongLivedFamily {
        preserved: false,
        ..entry(family, 600)
    };
    let forgot = || GracefulRestart {
        families: vec![(Ipv4, false), (Ipv6, false)],
        ..capability()
    };
    let only_ipv6 = || Negotiated {
        families: vec![Ipv6],
        ..long()
    };
    for (name, session, flushed) in [
        ("F for both", long(), vec![]),
        (
            "F of graceful restart does not matter",
            Negotiated {
                graceful_restart: Some(forgot()),
                ..long()
            },
            vec![],
        ),
        (
            "no F",
            asking(&[lost(Ipv4), entry(Ipv6, 600)]),
            vec![FlushStale { family: Ipv4 }],
        ),
        (
            "not listed",
            asking(&[entry(Ipv6, 600)]),
            vec![FlushStale { family: Ipv4 }],
        ),
        (
            "not carried",
            only_ipv6(),
            vec![FlushStale { family: Ipv4 }],
        ),
        ("no capability", both(), flush_stale_of_both()),
        (
            "nor graceful restart",
            negotiated(None),
            flush_stale_of_both(),
        ),
    ] {
        let mut helper = long_lived_since_120(Instant::now());
        assert_eq!(helper.handle_established(&session), flushed, "{name}");
    }
}

#[test]
fn before_the_long_lived_stage_the_graceful_restart_capability_says_it() {
    let forgot = GracefulRestart {
        families: vec![(Ipv4, false), (Ipv6, true)],
        ..capability()
    };
    let session = Negotiated {
        graceful_restart: Some(forgot),
        ..long()
    };
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &long(), Instant::now());
    assert_eq!(
        helper.handle_established(&session),
        [FlushStale { family: Ipv4 }]
    );
}

#[test]
fn a_second_loss_neither_ends_nor_prolongs_the_long_lived_stale_time() {
    let start = Instant::now();
    for strict_consecutive_restart in [false, true] {
        let mut helper = long_lived_since_120(start);
        helper.reconfigure(HelperConfig {
            strict_consecutive_restart,
            ..config()
        });
        let _ = helper.handle_established(&long());
        let second = start + seconds(300);
        assert_eq!(
            helper.handle_down(&DownReason::ConnectionLost, &long(), second),
            keep_both()
        );
        assert_eq!(helper.next_timeout(), Some(second + seconds(120)));
        assert_eq!(
            helper.handle_timeout(second + seconds(120)),
            long_lived_both()
        );
        assert_eq!(helper.next_timeout(), Some(start + seconds(720)));
        assert_eq!(
            helper.handle_timeout(start + seconds(720)),
            flush_stale_of_both()
        );
    }
}

#[test]
fn the_long_lived_stale_time_ends_during_a_second_restart_time_too() {
    let start = Instant::now();
    let mut helper = long_lived_since_120(start);
    let _ = helper.handle_established(&long());
    let second = start + seconds(700);
    let _ = helper.handle_down(&DownReason::ConnectionLost, &long(), second);
    assert_eq!(helper.next_timeout(), Some(start + seconds(720)));
    assert_eq!(
        helper.handle_timeout(start + seconds(720)),
        flush_stale_of_both()
    );
    assert_eq!(helper.next_timeout(), None);
}

#[test]
fn strict_consecutive_restart_spares_what_may_become_long_lived() {
    let start = Instant::now();
    let mut helper = HelperState::new(HelperConfig {
        strict_consecutive_restart: true,
        ..config()
    });
    let session = asking(&[entry(Ipv6, 600)]);
    let _ = helper.handle_down(&DownReason::ConnectionLost, &session, start);
    let _ = helper.handle_established(&session);
    let second = helper.handle_down(&DownReason::ConnectionLost, &session, start + seconds(10));
    assert_eq!(
        second,
        [vec![FlushStale { family: Ipv4 }], keep_both()].concat()
    );
}

#[test]
fn the_long_lived_stale_time_begins_anew_after_end_of_rib() {
    let start = Instant::now();
    let mut helper = long_lived_since_120(start);
    let _ = helper.handle_established(&long());
    let _ = helper.handle_end_of_rib(Ipv4);
    let _ = helper.handle_end_of_rib(Ipv6);
    let second = start + seconds(700);
    let _ = helper.handle_down(&DownReason::ConnectionLost, &long(), second);
    let _ = helper.handle_timeout(second + seconds(120));
    assert_eq!(helper.next_timeout(), Some(second + seconds(720)));
}

#[test]
fn what_was_not_sent_again_when_the_time_was_over_is_not_kept_at_the_next_loss() {
    let start = Instant::now();
    let end = start + seconds(720);
    for (name, synchronized, decisions) in [
        ("no End-of-RIB", vec![], flush_both()),
        (
            "of one family",
            vec![Ipv6],
            vec![FlushAll { family: Ipv4 }, KeepStale { family: Ipv6 }],
        ),
        ("of both", vec![Ipv4, Ipv6], keep_both()),
    ] {
        let mut helper = long_lived_since_120(start);
        let _ = helper.handle_established(&long());
        assert_eq!(helper.handle_timeout(end), flush_stale_of_both(), "{name}");
        for family in synchronized {
            assert_eq!(helper.handle_end_of_rib(family), [], "{name}");
        }
        let reason = DownReason::ConnectionLost;
        let second = helper.handle_down(&reason, &long(), end + seconds(1));
        assert_eq!(second, decisions, "{name}");
    }
}

#[test]
fn a_peer_that_is_back_but_late_with_its_end_of_rib_is_flushed_not_kept_for_long() {
    let start = Instant::now();
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &long(), start);
    let _ = helper.handle_established(&long());
    assert_eq!(helper.next_timeout(), Some(start + seconds(180)));
    assert_eq!(
        helper.handle_timeout(start + seconds(180)),
        flush_stale_of_both()
    );
}

#[test]
fn restarts_without_end_of_rib_reach_the_long_lived_stage_at_the_first_bound() {
    let start = Instant::now();
    let mut helper = HelperState::new(config());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &long(), start);
    let _ = helper.handle_established(&long());
    let _ = helper.handle_down(&DownReason::ConnectionLost, &long(), start + seconds(100));
    assert_eq!(helper.next_timeout(), Some(start + seconds(180)));
    assert_eq!(
        helper.handle_timeout(start + seconds(180)),
        long_lived_both()
    );
    assert_eq!(helper.next_timeout(), Some(start + seconds(780)));
}

#[test]
fn a_hard_reset_or_the_peers_removal_ends_the_long_lived_stage() {
    let start = Instant::now();
    let mut helper = long_lived_since_120(start);
    let _ = helper.handle_established(&long());
    let reason = DownReason::NotificationReceived(cease(9));
    let decisions = helper.handle_down(&reason, &long(), start + seconds(300));
    assert_eq!(decisions, flush_both());
    assert_eq!(helper.next_timeout(), None);

    let mut helper = long_lived_since_120(start);
    assert_eq!(helper.handle_peer_gone(), flush_stale_of_both());
    assert_eq!(helper.next_timeout(), None);
}
