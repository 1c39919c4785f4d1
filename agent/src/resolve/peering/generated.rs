//! The sessions that nobody writes down: the full mesh of nodes, and each rack's nodes with its
//! reflectors.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp::speaker::config::{NextHopMode, PeerConfig, PeerKey, PeerSource};
use bgp::types::{Asn, Family};

use super::{Own, asn_of, default_asn, listen_port, rack_of};
use crate::model::{Node, Rack, Snapshot};
use crate::names::BGP_PORT;

/// A session between two nodes, as both ends see it alike.
pub(super) struct NodeSession {
    pub(super) key: PeerKey,
    pub(super) remote_asn: Asn,
    pub(super) families: Vec<Family>,
}

pub(super) fn sessions(own: &Own<'_>, node: &Node) -> BTreeMap<PeerKey, PeerConfig> {
    let mut peers = BTreeMap::new();
    if has_mesh(own.snapshot) && is_in_mesh(own.snapshot, node) {
        peers.extend(mesh(own, node));
    }
    if let Some(rack) = rack_of(own.snapshot, node) {
        peers.extend(rack_sessions(own, rack));
    }
    peers
}

/// Which session, if any, two nodes can have: one for all families they share, over IPv4 where
/// both have it. Both ends may dial; of two connections one is kept (RFC 4271 §6.8).
pub(super) fn between(own: &Own<'_>, remote: &Node) -> Option<NodeSession> {
    let families: Vec<Family> = remote
        .families()
        .into_iter()
        .filter(|family| own.families.contains(family))
        .collect();
    let address = remote.address(*families.first()?)?;
    Some(NodeSession {
        key: PeerKey {
            address,
            port: listen_port(own.snapshot, remote),
        },
        remote_asn: asn_of(own.snapshot, remote),
        families,
    })
}

fn has_mesh(snapshot: &Snapshot) -> bool {
    snapshot.default_configuration().is_none_or(|default| {
        let is_enabled = default.node_to_node_mesh_enabled.unwrap_or(true);
        // Without the password it asks for, the mesh stays closed.
        is_enabled && !default.has_mesh_password
    })
}

/// Nodes with reflectors, and nodes that are some, leave the mesh.
fn is_in_mesh(snapshot: &Snapshot, node: &Node) -> bool {
    let has_reflectors = rack_of(snapshot, node).is_some_and(|rack| !rack.reflectors.is_empty());
    !has_reflectors && node.route_reflector_cluster_id.is_none()
}

fn mesh(own: &Own<'_>, node: &Node) -> BTreeMap<PeerKey, PeerConfig> {
    own.snapshot
        .nodes()
        .filter(|other| other.name != node.name && is_in_mesh(own.snapshot, other))
        .filter_map(|other| {
            let session = between(own, other)?;
            let mut peer = PeerConfig::new(
                format!("mesh-{}", other.name),
                PeerSource::Mesh,
                Some(session.remote_asn),
            );
            own.set_defaults(&mut peer);
            if own.is_ebgp(&peer) {
                // Nodes of a mesh are anywhere, and only they lead to their workloads.
                peer.ttl = 255;
                peer.next_hop_mode = NextHopMode::SelfAddress;
            }
            peer.families = session.families;
            peer.local_address = own.address(Family::of(session.key.address));
            Some((session.key, peer))
        })
        .collect()
}

fn rack_sessions(own: &Own<'_>, rack: &Rack) -> BTreeMap<PeerKey, PeerConfig> {
    let remote_asn = rack.asn.unwrap_or_else(|| default_asn(own.snapshot));
    let reachable = |address: &IpAddr| {
        own.families.contains(&Family::of(*address)) && !own.addresses.contains(address)
    };
    rack.reflectors
        .iter()
        .filter(|reflector| reachable(&reflector.address))
        .map(|reflector| {
            let mut peer = PeerConfig::new(
                format!("rack-{}-{}", rack.name, reflector.address),
                PeerSource::Rack,
                Some(remote_asn),
            );
            own.set_defaults(&mut peer);
            // A reflector need not be on the node's subnet.
            peer.ttl = 255;
            peer.families = own.families.clone();
            // Between IPv6 addresses an IPv4 next hop may lead nowhere.
            peer.extended_next_hop =
                reflector.address.is_ipv6() && peer.families.contains(&Family::Ipv4);
            peer.local_address = own.address(Family::of(reflector.address));
            let key = PeerKey {
                address: reflector.address,
                port: reflector.port.unwrap_or(BGP_PORT),
            };
            (key, peer)
        })
        .collect()
}
