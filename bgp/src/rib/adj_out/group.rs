//! Update groups: peers that hear the same messages, and what they have been told.

use bytes::Bytes;

use super::paths::SaidPaths;
use crate::rib::PeerId;
use crate::rib::peer::GroupKey;
use crate::wire::frame;

#[derive(Debug)]
pub struct Group {
    pub(super) key: GroupKey,
    pub(super) members: Vec<PeerId>,
    /// What was said in families with ADD-PATH. In others it is one bit per prefix in the table.
    pub(in crate::rib) said: SaidPaths,
    pub(in crate::rib) encoded: Encoded,
}

/// Messages that were made: each once, whoever shares it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Encoded {
    pub messages: u64,
    pub octets: u64,
}

impl Encoded {
    /// Takes in pieces of one or several messages.
    pub fn note(&mut self, pieces: &[Bytes]) {
        for piece in pieces {
            self.messages += frame::messages_in(piece) as u64;
            self.octets += piece.len() as u64;
        }
    }
}

impl Group {
    pub fn key(&self) -> &GroupKey {
        &self.key
    }

    pub fn members(&self) -> &[PeerId] {
        &self.members
    }
}

#[derive(Debug, Default)]
pub struct Groups {
    pub(super) slots: Vec<Option<Group>>,
}

impl Groups {
    /// The slot of the group with this key, made if there is none. A slot's bits are clear when it
    /// is new.
    pub fn join(&mut self, id: PeerId, key: &GroupKey) -> usize {
        let existing = self
            .slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(|group| group.key == *key));
        let slot = existing.unwrap_or_else(|| {
            let group = Some(Group {
                key: key.clone(),
                members: Vec::new(),
                said: SaidPaths::default(),
                encoded: Encoded::default(),
            });
            match self.slots.iter().position(Option::is_none) {
                Some(free) => {
                    self.slots[free] = group;
                    free
                }
                None => {
                    self.slots.push(group);
                    self.slots.len() - 1
                }
            }
        });
        if let Some(group) = &mut self.slots[slot] {
            group.members.push(id);
        }
        slot
    }

    /// Returns whether the group is empty now and its slot free.
    pub(super) fn leave(&mut self, id: PeerId, slot: usize) -> bool {
        let Some(group) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return false;
        };
        group.members.retain(|member| *member != id);
        let is_empty = group.members.is_empty();
        if is_empty {
            self.slots[slot] = None;
        }
        is_empty
    }

    pub fn members(&self) -> impl Iterator<Item = PeerId> {
        self.slots
            .iter()
            .flatten()
            .flat_map(|group| group.members.iter().copied())
    }

    pub fn slots(&self) -> impl Iterator<Item = Option<&Group>> {
        self.slots.iter().map(Option::as_ref)
    }

    pub(in crate::rib) fn get(&self, slot: usize) -> Option<&Group> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Group> {
        self.slots.get_mut(slot).and_then(Option::as_mut)
    }

    /// Whether the interface of a route makes a difference to some group.
    pub fn asks_for_interface(&self) -> bool {
        let mut groups = self.slots.iter().flatten();
        groups.any(|group| group.key.export.asks_for_interface())
    }

    /// Whether some group hears of every path.
    pub fn has_add_path(&self) -> bool {
        let mut groups = self.slots.iter().flatten();
        groups.any(|group| !group.key.add_path.is_empty())
    }
}
