//! A peer that is kept away for a time after a Cease.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn held_down_peer_is_neither_dialled_nor_let_in_until_the_time_is_over() {
    // The back-off alone would dial again after a second.
    for (name, idle_hold_max) in [("back-off", seconds(10)), ("no back-off", seconds(0))] {
        let mut rig = Rig::established(SessionConfig {
            idle_hold_max,
            ..config()
        });
        assert_eq!(
            rig.feed([cease(Some(HOUR))]),
            "error sent 6/1, notify 1 6/1, down 1 sent 6/1, Established>Idle",
            "{name}"
        );
        assert_eq!(rig.wait(HOUR - seconds(1)), "", "{name}");
        let incoming = connected(2, Direction::Incoming);
        assert_eq!(rig.feed([incoming]), "close 2", "{name}");
        assert_eq!(rig.session.state(), State::Idle, "{name}");
        assert_eq!(rig.wait(seconds(1)), "dial, Idle>Connect", "{name}");
        let incoming = connected(3, Direction::Incoming);
        assert_eq!(rig.feed([incoming]), "open 3, Connect>OpenSent", "{name}");
    }
}

#[test]
fn hold_down_ends_connections_and_dials_in_every_phase() {
    let outgoing = || connected(1, Direction::Outgoing);
    let before: [(&str, Vec<Input>, &str); 5] = [
        ("Connect", vec![], "abort, Connect>Idle"),
        ("Active", vec![Input::DialFailed], "Active>Idle"),
        (
            "OpenSent",
            vec![outgoing()],
            "error sent 6/1, notify 1 6/1, OpenSent>Idle",
        ),
        (
            "silent connection and a dial",
            vec![connected(1, Direction::Incoming)],
            "abort, error sent 6/1, notify 1 6/1, OpenSent>Idle",
        ),
        ("after an error", vec![outgoing(), malformed(1)], ""),
    ];
    for (name, inputs, actions) in before {
        let mut rig = Rig::started(config());
        for input in inputs {
            rig.feed([input]);
        }
        assert_eq!(rig.feed([cease(Some(HOUR))]), actions, "{name}");
        assert_eq!(rig.next_wait(), Some(HOUR), "{name}");
        let late_answer = connected(9, Direction::Outgoing);
        assert_eq!(
            rig.feed([late_answer, Input::DialFailed]),
            "close 9",
            "{name}"
        );
        assert_eq!(rig.next_wait(), Some(HOUR), "{name}");
    }
}

#[test]
fn release_and_start_end_the_hold_down_at_once() {
    for input in [Input::Release, Input::Start] {
        let mut rig = Rig::established(config());
        rig.feed([cease(Some(HOUR))]);
        assert_eq!(rig.feed([input.clone()]), "dial, Idle>Connect", "{input:?}");
        assert_eq!(
            rig.next_wait(),
            Some(seconds(5)),
            "connect retry: {input:?}"
        );
    }
}

#[test]
fn stop_ends_the_hold_down_without_a_dial() {
    let mut rig = Rig::established(config());
    rig.feed([cease(Some(HOUR))]);
    assert_eq!(rig.feed([stop(6, 2)]), "");
    assert_eq!(rig.next_wait(), None);
    assert_eq!(rig.feed([Input::Release]), "");
    assert_eq!(rig.feed([Input::Start]), "dial, Idle>Connect");
}

#[test]
fn release_of_a_peer_that_is_not_held_down_changes_nothing() {
    let mut rig = Rig::established(config());
    rig.feed([malformed(1)]);
    let wait = rig.next_wait();
    assert_eq!(rig.feed([Input::Release]), "");
    assert_eq!(rig.next_wait(), wait);
}

#[test]
fn a_further_cease_prolongs_the_hold_down_and_never_shortens_it() {
    for (name, second, left) in [
        ("longer", Some(2 * HOUR), 2 * HOUR),
        ("shorter", Some(seconds(1)), HOUR),
        ("none", None, HOUR),
    ] {
        let mut rig = Rig::established(config());
        rig.feed([cease(Some(HOUR)), cease(second)]);
        assert_eq!(rig.next_wait(), Some(left), "{name}");
    }
}

#[test]
fn change_of_configuration_leaves_the_hold_down_alone() {
    let passive = SessionConfig {
        passive: true,
        ..config()
    };
    let quick = SessionConfig {
        idle_hold_max: seconds(2),
        connect_retry_time: seconds(1),
        ..config()
    };
    let mut rig = Rig::established(config());
    rig.feed([cease(Some(HOUR))]);
    for new in [passive, quick] {
        let _ = rig.session.reconfigure(new, rig.now, Jitter::NONE);
        assert_eq!(rig.actions(), "");
        assert_eq!(rig.next_wait(), Some(HOUR));
    }
}

#[test]
fn passive_peer_is_held_down_too() {
    let mut rig = Rig::established(config());
    let passive = SessionConfig {
        passive: true,
        ..config()
    };
    let _ = rig.session.reconfigure(passive, rig.now, Jitter::NONE);
    rig.feed([cease(Some(HOUR))]);
    assert_eq!(rig.feed([connected(2, Direction::Incoming)]), "close 2");
    assert_eq!(rig.wait(HOUR), "Idle>Active");
    assert_eq!(
        rig.feed([connected(3, Direction::Incoming)]),
        "open 3, Active>OpenSent"
    );
}

#[test]
fn stopped_session_is_not_held_down() {
    let mut rig = Rig::new(config());
    assert_eq!(rig.feed([cease(Some(HOUR))]), "");
    assert_eq!(rig.next_wait(), None);
}

#[test]
fn hold_down_of_zero_does_not_spin() {
    let mut rig = Rig::established(config());
    rig.feed([cease(Some(Duration::ZERO))]);
    assert_eq!(rig.next_wait(), Some(MIN_WAIT));
}
