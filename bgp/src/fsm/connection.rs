//! One TCP connection of a peer, from our OPEN to its end: its phase and its timers.

use std::time::{Duration, Instant};

use super::event::{ConnectionId, Direction, State};
use super::negotiate::{Endpoints, Negotiated};
use super::timer::{Moment, Timer, TimerTable};
use crate::types::HoldTime;

/// How long a peer may take for its OPEN (RFC 4271 §8.2.2: "a large value", 4 minutes suggested).
pub(super) const LARGE_HOLD_TIME: Duration = Duration::from_secs(240);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) endpoints: Endpoints,
    /// The connection that was established when this one was opened.
    pub(super) opened_beside: Option<ConnectionId>,
    phase: Phase,
    timers: TimerTable,
}

/// What was exchanged so far. Our OPEN always was.
#[derive(Debug)]
enum Phase {
    OpenSent,
    OpenConfirm(Negotiated),
    Established {
        negotiated: Negotiated,
        since: Instant,
    },
}

/// What a connection's timers ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expiry {
    Nothing,
    Hold,
    Keepalive,
}

impl Connection {
    /// A connection on which our OPEN is just being sent.
    pub(super) fn new(
        id: ConnectionId,
        endpoints: Endpoints,
        opened_beside: Option<ConnectionId>,
        now: Instant,
    ) -> Connection {
        let mut timers = TimerTable::default();
        timers.set(Timer::Hold, now + LARGE_HOLD_TIME);
        Connection {
            id,
            endpoints,
            opened_beside,
            phase: Phase::OpenSent,
            timers,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established { .. } => State::Established,
        }
    }

    pub(super) fn direction(&self) -> Direction {
        self.endpoints.direction
    }

    /// What both OPENs agreed on, once the peer's was accepted.
    pub(super) fn negotiated(&self) -> Option<&Negotiated> {
        match &self.phase {
            Phase::OpenSent => None,
            Phase::OpenConfirm(negotiated) | Phase::Established { negotiated, .. } => {
                Some(negotiated)
            }
        }
    }

    /// Whether the session has been up for its hold time (the default one if that is zero), so
    /// that its end is not one more of a series of failures.
    pub(super) fn is_stable(&self, now: Instant) -> bool {
        let Phase::Established { negotiated, since } = &self.phase else {
            return false;
        };
        let seconds = match negotiated.hold_time.seconds() {
            0 => HoldTime::DEFAULT.seconds(),
            seconds => seconds,
        };
        now.saturating_duration_since(*since) >= Duration::from_secs(u64::from(seconds))
    }

    /// The peer's OPEN was accepted, and a KEEPALIVE is being sent.
    pub(super) fn confirm(&mut self, negotiated: Negotiated, at: Moment) {
        self.phase = Phase::OpenConfirm(negotiated);
        // With a hold time of zero the large one stays until the KEEPALIVE arrives: a peer that
        // never sends it would be waited for without end.
        self.restart_hold_timer(at.now);
        self.restart_keepalive_timer(at);
    }

    /// The KEEPALIVE that confirms our OPEN arrived. Returns what the session runs with;
    /// `None`, changing nothing, if the connection is not in OpenConfirm.
    pub(super) fn establish(&mut self, now: Instant) -> Option<Negotiated> {
        let Phase::OpenConfirm(negotiated) = &self.phase else {
            return None;
        };
        let negotiated = negotiated.clone();
        self.phase = Phase::Established {
            negotiated: negotiated.clone(),
            since: now,
        };
        self.timers.stop(Timer::Hold);
        self.restart_hold_timer(now);
        Some(negotiated)
    }

    /// Something arrived that shows the peer alive.
    pub(super) fn restart_hold_timer(&mut self, now: Instant) {
        let hold_time = self
            .negotiated()
            .map_or(0, |negotiated| negotiated.hold_time.seconds());
        if hold_time > 0 {
            self.timers
                .set(Timer::Hold, now + Duration::from_secs(u64::from(hold_time)));
        }
    }

    pub(super) fn restart_keepalive_timer(&mut self, at: Moment) {
        let keepalive_time = self
            .negotiated()
            .map(|negotiated| negotiated.keepalive_time);
        if let Some(keepalive_time) = keepalive_time.filter(|time| !time.is_zero()) {
            self.timers.set(Timer::Keepalive, at.after(keepalive_time));
        }
    }

    /// Takes the timer that has expired. Hold goes first: nothing is sent to a dead peer.
    pub(super) fn take_expired(&mut self, now: Instant) -> Expiry {
        if self.timers.take_expired(Timer::Hold, now) {
            Expiry::Hold
        } else if self.timers.take_expired(Timer::Keepalive, now) {
            Expiry::Keepalive
        } else {
            Expiry::Nothing
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next_timeout()
    }
}
