//! The configuration of a route reflector, from the one file it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bgp::speaker::config::{Aggregate, GracefulRestartConfig, PeerConfig, PeerKey, SpeakerConfig};
use bgp::types::{Asn, ClusterId, Family, LocalPref, Prefix, RouterId};

use super::{
    MOST_DYNAMIC_PEERS_REFLECTOR, Own, Role, decision_options, default_asn, explicit, pools,
};
use crate::api::schema::StoreError;
use crate::model::peer::Passwords;
use crate::model::{BgpConfiguration, Kind, ObjectId, Rack, Snapshot};
use crate::names::BGP_PORT;

/// The speaker of a reflector, with everything that is wrong. Without a router id there is no
/// working speaker: that error is always among them then, and the id is 0.0.0.0.
pub fn reflector_config(
    snapshot: &Snapshot,
    passwords: &Passwords,
) -> (SpeakerConfig, Vec<StoreError>) {
    let default = snapshot.default_configuration();
    let listen = listen_addresses(default);
    let mut errors = misplaced(snapshot);
    let router_id = router_id(default, &listen).unwrap_or_else(|| {
        errors.push(no_router_id(snapshot));
        RouterId(Ipv4Addr::UNSPECIFIED)
    });
    let cluster_id = default
        .and_then(|default| default.cluster_id)
        .unwrap_or(ClusterId(router_id.0));
    let own = Own {
        role: Role::Reflector,
        snapshot,
        passwords,
        asn: asn(snapshot, &listen),
        cluster_id: Some(cluster_id),
        node: None,
        addresses: listen
            .iter()
            .copied()
            .filter(|address| !address.is_unspecified())
            .collect(),
        families: Family::ALL.to_vec(),
        pools: pools(snapshot),
    };
    let sessions = explicit::apply(&own, BTreeMap::new());
    errors.extend(unkeyed(snapshot, &sessions.peers, &sessions.ranges));
    errors.extend(sessions.errors);
    let (aggregates, wrong_aggregates) = aggregates(&own, &listen);
    errors.extend(wrong_aggregates);
    errors.sort();
    errors.dedup();
    let port = default
        .and_then(|default| default.listen_port)
        .unwrap_or(BGP_PORT);
    let config = SpeakerConfig {
        asn: own.asn,
        router_id,
        cluster_id: own.cluster_id,
        listen: listen
            .iter()
            .map(|address| SocketAddr::new(*address, port))
            .collect(),
        local_addresses: own.addresses.iter().copied().collect(),
        local_pref: default
            .and_then(|default| default.local_pref)
            .unwrap_or(LocalPref::DEFAULT),
        peers: sessions.peers,
        ranges: sessions.ranges,
        max_dynamic_peers: MOST_DYNAMIC_PEERS_REFLECTOR,
        originated: BTreeMap::new(),
        aggregates,
        decision: decision_options(
            default.and_then(|default| default.multipath),
            default.and_then(|default| default.always_compare_med),
        ),
        is_draining: default
            .and_then(|default| default.graceful_shutdown)
            .unwrap_or(false),
        graceful_restart: GracefulRestartConfig::default(),
    };
    (config, errors)
}

/// All of this host's IPv4 addresses unless some are given.
fn listen_addresses(default: Option<&BgpConfiguration>) -> BTreeSet<IpAddr> {
    let given = default.and_then(|default| default.listen_addresses.as_ref());
    match given {
        Some(addresses) if !addresses.is_empty() => addresses.iter().copied().collect(),
        Some(_) | None => [IpAddr::V4(Ipv4Addr::UNSPECIFIED)].into(),
    }
}

fn router_id(default: Option<&BgpConfiguration>, listen: &BTreeSet<IpAddr>) -> Option<RouterId> {
    let lowest = listen.iter().find_map(|address| match address {
        IpAddr::V4(address) if !address.is_unspecified() => Some(RouterId(*address)),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    default.and_then(|default| default.router_id).or(lowest)
}

fn no_router_id(snapshot: &Snapshot) -> StoreError {
    let id = ObjectId::new(Kind::BgpConfiguration, "default");
    snapshot.error(
        &id,
        "spec.routerID",
        "missing; write routerID, or an IPv4 address in listenAddresses",
    )
}

/// The AS of the rack that names us as its reflector, else the default's.
fn asn(snapshot: &Snapshot, listen: &BTreeSet<IpAddr>) -> Asn {
    racks_of(snapshot, listen)
        .next()
        .and_then(|rack| rack.asn)
        .unwrap_or_else(|| default_asn(snapshot))
}

/// The racks that name us as their reflector.
fn racks_of<'a>(
    snapshot: &'a Snapshot,
    listen: &'a BTreeSet<IpAddr>,
) -> impl Iterator<Item = &'a Rack> {
    snapshot.racks().filter(|rack| {
        let mut reflectors = rack.reflectors.iter();
        reflectors.any(|reflector| listen.contains(&reflector.address))
    })
}

/// The aggregates of those racks, and what is wrong with any.
fn aggregates(
    own: &Own<'_>,
    listen: &BTreeSet<IpAddr>,
) -> (BTreeMap<Prefix, Aggregate>, Vec<StoreError>) {
    let mut aggregates = BTreeMap::new();
    let mut errors = Vec::new();
    let id = |rack: &Rack| ObjectId::new(Kind::Rack, &rack.name);
    for rack in racks_of(own.snapshot, listen) {
        for (index, aggregate) in rack.aggregates.iter().enumerate() {
            let mut reject = |field: &str, reason: String| {
                let field = format!("spec.aggregates[{index}].{field}");
                errors.push(own.snapshot.error(&id(rack), &field, reason));
            };
            let (cidr, next_hop) = (aggregate.cidr, aggregate.next_hop);
            if own.addresses.contains(&next_hop) {
                reject(
                    "nextHop",
                    format!(
                        "{next_hop} is an address of this reflector, which forwards nothing; write the address of the router that has the rack's routes (the ToR)"
                    ),
                );
                continue;
            }
            if let Some(other) = aggregates
                .keys()
                .find(|other: &&Prefix| other.overlaps(&cidr))
            {
                reject(
                    "cidr",
                    format!("{cidr} overlaps {other} of another Rack; remove one"),
                );
                continue;
            }
            let summary_only = aggregate.summary_only;
            aggregates.insert(
                cidr,
                Aggregate {
                    next_hop,
                    summary_only,
                },
            );
        }
    }
    if racks_of(own.snapshot, listen).next().is_none() {
        let racks = own
            .snapshot
            .racks()
            .filter(|rack| !rack.aggregates.is_empty());
        errors.extend(racks.map(|rack| own.snapshot.error(
            &id(rack),
            "spec.reflectors",
            "not this reflector, so nobody hears of the aggregates; add an address of its listenAddresses",
        )));
    }
    (aggregates, errors)
}

/// Peers without a password inside a range that has one. The kernel drops what they dial with, and two
/// reflectors of a rack with such a file never reach each other.
fn unkeyed(
    snapshot: &Snapshot,
    peers: &BTreeMap<PeerKey, PeerConfig>,
    ranges: &BTreeMap<Prefix, PeerConfig>,
) -> Vec<StoreError> {
    let mut errors = Vec::new();
    for peer in snapshot.peers().filter(|peer| peer.password.is_none()) {
        let sessions = peers.iter().filter(|(_, config)| config.name == peer.name);
        for (key, _) in sessions {
            let keyed = ranges.iter().filter(|(range, template)| {
                range.contains(key.address) && template.password.is_some()
            });
            let Some((range, template)) = keyed.max_by_key(|(range, _)| range.length()) else {
                continue;
            };
            errors.push(snapshot.error(
                &ObjectId::new(Kind::BgpPeer, &peer.name),
                "spec.password",
                format!(
                    "missing; {} is inside {range} of BGPPeer {}, which has one, so it cannot dial us; write its password",
                    key.address, template.name
                ),
            ));
        }
    }
    errors
}

/// Kinds that mean nothing to a reflector.
fn misplaced(snapshot: &Snapshot) -> Vec<StoreError> {
    let is_misplaced = |id: &ObjectId| match id.kind {
        Kind::Node | Kind::WorkloadEndpoint => true,
        Kind::BgpConfiguration => id.name != "default",
        Kind::BgpFilter | Kind::BgpPeer | Kind::IpPool | Kind::Rack => false,
    };
    snapshot
        .files()
        .filter(|(id, _)| is_misplaced(id))
        .map(|(id, _)| snapshot.error(id, "kind", "a reflector has no use for it; remove it"))
        .collect()
}
