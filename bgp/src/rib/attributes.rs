//! Interning: routes with equal attributes share one value.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::wire::attribute::PathAttributes;

/// A set with its hash, so that growing does not read all sets again.
struct Interned {
    hash: u64,
    set: Arc<PathAttributes>,
}

/// Every distinct attribute set in use, once.
#[derive(Default)]
pub struct Interner {
    /// Seeded: peers choose attributes.
    hasher: foldhash::fast::RandomState,
    sets: HashTable<Interned>,
    purge_above: usize,
}

impl Interner {
    pub fn intern(&mut self, set: impl Into<Arc<PathAttributes>>) -> Arc<PathAttributes> {
        let set = set.into();
        let hash = self.hasher.hash_one(&set);
        let is_it = |known: &Interned| known.hash == hash && known.set == set;
        if let Some(known) = self.sets.find(hash, is_it) {
            return known.set.clone();
        }
        let interned = Interned {
            hash,
            set: set.clone(),
        };
        self.sets.insert_unique(hash, interned, |known| known.hash);
        set
    }

    /// The sets that routes use.
    pub fn in_use(&self) -> impl Iterator<Item = &PathAttributes> {
        self.sets
            .iter()
            .filter(|known| Arc::strong_count(&known.set) > 1)
            .map(|known| &*known.set)
    }

    /// Drops sets that no route uses, each time their number has doubled: the cost is spread over
    /// the routes that made it grow. Returns whether it did.
    pub fn purge_if_grown(&mut self) -> bool {
        let has_grown = self.sets.len() > self.purge_above.max(1024);
        if has_grown {
            self.sets.retain(|known| Arc::strong_count(&known.set) > 1);
            self.purge_above = self.sets.len() * 2;
        }
        has_grown
    }
}
