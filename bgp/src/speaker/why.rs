//! `why`: one prefix, its paths, and who hears of them.

use super::RouteSelection;
use super::core::Core;
use super::show::state_name;
use super::slot::PeerSlot;
use super::status::{TellingStatus, WhyStatus};
use crate::rib::why::Telling;
use crate::types::Prefix;

impl Core {
    pub(super) fn show_why(&self, prefix: Prefix) -> WhyStatus {
        let paths = self.show_routes(RouteSelection {
            prefix: Some(prefix),
            ..RouteSelection::default()
        });
        let tellings = self.rib.tellings(prefix);
        let mut peers = Vec::new();
        for (index, slot) in self.peers.iter().enumerate() {
            let Some(slot) = slot.as_ref().filter(|slot| !slot.is_leaving) else {
                continue;
            };
            let is_of = |telling: &&Telling| telling.receiver.0 as usize == index;
            if slot.session.is_none() {
                peers.push(no_session(slot));
            } else {
                let told = tellings.iter().filter(is_of);
                peers.extend(told.map(|telling| self.show_telling(slot, telling)));
            }
        }
        // Several of one peer stay in the order of the paths.
        peers.sort_by_key(|one| (one.peer, one.port));
        WhyStatus { paths, peers }
    }

    fn show_telling(&self, slot: &PeerSlot, telling: &Telling) -> TellingStatus {
        let told = telling.outcome.as_ref().ok();
        let from = telling.source.filter(|source| !source.is_own());
        TellingStatus {
            from: from
                .and_then(|source| self.rib.peer(source))
                .map(|peer| peer.setup.address),
            advertised: told.is_some(),
            next_hop: told.map(|told| told.next_hop),
            path_id: told.map(|told| told.path_id).filter(|id| *id != 0),
            reason: telling.outcome.as_ref().err().map(ToString::to_string),
            ..silent(slot)
        }
    }
}

fn no_session(slot: &PeerSlot) -> TellingStatus {
    TellingStatus {
        reason: Some(format!("no session: {}", state_name(slot.state))),
        ..silent(slot)
    }
}

fn silent(slot: &PeerSlot) -> TellingStatus {
    TellingStatus {
        peer: slot.key.address,
        port: slot.key.port,
        name: slot.config.name.clone(),
        from: None,
        advertised: false,
        next_hop: None,
        path_id: None,
        reason: None,
    }
}
