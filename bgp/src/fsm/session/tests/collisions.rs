//! Two connections to one peer, and silent ones.

use super::*;

#[test]
fn collision_both_identifier_orders() {
    let higher = || Open {
        router_id: router_id(9),
        ..open()
    };
    for (name, open, first, second, actions) in [
        (
            "ours wins, its OPEN first",
            open(),
            1,
            2,
            "notify 2 6/7, keepalive 1, OpenSent>OpenConfirm",
        ),
        (
            "ours wins, its OPEN second",
            open(),
            2,
            1,
            "keepalive 2, OpenSent>OpenConfirm, notify 2 6/7, keepalive 1",
        ),
        (
            "theirs wins, its OPEN first",
            higher(),
            2,
            1,
            "notify 1 6/7, keepalive 2, OpenSent>OpenConfirm",
        ),
        (
            "theirs wins, its OPEN second",
            higher(),
            1,
            2,
            "keepalive 1, OpenSent>OpenConfirm, notify 1 6/7, keepalive 2",
        ),
    ] {
        let mut rig = Rig::started(config());
        rig.feed([
            connected(1, Direction::Outgoing),
            connected(2, Direction::Incoming),
        ]);
        let seen = rig.feed([opened(first, open.clone()), opened(second, open)]);
        assert_eq!(seen, actions, "{name}");
    }
}

#[test]
fn collision_with_equal_identifiers_compares_as_numbers() {
    let same_id = Open {
        router_id: router_id(5),
        ..open()
    };
    let mut rig = Rig::started(config());
    rig.feed([
        connected(1, Direction::Outgoing),
        connected(2, Direction::Incoming),
    ]);
    // RFC 6286 §2.3: the peer's AS is larger than ours.
    assert_eq!(
        rig.feed([opened(1, same_id.clone()), opened(2, same_id)]),
        "keepalive 1, OpenSent>OpenConfirm, notify 1 6/7, keepalive 2"
    );
}

#[test]
fn collision_verdict_of_the_peer_is_no_error() {
    let mut rig = Rig::started(config());
    rig.feed([
        connected(1, Direction::Outgoing),
        connected(2, Direction::Incoming),
    ]);
    rig.feed([opened(2, open()), keepalive(2)]);
    assert_eq!(rig.feed([notified(1, 6, 7)]), "close 1");
    assert_eq!(rig.session.state(), State::Established);
}

#[test]
fn second_connection_does_not_kill_established() {
    for direction in [Direction::Incoming, Direction::Outgoing] {
        let mut rig = Rig::established(config());
        rig.feed([connected(2, direction)]);
        assert_eq!(rig.session.state(), State::Established, "{direction:?}");
        rig.feed([opened(2, open())]);
        let established = rig.session.established().map(|(connection, _)| connection);
        assert_eq!(established, Some(id(1)), "{direction:?}");
    }
    let mut rig = Rig::established(config());
    assert_eq!(rig.feed([connected(2, Direction::Incoming)]), "open 2");
    assert_eq!(rig.feed([opened(2, open())]), "notify 2 6/7");
}

#[test]
fn peer_that_is_back_is_taken_once_the_end_of_the_old_connection_is_heard() {
    for (name, config) in [
        ("without graceful restart", config()),
        ("with it", with_graceful_restart()),
    ] {
        let mut rig = Rig::established(config);
        rig.feed([connected(2, Direction::Incoming)]);
        assert_eq!(
            rig.feed([closed(1), opened(2, open()), keepalive(2)]),
            "down 1 lost, Established>OpenSent, keepalive 2, OpenSent>OpenConfirm, up 2, \
             OpenConfirm>Established",
            "{name}"
        );
    }
}

#[test]
fn silent_second_connection_changes_nothing_even_with_graceful_restart() {
    let mut rig = Rig::established(with_graceful_restart());
    assert_eq!(rig.feed([connected(2, Direction::Incoming)]), "open 2");
    for _ in 0..24 {
        rig.wait(seconds(10));
        rig.feed([keepalive(1)]);
    }
    assert_eq!(
        rig.session.established().map(|(connection, _)| connection),
        Some(id(1))
    );
    assert_eq!(rig.feed([closed(2)]), "");
}

#[test]
fn new_connection_of_a_restarted_peer_replaces_the_old_one() {
    let mut rig = Rig::established(with_graceful_restart());
    rig.feed([connected(2, Direction::Incoming)]);
    assert_eq!(
        rig.feed([opened(2, open())]),
        "close 1, down 1 replaced, keepalive 2, Established>OpenConfirm"
    );
    assert_eq!(rig.feed([keepalive(2)]), "up 2, OpenConfirm>Established");
}

#[test]
fn invalid_open_does_not_replace_the_old_connection() {
    let mut rig = Rig::established(with_graceful_restart());
    rig.feed([connected(2, Direction::Incoming)]);
    let wrong = Open {
        asn: Asn(65000),
        ..open()
    };
    assert_eq!(rig.feed([opened(2, wrong)]), "error sent 2/2, notify 2 2/2");
    assert_eq!(rig.session.state(), State::Established);
}

#[test]
fn connection_from_before_established_is_a_collision_not_a_restart() {
    let mut rig = Rig::started(with_graceful_restart());
    rig.feed([
        connected(1, Direction::Incoming),
        connected(2, Direction::Incoming),
        opened(1, open()),
        keepalive(1),
    ]);
    assert_eq!(rig.feed([opened(2, open())]), "notify 2 6/7");
}

#[test]
fn silent_connection_does_not_block_peer() {
    let mut rig = Rig::started(config());
    rig.feed([Input::DialFailed]);
    assert_eq!(
        rig.feed([connected(1, Direction::Incoming)]),
        "open 1, Active>OpenSent"
    );
    assert_eq!(rig.wait(seconds(5)), "dial", "dialling goes on");
    assert_eq!(
        rig.feed([connected(2, Direction::Incoming)]),
        "open 2",
        "others are accepted"
    );
    assert_eq!(
        rig.feed([opened(2, open()), keepalive(2)]),
        "abort, keepalive 2, OpenSent>OpenConfirm, up 2, OpenConfirm>Established"
    );
}

#[test]
fn silent_connection_does_not_keep_us_from_dialling_after_a_loss() {
    let mut rig = Rig::established(config());
    rig.feed([connected(2, Direction::Incoming), closed(1)]);
    assert_eq!(rig.session.state(), State::OpenSent);
    assert_eq!(rig.wait(seconds(1)), "dial");
}

#[test]
fn silent_connections_are_bounded_and_the_newest_stay() {
    let mut rig = Rig::started(SessionConfig {
        passive: true,
        ..config()
    });
    rig.feed([
        connected(1, Direction::Incoming),
        connected(2, Direction::Incoming),
    ]);
    for number in 3..60 {
        assert_eq!(
            rig.feed([connected(number, Direction::Incoming)]),
            format!("notify {} 6/7, open {number}", number - 2)
        );
    }
    rig.feed([opened(59, open()), keepalive(59)]);
    assert_eq!(rig.session.state(), State::Established);
}
