//! Interning: routes with equal attributes share one value.

use std::sync::Arc;

use hashbrown::HashSet;

use crate::wire::attribute::PathAttributes;

/// Every distinct attribute set in use, once.
#[derive(Default)]
pub struct Interner {
    sets: HashSet<Arc<PathAttributes>>,
    purge_above: usize,
}

impl Interner {
    pub fn intern(&mut self, attributes: PathAttributes) -> Arc<PathAttributes> {
        self.sets
            .get_or_insert_with(&attributes, |attributes| Arc::new(attributes.clone()))
            .clone()
    }

    /// The sets that routes use.
    pub fn in_use(&self) -> impl Iterator<Item = &PathAttributes> {
        self.sets
            .iter()
            .filter(|set| Arc::strong_count(set) > 1)
            .map(|set| &**set)
    }

    /// Drops sets that no route uses, each time their number has doubled: the cost is spread over
    /// the routes that made it grow. Returns whether it did.
    pub fn purge_if_grown(&mut self) -> bool {
        let has_grown = self.sets.len() > self.purge_above.max(1024);
        if has_grown {
            self.sets.retain(|set| Arc::strong_count(set) > 1);
            self.purge_above = self.sets.len() * 2;
        }
        has_grown
    }
}
