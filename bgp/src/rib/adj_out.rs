//! Adj-RIB-Out by update groups: peers that are treated alike share encoded messages.
//!
//! What a group was told is one bit per prefix. A member hears everything its group hears except
//! its own routes back, and routes whose next hop it is itself.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::peer::{GroupKey, Peer};
use super::table::{Change, Key, Table};
use super::{PeerId, Rib, Sink};
use crate::policy::propagate::RouteSource;
use crate::types::{Family, FamilySet, Prefix};
use crate::wire::attribute::PathAttributes;
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::update::{self, EncodeContext};

/// Bits in a destination's mask. Groups beyond share the last bit, which then says nothing: they are
/// sent every withdrawal, needed or not.
const MAX_GROUPS: usize = 64;
/// Prefixes a member that catches up is sent per step, so that others are not kept waiting.
const CATCH_UP_STEP: usize = 4096;

#[derive(Debug)]
pub struct Group {
    key: GroupKey,
    members: Vec<PeerId>,
}

#[derive(Debug, Default)]
pub struct Groups {
    slots: Vec<Option<Group>>,
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
    fn leave(&mut self, id: PeerId, slot: usize) -> bool {
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

    fn get(&self, slot: usize) -> Option<&Group> {
        self.slots.get(slot).and_then(Option::as_ref)
    }
}

/// The prefixes that leave together: same attributes as sent, same source.
struct Bucket {
    attributes: Arc<PathAttributes>,
    source: PeerId,
    prefixes: Vec<Prefix>,
}

/// Export decisions of one group within one turn. Attributes are transformed once per set and source.
struct Packer<'a> {
    key: &'a GroupKey,
    transformed: HashMap<(usize, PeerId), Option<usize>>,
    buckets: Vec<Bucket>,
}

impl<'a> Packer<'a> {
    fn new(key: &'a GroupKey) -> Packer<'a> {
        Packer {
            key,
            transformed: HashMap::new(),
            buckets: Vec::new(),
        }
    }

    /// Puts `prefix` where it belongs; `false` if it is not said to this group.
    fn pack(
        &mut self,
        peers: &[Option<Peer>],
        prefix: Prefix,
        source: PeerId,
        attributes: &Arc<PathAttributes>,
    ) -> bool {
        let route_source = route_source(peers, source);
        if !self.key.export.admits_prefix(&prefix, route_source) {
            return false;
        }
        let buckets = &mut self.buckets;
        let bucket = *self
            .transformed
            .entry((Arc::as_ptr(attributes) as usize, source))
            .or_insert_with(|| {
                let attributes = Arc::new(self.key.export.transform(attributes, route_source)?);
                buckets.push(Bucket {
                    attributes,
                    source,
                    prefixes: Vec::new(),
                });
                Some(buckets.len() - 1)
            });
        match bucket {
            Some(index) => {
                buckets[index].prefixes.push(prefix);
                true
            }
            None => false,
        }
    }
}

fn route_source(peers: &[Option<Peer>], source: PeerId) -> RouteSource {
    peers
        .get(source.0 as usize)
        .and_then(Option::as_ref)
        .map_or(RouteSource::Local, Peer::source)
}

fn encode_context(key: &GroupKey) -> EncodeContext {
    EncodeContext {
        four_octet_as: key.four_octet_as,
        max_len: key.max_message_len,
        add_path: FamilySet::EMPTY,
    }
}

/// What a group's turn came to.
#[derive(Default)]
struct GroupTurn {
    /// (who does not need it: the previous source, prefixes).
    withdrawn: Vec<(Option<PeerId>, Vec<Prefix>)>,
    /// A member whose own route became the best: what it heard before is withdrawn from it alone.
    withdrawn_from_source: HashMap<PeerId, Vec<Prefix>>,
}

impl GroupTurn {
    fn withdraw(&mut self, previous_source: Option<PeerId>, prefix: Prefix) {
        match self
            .withdrawn
            .iter_mut()
            .find(|(source, _)| *source == previous_source)
        {
            Some((_, prefixes)) => prefixes.push(prefix),
            None => self.withdrawn.push((previous_source, vec![prefix])),
        }
    }
}

impl Rib {
    pub(super) fn leave_group(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let Some(slot) = peer.slot.take() else { return };
        peer.member = Default::default();
        if self.groups.leave(id, slot) && slot < MAX_GROUPS - 1 {
            let keep = !(1u64 << slot);
            self.ipv4
                .destinations
                .values_mut()
                .for_each(|entry| entry.advertised &= keep);
            self.ipv6
                .destinations
                .values_mut()
                .for_each(|entry| entry.advertised &= keep);
        }
    }

    /// Makes the whole table due to one member, with End-of-RIB after it.
    pub(super) fn begin_catch_up(&mut self, id: PeerId) {
        let Some(peer) = self.peer(id) else { return };
        let families = peer.setup.group.families.clone();
        let table = families
            .iter()
            .flat_map(|family| self.exportable(*family))
            .collect();
        if let Some(peer) = self.peer_mut(id) {
            peer.member.table = table;
            peer.member.end_of_rib_due = families;
        }
    }

    /// A ROUTE-REFRESH: the family is sent again, even if nothing changed (RFC 2918 §3). It begins
    /// when the peer has heard what it was to hear before, End-of-RIB included (RFC 7313 §4).
    pub fn refresh(&mut self, id: PeerId, family: Family) {
        if let Some(peer) = self
            .peer_mut(id)
            .filter(|peer| peer.slot.is_some() && peer.setup.group.families.contains(&family))
        {
            peer.member.ask_refresh(family);
        }
    }

    /// Ends the refresh that is sent out, and begins the next. `false` if there is none.
    fn next_refresh(&mut self, id: PeerId, sink: &mut impl Sink) -> bool {
        let Some(peer) = self.peer_mut(id) else {
            return false;
        };
        let ended = peer.member.refreshing.take();
        let begun = peer.member.refresh_due.pop_front();
        peer.member.refreshing = begun;
        if peer.setup.enhanced_route_refresh {
            let demarcations = [(ended, RefreshKind::End), (begun, RefreshKind::Begin)];
            for (family, kind) in demarcations {
                if let Some(family) = family {
                    sink.send(id, &RouteRefresh { family, kind }.encode());
                }
            }
        }
        let table = begun.map(|family| self.exportable(family));
        if let (Some(table), Some(peer)) = (table, self.peer_mut(id)) {
            peer.member.table = table;
        }
        begun.is_some()
    }

    fn exportable(&self, family: Family) -> Vec<Prefix> {
        match family {
            Family::Ipv4 => exportable(&self.ipv4),
            Family::Ipv6 => exportable(&self.ipv6),
        }
    }

    /// Sends a member what it misses, as long as it has room.
    pub fn resume(&mut self, id: PeerId, sink: &mut impl Sink) {
        if self.is_held(id) {
            return;
        }
        while sink.has_room(id) {
            let Some(peer) = self.peer_mut(id) else {
                return;
            };
            peer.member.is_lagging = false;
            // A joining member has heard nothing that could be withdrawn.
            let withdraws = peer.member.table.is_empty();
            let due: Vec<Prefix> = if withdraws {
                let due: Vec<Prefix> = peer
                    .member
                    .dirty
                    .iter()
                    .take(CATCH_UP_STEP)
                    .copied()
                    .collect();
                due.iter().for_each(|prefix| {
                    peer.member.dirty.remove(prefix);
                });
                due
            } else {
                let rest = peer.member.table.len().saturating_sub(CATCH_UP_STEP);
                peer.member.table.split_off(rest)
            };
            if due.is_empty() {
                for family in std::mem::take(&mut peer.member.end_of_rib_due) {
                    sink.send(id, &update::encode_end_of_rib(family));
                }
                if self.next_refresh(id, sink) {
                    continue;
                }
                return;
            }
            self.send_from_table(id, &due, withdraws, sink);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.member.is_lagging = true;
        }
    }

    /// Sends one member the present state of some prefixes; with `withdraws` also what is gone.
    fn send_from_table(
        &mut self,
        id: PeerId,
        prefixes: &[Prefix],
        withdraws: bool,
        sink: &mut impl Sink,
    ) {
        let Some((key, slot)) = self
            .peer(id)
            .and_then(|peer| Some((peer.setup.group.clone(), peer.slot?)))
        else {
            return;
        };
        for family in key.families.iter().copied() {
            let mine = prefixes.iter().filter(|prefix| prefix.family() == family);
            let mut packer = Packer::new(&key);
            let mut withdrawn = Vec::new();
            for prefix in mine {
                let best = match family {
                    Family::Ipv4 => self.ipv4.best(prefix),
                    Family::Ipv6 => self.ipv6.best(prefix),
                };
                let best = best.map(|path| (path.source, path.attributes.clone()));
                let is_said = best.as_ref().is_some_and(|(source, attributes)| {
                    packer.pack(&self.peers, *prefix, *source, attributes)
                });
                let came_from_member = best.is_some_and(|(source, _)| source == id);
                if withdraws && (!is_said || came_from_member) {
                    withdrawn.push(*prefix);
                }
                super::with_table!(self, family, table => set_advertised(table, prefix, slot, is_said));
            }
            let context = encode_context(&key);
            let buckets = packer.buckets;
            let announcements = self.encode(family, &buckets, &context, slot, &mut |prefix| {
                withdrawn.push(prefix)
            });
            for message in update::encode_withdraw(family, withdrawn.iter().copied(), &context) {
                sink.send(id, &message);
            }
            for (bucket, messages) in buckets.iter().zip(announcements) {
                if bucket.source == id {
                    continue;
                }
                for message in self.for_member(id, family, bucket, messages, &context) {
                    sink.send(id, &message);
                }
            }
        }
    }

    /// The messages of a bucket for one member: a withdrawal where the member is the next hop itself
    /// (RFC 4271 §5.1.3).
    fn for_member(
        &self,
        id: PeerId,
        family: Family,
        bucket: &Bucket,
        messages: Vec<Bytes>,
        context: &EncodeContext,
    ) -> Vec<Bytes> {
        let is_next_hop = self
            .peer(id)
            .is_some_and(|peer| peer.setup.address == bucket.attributes.next_hop.address);
        if is_next_hop {
            update::encode_withdraw(family, bucket.prefixes.iter().copied(), context)
        } else {
            messages
        }
    }

    /// Encodes buckets. Prefixes whose attributes outgrow the message limit are handed to `too_large`
    /// and count as not advertised (RFC 8654 §4).
    fn encode(
        &mut self,
        family: Family,
        buckets: &[Bucket],
        context: &EncodeContext,
        slot: usize,
        too_large: &mut impl FnMut(Prefix),
    ) -> Vec<Vec<Bytes>> {
        let mut encoded = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let prefixes = bucket.prefixes.iter().copied();
            match update::encode_announce(family, &bucket.attributes, prefixes, context) {
                Ok(messages) => encoded.push(messages),
                Err(_) => {
                    for prefix in &bucket.prefixes {
                        super::with_table!(self, family, table => set_advertised(table, prefix, slot, false));
                        too_large(*prefix);
                    }
                    encoded.push(Vec::new());
                }
            }
        }
        encoded
    }

    /// Works off the changed prefixes of both families.
    pub(super) fn flush_changes(&mut self, sink: &mut impl Sink) {
        let changes4 = std::mem::take(&mut self.ipv4.changes);
        let changes6 = std::mem::take(&mut self.ipv6.changes);
        if changes4.is_empty() && changes6.is_empty() {
            return;
        }
        self.mark_lagging(sink);
        if self.config.has_consumer {
            self.untold
                .extend(changes4.iter().map(|change| change.key.prefix()));
            self.untold
                .extend(changes6.iter().map(|change| change.key.prefix()));
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

    fn flush_group<K: Key>(
        &mut self,
        slot: usize,
        family: Family,
        changes: &[Change<K>],
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
        let mut packer = Packer::new(&key);
        let mut turn = GroupTurn::default();
        for change in changes {
            let prefix = change.key.prefix();
            let (was_said, best) = match family {
                Family::Ipv4 => state(&self.ipv4, &prefix, slot),
                Family::Ipv6 => state(&self.ipv6, &prefix, slot),
            };
            let is_said = best.as_ref().is_some_and(|(source, attributes)| {
                packer.pack(&self.peers, prefix, *source, attributes)
            });
            match best {
                Some((source, _))
                    if is_said && was_said && change.previous_source != Some(source) =>
                {
                    turn.withdrawn_from_source
                        .entry(source)
                        .or_default()
                        .push(prefix);
                }
                _ => {}
            }
            if was_said && !is_said {
                turn.withdraw(change.previous_source, prefix);
            }
            super::with_table!(self, family, table => set_advertised(table, &prefix, slot, is_said));
        }
        let context = encode_context(&key);
        let buckets = packer.buckets;
        let announcements = self.encode(family, &buckets, &context, slot, &mut |prefix| {
            turn.withdraw(None, prefix)
        });
        self.send_turn(
            family,
            &members,
            &turn,
            &buckets,
            &announcements,
            &context,
            sink,
        );
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
        buckets: &[Bucket],
        announcements: &[Vec<Bytes>],
        context: &EncodeContext,
        sink: &mut impl Sink,
    ) {
        let withdrawals: Vec<Vec<Bytes>> = turn
            .withdrawn
            .iter()
            .map(|(_, prefixes)| update::encode_withdraw(family, prefixes.iter().copied(), context))
            .collect();
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
                dirty.extend(turn.withdrawn.iter().flat_map(|(_, prefixes)| prefixes));
                dirty.extend(buckets.iter().flat_map(|bucket| &bucket.prefixes));
                continue;
            }
            for ((previous_source, _), messages) in turn.withdrawn.iter().zip(&withdrawals) {
                if *previous_source != Some(id) {
                    messages.iter().for_each(|message| sink.send(id, message));
                }
            }
            if let Some(prefixes) = turn.withdrawn_from_source.get(&id) {
                let messages = update::encode_withdraw(family, prefixes.iter().copied(), context);
                messages.iter().for_each(|message| sink.send(id, message));
            }
            let address = peer.setup.address;
            for (bucket, messages) in buckets.iter().zip(announcements) {
                if bucket.source == id {
                    continue;
                }
                if bucket.attributes.next_hop.address == address {
                    // RFC 4271 §5.1.3: a peer is not told that it is the next hop itself.
                    let messages =
                        update::encode_withdraw(family, bucket.prefixes.iter().copied(), context);
                    messages.iter().for_each(|message| sink.send(id, message));
                } else {
                    messages.iter().for_each(|message| sink.send(id, message));
                }
            }
        }
    }
}

fn exportable<K: Key>(table: &Table<K>) -> Vec<Prefix> {
    table
        .destinations
        .iter()
        .filter(|(_, entry)| entry.best().is_some())
        .map(|(key, _)| key.prefix())
        .collect()
}

fn state<K: Key>(
    table: &Table<K>,
    prefix: &Prefix,
    slot: usize,
) -> (bool, Option<(PeerId, Arc<PathAttributes>)>) {
    let Some(entry) = K::from_prefix(prefix).and_then(|key| table.destinations.get(&key)) else {
        return (false, None);
    };
    let was_said = slot >= MAX_GROUPS - 1 || entry.advertised & bit(slot) != 0;
    (
        was_said,
        entry
            .best()
            .map(|path| (path.source, path.attributes.clone())),
    )
}

fn set_advertised<K: Key>(table: &mut Table<K>, prefix: &Prefix, slot: usize, is_said: bool) {
    let Some(entry) = K::from_prefix(prefix).and_then(|key| table.destinations.get_mut(&key))
    else {
        return;
    };
    if is_said {
        entry.advertised |= bit(slot);
    } else {
        entry.advertised &= !bit(slot);
    }
}

/// After all groups heard of the changes: destinations nobody needs any more go.
fn settle<K: Key>(table: &mut Table<K>, changes: &[Change<K>]) {
    for change in changes {
        let Some(entry) = table.destinations.get_mut(&change.key) else {
            continue;
        };
        entry.is_changed = false;
        if entry.paths.is_empty() {
            table.destinations.remove(&change.key);
        }
    }
}

fn bit(slot: usize) -> u64 {
    1 << slot.min(MAX_GROUPS - 1)
}
