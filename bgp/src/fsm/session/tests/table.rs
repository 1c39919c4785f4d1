//! Every event in every state: what comes out, and nothing else.

use super::*;

/// How the states are reached. The connection, where there is one, is 1 and ours.
fn in_column(column: usize) -> Rig {
    let mut rig = Rig::new(config());
    let outgoing = || connected(1, Direction::Outgoing);
    let _ = match column {
        0 => rig.feed([]),
        1 => rig.feed([Input::Start, outgoing(), malformed(1)]),
        2 => rig.feed([Input::Start]),
        3 => rig.feed([Input::Start, Input::DialFailed]),
        4 => rig.feed([Input::Start, outgoing()]),
        5 => rig.feed([Input::Start, outgoing(), opened(1, open())]),
        6 => rig.feed([Input::Start, outgoing(), opened(1, open()), keepalive(1)]),
        _ => unreachable!("seven columns"),
    };
    rig
}

const COLUMNS: [&str; 7] = [
    "stopped",
    "idle hold",
    "Connect",
    "Active",
    "OpenSent",
    "OpenConfirm",
    "Established",
];

enum Event {
    Input(Input),
    /// The earliest deadline comes; nothing if there is none.
    NextTimeout,
    /// Nothing was heard for so long that every timer is over.
    FourMinutesLater,
}

#[test]
fn every_event_in_every_state() {
    use Event::{FourMinutesLater, NextTimeout};
    let input = Event::Input;
    // One cell for each of COLUMNS.
    #[rustfmt::skip]
    let rows: [(&str, Event, [&str; 7]); 17] = [
        ("Start", input(Input::Start), [
            "dial, Idle>Connect", "dial, Idle>Connect", "", "", "", "", "",
        ]),
        ("Stop, silently", input(Input::Stop { notification: None }), [
            "", "", "abort, Connect>Idle", "Active>Idle", "close 1, OpenSent>Idle",
            "close 1, OpenConfirm>Idle", "close 1, down 1 silent, Established>Idle",
        ]),
        ("Stop, with Cease", input(stop(6, 2)), [
            "", "", "abort, Connect>Idle", "Active>Idle",
            "error sent 6/2, notify 1 6/2, OpenSent>Idle",
            "error sent 6/2, notify 1 6/2, OpenConfirm>Idle",
            "error sent 6/2, notify 1 6/2, down 1 sent 6/2, Established>Idle",
        ]),
        ("Connected, ours", input(connected(2, Direction::Outgoing)), [
            "close 2", "close 2", "open 2, Connect>OpenSent", "close 2", "close 2", "close 2",
            "close 2",
        ]),
        ("Connected, theirs", input(connected(2, Direction::Incoming)), [
            "close 2", "open 2, Idle>OpenSent", "open 2, Connect>OpenSent",
            "open 2, Active>OpenSent", "open 2", "open 2", "open 2",
        ]),
        ("DialFailed", input(Input::DialFailed), [
            "", "", "Connect>Active", "", "", "", "",
        ]),
        ("Closed", input(closed(1)), [
            "", "", "", "", "OpenSent>Active", "OpenConfirm>Idle", "down 1 lost, Established>Idle",
        ]),
        ("OPEN", input(opened(1, open())), [
            "", "", "", "", "keepalive 1, OpenSent>OpenConfirm",
            "error sent 5/2, notify 1 5/2, OpenConfirm>Idle",
            "error sent 5/3, notify 1 5/3, down 1 sent 5/3, Established>Idle",
        ]),
        ("KEEPALIVE", input(keepalive(1)), [
            "", "", "", "", "error sent 5/1, notify 1 5/1, OpenSent>Idle",
            "up 1, OpenConfirm>Established", "",
        ]),
        ("UPDATE", input(update(1)), [
            "", "", "", "", "error sent 5/1, notify 1 5/1, OpenSent>Idle",
            "error sent 5/2, notify 1 5/2, OpenConfirm>Idle", "",
        ]),
        ("ROUTE-REFRESH", input(refresh(1, Family::Ipv4, RefreshKind::Request)), [
            "", "", "", "", "error sent 5/1, notify 1 5/1, OpenSent>Idle",
            "error sent 5/2, notify 1 5/2, OpenConfirm>Idle", "refresh 1",
        ]),
        ("NOTIFICATION", input(notified(1, 6, 2)), [
            "", "", "", "", "error got 6/2, close 1, OpenSent>Idle",
            "error got 6/2, close 1, OpenConfirm>Idle",
            "error got 6/2, close 1, down 1 got 6/2, Established>Idle",
        ]),
        ("Malformed", input(malformed(1)), [
            "", "", "", "", "error sent 3/1, notify 1 3/1, OpenSent>Idle",
            "error sent 3/1, notify 1 3/1, OpenConfirm>Idle",
            "error sent 3/1, notify 1 3/1, down 1 sent 3/1, Established>Idle",
        ]),
        ("Cease", input(cease(None)), [
            "", "", "", "", "error sent 6/6, notify 1 6/6, OpenSent>Idle",
            "error sent 6/6, notify 1 6/6, OpenConfirm>Idle",
            "error sent 6/6, notify 1 6/6, down 1 sent 6/6, Established>Idle",
        ]),
        ("SendHoldExpired", input(Input::SendHoldExpired { connection: id(1) }), [
            "", "", "", "", "error sent 8/0, close 1, OpenSent>Idle",
            "error sent 8/0, close 1, OpenConfirm>Idle",
            "error sent 8/0, close 1, down 1 send hold, Established>Idle",
        ]),
        ("next timeout", NextTimeout, [
            "", "dial, Idle>Connect", "abort, dial", "dial, Active>Connect",
            "error sent 4/0, notify 1 4/0, OpenSent>Idle", "keepalive 1", "keepalive 1",
        ]),
        ("four minutes later", FourMinutesLater, [
            "", "dial, Idle>Connect", "abort, dial", "dial, Active>Connect",
            "error sent 4/0, notify 1 4/0, OpenSent>Idle",
            "error sent 4/0, notify 1 4/0, OpenConfirm>Idle",
            "error sent 4/0, notify 1 4/0, down 1 hold, Established>Idle",
        ]),
    ];
    for (name, event, cells) in rows {
        for (column, cell) in cells.into_iter().enumerate() {
            let mut rig = in_column(column);
            let seen = match &event {
                Event::Input(input) => rig.feed([input.clone()]),
                NextTimeout => {
                    let deadline = rig.session.next_timeout().unwrap_or(rig.now);
                    rig.session.handle_timeout(deadline, Jitter::NONE);
                    rig.actions()
                }
                FourMinutesLater => {
                    rig.session
                        .handle_timeout(rig.now + seconds(240), Jitter::NONE);
                    rig.actions()
                }
            };
            assert_eq!(seen, cell, "{name} in {}", COLUMNS[column]);
        }
    }
}
