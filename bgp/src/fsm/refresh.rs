//! Enhanced route refresh as its receiver (RFC 7313): between BoRR and EoRR the peer sends all it
//! has, and what it did not send by then goes. Pure.
//!
//! One value per session; the demarcations go in, what to do with the peer's routes comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::session::Negotiated;
use crate::types::Family;

/// A BoRR this soon after the last one changes nothing: marking costs a walk over the table, and
/// how often must not be the peer's choice. The refresh it belongs to then is a plain one.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The refreshes of one session.
#[derive(Clone, Debug)]
pub struct RefreshState {
    /// What the session carries; nothing if enhanced refresh was not negotiated.
    families: BTreeSet<Family>,
    /// Families whose first End-of-RIB is still to come.
    initial: BTreeSet<Family>,
    /// How long EoRR is waited for.
    limit: Duration,
    /// Between BoRR and EoRR, and when the latter is not waited for any longer.
    deadlines: BTreeMap<Family, Instant>,
    last_begun: BTreeMap<Family, Instant>,
}

impl RefreshState {
    pub fn new(negotiated: &Negotiated, limit: Duration) -> RefreshState {
        let families: BTreeSet<Family> = negotiated
            .families
            .iter()
            .copied()
            .filter(|_| negotiated.enhanced_route_refresh)
            .collect();
        RefreshState {
            // RFC 7313 §4: of a peer with graceful restart a BoRR is ignored before End-of-RIB.
            // What is stale until then is so from before its restart.
            initial: match negotiated.graceful_restart {
                Some(_) => families.clone(),
                None => BTreeSet::new(),
            },
            families,
            limit,
            deadlines: BTreeMap::new(),
            last_begun: BTreeMap::new(),
        }
    }

    /// BoRR: whether all routes of the family become stale now.
    pub fn handle_begin(&mut self, family: Family, now: Instant) -> bool {
        let is_soon = self
            .last_begun
            .get(&family)
            .is_some_and(|last| now.saturating_duration_since(*last) < MIN_INTERVAL);
        if !self.families.contains(&family) || self.initial.contains(&family) || is_soon {
            return false;
        }
        self.last_begun.insert(family, now);
        self.deadlines.insert(family, now + self.limit);
        true
    }

    /// EoRR: whether the stale routes of the family go. One without BoRR means nothing.
    pub fn handle_end(&mut self, family: Family) -> bool {
        self.deadlines.remove(&family).is_some()
    }

    pub fn handle_end_of_rib(&mut self, family: Family) {
        self.initial.remove(&family);
    }

    /// The families whose stale routes go because EoRR did not come (RFC 7313 §4).
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Family> {
        let due: Vec<Family> = self
            .deadlines
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(family, _)| *family)
            .collect();
        for family in &due {
            self.deadlines.remove(family);
        }
        due
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.values().min().copied()
    }
}

#[cfg(test)]
mod tests;
