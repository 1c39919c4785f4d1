//! Prefixes whose best route the consumer has not been told yet.
//!
//! Each once, however often it changes, so they are no more than the tables ever held. In no order,
//! and that is of use: a kernel that is told neighbours one after the other makes the same node of
//! its trie larger or smaller each time.

use std::hash::Hash;

use hashbrown::HashSet;

use super::table::{Key, Key4, Key6};
use crate::types::Prefix;

#[derive(Debug, Default)]
pub struct Untold {
    ipv4: HashSet<Key4>,
    ipv6: HashSet<Key6>,
}

impl Untold {
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }

    pub fn extend(&mut self, prefixes: impl Iterator<Item = Prefix>) {
        for prefix in prefixes {
            self.ipv4.extend(Key4::from_prefix(&prefix));
            self.ipv6.extend(Key6::from_prefix(&prefix));
        }
    }

    /// Takes some, at most `limit`.
    pub fn take(&mut self, limit: usize) -> Vec<Prefix> {
        let mut taken = take(&mut self.ipv4, limit);
        taken.extend(take(&mut self.ipv6, limit - taken.len()));
        taken
    }
}

fn take<K: Key + Hash>(keys: &mut HashSet<K>, limit: usize) -> Vec<Prefix> {
    let taken: Vec<K> = keys.iter().take(limit).copied().collect();
    for key in &taken {
        keys.remove(key);
    }
    if keys.is_empty() {
        // A whole table may have been here.
        keys.shrink_to(limit);
    }
    taken.into_iter().map(Key::prefix).collect()
}
