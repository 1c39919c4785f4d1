//! Graceful restart (RFC 4724, RFC 8538): what is kept of a peer that restarts, and when a speaker
//! that restarted may begin to send. Pure.
//!
//! [`HelperState`] is one peer's; the ends and beginnings of its sessions go in, what to do with its
//! routes comes out. [`Deferral`] is the whole speaker's, from its start until it is over. Neither
//! knows routes; the RIB carries the decisions out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::session::{DownReason, Negotiated};
use crate::types::Family;
use crate::wire::capability::GracefulRestart;

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

/// Selection deferral of a speaker that restarted (RFC 4724 §4.1): it sends no route and no
/// End-of-RIB until it heard everything from the peers it had before, so that none of them sees
/// half a table as the whole.
///
/// `K` names a peer.
#[derive(Clone, Debug)]
pub struct Deferral<K> {
    /// End-of-RIBs that are still missing. A peer without any left is not in the map.
    missing_by_peer: BTreeMap<K, BTreeSet<Family>>,
    deadline: Instant,
}

impl<K: Ord> Deferral<K> {
    /// Waits for `families` of all `peers`, at most until `deadline`. Without peers it is over.
    pub fn new(
        peers: impl IntoIterator<Item = K>,
        families: &[Family],
        deadline: Instant,
    ) -> Deferral<K> {
        let families: BTreeSet<Family> = families.iter().copied().collect();
        let mut missing_by_peer: BTreeMap<K, BTreeSet<Family>> = peers
            .into_iter()
            .map(|peer| (peer, families.clone()))
            .collect();
        missing_by_peer.retain(|_, missing| !missing.is_empty());
        Deferral {
            missing_by_peer,
            deadline,
        }
    }

    /// Once true it stays true.
    pub fn is_over(&self) -> bool {
        self.missing_by_peer.is_empty()
    }

    /// The peers that are waited for, in order.
    pub fn waiting_for(&self) -> impl Iterator<Item = &K> {
        self.missing_by_peer.keys()
    }

    /// When [`Deferral::handle_timeout`] is due; `None` once it is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        (!self.is_over()).then_some(self.deadline)
    }

    /// A session came up. Without graceful restart no End-of-RIB will come. Of others the families
    /// that the session carries are waited for. A peer that is not waited for is not added.
    ///
    /// A peer that restarted too (R) is waited for as well, where RFC 4724 §4.1 says not to: what
    /// it sends before it has heard others is not the whole. That both wait for each other for
    /// ever is avoided by who is held back, see the speaker's core: what is said to a peer waits
    /// only for those whose routes would be part of it.
    pub fn handle_established(&mut self, peer: &K, negotiated: &Negotiated) {
        let is_sending = negotiated.graceful_restart.is_some();
        let carried = &negotiated.families;
        self.narrow(peer, |family| is_sending && carried.contains(family));
    }

    pub fn handle_end_of_rib(&mut self, peer: &K, family: Family) {
        self.narrow(peer, |missing| *missing != family);
    }

    /// The peer was removed or will not come: it is not waited for. One that only lost its session
    /// may come back in time and still is.
    pub fn handle_peer_gone(&mut self, peer: &K) {
        self.missing_by_peer.remove(peer);
    }

    /// Ends the wait once the deadline has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.deadline {
            self.missing_by_peer.clear();
        }
    }

    /// Goes on waiting for those families of the peer only that `is_awaited`.
    fn narrow(&mut self, peer: &K, is_awaited: impl FnMut(&Family) -> bool) {
        if let Some(missing) = self.missing_by_peer.get_mut(peer) {
            missing.retain(is_awaited);
            if missing.is_empty() {
                self.missing_by_peer.remove(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests;
