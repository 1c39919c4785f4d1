//! Graceful restart (RFC 4724, RFC 8538, RFC 9494): what is kept of a peer that restarts, and when a
//! speaker that restarted may begin to send. Pure.
//!
//! [`HelperState`] is one peer's; the ends and beginnings of its sessions go in, what to do with its
//! routes comes out. [`Deferral`] is the whole speaker's, from its start until it is over. Neither
//! knows routes; the RIB carries the decisions out.
//!
//! ```text
//!             loss                restart time over            long-lived stale time over
//!   fresh ───────────► stale ──────────────────────► long-lived ─────────────────────────► gone
//!     ▲                  │     (gone, if the peer        │
//!     └──────────────────┴───────── End-of-RIB ──────────┘
//!                                   asked for no more)
//! ```
//!
//! A peer that asks for a long-lived stale time and for no restart time goes from fresh to
//! long-lived at once.

mod deferral;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::session::{DownReason, Negotiated};
use crate::types::Family;
use crate::wire::capability::GracefulRestart;

pub use deferral::Deferral;

/// How a helper bounds what it keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelperConfig {
    /// Upper bound of the restart time that the peer asks for.
    pub max_restart_time: Duration,
    /// How long routes may be stale, counted from the first loss.
    pub stale_time: Duration,
    /// What is still stale when the session is lost again goes at once, as RFC 4724 §4.2 has it.
    ///
    /// Otherwise it stays until `stale_time` after the first loss. This deviates because peers
    /// that are upgraded often restart twice within seconds, and then the forwarding state that
    /// everybody preserved would be thrown away.
    pub strict_consecutive_restart: bool,
    /// Upper bound of the long-lived stale time that the peer asks for; `None`: nothing is kept
    /// beyond the restart time (RFC 9494 §4.2: the time may be reduced by configuration).
    pub long_lived_stale_time: Option<Duration>,
    /// We announce the N bit (RFC 8538 §2).
    pub notification: bool,
}

impl HelperConfig {
    pub const DEFAULT_STALE_TIME: Duration = Duration::from_secs(180);
}

/// What to do with the routes of a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Decision {
    /// All routes of the family become stale and stay in use. One that is announced again is not
    /// stale any more. What was long-lived stale before stays so.
    KeepStale { family: Family },
    /// All routes of the family become long-lived stale: the last resort (RFC 9494 §4.3), and gone
    /// if they carry NO_LLGR. One that is announced again is neither any more.
    KeepLongLived { family: Family },
    /// The stale routes of the family go, long-lived ones too.
    FlushStale { family: Family },
    /// All routes of the family go, stale or not.
    FlushAll { family: Family },
}

/// The routes of one peer across the ends of its sessions (RFC 4724 §4.2, RFC 9494 §4.2).
#[derive(Clone, Debug)]
pub struct HelperState {
    config: HelperConfig,
    /// Families that may have stale routes.
    stale: BTreeMap<Family, Stage>,
    /// The peer has a session.
    is_back: bool,
    /// Until when the peer must be back; `None` while it is.
    restart_deadline: Option<Instant>,
    /// Set while a family is in the graceful stage.
    stale_deadline: Option<Instant>,
    /// Families whose long-lived stale time ended while the peer was back and had not sent its
    /// End-of-RIB yet.
    outlived: BTreeSet<Family>,
}

/// How the stale routes of a family are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// In use like fresh ones (RFC 4724).
    Graceful { then: AfterRestartTime },
    /// The last resort. The deadline runs on while the peer is back (RFC 9494 §4.2).
    LongLived { until: Instant },
}

/// What follows if the peer is not back within the restart time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AfterRestartTime {
    Flush,
    LongLivedFor(Duration),
    /// A long-lived stale time is running already: the peer was back meanwhile and did not send its
    /// End-of-RIB.
    LongLivedUntil(Instant),
}

impl Stage {
    /// When the long-lived stale time that is running ends.
    fn long_lived_until(self) -> Option<Instant> {
        match self {
            Stage::LongLived { until }
            | Stage::Graceful {
                then: AfterRestartTime::LongLivedUntil(until),
            } => Some(until),
            Stage::Graceful {
                then: AfterRestartTime::Flush | AfterRestartTime::LongLivedFor(_),
            } => None,
        }
    }
}

impl AfterRestartTime {
    /// The stage that begins at `now`; `None` if nothing is kept.
    fn begin(self, now: Instant) -> Option<Stage> {
        match self {
            AfterRestartTime::Flush => None,
            AfterRestartTime::LongLivedFor(time) => Some(Stage::LongLived { until: now + time }),
            AfterRestartTime::LongLivedUntil(until) => Some(Stage::LongLived { until }),
        }
    }
}

impl HelperState {
    pub fn new(config: HelperConfig) -> HelperState {
        HelperState {
            config,
            stale: BTreeMap::new(),
            is_back: false,
            restart_deadline: None,
            stale_deadline: None,
            outlived: BTreeSet::new(),
        }
    }

    /// Deadlines that are already running keep their value.
    pub fn reconfigure(&mut self, config: HelperConfig) {
        self.config = config;
    }

    /// Whether the family may have stale routes.
    pub fn is_stale(&self, family: Family) -> bool {
        self.stale.contains_key(&family)
    }

    /// When [`HelperState::handle_timeout`] is due; `None` while nothing is stale.
    pub fn next_timeout(&self) -> Option<Instant> {
        let long_lived = self.stale.values().copied();
        long_lived
            .filter_map(Stage::long_lived_until)
            .chain(self.restart_deadline)
            .chain(self.stale_deadline)
            .min()
    }

    /// The session that ran with `negotiated` ended. Decides about each of its families.
    pub fn handle_down(
        &mut self,
        reason: &DownReason,
        negotiated: &Negotiated,
        now: Instant,
    ) -> Vec<Decision> {
        self.is_back = false;
        let outlived = std::mem::take(&mut self.outlived);
        let covered = negotiated
            .graceful_restart
            .as_ref()
            .filter(|theirs| self.is_covered(reason, theirs));
        let restart_time = covered.map_or(Duration::ZERO, |theirs| self.restart_time(theirs));
        let mut decisions = Vec::new();
        if self.config.strict_consecutive_restart {
            decisions = self.flush_from_before();
            self.stale_deadline = None;
        }
        for &family in &negotiated.families {
            // RFC 9494 §4.2: what was not synchronized when its time was over goes at the next end.
            let is_kept = covered.is_some() && !outlived.contains(&family);
            let listed = covered.is_some_and(|theirs| is_listed(theirs, family));
            let then = self.after_restart_time(negotiated, family);
            let stage = match (is_kept, listed && !restart_time.is_zero()) {
                (false, _) => None,
                (true, true) => Some(Stage::Graceful { then }),
                // RFC 9494 §4.2: a restart time of zero lasts zero seconds.
                (true, false) => then.begin(now),
            };
            decisions.push(self.enter(family, stage));
        }
        self.restart_deadline = Some(now + restart_time);
        self.stale_deadline
            .get_or_insert(now + self.config.stale_time);
        self.stop_timers_without_graceful();
        decisions
    }

    /// The peer is back. Flushes families for which it did not preserve its forwarding state, or
    /// which it does not carry any more (RFC 4724 §4.2, RFC 9494 §4.2).
    pub fn handle_established(&mut self, negotiated: &Negotiated) -> Vec<Decision> {
        self.is_back = true;
        self.restart_deadline = None;
        let is_preserved = |family: Family, stage: Stage| {
            let is_preserved = match stage.long_lived_until() {
                None => negotiated
                    .graceful_restart
                    .as_ref()
                    .is_some_and(|capability| capability.families.contains(&(family, true))),
                // RFC 9494 §4.2: since the long-lived stale time began its own capability counts.
                Some(_) => negotiated
                    .long_lived_of(family)
                    .is_some_and(|entry| entry.preserved),
            };
            is_preserved && negotiated.families.contains(&family)
        };
        let lost = self.families(|family, stage| !is_preserved(family, stage));
        self.flush(&lost)
    }

    /// The peer sent all it has: what it did not announce again goes.
    pub fn handle_end_of_rib(&mut self, family: Family) -> Vec<Decision> {
        self.outlived.remove(&family);
        self.flush(&[family])
    }

    /// Flushes what is stale if the peer did not come back, or did not send its End-of-RIB, in
    /// time, or keeps it as the last resort.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Decision> {
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let over = self.families(|_, stage| is_over(stage.long_lived_until()));
        if self.is_back {
            self.outlived.extend(&over);
        }
        let mut decisions = self.flush(&over);
        if is_over(self.restart_deadline) || is_over(self.stale_deadline) {
            decisions.extend(self.end_graceful_stage(now));
        }
        decisions
    }

    /// The peer will not come back: it was removed, or its node is gone.
    pub fn handle_peer_gone(&mut self) -> Vec<Decision> {
        self.outlived.clear();
        let families = self.families(|_, _| true);
        self.flush(&families)
    }

    /// Whether an end for this reason leaves routes in place, families and times apart.
    fn is_covered(&self, reason: &DownReason, theirs: &GracefulRestart) -> bool {
        let has_notification = self.config.notification && theirs.notification;
        match reason {
            // RFC 4724 §4.2, §5. A silent stop of ours is the restart seen from the other side.
            DownReason::ConnectionLost | DownReason::Replaced | DownReason::StoppedSilently => true,
            // RFC 8538 §3: with N on both sides everything but a hard reset.
            DownReason::NotificationSent(notification)
            | DownReason::NotificationReceived(notification) => {
                has_notification && !notification.is_hard_reset()
            }
            DownReason::HoldTimerExpired | DownReason::SendHoldTimerExpired => has_notification,
        }
    }

    fn restart_time(&self, theirs: &GracefulRestart) -> Duration {
        Duration::from_secs(u64::from(theirs.restart_time_secs)).min(self.config.max_restart_time)
    }

    fn after_restart_time(&self, negotiated: &Negotiated, family: Family) -> AfterRestartTime {
        let running = self.stale.get(&family).copied();
        // RFC 9494 §4.2: a time that is running is not changed before the peer sent its End-of-RIB.
        if let Some(until) = running.and_then(Stage::long_lived_until) {
            return AfterRestartTime::LongLivedUntil(until);
        }
        let bound = self.config.long_lived_stale_time;
        let entry = negotiated.long_lived_of(family);
        match entry.zip(bound) {
            Some((entry, bound)) if !entry.stale_time.min(bound).is_zero() => {
                AfterRestartTime::LongLivedFor(entry.stale_time.min(bound))
            }
            Some(_) | None => AfterRestartTime::Flush,
        }
    }

    /// Flushes what was stale before the session that just ended. Not where the peer asked for a
    /// long-lived stale time: consecutive restarts do not shorten that (RFC 9494 §4.2).
    fn flush_from_before(&mut self) -> Vec<Decision> {
        let then = AfterRestartTime::Flush;
        let earlier = self.families(|_, stage| stage == Stage::Graceful { then });
        self.flush(&earlier)
    }

    /// The peer is not back in time, or has not sent its End-of-RIB in time.
    fn end_graceful_stage(&mut self, now: Instant) -> Vec<Decision> {
        self.restart_deadline = None;
        self.stale_deadline = None;
        let mut decisions = Vec::new();
        for family in self.families(|_, stage| matches!(stage, Stage::Graceful { .. })) {
            let next = match self.stale.get(&family) {
                // A peer that is back has said what it has: there is no restart to bridge.
                Some(Stage::Graceful { then }) if !self.is_back => then.begin(now),
                Some(_) | None => None,
            };
            match next {
                Some(stage) => decisions.push(self.enter(family, Some(stage))),
                None => decisions.extend(self.flush(&[family])),
            }
        }
        decisions
    }

    /// What is done with all routes of the family as it enters the stage; `None`: nothing is kept.
    fn enter(&mut self, family: Family, stage: Option<Stage>) -> Decision {
        match stage {
            Some(stage) => self.stale.insert(family, stage),
            None => self.stale.remove(&family),
        };
        match stage {
            Some(Stage::Graceful { .. }) => Decision::KeepStale { family },
            Some(Stage::LongLived { .. }) => Decision::KeepLongLived { family },
            None => Decision::FlushAll { family },
        }
    }

    fn families(&self, is_meant: impl Fn(Family, Stage) -> bool) -> Vec<Family> {
        let stale = self.stale.iter();
        stale
            .filter(|(family, stage)| is_meant(**family, **stage))
            .map(|(family, _)| *family)
            .collect()
    }

    fn flush(&mut self, families: &[Family]) -> Vec<Decision> {
        let flushed = families
            .iter()
            .copied()
            .filter(|family| self.stale.remove(family).is_some());
        let decisions = flushed
            .map(|family| Decision::FlushStale { family })
            .collect();
        self.stop_timers_without_graceful();
        decisions
    }

    fn stop_timers_without_graceful(&mut self) {
        let is_graceful = |stage: &Stage| matches!(stage, Stage::Graceful { .. });
        if !self.stale.values().any(is_graceful) {
            self.restart_deadline = None;
            self.stale_deadline = None;
        }
    }
}

fn is_listed(capability: &GracefulRestart, family: Family) -> bool {
    capability
        .families
        .iter()
        .any(|(listed, _)| *listed == family)
}

#[cfg(test)]
mod tests;
