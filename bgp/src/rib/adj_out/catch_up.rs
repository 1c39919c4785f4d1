//! What one member still misses: the table when it joins or asks again, and what changed while it
//! had no room.

use super::bundle::Bundle;
use super::pack::{Packer, encode_context, leading_to, surroundings};
use super::paths::eligible;
use super::set_advertised;
use crate::rib::path::Path;
use crate::rib::table::{Key, Table};
use crate::rib::{PeerId, Rib, Sink};
use crate::types::{Family, PathPrefix, Prefix};
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::update;

/// Prefixes a member that catches up is sent per step, so that others are not kept waiting.
const CATCH_UP_STEP: usize = 4096;

impl Rib {
    /// Makes the whole table due to one member, with End-of-RIB after it.
    pub(in crate::rib) fn begin_catch_up(&mut self, id: PeerId) {
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
            let due: Vec<PathPrefix> = if withdraws {
                let dirty = peer.member.dirty.iter();
                let due: Vec<PathPrefix> = dirty.take(CATCH_UP_STEP).copied().collect();
                due.iter().for_each(|path| {
                    peer.member.dirty.remove(path);
                });
                due
            } else {
                let rest = peer.member.table.len().saturating_sub(CATCH_UP_STEP);
                let due = peer.member.table.split_off(rest).into_iter();
                due.map(PathPrefix::from).collect()
            };
            if due.is_empty() {
                if peer.member.lacks_end {
                    return;
                }
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

    /// Sends one member the present state of some paths; with `withdraws` also what is gone. Without,
    /// where every path is said, their prefixes count.
    fn send_from_table(
        &mut self,
        id: PeerId,
        paths: &[PathPrefix],
        withdraws: bool,
        sink: &mut impl Sink,
    ) {
        let Some((address, key, slot)) = self.peer(id).and_then(|peer| {
            let setup = &peer.setup;
            Some((setup.address, setup.group.clone(), peer.slot?))
        }) else {
            return;
        };
        for family in key.families.iter().copied() {
            let mut packer = Packer::new(&key, family);
            let mut withdrawn = Vec::new();
            let mine = paths.iter().filter(|path| path.prefix.family() == family);
            for path in mine {
                if key.add_path.contains(family) && !withdraws {
                    let Some(group) = self.groups.get_mut(slot) else {
                        return;
                    };
                    let around = surroundings(&self.peers, &self.next_hops, &self.originated);
                    super::super::with_table!(self, family, table => {
                        group.said.repeat(path.prefix, table, &around, &mut packer);
                    });
                    continue;
                }
                let present = match family {
                    Family::Ipv4 => present(&self.ipv4, path),
                    Family::Ipv6 => present(&self.ipv6, path),
                };
                let is_said = present.is_some_and(|present| {
                    packer.pack(
                        &self.surroundings(),
                        *path,
                        present.source,
                        &present.attributes,
                    )
                });
                let came_from_member = present.is_some_and(|present| present.source == id);
                if withdraws && (!is_said || came_from_member) {
                    withdrawn.push(*path);
                }
                if !key.add_path.contains(family) {
                    super::super::with_table!(self, family, table => set_advertised(table, &path.prefix, slot, is_said));
                }
            }
            let context = encode_context(&key);
            let buckets = packer.buckets;
            let announcements = self.encode(family, &buckets, &context, slot, &mut |path| {
                withdrawn.push(path)
            });
            withdrawn.extend(leading_to(&buckets, id, &address));
            let mut withdrawals = Bundle::default();
            withdrawals.put(None, |out| {
                update::put_withdraw(family, withdrawn.iter().copied(), &context, out);
            });
            withdrawals.close().say(id, &address, sink);
            announcements.say(id, &address, sink);
        }
    }
}

/// The path that is meant: the best one, or with a number the eligible one that has it.
fn present<'a, K: Key>(table: &'a Table<K>, path: &PathPrefix) -> Option<&'a Path> {
    match path.path_id {
        0 => table.best(&path.prefix),
        number => eligible(table, &path.prefix).find(|path| path.local_id == number),
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
