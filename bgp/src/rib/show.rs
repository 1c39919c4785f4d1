//! What the RIB shows: routes with their reasons, and counts.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::adj_out::group::Encoded;
use super::adj_out::{MAX_GROUPS, bit, bit_index};
use super::decision::Step;
use super::peer::Counts;
use super::table::{Destination, Key, Table};
use super::why::is_candidate;
use super::{PeerId, Rib};
use crate::policy::Rejection;
use crate::types::{Family, PathPrefix, Prefix};
use crate::wire::attribute::PathAttributes;

/// One path as people and `why` see it.
#[derive(Clone, Debug)]
pub struct ShownPath {
    pub prefix: Prefix,
    pub source: PeerId,
    /// `None`: our own.
    pub peer: Option<IpAddr>,
    /// As import policy left them, or as the peer sent them where that was asked for.
    pub attributes: Arc<PathAttributes>,
    /// As the peer numbered it (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
    /// As we number it.
    pub local_id: u32,
    pub is_best: bool,
    /// One of several that are used together.
    pub is_multipath: bool,
    pub is_stale: bool,
    pub rejection: Option<Rejection>,
    pub deciding_step: Option<Step>,
}

/// Which paths are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    pub prefix: Option<Prefix>,
    /// Only what this peer sent, as it sent it.
    pub received_from: Option<PeerId>,
}

/// One update group in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupCounts {
    /// Its place: unique among the present groups, and free for another one when it is gone.
    pub group: usize,
    pub ebgp: bool,
    pub client: bool,
    pub members: usize,
    /// Announcements made for the group or for a member that catches up, and withdrawals for the
    /// group, since it is there.
    pub encoded: Encoded,
}

impl Rib {
    /// Paths in the order of their prefixes, the best of each prefix first.
    pub fn show(&self, selection: Selection) -> Vec<ShownPath> {
        let mut shown = Vec::new();
        let wants = |family: Family| {
            selection
                .prefix
                .is_none_or(|prefix| prefix.family() == family)
        };
        if wants(Family::Ipv4) {
            self.show_table(&self.ipv4, selection, &mut shown);
        }
        if wants(Family::Ipv6) {
            self.show_table(&self.ipv6, selection, &mut shown);
        }
        shown
    }

    fn show_table<K: Key>(
        &self,
        table: &Table<K>,
        selection: Selection,
        shown: &mut Vec<ShownPath>,
    ) {
        if let Some(prefix) = selection.prefix {
            let entry = table.get(&prefix);
            if let Some(entry) = entry {
                self.show_destination(prefix, entry, selection.received_from, shown);
            }
            return;
        }
        let mut all: Vec<(K, &Destination)> = table.destinations.iter().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        for (key, entry) in all {
            self.show_destination(key.prefix(), entry, selection.received_from, shown);
        }
    }

    fn show_destination(
        &self,
        prefix: Prefix,
        destination: &Destination,
        received_from: Option<PeerId>,
        shown: &mut Vec<ShownPath>,
    ) {
        let selection = self.selection();
        let steps = selection.deciding_steps(&destination.paths);
        let used = selection.multipath(&destination.paths);
        for (index, path) in destination.paths.iter().enumerate() {
            if received_from.is_some_and(|peer| peer != path.source) {
                continue;
            }
            shown.push(ShownPath {
                prefix,
                source: path.source,
                peer: self.peer(path.source).map(|peer| peer.setup.address),
                attributes: match received_from {
                    Some(_) => path.received().clone(),
                    None => path.attributes.clone(),
                },
                path_id: path.path_id,
                local_id: path.local_id,
                is_best: index == 0 && path.is_eligible(),
                is_multipath: used.len() > 1 && used.contains(&index),
                is_stale: path.is_stale,
                rejection: self
                    .rejections
                    .get(&(
                        path.source,
                        PathPrefix {
                            prefix,
                            path_id: path.path_id,
                        },
                    ))
                    .filter(|_| path.is_rejected)
                    .cloned()
                    .or(path
                        .is_unresolvable
                        .then_some(Rejection::NextHopUnresolvable)),
                deciding_step: steps[index],
            });
        }
    }

    /// What a peer hears: whose route it is (`None`: our own), with the attributes it gets. The path
    /// identifier is ours, 0 without ADD-PATH.
    pub fn show_advertised(
        &self,
        id: PeerId,
        only: Option<Prefix>,
    ) -> Vec<(PathPrefix, Option<IpAddr>, PathAttributes)> {
        let Some(peer) = self.peer(id) else {
            return Vec::new();
        };
        let all = self.show(Selection {
            prefix: only,
            received_from: None,
        });
        let heard = all.into_iter().filter(|path| is_candidate(path, peer));
        heard
            .filter_map(|path| {
                let (said, attributes) = self.said_to(id, peer, &path).ok()?;
                Some((said, path.peer, attributes))
            })
            .collect()
    }

    /// The paths a peer was told.
    pub(super) fn advertised(&self, id: PeerId) -> Vec<PathPrefix> {
        let Some(peer) = self.peer(id) else {
            return Vec::new();
        };
        let add_path = peer.setup.group.add_path;
        let best = self.show_advertised(id, None).into_iter();
        let best = best
            .map(|(path, ..)| path)
            .filter(|path| !add_path.contains(path.prefix.family()));
        let group = peer.slot.and_then(|slot| self.groups.get(slot));
        let numbered = group.into_iter().flat_map(|group| group.said.iter());
        best.chain(numbered.map(|(path, _)| path)).collect()
    }

    pub fn counts(&self, id: PeerId, family: Family) -> Counts {
        self.peer(id)
            .map(|peer| peer.counts(family))
            .unwrap_or_default()
    }

    pub fn group_counts(&self) -> Vec<GroupCounts> {
        let groups = self.groups.slots().enumerate();
        groups
            .filter_map(|(slot, group)| {
                let group = group?;
                let export = &group.key().export;
                Some(GroupCounts {
                    group: slot,
                    ebgp: export.ebgp,
                    client: export.client,
                    members: group.members().len(),
                    encoded: group.encoded,
                })
            })
            .collect()
    }

    /// How many prefixes each member was told, by family; one pass over the table for all of them.
    pub fn advertised_counts(&self) -> HashMap<PeerId, [u64; 2]> {
        let mut by_slot = vec![[0u64; 2]; MAX_GROUPS];
        let mut own: HashMap<PeerId, [u64; 2]> = HashMap::new();
        self.count_table(&self.ipv4, 0, &mut by_slot, &mut own);
        self.count_table(&self.ipv6, 1, &mut by_slot, &mut own);
        self.peers
            .iter()
            .enumerate()
            .filter_map(|(index, peer)| {
                let slot = peer.as_ref()?.slot?;
                let id = PeerId(u32::try_from(index).ok()?);
                // Groups beyond the bits share the last one, here as in `own`.
                let mut told = by_slot.get(bit_index(slot)).copied().unwrap_or_default();
                let back = own.get(&id).copied().unwrap_or_default();
                told = [told[0] - back[0], told[1] - back[1]];
                let group = self.groups.get(slot)?;
                for (path, _) in group.said.iter().filter(|(_, said)| said.source != id) {
                    told[path.prefix.family() as usize] += 1;
                }
                Some((id, told))
            })
            .collect()
    }

    fn count_table<K: Key>(
        &self,
        table: &Table<K>,
        family: usize,
        by_slot: &mut [[u64; 2]],
        own: &mut HashMap<PeerId, [u64; 2]>,
    ) {
        for (_, entry) in table.destinations.iter() {
            let mut mask = entry.advertised;
            while mask != 0 {
                by_slot[mask.trailing_zeros() as usize][family] += 1;
                mask &= mask - 1;
            }
            // A route is not said back to where it came from.
            let source = entry
                .best()
                .map(|path| path.source)
                .filter(|id| !id.is_own());
            if let Some(source) = source
                && let Some(slot) = self.peer(source).and_then(|peer| peer.slot)
                && entry.advertised & bit(slot) != 0
            {
                own.entry(source).or_default()[family] += 1;
            }
        }
    }
}
