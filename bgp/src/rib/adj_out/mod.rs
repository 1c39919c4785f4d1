//! Adj-RIB-Out by update groups: peers that are treated alike share encoded messages.
//!
//! What a group was told is one bit per prefix, or a list of paths in families with ADD-PATH. A
//! member hears everything its group hears except its own routes back, and routes whose next hop it
//! is itself.

mod bundle;
mod catch_up;
pub mod group;
pub(in crate::rib) mod pack;
pub mod paths;

use bytes::BytesMut;
use hashbrown::HashMap;

use self::bundle::Bundle;
use self::pack::{Bucket, Packer, Surroundings, encode_context, surroundings};
use super::table::{Change, Destination, Key, Table};
use super::{PeerId, Rib, Sink};
use crate::types::{Family, PathPrefix, Prefix};
use crate::wire::update::{self, EncodeContext};

/// Bits in a destination's mask. Groups beyond share the last bit, which then says nothing: they are
/// sent every withdrawal, needed or not.
pub(super) const MAX_GROUPS: usize = 32;

/// What a group's turn came to.
#[derive(Default)]
struct GroupTurn {
    /// (who does not need it: the previous source, paths).
    withdrawn: Vec<(Option<PeerId>, Vec<PathPrefix>)>,
    /// Where in `withdrawn` a previous source is.
    by_previous: HashMap<Option<PeerId>, usize>,
    /// A member whose own route became the best: what it heard before is withdrawn from it alone.
    withdrawn_from_source: HashMap<PeerId, Vec<PathPrefix>>,
}

impl GroupTurn {
    fn withdraw(&mut self, previous_source: Option<PeerId>, path: PathPrefix) {
        let withdrawn = &mut self.withdrawn;
        let index = *self.by_previous.entry(previous_source).or_insert_with(|| {
            withdrawn.push((previous_source, Vec::new()));
            withdrawn.len() - 1
        });
        if let Some((_, paths)) = withdrawn.get_mut(index) {
            paths.push(path);
        }
    }

    fn withdraw_from_source(&mut self, source: PeerId, path: PathPrefix) {
        self.withdrawn_from_source
            .entry(source)
            .or_default()
            .push(path);
    }
}

impl Rib {
    /// Has the tables note changes of every path where somebody hears of them.
    pub(super) fn note_as_needed(&mut self) {
        let every_path = self.groups.has_add_path() || self.config.decision.has_multipath();
        self.ipv4.notes_every_path = every_path;
        self.ipv6.notes_every_path = every_path;
    }

    pub(super) fn leave_group(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let Some(slot) = peer.slot.take() else { return };
        peer.member = Default::default();
        let is_empty = self.groups.leave(id, slot);
        self.note_as_needed();
        if is_empty && slot < MAX_GROUPS - 1 {
            let keep = !bit(slot);
            let tables4 = self.ipv4.destinations.iter_mut().map(|(.., entry)| entry);
            let tables6 = self.ipv6.destinations.iter_mut().map(|(.., entry)| entry);
            tables4
                .chain(tables6)
                .for_each(|entry| entry.advertised &= keep);
        }
    }

    /// Encodes buckets. Paths whose attributes outgrow the message limit are handed to `too_large`
    /// and count as not advertised (RFC 8654 §4).
    fn encode(
        &mut self,
        family: Family,
        buckets: &[Bucket],
        context: &EncodeContext,
        slot: usize,
        too_large: &mut impl FnMut(PathPrefix),
    ) -> Bundle {
        let mut bundle = Bundle::default();
        for bucket in buckets {
            let paths = bucket.paths.iter().copied();
            let next_hop = Some(bucket.attributes.next_hop.address);
            let added = bundle.add(Some(bucket.source), next_hop, |out| {
                update::put_announce(family, &bucket.attributes, paths, context, out)
            });
            if added.is_ok() {
                continue;
            }
            for path in &bucket.paths {
                if let Some(group) = self.groups.get_mut(slot) {
                    group.said.remove(path);
                }
                super::with_table!(self, family, table => set_advertised(table, &path.prefix, slot, false));
                too_large(*path);
            }
        }
        let bundle = bundle.close();
        if let Some(group) = self.groups.get_mut(slot) {
            group.encoded.note(bundle.chunks());
        }
        bundle
    }

    /// Works off the changed prefixes of both families.
    pub(super) fn flush_changes(&mut self, sink: &mut impl Sink) {
        self.follow_aggregates();
        let changes4 = std::mem::take(&mut self.ipv4.changes);
        let changes6 = std::mem::take(&mut self.ipv6.changes);
        if changes4.is_empty() && changes6.is_empty() {
            return;
        }
        self.mark_lagging(sink);
        if self.config.has_consumer {
            let is_any_told = self.config.decision.has_multipath();
            self.untold.extend(told(&self.ipv4, &changes4, is_any_told));
            self.untold.extend(told(&self.ipv6, &changes6, is_any_told));
        }
        for slot in 0..self.groups.slots.len() {
            self.flush_group(slot, Family::Ipv4, &changes4, sink);
            self.flush_group(slot, Family::Ipv6, &changes6, sink);
        }
        settle(&mut self.ipv4, &changes4);
        settle(&mut self.ipv6, &changes6);
    }

    /// Asked once per turn: a member without room misses all of this turn's messages, never some.
    fn mark_lagging(&mut self, sink: &impl Sink) {
        let members: Vec<PeerId> = self.groups.members().collect();
        for id in members {
            let has_room = sink.has_room(id);
            if let Some(peer) = self.peer_mut(id) {
                // While older changes wait, newer ones queue behind them, or an old state would
                // overtake a new one.
                peer.member.is_lagging = !has_room || !peer.member.dirty.is_empty();
            }
        }
    }

    fn flush_group(
        &mut self,
        slot: usize,
        family: Family,
        changes: &[Change],
        sink: &mut impl Sink,
    ) {
        let Some(group) = self
            .groups
            .get(slot)
            .filter(|group| group.key.families.contains(&family))
        else {
            return;
        };
        if changes.is_empty() {
            return;
        }
        let key = group.key.clone();
        let members = group.members.clone();
        let mut packer = Packer::new(&key, family);
        let mut turn = GroupTurn::default();
        if key.add_path.contains(family) {
            self.follow_paths(slot, family, changes, &mut packer, &mut turn);
        } else {
            let around = surroundings(&self.peers, &self.next_hops, &self.originated);
            super::with_table!(self, family, table => {
                follow_best(table, slot, changes, &around, &mut packer, &mut turn);
            });
        }
        let context = encode_context(&key);
        let buckets = packer.buckets;
        let announcements = self.encode(family, &buckets, &context, slot, &mut |path| {
            turn.withdraw(None, path)
        });
        let mut withdrawals = Bundle::default();
        for (previous_source, paths) in &turn.withdrawn {
            let paths = paths.iter().copied();
            withdrawals.put(*previous_source, |out| {
                update::put_withdraw(family, paths, &context, out);
            });
        }
        let withdrawals = withdrawals.close();
        if let Some(group) = self.groups.get_mut(slot) {
            group.encoded.note(withdrawals.chunks());
        }
        self.send_turn(
            family,
            &members,
            &turn,
            &withdrawals,
            &buckets,
            &announcements,
            &context,
            sink,
        );
    }

    /// What changed for a group that hears of every path.
    fn follow_paths(
        &mut self,
        slot: usize,
        family: Family,
        changes: &[Change],
        packer: &mut Packer<'_>,
        turn: &mut GroupTurn,
    ) {
        let Some(group) = self.groups.get_mut(slot) else {
            return;
        };
        let around = surroundings(&self.peers, &self.next_hops, &self.originated);
        super::with_table!(self, family, table => {
            for change in changes {
                if let Some(key) = table.destinations.key(change.slot) {
                    group.said.follow(key.prefix(), table, &around, packer, turn);
                }
            }
        });
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one step of flush_group, split for reading only"
    )]
    fn send_turn(
        &mut self,
        family: Family,
        members: &[PeerId],
        turn: &GroupTurn,
        withdrawals: &Bundle,
        buckets: &[Bucket],
        announcements: &Bundle,
        context: &EncodeContext,
        sink: &mut impl Sink,
    ) {
        for id in members.iter().copied() {
            let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else {
                continue;
            };
            if peer.member.is_held {
                // Hears the whole table when it is released.
                continue;
            }
            if peer.member.is_lagging {
                let dirty = &mut peer.member.dirty;
                dirty.extend(turn.withdrawn.iter().flat_map(|(_, paths)| paths));
                dirty.extend(turn.withdrawn_from_source.get(&id).into_iter().flatten());
                dirty.extend(buckets.iter().flat_map(|bucket| &bucket.paths));
                continue;
            }
            let address = peer.setup.address;
            withdrawals.say(id, &address, sink);
            let mut from_it_alone = BytesMut::new();
            if let Some(paths) = turn.withdrawn_from_source.get(&id) {
                let paths = paths.iter().copied();
                update::put_withdraw(family, paths, context, &mut from_it_alone);
            }
            if announcements.leads_to(id, &address) {
                let paths = pack::leading_to(buckets, id, &address);
                update::put_withdraw(family, paths, context, &mut from_it_alone);
            }
            if !from_it_alone.is_empty() {
                sink.send(id, &from_it_alone.freeze());
            }
            announcements.say(id, &address, sink);
        }
    }
}

/// What changed for a group that hears of the best path of each prefix.
fn follow_best<K: Key>(
    table: &mut Table<K>,
    slot: usize,
    changes: &[Change],
    around: &Surroundings<'_>,
    packer: &mut Packer<'_>,
    turn: &mut GroupTurn,
) {
    for change in changes {
        let key = table.destinations.key(change.slot);
        let entry = table.destinations.get_mut(change.slot);
        let Some((key, entry)) = key.zip(entry).filter(|(_, entry)| entry.is_best_changed) else {
            continue;
        };
        let path = PathPrefix::from(key.prefix());
        let was_said = slot >= MAX_GROUPS - 1 || entry.advertised & bit(slot) != 0;
        let best = entry.best();
        let source = best.map(|best| best.source);
        let is_said =
            best.is_some_and(|best| packer.pack(around, path, best.source, &best.attributes));
        if was_said && !is_said {
            turn.withdraw(change.previous_source, path);
        }
        if let Some(source) = source
            && is_said
            && was_said
            && change.previous_source != Some(source)
        {
            turn.withdraw_from_source(source, path);
        }
        entry.set_advertised(slot, is_said);
    }
}

fn set_advertised<K: Key>(table: &mut Table<K>, prefix: &Prefix, slot: usize, is_said: bool) {
    if let Some(entry) = table.get_mut(prefix) {
        entry.set_advertised(slot, is_said);
    }
}

impl Destination {
    fn set_advertised(&mut self, slot: usize, is_said: bool) {
        if is_said {
            self.advertised |= bit(slot);
        } else {
            self.advertised &= !bit(slot);
        }
    }
}

/// The prefixes whose best path changed, or with `is_any` any path.
fn told<'a, K: Key>(
    table: &'a Table<K>,
    changes: &'a [Change],
    is_any: bool,
) -> impl Iterator<Item = Prefix> + use<'a, K> {
    changes.iter().filter_map(move |change| {
        let entry = table.destinations.get(change.slot)?;
        let key = table.destinations.key(change.slot)?;
        (is_any || entry.is_best_changed).then(|| key.prefix())
    })
}

/// After all groups heard of the changes: destinations nobody needs any more go.
fn settle<K: Key>(table: &mut Table<K>, changes: &[Change]) {
    for change in changes {
        let Some(entry) = table.destinations.get_mut(change.slot) else {
            continue;
        };
        entry.is_changed = false;
        entry.is_best_changed = false;
        if entry.paths.is_empty() {
            table.destinations.remove(change.slot);
        }
    }
}

/// Which bit of a destination's mask is the group's: groups beyond share the last one.
pub(super) fn bit_index(slot: usize) -> usize {
    slot.min(MAX_GROUPS - 1)
}

pub(super) fn bit(slot: usize) -> u32 {
    1 << bit_index(slot)
}
