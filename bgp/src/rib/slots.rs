//! A map whose values keep their place, so that a change is noted as a number and found again
//! without another look-up. It grows without copying what it holds.
//!
//! Prefixes that follow each other lie side by side in the index: routes come in the order of
//! their prefixes, and memory is slow where it is read out of order.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::table::Key;

/// Values in one allocation.
const CHUNK: usize = 1024;

/// The place of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(u32);

#[derive(Debug)]
struct Entry<K, V> {
    /// `None`: free.
    key: Option<K>,
    value: V,
}

#[derive(Debug)]
pub struct Slots<K, V> {
    /// A seeded hasher: a peer that chooses prefixes must not be able to choose collisions.
    hasher: foldhash::fast::RandomState,
    index: HashTable<Slot>,
    chunks: Vec<Vec<Entry<K, V>>>,
    free: Vec<Slot>,
}

impl<K, V> Default for Slots<K, V> {
    fn default() -> Self {
        Slots {
            hasher: foldhash::fast::RandomState::default(),
            index: HashTable::new(),
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<K: Key, V: Default> Slots<K, V> {
    pub fn find(&self, key: &K) -> Option<Slot> {
        let is_it = |slot: &Slot| {
            self.entry(*slot)
                .is_some_and(|entry| entry.key == Some(*key))
        };
        self.index.find(hash(&self.hasher, key), is_it).copied()
    }

    pub fn get(&self, slot: Slot) -> Option<&V> {
        self.entry(slot).map(|entry| &entry.value)
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut V> {
        let (chunk, within) = slot.position();
        let entry = self.chunks.get_mut(chunk)?.get_mut(within)?;
        Some(&mut entry.value)
    }

    /// The key of a value that is there.
    pub fn key(&self, slot: Slot) -> Option<K> {
        self.entry(slot).and_then(|entry| entry.key)
    }

    /// The place of `key`, with a new value if there is none. `None` with as many values as there
    /// are numbers.
    pub fn find_or_insert(&mut self, key: K) -> Option<Slot> {
        if let Some(slot) = self.find(&key) {
            return Some(slot);
        }
        let slot = match self.free.pop() {
            Some(free) => {
                let (chunk, within) = free.position();
                let entry = self.chunks.get_mut(chunk)?.get_mut(within)?;
                entry.key = Some(key);
                free
            }
            None => self.append(key)?,
        };
        let (hasher, chunks) = (&self.hasher, &self.chunks);
        let hash_of = |slot: &Slot| {
            let key = entry(chunks, *slot).and_then(|entry| entry.key);
            key.map_or(0, |key| hash(hasher, &key))
        };
        self.index.insert_unique(hash(hasher, &key), slot, hash_of);
        Some(slot)
    }

    fn append(&mut self, key: K) -> Option<Slot> {
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        let last = self.chunks.last_mut()?;
        let number = u32::try_from(chunk * CHUNK + last.len()).ok()?;
        last.push(Entry {
            key: Some(key),
            value: V::default(),
        });
        Some(Slot(number))
    }

    pub fn remove(&mut self, slot: Slot) {
        let Some(key) = self.key(slot) else { return };
        let found = self
            .index
            .find_entry(hash(&self.hasher, &key), |other| *other == slot);
        if let Ok(found) = found {
            found.remove();
        }
        if self.index.is_empty() {
            // What a large table took is given back.
            let hasher = self.hasher.clone();
            *self = Slots {
                hasher,
                ..Slots::default()
            };
            return;
        }
        let (chunk, within) = slot.position();
        let entry = self.chunks.get_mut(chunk).and_then(|c| c.get_mut(within));
        if let Some(entry) = entry {
            entry.key = None;
            entry.value = V::default();
            self.free.push(slot);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let entries = self.chunks.iter().flatten();
        entries.filter_map(|entry| Some((entry.key?, &entry.value)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, K, &mut V)> {
        let entries = self.chunks.iter_mut().flatten();
        (0..)
            .map(Slot)
            .zip(entries)
            .filter_map(|(slot, entry)| Some((slot, entry.key?, &mut entry.value)))
    }

    fn entry(&self, slot: Slot) -> Option<&Entry<K, V>> {
        entry(&self.chunks, slot)
    }
}

impl Slot {
    /// Which chunk, and where in it.
    fn position(self) -> (usize, usize) {
        let number = self.0 as usize;
        (number / CHUNK, number % CHUNK)
    }
}

fn entry<K, V>(chunks: &[Vec<Entry<K, V>>], slot: Slot) -> Option<&Entry<K, V>> {
    let (chunk, within) = slot.position();
    chunks.get(chunk)?.get(within)
}

/// Sixteen neighbours differ in the lowest bits, which say where the index looks first, and in the
/// highest, by which it tells apart what it finds there.
fn hash<K: Key>(hasher: &foldhash::fast::RandomState, key: &K) -> u64 {
    let (block, within) = key.neighbourhood();
    let within = u64::from(within);
    ((hasher.hash_one(block) & !0xf) | within) ^ (within << 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rib::table::Key4;
    use crate::types::Prefix;

    fn key(number: u32) -> Key4 {
        let prefix = Prefix::V4 {
            bits: number << 8,
            length: 24,
        };
        Key4::from_prefix(&prefix).expect("an IPv4 prefix")
    }

    #[test]
    fn values_keep_their_place_while_others_come_and_go() {
        let mut slots: Slots<Key4, u32> = Slots::default();
        let placed: Vec<Slot> = (0..5000)
            .map(|number| {
                let slot = slots.find_or_insert(key(number)).expect("room");
                *slots.get_mut(slot).expect("there") = number;
                slot
            })
            .collect();
        for number in (0..5000).step_by(3) {
            slots.remove(placed[number]);
        }
        for number in 0..5000 {
            let found = slots.find(&key(number));
            let wanted = (number % 3 != 0).then(|| placed[number as usize]);
            assert_eq!(found, wanted, "{number}");
            if let Some(slot) = found {
                assert_eq!(slots.get(slot), Some(&number));
            }
        }
        assert_eq!(slots.iter().count(), 5000 - 1667);
        // Freed places are used again, with nothing of before.
        let again = slots.find_or_insert(key(9000)).expect("room");
        assert!(placed.contains(&again));
        assert_eq!(slots.get(again), Some(&0));
    }

    #[test]
    fn an_empty_map_holds_no_memory() {
        let mut slots: Slots<Key4, u32> = Slots::default();
        let placed: Vec<Slot> = (0..3000)
            .filter_map(|number| slots.find_or_insert(key(number)))
            .collect();
        placed.into_iter().for_each(|slot| slots.remove(slot));
        assert_eq!(slots.chunks.capacity(), 0);
        assert_eq!(slots.index.capacity(), 0);
        assert_eq!(slots.iter().count(), 0);
        assert!(slots.find_or_insert(key(1)).is_some());
    }
}
