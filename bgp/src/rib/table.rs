//! One family's prefixes and their paths: Adj-RIB-In of every peer and Loc-RIB in one map.
//!
//! The best path, if one is eligible, is always the first.

use std::fmt::Debug;
use std::hash::Hash;
use std::num::NonZeroU8;
use std::sync::Arc;

use super::PeerId;
use super::path::{Path, Paths};
use super::slots::{Slot, Slots};
use crate::types::{PathPrefix, Prefix};

/// A prefix of one family, as small as the family allows.
pub trait Key: Copy + Eq + Hash + Ord + Debug {
    /// `None` for a prefix of the other family.
    fn from_prefix(prefix: &Prefix) -> Option<Self>;
    fn prefix(self) -> Prefix;

    /// The sixteen prefixes of one length that this one is of, as a number of their own, and which of
    /// them it is.
    fn neighbourhood(&self) -> (u128, u8);
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key4 {
    bits: u32,
    /// One more than the length, so that a place without a key takes no more room.
    length_plus_one: NonZeroU8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key6 {
    bits: [u8; 16],
    length: u8,
}

impl Key4 {
    fn length(self) -> u8 {
        self.length_plus_one.get() - 1
    }
}

impl Key for Key4 {
    fn from_prefix(prefix: &Prefix) -> Option<Key4> {
        match *prefix {
            Prefix::V4 { bits, length } => Some(Key4 {
                bits,
                length_plus_one: NonZeroU8::MIN.saturating_add(length),
            }),
            Prefix::V6 { .. } => None,
        }
    }

    fn prefix(self) -> Prefix {
        Prefix::V4 {
            bits: self.bits,
            length: self.length(),
        }
    }

    fn neighbourhood(&self) -> (u128, u8) {
        let host_bits = 32 - u32::from(self.length().min(32));
        let number = u64::from(self.bits) >> host_bits;
        let block = (number >> 4) << 8 | u64::from(self.length());
        (u128::from(block), (number & 0xf) as u8)
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

    fn neighbourhood(&self) -> (u128, u8) {
        let host_bits = 128 - u32::from(self.length.min(128));
        let number = u128::from_be_bytes(self.bits).checked_shr(host_bits);
        let number = number.unwrap_or(0);
        // The length changes the highest octet, which prefixes of that length share.
        let block = (number >> 4) ^ (u128::from(self.length) << 120);
        (block, (number & 0xf) as u8)
    }
}

#[derive(Debug, Default)]
pub struct Destination {
    /// Best first, if any is eligible.
    pub paths: Paths,
    /// Bit per group: its members were told of this prefix.
    pub advertised: u32,
    /// On the table's list of changes.
    pub is_changed: bool,
    /// It is there because of its best path.
    pub is_best_changed: bool,
}

impl Destination {
    pub fn best(&self) -> Option<&Path> {
        self.paths.first().filter(|path| path.is_eligible())
    }
}

/// A prefix whose best path changed, or any path where the table notes all, and who the source was
/// when that was last said.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub slot: Slot,
    pub previous_source: Option<PeerId>,
}

#[derive(Debug)]
pub struct Table<K> {
    pub destinations: Slots<K, Destination>,
    pub changes: Vec<Change>,
    /// Changes of other paths than the best are noted, too.
    pub notes_every_path: bool,
}

/// Most paths of one peer to one prefix. More are refused: their number must not be the peer's
/// choice, since each costs a look at all others.
const MAX_PATHS: usize = 256;

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table {
            destinations: Slots::default(),
            changes: Vec::new(),
            notes_every_path: false,
        }
    }
}

/// What a path was that is not there any more.
#[derive(Clone, Copy, Debug)]
pub struct Was {
    pub accepted: bool,
    pub stale: bool,
}

impl Was {
    pub fn of(path: &Path) -> Was {
        Was {
            accepted: !path.is_rejected,
            stale: path.is_stale,
        }
    }
}

/// What an insertion met.
pub enum Inserted {
    New,
    /// The peer had this path already.
    Replaced(Was),
    /// The peer has as many paths to this prefix as it may have, and one of them, which is stale,
    /// went for the new one.
    InsteadOf {
        path_id: u32,
        was: Was,
    },
    /// The peer has too many paths to this prefix.
    Refused,
}

impl<K: Key> Table<K> {
    pub fn best(&self, prefix: &Prefix) -> Option<&Path> {
        self.get(prefix)?.best()
    }

    pub fn get(&self, prefix: &Prefix) -> Option<&Destination> {
        let slot = self.destinations.find(&K::from_prefix(prefix)?)?;
        self.destinations.get(slot)
    }

    pub fn get_mut(&mut self, prefix: &Prefix) -> Option<&mut Destination> {
        let slot = self.destinations.find(&K::from_prefix(prefix)?)?;
        self.destinations.get_mut(slot)
    }

    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.destinations.iter().map(|(key, _)| key.prefix())
    }

    /// The prefixes on the list of changes.
    pub fn changed(&self) -> impl Iterator<Item = Prefix> {
        let keys = self.changes.iter();
        keys.filter_map(|change| Some(self.destinations.key(change.slot)?.prefix()))
    }

    /// Adds or replaces the path `path.path_id` of `path.source`. `decide` gives the index of the
    /// best eligible path.
    pub fn insert(
        &mut self,
        prefix: &Prefix,
        mut path: Path,
        decide: impl Fn(&[Path]) -> Option<usize>,
    ) -> Inserted {
        let Some(key) = K::from_prefix(prefix) else {
            return Inserted::Refused;
        };
        let slot = self.destinations.find_or_insert(key);
        let found = slot.and_then(|slot| Some((slot, self.destinations.get_mut(slot)?)));
        let Some((slot, destination)) = found else {
            return Inserted::Refused;
        };
        let before = BestBefore::of(destination);
        let existing = destination
            .paths
            .iter_mut()
            .find(|existing| existing.source == path.source && existing.path_id == path.path_id);
        let inserted = match existing {
            Some(existing) => {
                let was = Was::of(existing);
                path.local_id = existing.local_id;
                *existing = path;
                Inserted::Replaced(was)
            }
            None => {
                let of_peer = destination.paths.iter().filter(|p| p.source == path.source);
                let mut inserted = Inserted::New;
                if path.path_id != 0 && of_peer.count() >= MAX_PATHS {
                    // A peer that restarted may number its paths anew (RFC 7911 §3): what is left
                    // of before must not cost it those.
                    let is_stale_too = |p: &Path| p.source == path.source && p.is_stale;
                    let Some(stale) = destination.paths.iter().position(is_stale_too) else {
                        return Inserted::Refused;
                    };
                    if let Some(stale) = destination.paths.swap_remove(stale) {
                        inserted = Inserted::InsteadOf {
                            path_id: stale.path_id,
                            was: Was::of(&stale),
                        };
                    }
                }
                path.local_id = free_local_id(&destination.paths);
                destination.paths.push(path);
                inserted
            }
        };
        let is_any = self.notes_every_path;
        settle(&mut self.changes, is_any, slot, destination, before, decide);
        inserted
    }

    /// Removes the path `path_id` of `source`. Returns what it was; `None` if there was none.
    pub fn remove(
        &mut self,
        prefix: &Prefix,
        source: PeerId,
        path_id: u32,
        decide: impl Fn(&[Path]) -> Option<usize>,
    ) -> Option<Was> {
        let key = K::from_prefix(prefix)?;
        let slot = self.destinations.find(&key)?;
        let destination = self.destinations.get_mut(slot)?;
        let before = BestBefore::of(destination);
        let index = destination
            .paths
            .iter()
            .position(|path| path.source == source && path.path_id == path_id)?;
        let removed = destination.paths.swap_remove(index)?;
        let is_any = self.notes_every_path;
        settle(&mut self.changes, is_any, slot, destination, before, decide);
        if destination.paths.is_empty() && !destination.is_changed {
            self.destinations.remove(slot);
        }
        Some(Was::of(&removed))
    }

    /// Changes what `change` says of every path of `source`. `change` returns whether it did.
    pub fn change_paths(
        &mut self,
        source: PeerId,
        mut change: impl FnMut(&mut Path) -> bool,
        decide: impl Fn(&[Path]) -> Option<usize>,
    ) {
        let every_path = self.notes_every_path;
        self.revise(every_path, decide, |destination| {
            let mut is_changed = false;
            for path in destination.paths.iter_mut() {
                is_changed |= path.source == source && change(path);
            }
            is_changed
        });
    }

    /// Decides about all prefixes anew, and notes them all: what is used together may have changed
    /// although the best has not.
    pub fn decide_again(&mut self, decide: impl Fn(&[Path]) -> Option<usize>) {
        self.revise(true, decide, |_| true);
    }

    /// Decides anew about the prefixes that have a path of `source`, and notes them all: it is not
    /// what it was.
    pub fn source_changed(&mut self, source: PeerId, decide: impl Fn(&[Path]) -> Option<usize>) {
        self.revise(true, decide, |destination| {
            let is_best = destination.best().is_some_and(|path| path.source == source);
            destination.is_best_changed |= is_best;
            destination.paths.iter().any(|path| path.source == source)
        });
    }

    /// Makes all paths of `source` stale. Returns how many were not.
    pub fn mark_stale(&mut self, source: PeerId) -> u64 {
        let mut marked = 0;
        for (_, _, destination) in self.destinations.iter_mut() {
            for path in destination
                .paths
                .iter_mut()
                .filter(|path| path.source == source && !path.is_stale)
            {
                path.is_stale = true;
                marked += 1;
            }
        }
        marked
    }

    /// Asks `is_unresolvable` again about all paths of destinations that have one which `is_concerned`.
    pub fn resolve_again(
        &mut self,
        is_concerned: impl Fn(&Path) -> bool,
        is_unresolvable: impl Fn(&Path) -> bool,
        decide: impl Fn(&[Path]) -> Option<usize>,
    ) {
        let every_path = self.notes_every_path;
        self.revise(every_path, decide, |destination| {
            let is_concerned = destination.paths.iter().any(&is_concerned);
            if is_concerned {
                for path in destination.paths.iter_mut() {
                    path.is_unresolvable = is_unresolvable(path);
                }
            }
            is_concerned
        });
    }

    /// Notes the prefixes with a path that `is_concerned`: how it is passed on may be another.
    pub fn note_again(&mut self, is_concerned: impl Fn(&K, &Path) -> bool) {
        for (slot, key, destination) in self.destinations.iter_mut() {
            if !destination
                .paths
                .iter()
                .any(|path| is_concerned(&key, path))
            {
                continue;
            }
            let best = destination.best();
            let is_best_concerned = best.is_some_and(|path| is_concerned(&key, path));
            let previous_source = best.map(|path| path.source);
            destination.is_best_changed |= is_best_concerned;
            if !destination.is_changed {
                destination.is_changed = true;
                self.changes.push(Change {
                    slot,
                    previous_source,
                });
            }
        }
    }

    /// The paths of `source` that `matches`.
    pub fn paths_of(&self, source: PeerId, matches: impl Fn(&Path) -> bool) -> Vec<PathPrefix> {
        let found = self.select_paths(source, |path| matches(path).then_some(()));
        found.into_iter().map(|(path, ())| path).collect()
    }

    /// The paths of `source` of which `select` gives something, with that.
    pub fn select_paths<T>(
        &self,
        source: PeerId,
        select: impl Fn(&Path) -> Option<T>,
    ) -> Vec<(PathPrefix, T)> {
        let mut found = Vec::new();
        for (key, destination) in self.destinations.iter() {
            for path in destination.paths.iter().filter(|p| p.source == source) {
                if let Some(selected) = select(path) {
                    let prefix = key.prefix();
                    let path_id = path.path_id;
                    found.push((PathPrefix { prefix, path_id }, selected));
                }
            }
        }
        found
    }

    /// Has `revise` look at every prefix, and decides anew about those of which it says so; notes them
    /// with `is_any` even if their best path stays.
    fn revise(
        &mut self,
        is_any: bool,
        decide: impl Fn(&[Path]) -> Option<usize>,
        mut revise: impl FnMut(&mut Destination) -> bool,
    ) {
        for (slot, _, destination) in self.destinations.iter_mut() {
            let before = BestBefore::of(destination);
            if revise(destination) {
                settle(
                    &mut self.changes,
                    is_any,
                    slot,
                    destination,
                    before,
                    &decide,
                );
            }
        }
    }
}

/// Moves the best path to the front and notes the change if it is not the one from before, or with
/// `is_any` in any case.
fn settle(
    changes: &mut Vec<Change>,
    is_any: bool,
    slot: Slot,
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
    let is_best_changed = before != BestBefore::of(destination);
    destination.is_best_changed |= is_best_changed;
    if (is_best_changed || is_any) && !destination.is_changed {
        destination.is_changed = true;
        changes.push(Change {
            slot,
            previous_source: before.source,
        });
    }
}

/// A number from 1 on that none of the paths has: one more than the highest, which costs one look
/// at each path, until numbers run out.
fn free_local_id(paths: &[Path]) -> u32 {
    let highest = paths.iter().map(|path| path.local_id).max().unwrap_or(0);
    let is_free = |id: &u32| paths.iter().all(|path| path.local_id != *id);
    highest
        .checked_add(1)
        .or_else(|| (1..u32::MAX).find(is_free))
        .unwrap_or(u32::MAX)
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
