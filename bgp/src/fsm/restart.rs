//! Graceful restart (RFC 4724, RFC 8538): what is kept of a peer that restarts, and when a speaker
//! that restarted may begin to send. Pure.
//!
//! [`HelperState`] is one peer's; the ends and beginnings of its sessions go in, what to do with its
//! routes comes out. [`Deferral`] is the whole speaker's, from its start until it is over. Neither
//! knows routes; the RIB carries the decisions out.

mod deferral;

use std::collections::BTreeSet;
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
    /// stale any more.
    KeepStale { family: Family },
    /// The stale routes of the family go.
    FlushStale { family: Family },
    /// All routes of the family go, stale or not.
    FlushAll { family: Family },
}

/// The routes of one peer across the ends of its sessions (RFC 4724 §4.2).
#[derive(Clone, Debug)]
pub struct HelperState {
    config: HelperConfig,
    /// Families that may have stale routes.
    stale: BTreeSet<Family>,
    /// Until when the peer must be back; `None` while it is.
    restart_deadline: Option<Instant>,
    /// Set while a family is stale.
    stale_deadline: Option<Instant>,
}

impl HelperState {
    pub fn new(config: HelperConfig) -> HelperState {
        HelperState {
            config,
            stale: BTreeSet::new(),
            restart_deadline: None,
            stale_deadline: None,
        }
    }

    /// Deadlines that are already running keep their value.
    pub fn reconfigure(&mut self, config: HelperConfig) {
        self.config = config;
    }

    /// Whether the family may have stale routes.
    pub fn is_stale(&self, family: Family) -> bool {
        self.stale.contains(&family)
    }

    /// When [`HelperState::handle_timeout`] is due; `None` while nothing is stale.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.restart_deadline
            .into_iter()
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
        let capability = negotiated
            .graceful_restart
            .as_ref()
            .filter(|theirs| self.is_covered(reason, theirs));
        let restart_time = capability.map_or(Duration::ZERO, |capability| {
            Duration::from_secs(u64::from(capability.restart_time_secs))
                .min(self.config.max_restart_time)
        });
        let is_kept = |family: Family| {
            !restart_time.is_zero()
                && capability.is_some_and(|capability| is_listed(capability, family))
        };
        let mut decisions = Vec::new();
        if self.config.strict_consecutive_restart {
            decisions.extend(
                self.stale
                    .iter()
                    .map(|family| Decision::FlushStale { family: *family }),
            );
            self.stale.clear();
        }
        for &family in &negotiated.families {
            if is_kept(family) {
                self.stale.insert(family);
                decisions.push(Decision::KeepStale { family });
            } else {
                self.stale.remove(&family);
                decisions.push(Decision::FlushAll { family });
            }
        }
        self.restart_deadline = Some(now + restart_time);
        if self.config.strict_consecutive_restart {
            self.stale_deadline = None;
        }
        self.stale_deadline
            .get_or_insert(now + self.config.stale_time);
        self.stop_timers_without_stale();
        decisions
    }

    /// The peer is back. Flushes families for which it did not preserve its forwarding state, or
    /// which it does not carry any more (RFC 4724 §4.2).
    pub fn handle_established(&mut self, negotiated: &Negotiated) -> Vec<Decision> {
        let is_preserved = |family: Family| {
            negotiated.families.contains(&family)
                && negotiated
                    .graceful_restart
                    .as_ref()
                    .is_some_and(|capability| capability.families.contains(&(family, true)))
        };
        let lost: Vec<Family> = self
            .stale
            .iter()
            .copied()
            .filter(|family| !is_preserved(*family))
            .collect();
        self.restart_deadline = None;
        self.flush(&lost)
    }

    /// The peer sent all it has: what it did not announce again goes.
    pub fn handle_end_of_rib(&mut self, family: Family) -> Vec<Decision> {
        self.flush(&[family])
    }

    /// Flushes what is stale if the peer did not come back, or did not send its End-of-RIB, in
    /// time.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Decision> {
        if self.next_timeout().is_some_and(|deadline| deadline <= now) {
            self.handle_peer_gone()
        } else {
            Vec::new()
        }
    }

    /// The peer will not come back: it was removed, or its node is gone.
    pub fn handle_peer_gone(&mut self) -> Vec<Decision> {
        let families: Vec<Family> = self.stale.iter().copied().collect();
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

    fn flush(&mut self, families: &[Family]) -> Vec<Decision> {
        let flushed = families
            .iter()
            .copied()
            .filter(|family| self.stale.remove(family));
        let decisions = flushed
            .map(|family| Decision::FlushStale { family })
            .collect();
        self.stop_timers_without_stale();
        decisions
    }

    fn stop_timers_without_stale(&mut self) {
        if self.stale.is_empty() {
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
