//! Aggregates: routes of our own that are there as long as a client has a more specific one
//! (RFC 4271 §9.2.2.2).
//!
//! Of each aggregate it is known for what it stands, and that follows the changes of the table, so a
//! turn costs what changed in it. Who hears the aggregate, and in place of what, is policy
//! ([`crate::policy::summary`]).
//!
//! Its AS_PATH is empty, never an AS_SET (RFC 9774 §3): a rack's routes come from within the AS. Where
//! one has a path or communities of its own, ATOMIC_AGGREGATE says that something was left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use hashbrown::HashMap;

use super::adj_out::pack::{Surroundings, surroundings};
use super::path::Path;
use super::table::{Destination, Key, Table};
use super::{PeerId, Rib};
use crate::policy::summary::{is_within, may_be_aggregated};
use crate::speaker::config::Aggregate;
use crate::types::{Asn, Prefix};
use crate::wire::attribute::{Aggregator, Origin, PathAttributes};
use crate::wire::community::Community;

/// The aggregates that are configured, and what is known of each.
#[derive(Debug)]
pub(super) struct Aggregates {
    aggregator: Aggregator,
    by_prefix: BTreeMap<Prefix, Entry>,
}

#[derive(Debug)]
struct Entry {
    next_hop: IpAddr,
    /// What it stands for; bounded by the table.
    specifics: HashMap<Prefix, Specific>,
    counts: Counts,
    /// As it is in the table; `None`: it is not.
    in_table: Option<PathAttributes>,
}

/// What an aggregate takes from one of its routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Specific {
    origin: Origin,
    /// It has AS numbers or communities that the aggregate has not.
    leaves_out: bool,
    is_long_lived_stale: bool,
    is_about_to_stop: bool,
}

/// How many of the specifics are so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    egp: usize,
    incomplete: usize,
    leaving_out: usize,
    long_lived_stale: usize,
    about_to_stop: usize,
}

impl Rib {
    /// Makes the aggregates exactly these. Looks at the whole table where one is new.
    pub fn set_aggregates(
        &mut self,
        configured: &BTreeMap<Prefix, Aggregate>,
        aggregator: Aggregator,
    ) {
        let gone = self.aggregates.remove_others(configured);
        for prefix in gone {
            self.withdraw_path(PeerId::AGGREGATE, &prefix.into());
        }
        self.aggregates.aggregator = aggregator;
        let added = self.aggregates.add(configured);
        if !added.is_empty() {
            let around = surroundings(&self.peers, &self.next_hops, &self.originated);
            self.aggregates.note_all(&self.ipv4, &added, &around);
            self.aggregates.note_all(&self.ipv6, &added, &around);
        }
        self.put_aggregates();
    }

    /// Has the aggregates follow the changes of the tables, which they may add to.
    pub(super) fn follow_aggregates(&mut self) {
        if self.aggregates.by_prefix.is_empty() {
            return;
        }
        let around = surroundings(&self.peers, &self.next_hops, &self.originated);
        self.aggregates.note_changes(&self.ipv4, &around);
        self.aggregates.note_changes(&self.ipv6, &around);
        self.put_aggregates();
    }

    /// Brings the tables to what the aggregates are.
    fn put_aggregates(&mut self) {
        for (prefix, attributes) in self.aggregates.take_changed(&self.originated) {
            match attributes {
                Some(attributes) => {
                    let attributes = self.interner.intern(attributes);
                    let path = Path::new(PeerId::AGGREGATE, 0, attributes);
                    self.insert_path(&prefix, path, None);
                }
                None => self.withdraw_path(PeerId::AGGREGATE, &prefix.into()),
            }
        }
    }
}

impl Default for Aggregates {
    fn default() -> Self {
        Aggregates {
            aggregator: Aggregator {
                asn: Asn(0),
                address: Ipv4Addr::UNSPECIFIED,
            },
            by_prefix: BTreeMap::new(),
        }
    }
}

impl Aggregates {
    /// Forgets those that are not configured any more. Returns the ones of them that are in the table.
    fn remove_others(&mut self, configured: &BTreeMap<Prefix, Aggregate>) -> Vec<Prefix> {
        let mut gone = Vec::new();
        self.by_prefix.retain(|prefix, entry| {
            let is_configured = configured.contains_key(prefix);
            if !is_configured && entry.in_table.is_some() {
                gone.push(*prefix);
            }
            is_configured
        });
        gone
    }

    /// Adds those that are not known yet, without specifics, and returns them.
    fn add(&mut self, configured: &BTreeMap<Prefix, Aggregate>) -> Vec<Prefix> {
        let mut added = Vec::new();
        for (prefix, Aggregate { next_hop, .. }) in configured {
            let entry = self.by_prefix.entry(*prefix).or_insert_with(|| {
                added.push(*prefix);
                Entry {
                    next_hop: *next_hop,
                    specifics: HashMap::new(),
                    counts: Counts::default(),
                    in_table: None,
                }
            });
            entry.next_hop = *next_hop;
        }
        added
    }

    fn note_all<K: Key>(&mut self, table: &Table<K>, added: &[Prefix], around: &Surroundings<'_>) {
        for (key, destination) in table.destinations.iter() {
            let prefix = key.prefix();
            for aggregate in added.iter().filter(|added| is_within(added, &prefix)) {
                if let Some(entry) = self.by_prefix.get_mut(aggregate) {
                    entry.note(prefix, Specific::of(destination, around));
                }
            }
        }
    }

    fn note_changes<K: Key>(&mut self, table: &Table<K>, around: &Surroundings<'_>) {
        for change in &table.changes {
            let key = table.destinations.key(change.slot);
            let destination = table.destinations.get(change.slot);
            let Some((key, destination)) = key.zip(destination) else {
                continue;
            };
            if !destination.is_best_changed {
                continue;
            }
            let prefix = key.prefix();
            for (aggregate, entry) in &mut self.by_prefix {
                if is_within(aggregate, &prefix) {
                    entry.note(prefix, Specific::of(destination, around));
                }
            }
        }
    }

    /// Those that are not what is in the table, each with what it should be there; they count as
    /// put there. What is originated is not made an aggregate besides.
    fn take_changed<T>(
        &mut self,
        originated: &BTreeMap<Prefix, T>,
    ) -> Vec<(Prefix, Option<PathAttributes>)> {
        let mut changed = Vec::new();
        for (prefix, entry) in &mut self.by_prefix {
            let wanted = entry
                .attributes(self.aggregator)
                .filter(|_| !originated.contains_key(prefix));
            if wanted != entry.in_table {
                entry.in_table.clone_from(&wanted);
                changed.push((*prefix, wanted));
            }
        }
        changed
    }
}

impl Entry {
    /// A route within the aggregate became this; `None`: it is none to stand for.
    fn note(&mut self, prefix: Prefix, specific: Option<Specific>) {
        let was = match specific {
            Some(specific) => self.specifics.insert(prefix, specific),
            None => self.specifics.remove(&prefix),
        };
        if let Some(was) = was {
            self.counts.remove(was);
        }
        if let Some(specific) = specific {
            self.counts.add(specific);
        }
        if self.specifics.is_empty() {
            // What many took is given back.
            self.specifics = HashMap::new();
        }
    }

    /// The route; `None` without specifics.
    fn attributes(&self, aggregator: Aggregator) -> Option<PathAttributes> {
        let all = self.specifics.len();
        if all == 0 {
            return None;
        }
        let counts = &self.counts;
        let mut attributes = PathAttributes::originated(self.next_hop);
        // RFC 4271 §9.2.2.2: the least certain origin counts.
        attributes.origin = match (counts.incomplete, counts.egp) {
            (0, 0) => Origin::Igp,
            (0, _) => Origin::Egp,
            (_, _) => Origin::Incomplete,
        };
        // RFC 4271 §5.1.6 for AS numbers, RFC 1997 for communities.
        attributes.atomic_aggregate = counts.leaving_out > 0;
        // RFC 4271 §5.1.7.
        attributes.aggregator = Some(aggregator);
        // It is the last resort (RFC 9494 §4.3), or about to stop (RFC 8326), where all are.
        if counts.long_lived_stale == all {
            attributes.add_community(Community::LLGR_STALE);
        }
        if counts.about_to_stop == all {
            attributes.add_community(Community::GRACEFUL_SHUTDOWN);
        }
        Some(attributes)
    }
}

impl Specific {
    /// What the best path of a prefix is to an aggregate, stale or not: who restarts still forwards.
    fn of(destination: &Destination, around: &Surroundings<'_>) -> Option<Specific> {
        let best = destination.best()?;
        let attributes = &best.attributes;
        if !may_be_aggregated(around.source(best.source), attributes) {
            return None;
        }
        let has = |community| attributes.communities.contains(&community);
        Some(Specific {
            origin: attributes.origin,
            leaves_out: !attributes.as_path.is_empty() || !attributes.communities.is_empty(),
            is_long_lived_stale: has(Community::LLGR_STALE),
            is_about_to_stop: has(Community::GRACEFUL_SHUTDOWN),
        })
    }
}

impl Counts {
    fn add(&mut self, specific: Specific) {
        for (count, is_so) in self.with(specific) {
            *count += usize::from(is_so);
        }
    }

    fn remove(&mut self, specific: Specific) {
        for (count, is_so) in self.with(specific) {
            *count -= usize::from(is_so);
        }
    }

    fn with(&mut self, specific: Specific) -> [(&mut usize, bool); 5] {
        [
            (&mut self.egp, specific.origin == Origin::Egp),
            (&mut self.incomplete, specific.origin == Origin::Incomplete),
            (&mut self.leaving_out, specific.leaves_out),
            (&mut self.long_lived_stale, specific.is_long_lived_stale),
            (&mut self.about_to_stop, specific.is_about_to_stop),
        ]
    }
}
