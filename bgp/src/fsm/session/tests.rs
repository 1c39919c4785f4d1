//! The session as its driver sees it: inputs in, actions out, on a virtual clock.

mod collisions;
mod hold_down;
mod opens;
mod simulation;
mod table;
mod waits;

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::types::{Asn, Family, HoldTime, Role, RouterId};
use crate::wire::ProtocolError;
use crate::wire::capability::{Capability, GracefulRestart};

const LOCAL_AS: Asn = Asn(64512);
const PEER_AS: Asn = Asn(64513);

fn router_id(last_octet: u8) -> RouterId {
    RouterId(Ipv4Addr::new(192, 0, 2, last_octet))
}

fn address(last_octet: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, last_octet), 179))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Ours is 192.0.2.5.
fn config() -> SessionConfig {
    SessionConfig::new(LOCAL_AS, Some(PEER_AS), router_id(5))
}

fn graceful_restart() -> GracefulRestart {
    GracefulRestart {
        restart_state: false,
        notification: true,
        restart_time_secs: 120,
        families: vec![(Family::Ipv4, true)],
    }
}

/// The peer's OPEN with this as its graceful restart.
fn offering(graceful_restart: GracefulRestart) -> Open {
    let mut open = open();
    open.capabilities.pop();
    open.capabilities
        .push(Capability::GracefulRestart(graceful_restart));
    open
}

fn with_graceful_restart() -> SessionConfig {
    SessionConfig {
        graceful_restart: Some(graceful_restart()),
        ..config()
    }
}

fn multiprotocol(family: Family) -> Capability {
    Capability::MultiProtocol {
        afi: family.afi(),
        safi: 1,
    }
}

/// Theirs is 192.0.2.1, lower than ours.
fn open() -> Open {
    Open {
        asn: PEER_AS,
        hold_time: HoldTime::DEFAULT,
        router_id: router_id(1),
        capabilities: vec![
            multiprotocol(Family::Ipv4),
            Capability::RouteRefresh,
            Capability::FourOctetAs(PEER_AS),
            Capability::GracefulRestart(graceful_restart()),
        ],
    }
}

fn id(number: u64) -> ConnectionId {
    ConnectionId(number)
}

fn connected(number: u64, direction: Direction) -> Input {
    Input::Connected {
        connection: id(number),
        direction,
        local: address(5),
        remote: address(1),
    }
}

fn opened(number: u64, open: Open) -> Input {
    Input::OpenReceived {
        connection: id(number),
        open,
    }
}

fn keepalive(number: u64) -> Input {
    Input::KeepaliveReceived {
        connection: id(number),
    }
}

fn update(number: u64) -> Input {
    Input::UpdateReceived {
        connection: id(number),
    }
}

fn refresh(number: u64, family: Family, kind: RefreshKind) -> Input {
    Input::RefreshReceived {
        connection: id(number),
        refresh: RouteRefresh { family, kind },
    }
}

fn closed(number: u64) -> Input {
    Input::Closed {
        connection: id(number),
    }
}

fn notification(code: u8, subcode: u8) -> Notification {
    Notification::new(code, subcode)
}

fn notified(number: u64, code: u8, subcode: u8) -> Input {
    Input::NotificationReceived {
        connection: id(number),
        notification: notification(code, subcode),
    }
}

fn malformed(number: u64) -> Input {
    let error = ProtocolError {
        notification: notification(3, 1),
        reason: "bad".to_owned(),
    };
    Input::Malformed {
        connection: id(number),
        error,
    }
}

fn stop(code: u8, subcode: u8) -> Input {
    Input::Stop {
        notification: Some(notification(code, subcode)),
    }
}

/// 6/6 without, 6/1 with a hold-down.
fn cease(hold_down: Option<Duration>) -> Input {
    Input::Cease {
        notification: notification(6, if hold_down.is_some() { 1 } else { 6 }),
        hold_down,
    }
}

/// A session on a virtual clock. Actions come back as short text.
struct Rig {
    session: Session,
    now: Instant,
}

impl Rig {
    fn new(config: SessionConfig) -> Rig {
        Rig {
            session: Session::new(config),
            now: Instant::now(),
        }
    }

    fn started(config: SessionConfig) -> Rig {
        let mut rig = Rig::new(config);
        rig.feed([Input::Start]);
        rig
    }

    /// Started, and established on connection 1 that we opened.
    fn established(config: SessionConfig) -> Rig {
        Rig::established_with(config, open())
    }

    /// The same with this as the peer's OPEN.
    fn established_with(config: SessionConfig, theirs: Open) -> Rig {
        let mut rig = Rig::started(config);
        rig.feed([
            connected(1, Direction::Outgoing),
            opened(1, theirs),
            keepalive(1),
        ]);
        assert_eq!(rig.session.state(), State::Established);
        rig
    }

    fn feed<const N: usize>(&mut self, inputs: [Input; N]) -> String {
        for input in inputs {
            self.session.handle(input, self.now, Jitter::NONE);
        }
        self.actions()
    }

    fn actions(&mut self) -> String {
        let actions: Vec<String> = std::iter::from_fn(|| self.session.poll_action())
            .map(|action| brief(&action))
            .collect();
        actions.join(", ")
    }

    /// Moves the clock on, through every deadline on the way.
    fn wait(&mut self, duration: Duration) -> String {
        let end = self.now + duration;
        while let Some(deadline) = self.session.next_timeout().filter(|next| *next <= end) {
            assert!(deadline >= self.now, "a deadline was left behind");
            self.now = deadline;
            self.session.handle_timeout(self.now, Jitter::NONE);
        }
        self.now = end;
        self.actions()
    }

    /// How long until the session wants to be called.
    fn next_wait(&self) -> Option<Duration> {
        self.session
            .next_timeout()
            .map(|deadline| deadline - self.now)
    }
}

fn brief(action: &Action) -> String {
    match action {
        Action::Dial => "dial".to_owned(),
        Action::AbortDial => "abort".to_owned(),
        Action::SendOpen { connection, .. } => format!("open {}", connection.0),
        Action::SendKeepalive { connection } => format!("keepalive {}", connection.0),
        Action::SendNotification {
            connection,
            notification,
        } => {
            format!("notify {} {notification}", connection.0)
        }
        Action::Close { connection } => format!("close {}", connection.0),
        Action::Established { connection, .. } => format!("up {}", connection.0),
        Action::Down { connection, reason } => {
            let reason = match reason {
                DownReason::ConnectionLost => "lost".to_owned(),
                DownReason::Replaced => "replaced".to_owned(),
                DownReason::NotificationSent(notification) => format!("sent {notification}"),
                DownReason::NotificationReceived(notification) => format!("got {notification}"),
                DownReason::HoldTimerExpired => "hold".to_owned(),
                DownReason::SendHoldTimerExpired => "send hold".to_owned(),
                DownReason::StoppedSilently => "silent".to_owned(),
            };
            format!("down {} {reason}", connection.0)
        }
        Action::RefreshRequested { connection, .. } => format!("refresh {}", connection.0),
        Action::StateChanged { from, to } => format!("{from:?}>{to:?}"),
        Action::ErrorNoted { error } => {
            let verb = if error.sent { "sent" } else { "got" };
            format!("error {verb} {}", error.notification)
        }
    }
}

#[test]
fn dialling_peer_reaches_established() {
    let mut rig = Rig::new(config());
    assert_eq!(rig.feed([Input::Start]), "dial, Idle>Connect");
    assert_eq!(
        rig.feed([connected(1, Direction::Outgoing)]),
        "open 1, Connect>OpenSent"
    );
    assert_eq!(
        rig.feed([opened(1, open())]),
        "keepalive 1, OpenSent>OpenConfirm"
    );
    assert_eq!(rig.feed([keepalive(1)]), "up 1, OpenConfirm>Established");
    assert_eq!(
        rig.session.established().map(|(connection, _)| connection),
        Some(id(1))
    );
}

#[test]
fn open_says_what_is_configured() {
    let mut session = Session::new(SessionConfig {
        families: Family::ALL.to_vec(),
        ..with_graceful_restart()
    });
    session.handle(Input::Start, Instant::now(), Jitter::NONE);
    session.handle(
        connected(1, Direction::Outgoing),
        Instant::now(),
        Jitter::NONE,
    );
    let sent = std::iter::from_fn(|| session.poll_action()).find_map(|action| match action {
        Action::SendOpen { open, .. } => Some(open),
        _ => None,
    });
    let capabilities = vec![
        multiprotocol(Family::Ipv4),
        multiprotocol(Family::Ipv6),
        Capability::RouteRefresh,
        Capability::EnhancedRouteRefresh,
        Capability::ExtendedMessage,
        Capability::FourOctetAs(LOCAL_AS),
        Capability::GracefulRestart(graceful_restart()),
    ];
    let expected = Open {
        asn: LOCAL_AS,
        hold_time: HoldTime::DEFAULT,
        router_id: router_id(5),
        capabilities,
    };
    assert_eq!(sent, Some(expected));
}

#[test]
fn hold_time_is_the_minimum_and_keepalive_a_third() {
    for (name, ours, theirs, configured, hold_time, keepalive_time) in [
        ("equal", 90, 90, None, 90, 30),
        ("ours is smaller", 30, 90, None, 30, 10),
        ("theirs is smaller", 90, 9, None, 9, 3),
        ("whole seconds", 100, 180, None, 100, 33),
        ("the smallest", 90, 3, None, 3, 1),
        ("ours is zero", 0, 90, None, 0, 0),
        ("theirs is zero", 90, 0, Some(10), 0, 0),
        ("shorter by configuration", 90, 90, Some(10), 90, 10),
        ("never above a third", 90, 30, Some(20), 30, 10),
        ("never below a second", 90, 90, Some(0), 90, 1),
    ] {
        let mut rig = Rig::started(SessionConfig {
            hold_time: HoldTime::new(ours).unwrap(),
            keepalive_time: configured.map(seconds),
            ..config()
        });
        let theirs = Open {
            hold_time: HoldTime::new(theirs).unwrap(),
            ..open()
        };
        rig.feed([
            connected(1, Direction::Outgoing),
            opened(1, theirs),
            keepalive(1),
        ]);
        let (_, negotiated) = rig.session.established().expect(name);
        assert_eq!(negotiated.hold_time.seconds(), hold_time, "{name}");
        assert_eq!(negotiated.keepalive_time, seconds(keepalive_time), "{name}");
        let next_wait = (keepalive_time > 0).then(|| seconds(keepalive_time));
        assert_eq!(rig.next_wait(), next_wait, "{name}");
    }
}

#[test]
fn keepalives_are_sent_with_jitter() {
    let mut rig = Rig::established(config());
    for (bits, wait_ms) in [(0, 22_500), (250, 30_000)] {
        rig.now = rig.session.next_timeout().unwrap();
        rig.session.handle(update(1), rig.now, Jitter::NONE);
        rig.session
            .handle_timeout(rig.now, Jitter::from_random(bits));
        assert_eq!(rig.actions(), "keepalive 1");
        assert_eq!(rig.next_wait(), Some(Duration::from_millis(wait_ms)));
    }
}

#[test]
fn hold_expiry_sends_4_0_and_withdraws() {
    let mut rig = Rig::established(config());
    assert_eq!(rig.wait(seconds(89)), "keepalive 1, keepalive 1");
    assert_eq!(
        rig.wait(seconds(1)),
        "error sent 4/0, notify 1 4/0, down 1 hold, Established>Idle"
    );
}

#[test]
fn update_refreshes_hold_timer() {
    let refresh = || refresh(1, Family::Ipv4, RefreshKind::Request);
    for (name, message) in [
        ("update", update(1)),
        ("keepalive", keepalive(1)),
        ("refresh", refresh()),
    ] {
        let mut rig = Rig::established(config());
        rig.wait(seconds(60));
        rig.feed([message]);
        rig.wait(seconds(89));
        assert_eq!(rig.session.state(), State::Established, "{name}");
        rig.wait(seconds(1));
        assert_ne!(rig.session.state(), State::Established, "{name}");
    }
}

#[test]
fn hold_time_zero_sends_no_keepalive_and_never_expires() {
    let mut rig = Rig::established(SessionConfig {
        hold_time: HoldTime::new(0).unwrap(),
        ..config()
    });
    assert_eq!(rig.next_wait(), None);
    assert_eq!(rig.feed([update(1)]), "");
    assert_eq!(rig.next_wait(), None);
}

#[test]
fn hold_time_zero_does_not_wait_for_the_first_keepalive_for_ever() {
    let mut rig = Rig::started(SessionConfig {
        hold_time: HoldTime::new(0).unwrap(),
        ..config()
    });
    rig.feed([connected(1, Direction::Outgoing), opened(1, open())]);
    assert_eq!(rig.next_wait(), Some(seconds(240)));
}

#[test]
fn peer_without_open_is_dropped_after_four_minutes() {
    let mut rig = Rig::started(config());
    rig.feed([connected(1, Direction::Outgoing)]);
    assert_eq!(rig.wait(seconds(239)), "");
    assert_eq!(
        rig.wait(seconds(1)),
        "error sent 4/0, notify 1 4/0, OpenSent>Idle"
    );
}

#[test]
fn fsm_errors_5_1_5_2_5_3() {
    let refresh = || refresh(1, Family::Ipv4, RefreshKind::Request);
    for (name, before, message, subcode, message_type) in [
        ("keepalive in OpenSent", 0, keepalive(1), 1, 4),
        ("update in OpenSent", 0, update(1), 1, 2),
        ("refresh in OpenSent", 0, refresh(), 1, 5),
        ("open in OpenConfirm", 1, opened(1, open()), 2, 1),
        ("update in OpenConfirm", 1, update(1), 2, 2),
        ("refresh in OpenConfirm", 1, refresh(), 2, 5),
        ("open in Established", 2, opened(1, open()), 3, 1),
    ] {
        let mut rig = Rig::started(config());
        rig.feed([connected(1, Direction::Outgoing)]);
        for input in [opened(1, open()), keepalive(1)].into_iter().take(before) {
            rig.feed([input]);
        }
        rig.session.handle(message, rig.now, Jitter::NONE);
        let sent =
            std::iter::from_fn(|| rig.session.poll_action()).find_map(|action| match action {
                Action::SendNotification { notification, .. } => Some(notification),
                _ => None,
            });
        // RFC 6608 §3: the data is the type of the message.
        let expected = Notification {
            code: 5,
            subcode,
            data: vec![message_type],
        };
        assert_eq!(sent, Some(expected), "{name}");
    }
}

#[test]
fn stop_ends_every_connection_in_the_way_asked_for() {
    for (name, input, actions) in [
        (
            "silently",
            Input::Stop { notification: None },
            "close 1, down 1 silent, close 2, Established>Idle",
        ),
        (
            "with Cease",
            stop(6, 4),
            "error sent 6/4, notify 1 6/4, down 1 sent 6/4, notify 2 6/4, Established>Idle",
        ),
    ] {
        let mut rig = Rig::established(with_graceful_restart());
        rig.feed([connected(2, Direction::Incoming)]);
        assert_eq!(rig.feed([input]), actions, "{name}");
        assert_eq!(rig.next_wait(), None, "{name}");
        assert_eq!(
            rig.feed([connected(3, Direction::Incoming)]),
            "close 3",
            "{name}"
        );
    }
}

#[test]
fn lasting_ends_are_hard_resets_where_both_sides_have_rfc_8538() {
    let without_n = GracefulRestart {
        notification: false,
        ..graceful_restart()
    };
    for (name, ours, theirs, subcode, said) in [
        ("shutdown", graceful_restart(), open(), 2, 9),
        ("peer removed", graceful_restart(), open(), 3, 9),
        ("maximum prefixes", graceful_restart(), open(), 1, 9),
        ("reset", graceful_restart(), open(), 4, 4),
        ("changed configuration", graceful_restart(), open(), 6, 6),
        ("we without N", without_n.clone(), open(), 2, 2),
        (
            "they without N",
            graceful_restart(),
            offering(without_n.clone()),
            2,
            2,
        ),
    ] {
        let ours = SessionConfig {
            graceful_restart: Some(ours),
            ..config()
        };
        let mut rig = Rig::established_with(ours, theirs);
        assert_eq!(
            rig.feed([stop(6, subcode)]),
            format!(
                "error sent 6/{subcode}, notify 1 6/{said}, down 1 sent 6/{said}, Established>Idle"
            ),
            "{name}"
        );
    }
    let mut rig = Rig::started(with_graceful_restart());
    rig.feed([connected(1, Direction::Outgoing), opened(1, open())]);
    assert_eq!(
        rig.feed([stop(6, 2)]),
        "error sent 6/2, notify 1 6/2, OpenConfirm>Idle",
        "there is nothing to keep before the session is up"
    );
}

#[test]
fn cease_ends_the_session_and_dials_again() {
    let mut rig = Rig::established(config());
    assert_eq!(
        rig.feed([cease(None)]),
        "error sent 6/6, notify 1 6/6, down 1 sent 6/6, Established>Idle"
    );
    assert_eq!(rig.wait(seconds(1)), "dial, Idle>Connect");
}

#[test]
fn a_reset_for_another_configuration_leaves_routes_where_that_can_be() {
    let without_n = GracefulRestart {
        notification: false,
        ..graceful_restart()
    };
    let said = "error sent 6/6, notify 1 6/6, down 1 sent 6/6";
    for (name, ours, theirs, ends) in [
        ("no graceful restart", None, open(), said),
        (
            "it covers NOTIFICATIONs",
            Some(graceful_restart()),
            open(),
            said,
        ),
        (
            "it covers silence",
            Some(graceful_restart()),
            offering(without_n),
            "close 1, down 1 silent",
        ),
    ] {
        let ours = SessionConfig {
            graceful_restart: ours,
            ..config()
        };
        let mut rig = Rig::established_with(ours, theirs);
        assert_eq!(
            rig.feed([Input::Reset]),
            format!("{ends}, Established>Idle"),
            "{name}"
        );
        assert_eq!(rig.wait(seconds(1)), "dial, Idle>Connect", "{name}");
    }
}

#[test]
fn peer_that_does_not_read_is_closed_without_a_word() {
    let mut rig = Rig::established(config());
    assert_eq!(
        rig.feed([Input::SendHoldExpired { connection: id(1) }]),
        "error sent 8/0, close 1, down 1 send hold, Established>Idle"
    );
}

#[test]
fn events_of_connections_that_are_over_change_nothing() {
    let mut rig = Rig::established(config());
    rig.feed([malformed(1)]);
    let shown = (rig.session.state(), rig.next_wait());
    for input in [
        closed(1),
        opened(1, open()),
        keepalive(1),
        update(1),
        refresh(1, Family::Ipv4, RefreshKind::Request),
        notified(1, 6, 2),
        malformed(1),
        Input::SendHoldExpired { connection: id(1) },
    ] {
        assert_eq!(rig.feed([input.clone()]), "", "{input:?}");
        assert_eq!((rig.session.state(), rig.next_wait()), shown, "{input:?}");
    }
}

#[test]
fn change_of_configuration_says_whether_it_needs_a_reset() {
    type Change = fn(&mut SessionConfig);
    let changes: [(&str, Change, ConfigChange); 17] = [
        ("nothing", |_| {}, ConfigChange::Live),
        (
            "local AS",
            |config| config.local_asn = Asn(1),
            ConfigChange::NeedsReset,
        ),
        (
            "remote AS",
            |config| config.remote_asn = Some(Asn(1)),
            ConfigChange::NeedsReset,
        ),
        (
            "router id",
            |config| config.router_id = router_id(7),
            ConfigChange::NeedsReset,
        ),
        (
            "hold time",
            |config| config.hold_time = HoldTime::new(9).unwrap(),
            ConfigChange::NeedsReset,
        ),
        (
            "families",
            |config| config.families = Family::ALL.to_vec(),
            ConfigChange::NeedsReset,
        ),
        (
            "passive",
            |config| config.passive = true,
            ConfigChange::Live,
        ),
        (
            "timers",
            |config| config.connect_retry_time = seconds(1),
            ConfigChange::Live,
        ),
        (
            "restart",
            |config| config.graceful_restart = Some(graceful_restart()),
            ConfigChange::Live,
        ),
        (
            "long-lived stale time",
            |config| config.long_lived_stale_time = Some(seconds(3600)),
            ConfigChange::Live,
        ),
        (
            "several paths sent",
            |config| config.add_path_send = Family::ALL.into_iter().collect(),
            ConfigChange::NeedsReset,
        ),
        (
            "several paths received",
            |config| config.add_path_receive = Family::ALL.into_iter().collect(),
            ConfigChange::NeedsReset,
        ),
        (
            "several paths in a family that is not carried",
            |config| config.add_path_send = [Family::Ipv6].into_iter().collect(),
            ConfigChange::Live,
        ),
        (
            "IPv6 next hops",
            |config| config.extended_next_hop = true,
            ConfigChange::NeedsReset,
        ),
        (
            "role",
            |config| config.role = Some(Role::Customer),
            ConfigChange::NeedsReset,
        ),
        (
            "strict role",
            |config| (config.role, config.role_strict) = (Some(Role::Customer), true),
            ConfigChange::NeedsReset,
        ),
        (
            "strict without a role",
            |config| config.role_strict = true,
            ConfigChange::Live,
        ),
    ];
    for (name, change, expected) in changes {
        let mut rig = Rig::established(config());
        let mut new = config();
        change(&mut new);
        assert_eq!(
            rig.session.reconfigure(new.clone(), rig.now, Jitter::NONE),
            expected,
            "{name}"
        );
        assert_eq!(rig.session.config(), &new, "{name}");
        assert_eq!(rig.actions(), "", "{name}");
    }
}

#[test]
fn a_role_that_becomes_strict_needs_a_reset_and_one_that_ceases_to_be_does_not() {
    let lenient = || SessionConfig {
        role: Some(Role::Customer),
        ..config()
    };
    let strict = || SessionConfig {
        role_strict: true,
        ..lenient()
    };
    assert_eq!(lenient().change_to(&strict()), ConfigChange::NeedsReset);
    assert_eq!(strict().change_to(&lenient()), ConfigChange::Live);
    assert_eq!(strict().change_to(&strict()), ConfigChange::Live);
}

#[test]
fn peer_made_passive_stops_dialling_and_begins_again_when_it_is_not() {
    let mut rig = Rig::started(config());
    let passive = SessionConfig {
        passive: true,
        ..config()
    };
    let _ = rig.session.reconfigure(passive, rig.now, Jitter::NONE);
    assert_eq!(rig.actions(), "abort, Connect>Active");
    assert_eq!(rig.next_wait(), None);
    let _ = rig.session.reconfigure(config(), rig.now, Jitter::NONE);
    assert_eq!(rig.actions(), "dial, Active>Connect");
}

#[test]
fn shorter_timers_apply_to_waits_that_are_running() {
    let slow = SessionConfig {
        connect_retry_time: seconds(120),
        ..config()
    };
    let mut rig = Rig::started(slow);
    rig.feed([Input::DialFailed]);
    assert_eq!(rig.next_wait(), Some(seconds(120)));
    let _ = rig.session.reconfigure(config(), rig.now, Jitter::NONE);
    assert_eq!(rig.next_wait(), Some(seconds(5)));
}

#[test]
fn connect_retry_time_of_zero_does_not_spin() {
    let mut rig = Rig::started(SessionConfig {
        connect_retry_time: Duration::ZERO,
        ..config()
    });
    rig.feed([Input::DialFailed]);
    assert_eq!(rig.next_wait(), Some(MIN_WAIT));
}
