//! The RIB's way to the connections.

use std::sync::Arc;

use bytes::Bytes;

use super::convergence::Round;
use super::outbox::Outbox;
use super::slot::PeerSlot;
use crate::rib::{PeerId, Sink};

pub struct Outboxes<'a> {
    pub peers: &'a [Option<PeerSlot>],
    /// Whose messages are sent, if they are to be observed.
    pub round: Option<&'a Arc<Round>>,
}

impl Outboxes<'_> {
    fn get(&self, id: PeerId) -> Option<&Outbox> {
        let slot = self.peers.get(id.0 as usize)?.as_ref()?;
        slot.session.as_ref().map(|session| &*session.outbox)
    }
}

impl Sink for Outboxes<'_> {
    fn has_room(&self, peer: PeerId) -> bool {
        self.get(peer).is_some_and(Outbox::has_room)
    }

    fn send(&mut self, peer: PeerId, message: &Bytes) {
        if let Some(outbox) = self.get(peer) {
            outbox.push_routes(message, self.round);
        }
    }
}
