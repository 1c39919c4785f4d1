//! The session with one peer: when to dial, which connections to keep, what to do with what
//! arrives on them. Not here: how they end (`ending`), one connection's own phases
//! (`connection`), the OPEN (`negotiate`), the choice between two connections (`collision`).

mod ending;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::back_off::BackOff;
use super::collision::{self, Speaker, Survivor};
use super::connection::{Connection, Expiry};
use super::negotiate::{Endpoints, negotiate, our_open};
use super::notifications::{self, MessageType};
use super::timer::{Jitter, Moment, Timer, TimerTable};
use crate::wire::Notification;
use crate::wire::notification::cease;
use crate::wire::open::Open;
use crate::wire::refresh::{RefreshKind, RouteRefresh};

pub use super::event::{Action, ConnectionId, Direction, DownReason, Input, LastError, State};
pub use super::negotiate::{ConfigChange, Negotiated, SessionConfig};

/// How many incoming connections without the peer's OPEN are kept. One more replaces the oldest.
/// Two, because the peer's own may arrive while a dead one of before its restart is still open.
const MAX_UNOPENED: usize = 2;

/// Dialling is never repeated faster than this, whatever the configuration says.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// The session with one peer. Begins stopped.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    is_started: bool,
    /// An [`Action::Dial`] is not answered yet.
    is_dialing: bool,
    back_off: BackOff,
    /// ConnectRetry, IdleHold and HoldDown only.
    timers: TimerTable,
    /// Oldest first. Bounded: `MAX_UNOPENED` incoming and one outgoing in OpenSent, and one that
    /// is past it.
    connections: Vec<Connection>,
    /// Emptied by the driver after every call; one call adds a handful.
    actions: VecDeque<Action>,
    shown_state: State,
}

impl Session {
    pub fn new(config: SessionConfig) -> Session {
        Session {
            config,
            is_started: false,
            is_dialing: false,
            back_off: BackOff::default(),
            timers: TimerTable::default(),
            connections: Vec::new(),
            actions: VecDeque::new(),
            shown_state: State::Idle,
        }
    }

    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// The state of the most advanced connection, else what the dialling side does: Connect while
    /// a dial is under way, Idle while stopped or waiting after an error, else Active.
    pub fn state(&self) -> State {
        if let Some(state) = self.connections.iter().map(Connection::state).max() {
            state
        } else if self.is_dialing {
            State::Connect
        } else if !self.is_started || self.is_waiting() {
            State::Idle
        } else {
            State::Active
        }
    }

    /// The connection that is the session, and what it runs with.
    pub fn established(&self) -> Option<(ConnectionId, &Negotiated)> {
        let connection = self.in_state(State::Established)?;
        Some((connection.id, connection.negotiated()?))
    }

    /// When [`Session::handle_timeout`] is due; `None` while nothing is timed.
    pub fn next_timeout(&self) -> Option<Instant> {
        let of_connections = self.connections.iter().filter_map(Connection::next_timeout);
        of_connections.chain(self.timers.next_timeout()).min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() && self.actions.capacity() > 0 {
            // Seldom more than a few at once, and an idle peer has none.
            self.actions = VecDeque::new();
        }
        action
    }

    /// Takes one event. Those of connections that are unknown, or over, change nothing.
    pub fn handle(&mut self, input: Input, now: Instant, jitter: Jitter) {
        let at = Moment { now, jitter };
        match input {
            Input::Start => self.start(at),
            Input::Stop { notification } => self.stop(notification, at),
            Input::Connected {
                connection,
                direction,
                local,
                remote,
            } => {
                self.handle_connected(
                    connection,
                    Endpoints {
                        direction,
                        local,
                        remote,
                    },
                    at,
                );
            }
            Input::DialFailed => self.handle_dial_failed(at),
            Input::Closed { connection } => {
                self.fail(connection, DownReason::ConnectionLost, "", at);
            }
            Input::OpenReceived { connection, open } => self.handle_open(connection, open, at),
            Input::KeepaliveReceived { connection } => self.handle_keepalive(connection, at),
            Input::UpdateReceived { connection } => {
                self.expect_established(connection, MessageType::Update, at);
            }
            Input::RefreshReceived {
                connection,
                refresh,
            } => {
                self.handle_refresh(connection, refresh, at);
            }
            Input::NotificationReceived {
                connection,
                notification,
            } => {
                let why = notification.describe();
                let reason = DownReason::NotificationReceived(notification);
                self.fail(connection, reason, &why, at);
            }
            Input::Malformed { connection, error } => self.fail_with(connection, error, at),
            Input::Cease {
                notification,
                hold_down,
            } => self.cease(notification, hold_down, at),
            Input::Reset => self.reset(at),
            Input::Release => self.release(at),
            Input::SendHoldExpired { connection } => {
                let why = "the peer read nothing for the send hold time";
                self.fail(connection, DownReason::SendHoldTimerExpired, why, at);
            }
        }
        self.show_state();
    }

    /// Does what is due at `now`. Calling it too early, or twice, changes nothing.
    pub fn handle_timeout(&mut self, now: Instant, jitter: Jitter) {
        let at = Moment { now, jitter };
        if self.timers.take_expired(Timer::ConnectRetry, now) {
            self.dial(at);
        }
        if self.timers.take_expired(Timer::IdleHold, now)
            || self.timers.take_expired(Timer::HoldDown, now)
        {
            self.begin(at);
        }
        let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
        for id in ids {
            let Some(connection) = self.find(id) else {
                continue;
            };
            match connection.take_expired(now) {
                Expiry::Nothing => {}
                Expiry::Hold => {
                    let why = "nothing received for the hold time";
                    self.fail(id, DownReason::HoldTimerExpired, why, at);
                }
                Expiry::Keepalive => {
                    connection.restart_keepalive_timer(at);
                    self.actions
                        .push_back(Action::SendKeepalive { connection: id });
                }
            }
        }
        self.show_state();
    }

    /// Takes a new configuration. What governs dialling and back-off holds at once, the rest from
    /// the next OPEN on. Returns whether a session that is up must be reset to follow; this is
    /// left to the caller ([`Input::Reset`]).
    pub fn reconfigure(
        &mut self,
        config: SessionConfig,
        now: Instant,
        jitter: Jitter,
    ) -> ConfigChange {
        let at = Moment { now, jitter };
        let change = self.config.change_to(&config);
        let was_passive = std::mem::replace(&mut self.config, config).passive;
        if self.config.passive {
            self.abort_dial();
            self.timers.stop(Timer::ConnectRetry);
        } else if was_passive && self.needs_plan() {
            self.dial(at);
        }
        self.shorten(Timer::ConnectRetry, self.config.connect_retry_time, at);
        self.shorten(Timer::IdleHold, self.config.idle_hold_max, at);
        self.show_state();
        change
    }

    fn start(&mut self, at: Moment) {
        // RFC 4271 §8.2.2: a start is ignored in every state but Idle. During the wait after an
        // error, or after a Cease, it ends that wait.
        if self.is_started && !self.is_waiting() {
            return;
        }
        self.is_started = true;
        self.begin(at);
    }

    fn stop(&mut self, notification: Option<Notification>, at: Moment) {
        self.is_started = false;
        self.abort_dial();
        self.timers = TimerTable::default();
        let reason = notification.map_or(DownReason::StoppedSilently, DownReason::NotificationSent);
        self.end_all(&reason, "stopped", at);
        self.back_off.reset();
    }

    /// Ends every connection. The back-off decides when to dial again, if `hold_down` does not.
    fn cease(&mut self, notification: Notification, hold_down: Option<Duration>, at: Moment) {
        if let Some(wait) = hold_down.filter(|_| self.is_started) {
            self.abort_dial();
            self.timers.stop(Timer::ConnectRetry);
            self.timers.stop(Timer::IdleHold);
            let end = at.now + wait.max(MIN_WAIT);
            let running = self.timers.get(Timer::HoldDown);
            self.timers.set(
                Timer::HoldDown,
                running.map_or(end, |running| running.max(end)),
            );
        }
        let mut why = notification.describe();
        if let Some(wait) = hold_down {
            why.push_str(&format!(", held down for {} s", wait.as_secs()));
        }
        self.end_all(&DownReason::NotificationSent(notification), &why, at);
    }

    fn reset(&mut self, at: Moment) {
        let is_covered_silently = self.established().is_some_and(|(_, negotiated)| {
            negotiated.graceful_restart.is_some() && !negotiated.has_graceful_notification()
        });
        if is_covered_silently {
            self.end_all(&DownReason::StoppedSilently, "", at);
        } else {
            let change = Notification::cease(cease::OTHER_CONFIGURATION_CHANGE);
            self.cease(change, None, at);
        }
    }

    fn release(&mut self, at: Moment) {
        if self.timers.is_set(Timer::HoldDown) {
            self.begin(at);
        }
    }

    /// Leaves Idle.
    fn begin(&mut self, at: Moment) {
        self.timers.stop(Timer::IdleHold);
        self.timers.stop(Timer::HoldDown);
        if !self.config.passive && !self.has_progress() {
            self.dial(at);
        }
    }

    fn dial(&mut self, at: Moment) {
        // RFC 4271 §8.2.2, Connect, event 9: a dial that took too long is dropped and begun anew.
        self.abort_dial();
        self.is_dialing = true;
        self.actions.push_back(Action::Dial);
        self.set_connect_retry(at);
    }

    fn abort_dial(&mut self) {
        if std::mem::take(&mut self.is_dialing) {
            self.actions.push_back(Action::AbortDial);
        }
    }

    fn handle_dial_failed(&mut self, at: Moment) {
        // Otherwise it is the answer to a dial that was given up meanwhile.
        if std::mem::take(&mut self.is_dialing) {
            self.set_connect_retry(at);
        }
    }

    fn handle_connected(&mut self, id: ConnectionId, endpoints: Endpoints, at: Moment) {
        if self.find(id).is_some() {
            return;
        }
        let is_wanted = match endpoints.direction {
            Direction::Outgoing => std::mem::take(&mut self.is_dialing),
            Direction::Incoming => self.is_started && !self.is_refusing(),
        };
        if !is_wanted {
            self.actions.push_back(Action::Close { connection: id });
            return;
        }
        match endpoints.direction {
            Direction::Outgoing => self.timers.stop(Timer::ConnectRetry),
            Direction::Incoming => self.make_room(),
        }
        let beside = self
            .in_state(State::Established)
            .map(|connection| connection.id);
        // Mostly the only one.
        self.connections.reserve_exact(1);
        self.connections
            .push(Connection::new(id, endpoints, beside, at.now));
        self.actions.push_back(Action::SendOpen {
            connection: id,
            open: our_open(&self.config),
        });
    }

    fn handle_open(&mut self, id: ConnectionId, open: Open, at: Moment) {
        let Some(connection) = self.find(id) else {
            return;
        };
        let (state, endpoints) = (connection.state(), connection.endpoints);
        if state != State::OpenSent {
            let error = notifications::unexpected_message(state, MessageType::Open);
            return self.fail_with(id, error, at);
        }
        let negotiated = match negotiate(&self.config, endpoints, open) {
            Ok(negotiated) => negotiated,
            Err(error) => return self.fail_with(id, error, at),
        };
        if self.settle_collisions(id, &negotiated) == Survivor::Existing {
            return self.remove(id, collision_lost());
        }
        self.abort_dial();
        self.timers.stop(Timer::ConnectRetry);
        self.timers.stop(Timer::IdleHold);
        let Some(connection) = self.find(id) else {
            return;
        };
        connection.confirm(negotiated, at);
        self.actions
            .push_back(Action::SendKeepalive { connection: id });
    }

    /// Ends the connections that the one with a new OPEN wins over, and says whether it stays.
    fn settle_collisions(&mut self, id: ConnectionId, negotiated: &Negotiated) -> Survivor {
        let local = Speaker {
            router_id: self.config.router_id,
            asn: self.config.local_asn,
        };
        let remote = Speaker {
            router_id: negotiated.remote_router_id,
            asn: negotiated.remote_asn,
        };
        let mut losers = Vec::new();
        for other in self.connections.iter().filter(|other| other.id != id) {
            let survivor =
                collision::resolve(local, remote, other.direction(), negotiated.direction);
            match other.state() {
                State::Established if self.is_restart(id, other) => {
                    losers.push((other.id, DownReason::Replaced));
                }
                // RFC 4271 §6.8: a connection that is established is kept.
                State::Established => return Survivor::Existing,
                State::OpenConfirm if survivor == Survivor::Existing => return Survivor::Existing,
                State::OpenConfirm => losers.push((other.id, collision_lost())),
                // The other one's OPEN would lose when it comes, so it is not waited for. What
                // would win may be silent for ever, so it ends nothing before its OPEN is here.
                State::OpenSent if other.direction() != negotiated.direction => {
                    if survivor == Survivor::New {
                        losers.push((other.id, collision_lost()));
                    }
                }
                State::OpenSent | State::Idle | State::Connect | State::Active => {}
            }
        }
        for (loser, reason) in losers {
            self.remove(loser, reason);
        }
        Survivor::New
    }

    /// Whether the valid OPEN on connection `id` shows that the peer restarted and `established`
    /// is a leftover (RFC 4724 §5). Connections from before it came up are collisions instead: the
    /// peer opened those without knowing of it.
    fn is_restart(&self, id: ConnectionId, established: &Connection) -> bool {
        let is_opened_later = self.connections.iter().any(|connection| {
            connection.id == id
                && connection.direction() == Direction::Incoming
                && connection.opened_beside == Some(established.id)
        });
        let has_graceful_restart = established
            .negotiated()
            .is_some_and(|negotiated| negotiated.graceful_restart.is_some());
        is_opened_later && has_graceful_restart
    }

    fn handle_keepalive(&mut self, id: ConnectionId, at: Moment) {
        let Some(connection) = self.find(id) else {
            return;
        };
        if let Some(negotiated) = connection.establish(at.now) {
            self.actions.push_back(Action::Established {
                connection: id,
                negotiated,
            });
        } else {
            self.expect_established(id, MessageType::Keepalive, at);
        }
    }

    fn handle_refresh(&mut self, id: ConnectionId, refresh: RouteRefresh, at: Moment) {
        if !self.expect_established(id, MessageType::RouteRefresh, at) {
            return;
        }
        // RFC 2918 §4: a family that was not announced is ignored. The demarcations of RFC 7313
        // belong between the routes and go with those.
        let is_negotiated = self
            .established()
            .is_some_and(|(_, negotiated)| negotiated.families.contains(&refresh.family));
        if is_negotiated && refresh.kind == RefreshKind::Request {
            self.actions.push_back(Action::RefreshRequested {
                connection: id,
                refresh,
            });
        }
    }

    /// Restarts the hold timer for a message that only an established connection may receive, and
    /// says whether it is one. On others it is an FSM error (RFC 6608).
    fn expect_established(&mut self, id: ConnectionId, message: MessageType, at: Moment) -> bool {
        let Some(connection) = self.find(id) else {
            return false;
        };
        let state = connection.state();
        if state == State::Established {
            connection.restart_hold_timer(at.now);
            return true;
        }
        self.fail_with(id, notifications::unexpected_message(state, message), at);
        false
    }

    /// After an error or a Cease, in Idle unless the peer comes back by itself.
    pub(super) fn is_waiting(&self) -> bool {
        self.timers.is_set(Timer::IdleHold) || self.timers.is_set(Timer::HoldDown)
    }

    fn is_refusing(&self) -> bool {
        let is_offender = self.timers.is_set(Timer::IdleHold) && self.back_off.is_peer_refused();
        is_offender || self.timers.is_set(Timer::HoldDown)
    }

    /// Ends the oldest incoming connection without an OPEN where one more would be too many.
    fn make_room(&mut self) {
        let unopened: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|c| c.direction() == Direction::Incoming && c.state() == State::OpenSent)
            .map(|c| c.id)
            .collect();
        if let [oldest, ..] = unopened[..]
            && unopened.len() >= MAX_UNOPENED
        {
            self.remove(oldest, collision_lost());
        }
    }

    /// Moves a deadline that is further away than a new wait would be.
    fn shorten(&mut self, timer: Timer, wait: Duration, at: Moment) {
        let bound = at.after(wait.max(MIN_WAIT));
        if self
            .timers
            .get(timer)
            .is_some_and(|deadline| deadline > bound)
        {
            self.timers.set(timer, bound);
        }
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|connection| connection.id == id)
    }

    fn in_state(&self, state: State) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|connection| connection.state() == state)
    }

    fn show_state(&mut self) {
        let to = self.state();
        let from = std::mem::replace(&mut self.shown_state, to);
        if from != to {
            self.actions.push_back(Action::StateChanged { from, to });
        }
    }
}

fn collision_lost() -> DownReason {
    DownReason::NotificationSent(Notification::cease(cease::COLLISION_RESOLUTION))
}

#[cfg(test)]
mod tests;
