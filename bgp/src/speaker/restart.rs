//! After a restart of ours: who may be told the table already (RFC 4724 §4.1).
//!
//! A peer takes our End-of-RIB for the end of everything we know, and drops what we did not repeat.
//! So it hears nothing before those peers whose routes we would pass on to it have sent theirs. A
//! route reflector therefore waits for its other clients; a node, which passes nothing on between
//! internal peers, waits for nobody, and so reflectors that restart together with their nodes, or
//! with each other, do not wait in a circle. What circles are left end with the deadline.
//!
//! Only the End-of-RIB matters that much. Routes are kept back for a shorter time, so that they do
//! not come and go while the peers come up one by one.

use std::net::IpAddr;

use super::config::{PeerConfig, PeerKey};
use super::core::Core;
use super::membership::range_of;
use super::slot::{Established, PeerSlot};
use crate::policy::ExportDefault;
use crate::policy::propagate::RouteSource;
use crate::policy::reflect;
use crate::rib::{PeerId, Rib};

impl Core {
    /// Whether what the owner kept over the restart has been repeated, or will not be.
    pub(super) fn is_convergence_over(&self) -> bool {
        self.is_settled && self.adopted.is_over()
    }

    /// Of all nodes of a large network one is always away, and a peer may take its time. Neither keeps
    /// the others from what is known: the owner hears it, and so do the peers that are held. What the
    /// owner kept stays, and without our End-of-RIB peers drop nothing either.
    pub(super) fn break_silence(&mut self) {
        if self.is_settled || self.silent_until.is_some() {
            return;
        }
        self.rib.set_deferring(false);
        for id in self.where_rib(Rib::is_held) {
            self.rib.release_without_end(id);
        }
    }

    /// Dials the remembered peers of ranges that have not come back by the end of the silence. RFC 4724
    /// leaves open who connects again, and some (FRR) do not once a dial of theirs has failed: until
    /// the restart time is over they wait for the one that restarts.
    pub(super) fn dial_remembered(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let missing: Vec<IpAddr> = self.deferral.waiting_for().copied().collect();
        for address in missing {
            if self.find(|slot| slot.key.address == address).is_some() || !self.has_room() {
                continue;
            }
            let template = range_of(&self.config, address).map(|(_, template)| template);
            if let Some(template) = template.filter(|template| !template.passive) {
                let template = template.clone();
                let key = PeerKey { address, port: 179 };
                self.add_peer(key, template, true);
            }
        }
    }

    /// Whether a peer of a range is dialled and keeps its place without a session, which only those do
    /// that a restart of ours waits for.
    pub(super) fn is_called_back(&self, address: &IpAddr) -> bool {
        let is_awaited = || self.deferral.waiting_for().any(|from| from == address);
        self.silent_until.is_none() && !self.is_settled && is_awaited()
    }

    /// Tells the table, with End-of-RIB, to every held peer that has nothing to wait for any more.
    pub(super) fn release_held(&mut self) {
        for id in self.where_rib(|rib, id| rib.is_held(id) || rib.lacks_end(id)) {
            let slot = self.peers.get(id.0 as usize).and_then(Option::as_ref);
            if slot.is_some_and(|slot| self.may_release(slot)) {
                self.rib.release(id);
            }
        }
    }

    fn where_rib(&self, is_it: impl Fn(&Rib, PeerId) -> bool) -> Vec<PeerId> {
        let ids = (0..).map(PeerId).zip(&self.peers);
        let ids = ids.filter(|(_, slot)| slot.is_some()).map(|(id, _)| id);
        ids.filter(|id| is_it(&self.rib, *id)).collect()
    }

    fn may_release(&self, to: &PeerSlot) -> bool {
        let Some(session) = &to.session else {
            return false;
        };
        self.is_settled
            || !self
                .deferral
                .waiting_for()
                .any(|from| *from != to.key.address && self.passes_on(*from, to, session))
    }

    /// Whether routes of the peer at `from` can be among what `to` is told.
    fn passes_on(&self, from: IpAddr, to: &PeerSlot, session: &Established) -> bool {
        let listed = self
            .peers
            .iter()
            .flatten()
            .find(|slot| slot.key.address == from);
        let config = match listed {
            Some(slot) => Some(&slot.config),
            None => range_of(&self.config, from).map(|(_, template)| template),
        };
        let Some(config) = config else {
            return false;
        };
        // Aggregates are own routes that come of others.
        let says_more_than_own = !to.config.filters.is_empty()
            || !self.config.aggregates.is_empty()
            || to.config.export_default == ExportDefault::Accept;
        let is_to_ebgp = session.negotiated.remote_asn != self.local_asn(&to.config);
        let is_to_client = to.config.route_reflector_client && !is_to_ebgp;
        says_more_than_own && reflect::passes(self.source_of(config), is_to_ebgp, is_to_client)
    }

    fn source_of(&self, peer: &PeerConfig) -> RouteSource {
        let is_ebgp = peer
            .remote_asn
            .is_some_and(|asn| asn != self.local_asn(peer));
        if is_ebgp {
            RouteSource::Ebgp
        } else {
            RouteSource::Ibgp {
                client: peer.route_reflector_client,
                // Of no account for whether a route passes.
                router_id: self.config.router_id,
            }
        }
    }

    fn local_asn(&self, peer: &PeerConfig) -> crate::types::Asn {
        peer.local_asn.unwrap_or(self.config.asn)
    }
}
