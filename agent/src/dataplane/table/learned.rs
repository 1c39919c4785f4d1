//! Learned routes by prefix: what is wanted, and what the kernel has.
//!
//! There can be a full feed of them, which mostly go few ways: what many prefixes have in common is
//! held once.

use std::sync::{Arc, Weak};

use bgp::types::{Family, Prefix};
use hashbrown::HashMap;

use crate::dataplane::desired::Route;
use crate::dataplane::diff::FibInfo;
use crate::prefix_map::PrefixMap;

/// Shared states are looked through for dead ones when there are more than this, and more than twice
/// as many as lived the last time.
const FEW: usize = 64;

/// At least one of the two is there.
#[derive(Clone, Default)]
pub struct Learned {
    pub wanted: Option<Arc<Route>>,
    /// At our key, as the kernel last said.
    pub held: Option<Arc<FibInfo>>,
}

#[derive(Default)]
pub struct LearnedRoutes {
    by_prefix: PrefixMap<Arc<Learned>>,
    shared: Shared,
}

#[derive(Default)]
struct Shared {
    /// By the addresses of their parts. One that lives keeps its parts where they are.
    all: HashMap<(usize, usize), Weak<Learned>>,
    /// How many there may be before the dead ones go.
    bound: usize,
}

impl LearnedRoutes {
    pub fn get(&self, prefix: &Prefix) -> Option<&Learned> {
        self.by_prefix.get(prefix).map(Arc::as_ref)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &Learned)> {
        let all = self.by_prefix.iter();
        all.map(|(prefix, one)| (prefix, one.as_ref()))
    }

    /// What the kernel has.
    pub fn held(&self) -> impl Iterator<Item = (Prefix, &Arc<FibInfo>)> {
        self.iter()
            .filter_map(|(prefix, one)| Some((prefix, one.held.as_ref()?)))
    }

    /// Of one family.
    pub fn prefixes(&self, family: Family) -> impl Iterator<Item = Prefix> {
        self.by_prefix.prefixes(family)
    }

    /// Returns whether something else was wanted before.
    pub fn want(&mut self, prefix: Prefix, wanted: Option<Arc<Route>>) -> bool {
        self.change(prefix, |one| {
            one.wanted != wanted && {
                one.wanted = wanted;
                true
            }
        })
    }

    /// Notes what the kernel has now.
    pub fn hold(&mut self, prefix: Prefix, held: Option<Arc<FibInfo>>) {
        self.change(prefix, |one| {
            one.held = held;
            true
        });
    }

    /// Takes all that was read of a family; tells of each prefix that the kernel had a route of, and
    /// now has none or another one.
    pub fn take(
        &mut self,
        family: Family,
        mut read: PrefixMap<Arc<FibInfo>>,
        mut note_drifted: impl FnMut(Prefix),
    ) {
        let mut changed = Vec::new();
        self.by_prefix.retain(family, |prefix, one| {
            let held = read.remove(&prefix);
            if one.held == held {
                return true;
            }
            if one.held.is_some() {
                note_drifted(prefix);
            }
            let is_kept = held.is_some() || one.wanted.is_some();
            changed.extend(is_kept.then_some((prefix, held)));
            is_kept
        });
        for (prefix, held) in changed {
            self.hold(prefix, held);
        }
        for (prefix, held) in read.iter() {
            self.hold(prefix, Some(held.clone()));
        }
    }

    /// Returns what `change` says: whether it did anything.
    fn change(&mut self, prefix: Prefix, change: impl FnOnce(&mut Learned) -> bool) -> bool {
        let place = self.by_prefix.get_mut(&prefix);
        let known = place.as_ref();
        let mut learned = known.map_or_else(Learned::default, |known| Learned::clone(known));
        if !change(&mut learned) {
            return false;
        }
        if learned.wanted.is_none() && learned.held.is_none() {
            self.by_prefix.remove(&prefix);
            return true;
        }
        let shared = self.shared.of(learned);
        match place {
            Some(place) => *place = shared,
            None => {
                self.by_prefix.insert(prefix, shared);
            }
        }
        true
    }
}

impl Shared {
    fn of(&mut self, learned: Learned) -> Arc<Learned> {
        let wanted = learned
            .wanted
            .as_ref()
            .map_or(0, |it| Arc::as_ptr(it).addr());
        let held = learned.held.as_ref().map_or(0, |it| Arc::as_ptr(it).addr());
        let key = (wanted, held);
        if let Some(known) = self.all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.all.len() >= self.bound.max(FEW) {
            self.all.retain(|_, one| one.strong_count() > 0);
            self.bound = 2 * self.all.len();
        }
        let new = Arc::new(learned);
        self.all.insert(key, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;
    use crate::dataplane::diff::RouteKind;
    use crate::names::PROTOCOL_LEARNED;

    fn prefix(number: u32) -> Prefix {
        Prefix::V4 {
            bits: number << 8,
            length: 24,
        }
    }

    fn info(metric: u32) -> Arc<FibInfo> {
        Arc::new(FibInfo {
            metric,
            protocol: PROTOCOL_LEARNED,
            kind: RouteKind::Blackhole,
            scope: 0,
            hops: SmallVec::new(),
            source: None,
            has_extras: false,
        })
    }

    #[test]
    fn what_prefixes_have_in_common_is_held_once_and_dead_states_go() {
        let mut routes = LearnedRoutes::default();
        let common = info(1);
        for number in 0..1000 {
            routes.want(prefix(number), Some(Arc::new(Route::Blackhole)));
            routes.hold(prefix(number), Some(common.clone()));
            routes.want(prefix(number), None);
        }
        assert_eq!(routes.held().count(), 1000);
        let of = |number| Arc::as_ptr(routes.by_prefix.get(&prefix(number)).expect("held"));
        assert_eq!(of(0), of(999));
        assert!(routes.shared.all.len() <= 2 * FEW);
        for number in 0..1000 {
            routes.hold(prefix(number), None);
        }
        assert_eq!(routes.iter().count(), 0);
    }

    #[test]
    fn reading_tells_what_changed_and_keeps_what_is_wanted() {
        let mut routes = LearnedRoutes::default();
        let (known, other) = (info(1), info(2));
        for number in 0..4 {
            routes.hold(prefix(number), Some(known.clone()));
        }
        routes.want(prefix(1), Some(Arc::new(Route::Blackhole)));
        // As before, gone and wanted, gone, other, new.
        let mut read = PrefixMap::default();
        read.insert(prefix(0), info(1));
        read.insert(prefix(3), other.clone());
        read.insert(prefix(4), known.clone());
        let mut drifted = Vec::new();
        routes.take(Family::Ipv4, read, |prefix| drifted.push(prefix));
        drifted.sort();
        assert_eq!(drifted, [prefix(1), prefix(2), prefix(3)]);
        assert!(routes.get(&prefix(1)).is_some_and(|one| one.held.is_none()));
        assert!(routes.get(&prefix(2)).is_none());
        let held = |number| routes.get(&prefix(number)).and_then(|one| one.held.clone());
        assert_eq!(held(0), Some(known.clone()));
        assert_eq!(held(3), Some(other));
        assert_eq!(held(4), Some(known));
    }
}
