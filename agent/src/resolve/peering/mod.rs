//! Who this speaker talks to: the configuration of a node's or a reflector's BGP speaker.
//!
//! Mesh and racks generate sessions ([`generated`]); BGPPeers add to them or change them field by
//! field ([`explicit`]). A session whose BGPPeer cannot be honoured in full is closed rather than
//! opened with less: no session, or one over which nothing passes.

mod explicit;
mod generated;
mod reflector;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bgp::policy::{ExportDefault, ImportDefault};
use bgp::rib::decision;
use bgp::speaker::config::{
    GracefulRestartConfig, NextHopMode, PeerConfig, PeerKey, SpeakerConfig,
};
use bgp::types::{Asn, ClusterId, Family, LocalPref, Prefix, RouterId};
use sha1::{Digest, Sha1};

pub use reflector::reflector_config;

use super::advertise;
use crate::api::schema::StoreError;
use crate::model::bgp_configuration::Multipath;
use crate::model::peer::Passwords;
use crate::model::values::PeerAddress;
use crate::model::{BgpConfiguration, Kind, Node, ObjectId, Rack, Snapshot};
use crate::names::{BGP_PORT, DEFAULT_ASN};

/// Which program the speaker is part of: their defaults differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Agent,
    Reflector,
}

/// Most peers of all ranges together, which bounds what strangers can make us hold.
const MOST_DYNAMIC_PEERS_AGENT: usize = 256;
const MOST_DYNAMIC_PEERS_REFLECTOR: usize = 10_000;

/// The speaker of a node. `graceful_restart` is the default: what survived is not known here.
pub fn speaker_config(
    snapshot: &Snapshot,
    passwords: &Passwords,
    node: &Node,
) -> (SpeakerConfig, Vec<StoreError>) {
    let own = Own::node(snapshot, passwords, node);
    let (originated, mut errors) = advertise::originated(snapshot, node);
    errors.extend(node_errors(snapshot, node));
    let generated = generated::sessions(&own, node);
    let sessions = explicit::apply(&own, generated);
    errors.extend(sessions.errors);
    errors.sort();
    errors.dedup();
    let settings = NodeSettings::of(snapshot, node);
    let config = SpeakerConfig {
        asn: own.asn,
        router_id: settings.router_id,
        cluster_id: own.cluster_id,
        listen: settings
            .listen_addresses
            .iter()
            .map(|address| SocketAddr::new(*address, settings.listen_port))
            .collect(),
        local_addresses: own.addresses.iter().copied().collect(),
        local_pref: settings.local_pref,
        peers: sessions.peers,
        ranges: sessions.ranges,
        max_dynamic_peers: MOST_DYNAMIC_PEERS_AGENT,
        originated,
        aggregates: BTreeMap::new(),
        decision: settings.decision,
        is_draining: setting(snapshot, node, |c| c.graceful_shutdown).unwrap_or(false),
        graceful_restart: GracefulRestartConfig::default(),
    };
    (config, errors)
}

/// Local AS of a node: its own, else its rack's, else the default's, else 64512.
pub fn asn_of(snapshot: &Snapshot, node: &Node) -> Asn {
    node.asn
        .or_else(|| rack_of(snapshot, node).and_then(|rack| rack.asn))
        .unwrap_or_else(|| default_asn(snapshot))
}

fn default_asn(snapshot: &Snapshot) -> Asn {
    snapshot
        .default_configuration()
        .and_then(|configuration| configuration.asn)
        .unwrap_or(Asn(DEFAULT_ASN))
}

fn rack_of<'a>(snapshot: &'a Snapshot, node: &Node) -> Option<&'a Rack> {
    snapshot.rack(node.rack()?)
}

/// What peers are built against: who we are.
struct Own<'a> {
    role: Role,
    snapshot: &'a Snapshot,
    passwords: &'a Passwords,
    asn: Asn,
    cluster_id: Option<ClusterId>,
    /// `None` on a reflector.
    node: Option<&'a Node>,
    /// TCP source by family, and what next hops are compared with.
    addresses: BTreeSet<IpAddr>,
    families: Vec<Family>,
    pools: Vec<Prefix>,
}

impl<'a> Own<'a> {
    fn node(snapshot: &'a Snapshot, passwords: &'a Passwords, node: &'a Node) -> Own<'a> {
        Own {
            role: Role::Agent,
            snapshot,
            passwords,
            asn: asn_of(snapshot, node),
            cluster_id: node.route_reflector_cluster_id,
            node: Some(node),
            addresses: node.addresses().collect(),
            families: node.families(),
            pools: pools(snapshot),
        }
    }

    /// Our lowest address of a family.
    fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }

    fn is_ebgp(&self, peer: &PeerConfig) -> bool {
        peer.remote_asn != Some(peer.local_asn.unwrap_or(self.asn))
    }

    /// What depends on the role and on whether the session is internal. A range that takes any AS
    /// is treated as external: those defaults are the closed ones.
    fn set_defaults(&self, peer: &mut PeerConfig) {
        let is_ebgp = self.is_ebgp(peer);
        peer.next_hop_mode = match self.role {
            Role::Agent => NextHopMode::Auto,
            Role::Reflector => NextHopMode::Keep,
        };
        peer.ttl = match self.role {
            Role::Agent if is_ebgp => 1,
            Role::Agent | Role::Reflector => 255,
        };
        (peer.import_default, peer.export_default) = match (self.role, self.node, is_ebgp) {
            (Role::Agent, Some(node), true) => (
                ImportDefault::InsidePools {
                    pools: self.pools.clone(),
                    own: node.pod_cidrs.clone(),
                    lent: Vec::new(),
                },
                ExportDefault::OwnOnly,
            ),
            (Role::Reflector, _, true) => (
                ImportDefault::AllButMartians {
                    pools: self.pools.clone(),
                },
                ExportDefault::Accept,
            ),
            (Role::Agent | Role::Reflector, _, _) => (ImportDefault::Accept, ExportDefault::Accept),
        };
    }
}

fn pools(snapshot: &Snapshot) -> Vec<Prefix> {
    let pools: BTreeSet<Prefix> = snapshot.pools().map(|pool| pool.cidr).collect();
    pools.into_iter().collect()
}

/// Sessions by key, and ranges, as far as they are known.
#[derive(Default)]
struct Sessions {
    peers: BTreeMap<PeerKey, PeerConfig>,
    ranges: BTreeMap<Prefix, PeerConfig>,
    errors: Vec<StoreError>,
}

/// What BGPConfiguration says for one node: `node.NAME` before `default`.
struct NodeSettings {
    router_id: RouterId,
    listen_addresses: Vec<IpAddr>,
    listen_port: u16,
    local_pref: LocalPref,
    decision: decision::Options,
}

impl NodeSettings {
    fn of(snapshot: &Snapshot, node: &Node) -> NodeSettings {
        NodeSettings {
            router_id: router_id(snapshot, node),
            listen_addresses: setting(snapshot, node, |c| c.listen_addresses.clone())
                .filter(|addresses| !addresses.is_empty())
                .unwrap_or_else(|| node.addresses().collect()),
            listen_port: listen_port(snapshot, node),
            local_pref: setting(snapshot, node, |c| c.local_pref).unwrap_or(LocalPref::DEFAULT),
            decision: decision_options(
                setting(snapshot, node, |c| c.multipath),
                setting(snapshot, node, |c| c.always_compare_med),
            ),
        }
    }
}

fn decision_options(
    multipath: Option<Multipath>,
    always_compare_med: Option<bool>,
) -> decision::Options {
    let mut options = decision::Options {
        always_compare_med: always_compare_med.unwrap_or(false),
        ..decision::Options::default()
    };
    if let Some(multipath) = multipath {
        options.max_ebgp_paths = multipath.ebgp;
        options.max_ibgp_paths = multipath.ibgp;
        options.multipath_across_as = multipath.across_as;
    }
    options
}

fn setting<T>(
    snapshot: &Snapshot,
    node: &Node,
    field: impl Fn(&BgpConfiguration) -> Option<T>,
) -> Option<T> {
    snapshot
        .configuration_of(&node.name)
        .and_then(&field)
        .or_else(|| snapshot.default_configuration().and_then(&field))
}

fn listen_port(snapshot: &Snapshot, node: &Node) -> u16 {
    setting(snapshot, node, |c| c.listen_port).unwrap_or(BGP_PORT)
}

/// The configured one, else the IPv4 address, else four octets of the name's hash.
fn router_id(snapshot: &Snapshot, node: &Node) -> RouterId {
    setting(snapshot, node, |c| c.router_id)
        .or_else(|| node.ipv4.map(RouterId))
        .unwrap_or_else(|| hashed_router_id(node.name.as_str()))
}

fn hashed_router_id(name: &str) -> RouterId {
    let digest = Sha1::digest(name.as_bytes());
    let mut octets = [0; 4];
    for (octet, byte) in octets.iter_mut().zip(digest) {
        *octet = byte;
    }
    // Zero is no router id (RFC 6286 §2.1).
    match u32::from_be_bytes(octets) {
        0 => RouterId(Ipv4Addr::new(0, 0, 0, 1)),
        number => RouterId(Ipv4Addr::from(number)),
    }
}

/// What is wrong with the node itself as a speaker.
fn node_errors(snapshot: &Snapshot, node: &Node) -> Vec<StoreError> {
    let id = ObjectId::new(Kind::Node, node.name.as_str());
    let mut errors = Vec::new();
    if node.families().is_empty() {
        errors.push(snapshot.error(
            &id,
            "spec.bgp",
            "no address, so no BGP; set ipv4Address or ipv6Address",
        ));
    }
    if let Some(rack) = node.rack()
        && snapshot.rack(rack).is_none()
    {
        errors.push(snapshot.error(
            &id,
            &format!("metadata.labels[{}]", crate::model::names::RACK_LABEL),
            format!("there is no Rack {rack}, so the node is in none; add it or change the label"),
        ));
    }
    if let Some(rack) = rack_of(snapshot, node) {
        let is_reachable =
            |reflector: &PeerAddress| node.address(Family::of(reflector.address)).is_some();
        if !rack.reflectors.is_empty() && !rack.reflectors.iter().any(is_reachable) {
            errors.push(snapshot.error(
                &id,
                "spec.bgp",
                format!(
                    "no address of the family of Rack {}'s reflectors, so no session; set one",
                    rack.name
                ),
            ));
        }
    }
    let own = router_id(snapshot, node);
    let same = snapshot
        .nodes()
        .find(|other| other.name != node.name && router_id(snapshot, other) == own);
    if let Some(other) = same {
        errors.push(snapshot.error(
            &id,
            "spec.bgp",
            format!(
                "router id {own} is also that of node {}; set routerID in BGPConfiguration node.{}",
                other.name, node.name
            ),
        ));
    }
    errors
}

#[cfg(test)]
mod tests;
