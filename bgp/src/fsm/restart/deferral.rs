//! When a speaker that restarted may begin to send (RFC 4724 §4.1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::fsm::session::Negotiated;
use crate::types::Family;

/// Selection deferral of a speaker that restarted (RFC 4724 §4.1): it sends no route and no
/// End-of-RIB until it heard everything from the peers it had before, so that none of them sees
/// half a table as the whole.
///
/// `K` names a peer.
#[derive(Clone, Debug)]
pub struct Deferral<K> {
    /// End-of-RIBs that are still missing. A peer without any left is not in the map.
    missing_by_peer: BTreeMap<K, BTreeSet<Family>>,
    deadline: Instant,
}

impl<K: Ord> Deferral<K> {
    /// Waits for `families` of all `peers`, at most until `deadline`. Without peers it is over.
    pub fn new(
        peers: impl IntoIterator<Item = K>,
        families: &[Family],
        deadline: Instant,
    ) -> Deferral<K> {
        let families: BTreeSet<Family> = families.iter().copied().collect();
        let mut missing_by_peer: BTreeMap<K, BTreeSet<Family>> = peers
            .into_iter()
            .map(|peer| (peer, families.clone()))
            .collect();
        missing_by_peer.retain(|_, missing| !missing.is_empty());
        Deferral {
            missing_by_peer,
            deadline,
        }
    }

    /// Once true it stays true.
    pub fn is_over(&self) -> bool {
        self.missing_by_peer.is_empty()
    }

    /// The peers that are waited for, in order.
    pub fn waiting_for(&self) -> impl Iterator<Item = &K> {
        self.missing_by_peer.keys()
    }

    /// When [`Deferral::handle_timeout`] is due; `None` once it is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        (!self.is_over()).then_some(self.deadline)
    }

    /// A session came up. Without graceful restart no End-of-RIB will come. Of others the families
    /// that the session carries are waited for. A peer that is not waited for is not added.
    ///
    /// A peer that restarted too (R) is waited for as well, where RFC 4724 §4.1 says not to: what
    /// it sends before it has heard others is not the whole. That both wait for each other for
    /// ever is avoided by who is held back, see the speaker's core: what is said to a peer waits
    /// only for those whose routes would be part of it.
    pub fn handle_established(&mut self, peer: &K, negotiated: &Negotiated) {
        let is_sending = negotiated.graceful_restart.is_some();
        let carried = &negotiated.families;
        self.narrow(peer, |family| is_sending && carried.contains(family));
    }

    pub fn handle_end_of_rib(&mut self, peer: &K, family: Family) {
        self.narrow(peer, |missing| *missing != family);
    }

    /// The peer was removed or will not come: it is not waited for. One that only lost its session
    /// may come back in time and still is.
    pub fn handle_peer_gone(&mut self, peer: &K) {
        self.missing_by_peer.remove(peer);
    }

    /// Ends the wait once the deadline has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.deadline {
            self.missing_by_peer.clear();
        }
    }

    /// Goes on waiting for those families of the peer only that `is_awaited`.
    fn narrow(&mut self, peer: &K, is_awaited: impl FnMut(&Family) -> bool) {
        if let Some(missing) = self.missing_by_peer.get_mut(peer) {
            missing.retain(is_awaited);
            if missing.is_empty() {
                self.missing_by_peer.remove(peer);
            }
        }
    }
}
