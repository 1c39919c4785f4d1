//! A session whose driver feeds it any event at any time, and checks that what comes back fits
//! together whatever it was.
//!
//! Two octets of configuration, then events: an octet for which, the following for what of it.

#![no_main]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::fsm::session::{Action, ConnectionId, Direction, Input, Session, SessionConfig, State};
use bgp::fsm::timer::Jitter;
use bgp::types::{Asn, Family, HoldTime, Role, RouterId};
use bgp::wire::capability::{Capability, GracefulRestart};
use bgp::wire::open::Open;
use bgp::wire::refresh::{RefreshKind, RouteRefresh};
use bgp::wire::{Notification, ProtocolError};
use libfuzzer_sys::fuzz_target;

/// No event makes more than this.
const MAX_ACTIONS: usize = 64;

fuzz_target!(|input: &[u8]| {
    let mut octets = input.iter().copied();
    let (Some(low), Some(high)) = (octets.next(), octets.next()) else {
        return;
    };
    let mut driver = Driver::new(config(u16::from_be_bytes([high, low])));
    while let Some(kind) = octets.next() {
        driver.step(kind, &mut || octets.next().unwrap_or(0));
    }
});

fn config(bits: u16) -> SessionConfig {
    let has = |bit: u16| bits & (1 << bit) != 0;
    let remote_asn = match bits & 3 {
        0 => Some(Asn(64513)),
        1 => Some(Asn(64512)),
        _ => None,
    };
    let families = match (has(3), has(4)) {
        (true, true) => Family::ALL.to_vec(),
        (false, true) => vec![Family::Ipv6],
        (_, false) => vec![Family::Ipv4],
    };
    let listed = |is_listed: bool| Family::ALL.into_iter().filter(move |_| is_listed).collect();
    let hold_time = HoldTime::new(if has(5) { 9 } else { 0 }).expect("not 1 or 2");
    SessionConfig {
        hold_time,
        passive: has(2),
        idle_hold_max: Duration::from_secs(if has(6) { 10 } else { 0 }),
        graceful_restart: has(7).then(|| GracefulRestart {
            notification: has(8),
            restart_time_secs: 120,
            families: families.iter().map(|family| (*family, has(9))).collect(),
            ..GracefulRestart::default()
        }),
        families,
        long_lived_stale_time: has(10).then_some(Duration::from_secs(3600)),
        add_path_send: listed(has(11)),
        add_path_receive: listed(has(12)),
        extended_next_hop: has(13),
        role: has(14).then_some(Role::Customer),
        role_strict: has(15),
        ..SessionConfig::new(Asn(64512), remote_asn, router_id(5))
    }
}

fn router_id(last_octet: u8) -> RouterId {
    RouterId(Ipv4Addr::new(192, 0, 2, last_octet))
}

/// What the session was told and what it asked for.
struct Driver {
    session: Session,
    now: Instant,
    next_connection: u64,
    is_dialing: bool,
    /// Open connections of the session, and whether each is the session that is up.
    connections: BTreeMap<ConnectionId, bool>,
    state: State,
}

impl Driver {
    fn new(config: SessionConfig) -> Driver {
        Driver {
            session: Session::new(config),
            now: Instant::now(),
            next_connection: 0,
            is_dialing: false,
            connections: BTreeMap::new(),
            state: State::Idle,
        }
    }

    fn step(&mut self, kind: u8, octet: &mut impl FnMut() -> u8) {
        let input = match kind % 18 {
            0 => Input::Start,
            1 => {
                let subcode = octet();
                let notification = (subcode != 0).then(|| Notification::cease(subcode));
                Input::Stop { notification }
            }
            // Also where nothing was dialled.
            2 => self.connected(Direction::Outgoing),
            3 => self.connected(Direction::Incoming),
            4 => {
                self.is_dialing = false;
                Input::DialFailed
            }
            5 => Input::OpenReceived {
                connection: self.connection(octet()),
                open: open(octet),
            },
            6 => Input::KeepaliveReceived {
                connection: self.connection(octet()),
            },
            7 => Input::UpdateReceived {
                connection: self.connection(octet()),
            },
            8 => Input::RefreshReceived {
                connection: self.connection(octet()),
                refresh: RouteRefresh {
                    family: Family::ALL[usize::from(octet() % 2)],
                    kind: RefreshKind::Request,
                },
            },
            9 => Input::NotificationReceived {
                connection: self.connection(octet()),
                notification: Notification::new(octet(), octet()),
            },
            10 => Input::Malformed {
                connection: self.connection(octet()),
                error: ProtocolError::new(Notification::new(octet(), octet()), "bad"),
            },
            11 => Input::Closed {
                connection: self.connection(octet()),
            },
            12 => {
                let seconds = octet();
                Input::Cease {
                    notification: Notification::cease(octet()),
                    hold_down: (seconds != 0).then(|| Duration::from_secs(seconds.into())),
                }
            }
            13 => Input::Release,
            14 => return self.wait(Duration::from_secs(octet().into())),
            15 => return self.wait_for_timeout(),
            16 => {
                let bits = u16::from_be_bytes([octet(), octet()]);
                let _ = self
                    .session
                    .reconfigure(config(bits), self.now, jitter(octet()));
                return self.carry_out(None);
            }
            _ => Input::SendHoldExpired {
                connection: self.connection(octet()),
            },
        };
        let ended = match input {
            Input::Closed { connection } => Some(connection),
            _ => None,
        };
        self.session.handle(input, self.now, jitter(kind));
        self.carry_out(ended);
    }

    fn connected(&mut self, direction: Direction) -> Input {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        if direction == Direction::Outgoing {
            self.is_dialing = false;
        }
        let end = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 179));
        Input::Connected {
            connection,
            direction,
            local: end,
            remote: end,
        }
    }

    /// One of those that ever were, the newest for 0.
    fn connection(&self, back: u8) -> ConnectionId {
        ConnectionId(self.next_connection.saturating_sub(1 + u64::from(back)))
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.look_at_timers();
    }

    fn wait_for_timeout(&mut self) {
        if let Some(deadline) = self.session.next_timeout() {
            self.now = self.now.max(deadline);
        }
        self.look_at_timers();
    }

    fn look_at_timers(&mut self) {
        self.session.handle_timeout(self.now, Jitter::NONE);
        let left_over = self.session.next_timeout().filter(|at| *at <= self.now);
        assert_eq!(left_over, None, "a timer that expired is still set");
        self.carry_out(None);
    }

    /// `ended`: the peer closed this connection just now.
    fn carry_out(&mut self, ended: Option<ConnectionId>) {
        for count in 0.. {
            assert!(count < MAX_ACTIONS, "too many actions");
            let Some(action) = self.session.poll_action() else {
                break;
            };
            match action {
                Action::Dial => {
                    assert!(!self.is_dialing, "two dials at once");
                    assert!(!self.session.config().passive, "a passive session dials");
                    self.is_dialing = true;
                }
                Action::AbortDial => assert!(std::mem::take(&mut self.is_dialing)),
                Action::SendOpen { connection, open } => {
                    let before = self.connections.insert(connection, false);
                    assert_eq!(before, None, "an OPEN twice");
                    assert!(!open.encode().is_empty());
                }
                Action::SendKeepalive { connection } => {
                    assert!(self.connections.contains_key(&connection));
                }
                Action::SendNotification {
                    connection,
                    notification,
                } => {
                    assert!(!notification.encode().is_empty());
                    self.end(connection);
                }
                Action::Close { connection } => {
                    // Also what was not wanted and never got an OPEN.
                    if self.connections.contains_key(&connection) {
                        self.end(connection);
                    }
                }
                Action::Established {
                    connection,
                    negotiated,
                } => {
                    assert!(
                        self.connections.values().all(|is_up| !is_up),
                        "two sessions"
                    );
                    assert!(!negotiated.families.is_empty());
                    self.connections.insert(connection, true);
                }
                Action::Down { connection, .. } => {
                    if ended == Some(connection) {
                        self.end(connection);
                    }
                }
                Action::RefreshRequested { connection, .. } => {
                    assert_eq!(self.connections.get(&connection), Some(&true));
                }
                Action::StateChanged { from, to } => {
                    assert_eq!(from, self.state);
                    assert_ne!(from, to);
                    self.state = to;
                }
                Action::ErrorNoted { .. } => {}
            }
        }
        if let Some(connection) = ended {
            self.connections.remove(&connection);
        }
        assert_eq!(self.session.state(), self.state, "a change was not told");
        let up = self.connections.iter().find(|(_, is_up)| **is_up);
        let established = self.session.established().map(|(connection, _)| connection);
        assert_eq!(established, up.map(|(connection, _)| *connection));
        assert!(self.connections.len() <= 4, "too many connections");
    }

    fn end(&mut self, connection: ConnectionId) {
        let before = self.connections.remove(&connection);
        assert!(before.is_some(), "a connection ends twice");
    }
}

fn open(octet: &mut impl FnMut() -> u8) -> Open {
    let bits = octet();
    let asn = Asn(64512 + u32::from(bits & 3));
    let mut capabilities = vec![Capability::FourOctetAs(asn)];
    if bits & 4 != 0 {
        capabilities.extend(Family::ALL.map(Capability::from));
    }
    if bits & 8 != 0 {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            notification: bits & 16 != 0,
            restart_time_secs: 120,
            families: vec![(Family::Ipv4, true)],
            ..GracefulRestart::default()
        }));
    }
    if bits & 32 != 0 {
        let (afi, safi, value) = (octet(), octet(), octet());
        capabilities.push(Capability::AddPath(vec![(afi.into(), safi, value)]));
        capabilities.push(Capability::LongLivedGracefulRestart(vec![(
            afi.into(),
            safi,
            value,
            u32::from(octet()),
        )]));
    }
    if bits & 64 != 0 {
        capabilities.push(Capability::Role(octet()));
    }
    Open {
        asn,
        hold_time: HoldTime::new(if bits & 128 != 0 { 3 } else { 0 }).expect("not 1 or 2"),
        router_id: router_id(bits % 11),
        capabilities,
    }
}

fn jitter(bits: u8) -> Jitter {
    Jitter::from_random(bits.into())
}
