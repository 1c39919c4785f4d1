//! How connections end, and when to try again.

use std::time::Instant;

use super::{
    Action, ConnectionId, Direction, DownReason, LastError, MIN_WAIT, Negotiated, Session, State,
};
use crate::fsm::connection::Connection;
use crate::fsm::timer::{Moment, Timer};
use crate::wire::notification::{cease, code};
use crate::wire::{Notification, ProtocolError};

impl Session {
    pub(super) fn fail_with(&mut self, id: ConnectionId, error: ProtocolError, at: Moment) {
        self.fail(
            id,
            DownReason::NotificationSent(error.notification),
            &error.reason,
            at,
        );
    }

    /// Ends a connection by an error, keeps the error, and plans the next attempt.
    pub(super) fn fail(&mut self, id: ConnectionId, reason: DownReason, why: &str, at: Moment) {
        let Some(connection) = self.find(id) else {
            return;
        };
        let is_silent_end =
            connection.state() == State::OpenSent && reason == DownReason::ConnectionLost;
        // RFC 4271 §8.2.2, OpenSent, event 18: no error, the peer is just not there yet.
        if !is_silent_end && !self.is_collision_verdict(id, &reason) {
            self.record_error(&[id], &reason, why, at.now);
        }
        self.remove(id, reason);
        if is_silent_end || self.config.idle_hold_max.is_zero() {
            self.plan_retry(at);
        } else {
            self.plan_idle_hold(at);
        }
    }

    /// Ends all connections for one reason of ours.
    pub(super) fn end_all(&mut self, reason: &DownReason, why: &str, at: Moment) {
        let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
        if ids.is_empty() {
            return;
        }
        self.record_error(&ids, reason, why, at.now);
        for id in ids {
            self.remove(id, reason.clone());
        }
        if self.config.idle_hold_max.is_zero() {
            self.plan_retry(at);
        } else {
            self.plan_idle_hold(at);
        }
    }

    /// Whether the peer decided a collision against connection `id`: another one goes on.
    fn is_collision_verdict(&self, id: ConnectionId, reason: &DownReason) -> bool {
        let DownReason::NotificationReceived(received) = reason else {
            return false;
        };
        let has_other = self.connections.iter().any(|other| other.id != id);
        has_other && (received.code, received.subcode) == (code::CEASE, cease::COLLISION_RESOLUTION)
    }

    /// Counts one error that ends the connections `ids`, and keeps it for display.
    fn record_error(&mut self, ids: &[ConnectionId], reason: &DownReason, why: &str, now: Instant) {
        let is_stable =
            |connection: &Connection| ids.contains(&connection.id) && connection.is_stable(now);
        if self.connections.iter().any(is_stable) {
            self.back_off.reset();
        }
        self.back_off.record(reason);
        let (notification, sent) = match reason {
            DownReason::NotificationSent(notification) => (notification.clone(), true),
            DownReason::NotificationReceived(notification) => (notification.clone(), false),
            DownReason::HoldTimerExpired => (Notification::hold_timer_expired(), true),
            DownReason::SendHoldTimerExpired => (Notification::send_hold_timer_expired(), true),
            DownReason::ConnectionLost | DownReason::Replaced | DownReason::StoppedSilently => {
                return;
            }
        };
        let error = LastError {
            notification,
            sent,
            reason: why.to_owned(),
        };
        self.actions.push_back(Action::ErrorNoted { error });
    }

    /// Ends a connection: tells the peer what it must be told, and the driver if it was the
    /// session. Plans nothing.
    pub(super) fn remove(&mut self, id: ConnectionId, reason: DownReason) {
        let Some(index) = self
            .connections
            .iter()
            .position(|connection| connection.id == id)
        else {
            return;
        };
        let connection = self.connections.remove(index);
        let (state, reason) = (connection.state(), self.as_said(&connection, reason));
        match &reason {
            DownReason::NotificationSent(notification) => {
                let notification = notification.clone();
                self.actions.push_back(Action::SendNotification {
                    connection: id,
                    notification,
                });
            }
            DownReason::HoldTimerExpired => {
                let notification = Notification::hold_timer_expired();
                self.actions.push_back(Action::SendNotification {
                    connection: id,
                    notification,
                });
            }
            DownReason::Replaced
            | DownReason::NotificationReceived(_)
            | DownReason::SendHoldTimerExpired
            | DownReason::StoppedSilently => {
                self.actions.push_back(Action::Close { connection: id })
            }
            // The driver told us.
            DownReason::ConnectionLost => {}
        }
        if state == State::Established {
            self.actions.push_back(Action::Down {
                connection: id,
                reason,
            });
        }
    }

    /// What the peer is told on this connection. RFC 8538 §4: with N on both sides it would keep our
    /// routes after any other NOTIFICATION, so an end that is meant to last is a Hard Reset.
    fn as_said(&self, connection: &Connection, reason: DownReason) -> DownReason {
        let offers_notification = self
            .config
            .graceful_restart
            .as_ref()
            .is_some_and(|ours| ours.notification);
        match reason {
            DownReason::NotificationSent(notification)
                if is_lasting(&notification)
                    && offers_notification
                    && connection.state() == State::Established
                    && connection
                        .negotiated()
                        .is_some_and(Negotiated::has_graceful_notification) =>
            {
                DownReason::NotificationSent(Notification::hard_reset(&notification))
            }
            reason => reason,
        }
    }

    /// Dials again after the connect retry time, unless something better is under way.
    fn plan_retry(&mut self, at: Moment) {
        if self.needs_plan() && !self.timers.is_set(Timer::ConnectRetry) {
            self.set_connect_retry(at);
        }
    }

    /// Waits in Idle, unless something better is under way.
    fn plan_idle_hold(&mut self, at: Moment) {
        if self.needs_plan() {
            self.timers.stop(Timer::ConnectRetry);
            let wait = self
                .back_off
                .wait(self.config.idle_hold_time, self.config.idle_hold_max);
            self.timers
                .set(Timer::IdleHold, at.after(wait.max(MIN_WAIT)));
        }
    }

    /// Whether nothing is under way towards a session and no wait is running that further errors
    /// must not prolong: a host that keeps connecting badly would put off our dial for ever.
    pub(super) fn needs_plan(&self) -> bool {
        self.is_started && !self.is_dialing && !self.is_waiting() && !self.has_progress()
    }

    /// Whether a connection exists that makes dialling useless: one that we opened, or one on
    /// which the peer has shown itself.
    pub(super) fn has_progress(&self) -> bool {
        self.connections.iter().any(|connection| {
            connection.direction() == Direction::Outgoing || connection.state() > State::OpenSent
        })
    }

    pub(super) fn set_connect_retry(&mut self, at: Moment) {
        if !self.config.passive {
            let wait = self.config.connect_retry_time.max(MIN_WAIT);
            self.timers.set(Timer::ConnectRetry, at.after(wait));
        }
    }
}

/// RFC 8538 §4.1: what stands for a permanent or long end of the session.
fn is_lasting(notification: &Notification) -> bool {
    notification.code == code::CEASE
        && matches!(
            notification.subcode,
            cease::MAXIMUM_PREFIXES | cease::ADMINISTRATIVE_SHUTDOWN | cease::PEER_DECONFIGURED
        )
}
