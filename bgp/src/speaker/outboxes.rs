//! The RIB's way to the connections.

use std::sync::Arc;

use bytes::Bytes;

use super::convergence::Round;
use super::outbox::Outbox;
use super::slot::PeerSlot;
use crate::rib::{PeerId, Sink};

/// How many members the core writes to itself. It is sooner done than the writers' tasks are woken
/// on another core; with more members they are the quicker ones together, and it would take too long.
const FEW: usize = 32;
/// Octets for a member that the core writes itself: so much costs the system call, not its length.
const LITTLE: usize = 16 * 1024;

pub struct Outboxes<'a> {
    peers: &'a [Option<Box<PeerSlot>>],
    /// Whose messages are sent, if they are to be observed.
    round: Option<&'a Arc<Round>>,
    /// For whom something waits since this turn only. Their writers do not know yet.
    fresh: Vec<PeerId>,
}

impl<'a> Outboxes<'a> {
    pub fn new(peers: &'a [Option<Box<PeerSlot>>], round: Option<&'a Arc<Round>>) -> Outboxes<'a> {
        Outboxes {
            peers,
            round,
            fresh: Vec::new(),
        }
    }

    /// The turn is over: what it said leaves.
    pub fn finish(self) {
        let is_for_few = self.fresh.len() <= FEW;
        for outbox in self.fresh.iter().filter_map(|id| self.get(*id)) {
            if is_for_few && outbox.octets() <= LITTLE {
                outbox.send_now();
            } else {
                outbox.send();
            }
        }
    }

    fn get(&self, id: PeerId) -> Option<&'a Outbox> {
        let slot = self.peers.get(id.0 as usize)?.as_ref()?;
        slot.session.as_ref().map(|session| &*session.outbox)
    }
}

impl Sink for Outboxes<'_> {
    fn has_room(&self, peer: PeerId) -> bool {
        self.get(peer).is_some_and(Outbox::has_room)
    }

    fn send(&mut self, peer: PeerId, message: &Bytes) {
        let Some(outbox) = self.get(peer) else { return };
        if outbox.push_routes(message, self.round) {
            self.fresh.push(peer);
        }
    }
}
