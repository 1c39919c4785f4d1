//! Who hears of a prefix, and why others do not.

use std::net::IpAddr;

use super::adj_out::pack::encode_context;
use super::peer::Peer;
use super::show::{Selection, ShownPath};
use super::{PeerId, Rib};
use crate::policy::Rejection;
use crate::types::{Family, PathPrefix, Prefix};
use crate::wire::attribute::PathAttributes;
use crate::wire::update;

/// Why a peer does not hear of a path.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Silence {
    #[error("no path is usable")]
    NoPath,
    #[error("the session does not carry {0}")]
    Family(Family),
    #[error("held back after our restart until the other peers have said their routes")]
    Held,
    #[error("its own route")]
    OwnRoute,
    #[error("it is the next hop itself")]
    IsNextHop,
    #[error(transparent)]
    Refused(#[from] Rejection),
    #[error("the attributes do not fit into a message")]
    TooLarge,
    #[error("waits: the peer is being sent the table")]
    Joining,
    #[error("waits: the peer does not take what it was told before")]
    Lagging,
}

/// What becomes of one path towards one peer that is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Telling {
    pub receiver: PeerId,
    /// Whose path it is; `None` where no path is usable.
    pub source: Option<PeerId>,
    pub outcome: Result<Told, Silence>,
}

/// The path as the peer hears it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    pub next_hop: IpAddr,
    /// Ours (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
}

impl Rib {
    /// What becomes of the best path of a prefix towards each peer that is up, or of every usable
    /// one where the peer takes several. Empty without peers.
    pub fn tellings(&self, prefix: Prefix) -> Vec<Telling> {
        let paths = self.show(Selection {
            prefix: Some(prefix),
            received_from: None,
        });
        let peers = self.peers.iter().enumerate();
        let up = peers.filter_map(|(index, peer)| {
            let peer = peer.as_ref().filter(|peer| peer.slot.is_some())?;
            Some((PeerId(u32::try_from(index).ok()?), peer))
        });
        let mut tellings = Vec::new();
        for (receiver, peer) in up {
            let candidates = paths.iter().filter(|path| is_candidate(path, peer));
            let before = tellings.len();
            tellings.extend(candidates.map(|path| Telling {
                receiver,
                source: Some(path.source),
                outcome: self.telling(receiver, peer, path),
            }));
            if tellings.len() == before {
                tellings.push(Telling {
                    receiver,
                    source: None,
                    outcome: Err(Silence::NoPath),
                });
            }
        }
        tellings
    }

    fn telling(&self, id: PeerId, peer: &Peer, path: &ShownPath) -> Result<Told, Silence> {
        let (said, attributes) = self.said_to(id, peer, path)?;
        let context = encode_context(&peer.setup.group);
        let family = path.prefix.family();
        if update::encode_announce(family, &attributes, [said].into_iter(), &context).is_err() {
            return Err(Silence::TooLarge);
        }
        let member = &peer.member;
        if member.table.contains(&path.prefix) {
            return Err(Silence::Joining);
        }
        let mut dirty = member.dirty.iter();
        if dirty.any(|waiting| waiting.prefix == path.prefix) {
            return Err(Silence::Lagging);
        }
        Ok(Told {
            next_hop: attributes.next_hop.address,
            path_id: said.path_id,
        })
    }

    /// A path as a peer is to hear it, whether it was sent yet or not.
    pub(super) fn said_to(
        &self,
        id: PeerId,
        peer: &Peer,
        path: &ShownPath,
    ) -> Result<(PathPrefix, PathAttributes), Silence> {
        let group = &peer.setup.group;
        let family = path.prefix.family();
        if !group.families.contains(&family) {
            return Err(Silence::Family(family));
        }
        if peer.member.is_held {
            return Err(Silence::Held);
        }
        if path.source == id {
            return Err(Silence::OwnRoute);
        }
        let around = self.surroundings();
        let attributes = &path.attributes;
        let interface = around.interface(&path.prefix, path.source, attributes);
        let source = around.source(path.source);
        let said = group
            .export
            .say(&path.prefix, attributes, source, interface)?;
        // RFC 4271 §5.1.3.
        if said.next_hop.address == peer.setup.address {
            return Err(Silence::IsNextHop);
        }
        let has_paths = group.add_path.contains(family);
        let numbered = PathPrefix {
            prefix: path.prefix,
            path_id: if has_paths { path.local_id } else { 0 },
        };
        Ok((numbered, said))
    }
}

/// Whether the path is one that the peer may hear of at all: the best, or any usable one where it
/// takes several.
pub(super) fn is_candidate(path: &ShownPath, peer: &Peer) -> bool {
    let has_paths = peer.setup.group.add_path.contains(path.prefix.family());
    path.is_best || (has_paths && path.rejection.is_none())
}
