//! Dialling, back-off and what ends a wait.

use super::*;

#[test]
fn failed_dial_is_repeated_after_the_connect_retry_time() {
    let mut rig = Rig::started(config());
    rig.session
        .handle(Input::DialFailed, rig.now, Jitter::from_random(0));
    assert_eq!(rig.actions(), "Connect>Active");
    assert_eq!(rig.next_wait(), Some(Duration::from_millis(3750)));
    assert_eq!(rig.wait(seconds(4)), "dial, Active>Connect");
}

#[test]
fn dial_without_answer_is_begun_anew() {
    let mut rig = Rig::started(config());
    assert_eq!(rig.wait(seconds(5)), "abort, dial");
    assert_eq!(rig.wait(seconds(5)), "abort, dial");
}

#[test]
fn answers_to_a_dial_that_was_given_up_change_nothing() {
    let mut rig = Rig::established(config());
    assert_eq!(rig.feed([connected(2, Direction::Outgoing)]), "close 2");
    assert_eq!(rig.feed([Input::DialFailed]), "");
}

#[test]
fn passive_peer_never_dials() {
    let passive = SessionConfig {
        passive: true,
        ..config()
    };
    let mut rig = Rig::new(passive);
    assert_eq!(rig.feed([Input::Start]), "Idle>Active");
    assert_eq!(rig.next_wait(), None);
    rig.feed([
        connected(1, Direction::Incoming),
        opened(1, open()),
        keepalive(1),
    ]);
    assert_eq!(rig.feed([closed(1)]), "down 1 lost, Established>Idle");
    assert_eq!(rig.wait(seconds(1)), "Idle>Active");
    assert_eq!(rig.next_wait(), None);
}

#[test]
fn wait_after_errors_doubles_up_to_its_bound() {
    let mut rig = Rig::started(config());
    let mut waits = Vec::new();
    for number in 1..=6 {
        rig.feed([connected(number, Direction::Outgoing), malformed(number)]);
        assert_eq!(rig.session.state(), State::Idle);
        let wait = rig.next_wait().unwrap();
        waits.push(wait.as_secs());
        assert_eq!(rig.wait(wait), "dial, Idle>Connect");
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn session_that_was_up_for_its_hold_time_resets_the_wait() {
    for (name, uptime, wait) in [("stable", 90, 1), ("short", 89, 4)] {
        let mut rig = Rig::started(config());
        for number in 1..=2 {
            rig.feed([connected(number, Direction::Outgoing), malformed(number)]);
            rig.wait(rig.next_wait().unwrap());
        }
        rig.feed([
            connected(3, Direction::Outgoing),
            opened(3, open()),
            keepalive(3),
        ]);
        rig.wait(seconds(50));
        rig.feed([update(3)]);
        rig.wait(seconds(uptime - 50));
        rig.feed([closed(3)]);
        assert_eq!(rig.next_wait(), Some(seconds(wait)), "{name}");
    }
}

#[test]
fn without_back_off_errors_are_followed_by_the_connect_retry_time() {
    let mut rig = Rig::started(SessionConfig {
        idle_hold_max: Duration::ZERO,
        ..config()
    });
    for number in 1..=3 {
        rig.feed([connected(number, Direction::Outgoing)]);
        assert_eq!(
            rig.feed([malformed(number)]),
            format!("error sent 3/1, notify {number} 3/1, OpenSent>Active")
        );
        assert_eq!(rig.wait(seconds(5)), "dial, Active>Connect");
    }
}

#[test]
fn returning_peer_is_taken_while_we_wait_after_an_error() {
    let mut rig = Rig::established(config());
    assert_eq!(rig.feed([closed(1)]), "down 1 lost, Established>Idle");
    assert_eq!(
        rig.feed([connected(2, Direction::Incoming)]),
        "open 2, Idle>OpenSent"
    );
    rig.feed([opened(2, open()), keepalive(2)]);
    assert_eq!(rig.session.state(), State::Established);
    assert_eq!(rig.next_wait(), Some(seconds(30)), "no wait is left over");
}

#[test]
fn peer_that_sends_wrong_messages_twice_is_refused_until_the_wait_ends() {
    let mut rig = Rig::started(SessionConfig {
        passive: true,
        ..config()
    });
    rig.feed([connected(1, Direction::Incoming), malformed(1)]);
    assert_eq!(
        rig.feed([connected(2, Direction::Incoming)]),
        "open 2, Idle>OpenSent"
    );
    rig.feed([malformed(2)]);
    assert_eq!(rig.feed([connected(3, Direction::Incoming)]), "close 3");
    rig.wait(seconds(2));
    assert_eq!(
        rig.feed([connected(4, Direction::Incoming)]),
        "open 4, Active>OpenSent"
    );
}

#[test]
fn errors_during_the_wait_do_not_prolong_it() {
    let mut rig = Rig::established(config());
    rig.feed([closed(1)]);
    rig.wait(Duration::from_millis(900));
    rig.feed([connected(2, Direction::Incoming), malformed(2)]);
    assert_eq!(rig.next_wait(), Some(Duration::from_millis(100)));
}

#[test]
fn start_ends_the_wait_after_an_error() {
    let mut rig = Rig::established(config());
    rig.feed([closed(1)]);
    assert_eq!(rig.feed([Input::Start]), "dial, Idle>Connect");
}
