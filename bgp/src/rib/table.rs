//! One family's prefixes and their paths: Adj-RIB-In of every peer and Loc-RIB in one map.
//!
//! The best path, if one is eligible, is always the first.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::PeerId;
use crate::types::Prefix;
use crate::wire::attribute::PathAttributes;

/// A prefix of one family, as small as the family allows.
pub trait Key: Copy + Eq + Hash + Ord + Debug {
    /// `None` for a prefix of the other family.
    fn from_prefix(prefix: &Prefix) -> Option<Self>;
    fn prefix(self) -> Prefix;
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key4 {
    bits: u32,
    length: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key6 {
    bits: [u8; 16],
    length: u8,
}

impl Key for Key4 {
    fn from_prefix(prefix: &Prefix) -> Option<Key4> {
        match *prefix {
            Prefix::V4 { bits, length } => Some(Key4 { bits, length }),
            Prefix::V6 { .. } => None,
        }
    }

    fn prefix(self) -> Prefix {
        Prefix::V4 {
            bits: self.bits,
            length: self.length,
        }
    }
}

impl Key for Key6 {
    fn from_prefix(prefix: &Prefix) -> Option<Key6> {
        match *prefix {
            Prefix::V6 { bits, length } => Some(Key6 { bits, length }),
            Prefix::V4 { .. } => None,
        }
    }

    fn prefix(self) -> Prefix {
        Prefix::V6 {
            bits: self.bits,
            length: self.length,
        }
    }
}

/// One peer's route to a prefix.
#[derive(Clone, Debug)]
pub struct Path {
    pub attributes: Arc<PathAttributes>,
    pub source: PeerId,
    /// Not eligible; the reason is in the RIB's rejections.
    pub is_rejected: bool,
    /// Not eligible either: its next hop does not resolve.
    pub is_unresolvable: bool,
    /// Kept over a restart of the peer, or in doubt since its refresh began, and not announced
    /// again yet.
    pub is_stale: bool,
}

impl Path {
    pub fn is_eligible(&self) -> bool {
        !self.is_rejected && !self.is_unresolvable
    }
}

pub type Paths = SmallVec<[Path; 1]>;

#[derive(Debug, Default)]
pub struct Destination {
    /// Best first, if any is eligible.
    pub paths: Paths,
    /// Bit per group: its members were told of this prefix.
    pub advertised: u64,
    /// On the table's list of changes.
    pub is_changed: bool,
}

impl Destination {
    pub fn best(&self) -> Option<&Path> {
        self.paths.first().filter(|path| path.is_eligible())
    }
}

/// A prefix whose best path changed, and who the source was when that was last said.
#[derive(Clone, Copy, Debug)]
pub struct Change<K> {
    pub key: K,
    pub previous_source: Option<PeerId>,
}

#[derive(Debug)]
pub struct Table<K> {
    pub destinations: HashMap<K, Destination, foldhash::fast::RandomState>,
    pub changes: Vec<Change<K>>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        // A seeded hasher: a peer that chooses prefixes must not be able to choose collisions.
        Table {
            destinations: HashMap::default(),
            changes: Vec::new(),
        }
    }
}

/// What an insertion met.
pub struct Inserted {
    /// Whether the peer's former path was accepted; `None`: it had none.
    pub previous: Option<bool>,
}

impl<K: Key> Table<K> {
    pub fn best(&self, prefix: &Prefix) -> Option<&Path> {
        self.destinations.get(&K::from_prefix(prefix)?)?.best()
    }

    /// Adds or replaces the path of `path.source`. `decide` gives the index of the best eligible path.
    pub fn insert(
        &mut self,
        prefix: &Prefix,
        path: Path,
        decide: impl Fn(&[Path]) -> Option<usize>,
    ) -> Inserted {
        let Some(key) = K::from_prefix(prefix) else {
            return Inserted { previous: None };
        };
        let destination = self.destinations.entry(key).or_default();
        let before = BestBefore::of(destination);
        let previous = match destination
            .paths
            .iter_mut()
            .find(|existing| existing.source == path.source)
        {
            Some(existing) => {
                let previous = !existing.is_rejected;
                *existing = path;
                Some(previous)
            }
            None => {
                destination.paths.push(path);
                None
            }
        };
        Self::settle(&mut self.changes, key, destination, before, decide);
        Inserted { previous }
    }

    /// Removes the path of `source`. Returns whether it was accepted; `None` if there was none.
    pub fn remove(
        &mut self,
        prefix: &Prefix,
        source: PeerId,
        decide: impl Fn(&[Path]) -> Option<usize>,
    ) -> Option<bool> {
        let key = K::from_prefix(prefix)?;
        let destination = self.destinations.get_mut(&key)?;
        let before = BestBefore::of(destination);
        let index = destination
            .paths
            .iter()
            .position(|path| path.source == source)?;
        let removed = destination.paths.swap_remove(index);
        Self::settle(&mut self.changes, key, destination, before, decide);
        if destination.paths.is_empty() && !destination.is_changed {
            self.destinations.remove(&key);
        }
        Some(!removed.is_rejected)
    }

    pub fn mark_stale(&mut self, source: PeerId) {
        for destination in self.destinations.values_mut() {
            for path in destination
                .paths
                .iter_mut()
                .filter(|path| path.source == source)
            {
                path.is_stale = true;
            }
        }
    }

    /// Asks `is_unresolvable` again about all paths of destinations that have one which `is_concerned`.
    pub fn resolve_again(
        &mut self,
        is_concerned: impl Fn(&Path) -> bool,
        is_unresolvable: impl Fn(&Path) -> bool,
        decide: impl Fn(&[Path]) -> Option<usize>,
    ) {
        for (key, destination) in &mut self.destinations {
            if !destination.paths.iter().any(&is_concerned) {
                continue;
            }
            let before = BestBefore::of(destination);
            for path in &mut destination.paths {
                path.is_unresolvable = is_unresolvable(path);
            }
            Self::settle(&mut self.changes, *key, destination, before, &decide);
        }
    }

    pub fn prefixes_of(&self, source: PeerId, matches: impl Fn(&Path) -> bool) -> Vec<Prefix> {
        self.destinations
            .iter()
            .filter(|(_, destination)| {
                destination
                    .paths
                    .iter()
                    .any(|path| path.source == source && matches(path))
            })
            .map(|(key, _)| key.prefix())
            .collect()
    }

    /// Moves the best path to the front and notes the change if it is not the one from before.
    fn settle(
        changes: &mut Vec<Change<K>>,
        key: K,
        destination: &mut Destination,
        before: BestBefore,
        decide: impl Fn(&[Path]) -> Option<usize>,
    ) {
        let has_one_path = destination.paths.len() == 1;
        if !has_one_path && let Some(best) = decide(&destination.paths) {
            destination.paths.swap(0, best);
        } else if !has_one_path && let Some(first) = destination.paths.first() {
            debug_assert!(
                !first.is_eligible(),
                "no best path although the first is eligible"
            );
        }
        if before != BestBefore::of(destination) && !destination.is_changed {
            destination.is_changed = true;
            changes.push(Change {
                key,
                previous_source: before.source,
            });
        }
    }
}

/// Identity of a best path. The pointer is only compared, never followed: the interner gives equal
/// attributes one address while any route uses them.
#[derive(PartialEq, Eq)]
struct BestBefore {
    source: Option<PeerId>,
    attributes: usize,
}

impl BestBefore {
    fn of(destination: &Destination) -> BestBefore {
        match destination.best() {
            Some(path) => BestBefore {
                source: Some(path.source),
                attributes: Arc::as_ptr(&path.attributes) as usize,
            },
            None => BestBefore {
                source: None,
                attributes: 0,
            },
        }
    }
}
