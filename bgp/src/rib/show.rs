//! What the RIB shows: routes with their reasons, and counts.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::decision::{self, Candidate, Step};
use super::peer::{Counts, candidate};
use super::table::{Destination, Key, Path, Table};
use super::{PeerId, Rib};
use crate::policy::Rejection;
use crate::types::{Family, Prefix};
use crate::wire::attribute::PathAttributes;

/// One path as people and `why` see it.
#[derive(Clone, Debug)]
pub struct ShownPath {
    pub prefix: Prefix,
    /// `None`: our own.
    pub peer: Option<IpAddr>,
    pub attributes: Arc<PathAttributes>,
    pub is_best: bool,
    pub is_stale: bool,
    pub rejection: Option<Rejection>,
    pub deciding_step: Option<Step>,
}

/// Which paths are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    pub prefix: Option<Prefix>,
    /// Only what this peer sent.
    pub received_from: Option<PeerId>,
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
            let entry = K::from_prefix(&prefix).and_then(|key| table.destinations.get(&key));
            if let Some(entry) = entry {
                self.show_destination(prefix, entry, selection.received_from, shown);
            }
            return;
        }
        let mut keys: Vec<K> = table.destinations.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            if let Some(entry) = table.destinations.get(&key) {
                self.show_destination(key.prefix(), entry, selection.received_from, shown);
            }
        }
    }

    fn show_destination(
        &self,
        prefix: Prefix,
        destination: &Destination,
        received_from: Option<PeerId>,
        shown: &mut Vec<ShownPath>,
    ) {
        let eligible: SmallVec<[&Path; 4]> = destination
            .paths
            .iter()
            .filter(|path| path.is_eligible())
            .collect();
        let candidates: SmallVec<[Candidate<'_>; 4]> = eligible
            .iter()
            .map(|path| candidate(&self.peers, &self.next_hops, path))
            .collect();
        let verdict = decision::decide(&candidates);
        let step_of = |path: &Path| {
            let index = eligible
                .iter()
                .position(|eligible| eligible.source == path.source)?;
            verdict.as_ref()?.deciding_step(index)
        };
        for (index, path) in destination.paths.iter().enumerate() {
            if received_from.is_some_and(|peer| peer != path.source) {
                continue;
            }
            shown.push(ShownPath {
                prefix,
                peer: self.peer(path.source).map(|peer| peer.setup.address),
                attributes: path.attributes.clone(),
                is_best: index == 0 && path.is_eligible(),
                is_stale: path.is_stale,
                rejection: self
                    .rejections
                    .get(&(path.source, prefix))
                    .filter(|_| path.is_rejected)
                    .cloned()
                    .or(path
                        .is_unresolvable
                        .then_some(Rejection::NextHopUnresolvable)),
                deciding_step: step_of(path),
            });
        }
    }

    /// What a peer hears: whose route it is (`None`: our own), with the attributes it gets.
    pub fn show_advertised(
        &self,
        id: PeerId,
        only: Option<Prefix>,
    ) -> Vec<(Prefix, Option<IpAddr>, PathAttributes)> {
        let Some(peer) = self.peer(id) else {
            return Vec::new();
        };
        let group = &peer.setup.group;
        let mut shown = Vec::new();
        for path in self.show(Selection {
            prefix: only,
            received_from: None,
        }) {
            let is_own_back = path.peer == Some(peer.setup.address);
            let is_next_hop = path.attributes.next_hop.address == peer.setup.address;
            if !path.is_best
                || is_own_back
                || is_next_hop
                || !group.families.contains(&path.prefix.family())
                || peer.member.is_held
            {
                continue;
            }
            let source = self.source_of(path.peer);
            if group.export.admits_prefix(&path.prefix, source)
                && let Some(attributes) = group.export.transform(&path.attributes, source)
            {
                shown.push((path.prefix, path.peer, attributes));
            }
        }
        shown
    }

    /// The prefixes a peer was told.
    pub(super) fn advertised(&self, id: PeerId) -> Vec<Prefix> {
        self.show_advertised(id, None)
            .into_iter()
            .map(|(prefix, ..)| prefix)
            .collect()
    }

    fn source_of(&self, address: Option<IpAddr>) -> crate::policy::propagate::RouteSource {
        self.peers
            .iter()
            .flatten()
            .find(|peer| Some(peer.setup.address) == address)
            .map_or(crate::policy::propagate::RouteSource::Local, |peer| {
                peer.source()
            })
    }

    pub fn counts(&self, id: PeerId, family: Family) -> Counts {
        self.peer(id)
            .map(|peer| peer.counts(family))
            .unwrap_or_default()
    }

    /// How many prefixes each member was told, by family; one pass over the table for all of them.
    pub fn advertised_counts(&self) -> HashMap<PeerId, [u64; 2]> {
        let mut by_slot = vec![[0u64; 2]; 64];
        let mut own: HashMap<PeerId, [u64; 2]> = HashMap::new();
        self.count_table(&self.ipv4, 0, &mut by_slot, &mut own);
        self.count_table(&self.ipv6, 1, &mut by_slot, &mut own);
        self.peers
            .iter()
            .enumerate()
            .filter_map(|(index, peer)| {
                let slot = peer.as_ref()?.slot?;
                let id = PeerId(u32::try_from(index).ok()?);
                let told = by_slot.get(slot).copied().unwrap_or_default();
                let back = own.get(&id).copied().unwrap_or_default();
                Some((id, [told[0] - back[0], told[1] - back[1]]))
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
        for entry in table.destinations.values() {
            let mut mask = entry.advertised;
            while mask != 0 {
                by_slot[mask.trailing_zeros() as usize][family] += 1;
                mask &= mask - 1;
            }
            // A route is not said back to where it came from.
            let source = entry
                .best()
                .map(|path| path.source)
                .filter(|id| *id != PeerId::LOCAL);
            if let Some(source) = source
                && let Some(slot) = self.peer(source).and_then(|peer| peer.slot)
                && entry.advertised & (1 << slot.min(63)) != 0
            {
                own.entry(source).or_default()[family] += 1;
            }
        }
    }
}
