//! Routes follow what is known of their next hops: how they are reached, and by which interface.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

use super::next_hop::NextHopInfo;
use super::table::Key;
use super::{PeerId, Rib, is_unresolvable, selection};
use crate::types::{Family, Prefix};

impl Rib {
    /// How next hops are reached from now on; those that are not in the map, at cost 0 by an
    /// unknown interface. Walks the table if any is reached otherwise than before, or if any is by
    /// another interface and a filter asks for that. From the first call on next hops are tracked.
    pub fn set_next_hop_costs(&mut self, next_hops: HashMap<IpAddr, NextHopInfo>) {
        if !self.next_hops.is_tracking() {
            self.track_next_hops();
        }
        let changed = self.next_hops.replace(next_hops);
        if !changed.reached_otherwise.is_empty() {
            self.resolve_again(&changed.reached_otherwise);
        }
        if !changed.by_other_interface.is_empty() {
            self.follow_interfaces(&changed.by_other_interface);
        }
    }

    fn resolve_again(&mut self, changed: &HashSet<IpAddr>) {
        for family in Family::ALL {
            let next_hops = &self.next_hops;
            let selection = selection(&self.peers, next_hops, &self.config);
            super::with_table!(self, family, table => table.resolve_again(
                |path| changed.contains(&path.attributes.next_hop.address),
                |path| is_unresolvable(next_hops, path.source, &path.attributes),
                |paths| selection.best(paths),
            ));
        }
    }

    /// Has the filters that ask for interfaces judge again the routes over these next hops.
    fn follow_interfaces(&mut self, changed: &HashSet<IpAddr>) {
        let asking: Vec<PeerId> = (0u32..)
            .zip(&self.peers)
            .filter(|(_, peer)| {
                let peer = peer.as_ref();
                peer.is_some_and(|peer| peer.setup.import.asks_for_interface())
            })
            .map(|(id, _)| PeerId(id))
            .collect();
        for id in asking {
            self.judge_again(id, |path| {
                changed.contains(&path.received().next_hop.address)
            });
        }
        self.note_by_other_interface(changed, &HashSet::new());
    }

    /// Has routes of peers over these next hops, and these routes of our own, be said again where a
    /// filter asks for interfaces.
    pub(super) fn note_by_other_interface(
        &mut self,
        next_hops: &HashSet<IpAddr>,
        own: &HashSet<Prefix>,
    ) {
        if !self.groups.asks_for_interface() {
            return;
        }
        for family in Family::ALL {
            super::with_table!(self, family, table => table.note_again(|key, path| {
                if path.source.is_own() {
                    own.contains(&key.prefix())
                } else {
                    next_hops.contains(&path.attributes.next_hop.address)
                }
            }));
        }
    }

    pub(super) fn track_next_hops(&mut self) {
        let in_use = self.interner.in_use();
        let addresses = in_use.map(|attributes| attributes.next_hop.address);
        self.next_hops.track(addresses.collect());
    }

    /// Whether the next hops of learned routes are others than when last asked about.
    pub fn has_next_hop_question(&self) -> bool {
        self.next_hops.is_question_due()
    }

    /// All next hops to tell of by [`Rib::set_next_hop_costs`].
    pub fn next_hop_question(&mut self) -> BTreeSet<IpAddr> {
        self.next_hops.question()
    }
}
