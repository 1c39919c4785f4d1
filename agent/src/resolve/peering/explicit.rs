//! BGPPeers: which sessions they mean for this speaker, and what they make of each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp::policy::{ExportDefault, Filter, ImportDefault};
use bgp::speaker::config::{PeerConfig, PeerKey, PeerSource};
use bgp::speaker::secret::Secret;
use bgp::types::{Asn, Family, HoldTime};

use super::generated::{NodeSession, between};
use super::{Own, Role, Sessions, asn_of, listen_port};
use crate::api::schema::StoreError;
use crate::model::peer::{Password, PeerTarget, SourceAddress, Speakers};
use crate::model::{BgpPeer, Kind, Node, ObjectId};
use crate::names::BGP_PORT;

/// The least a send hold timer waits (RFC 9687 §4).
const SHORTEST_SEND_HOLD: Duration = Duration::from_secs(480);

/// Adds what BGPPeers say to the generated sessions. Of two BGPPeers for one session the first by
/// name wins.
pub(super) fn apply(own: &Own<'_>, generated: BTreeMap<PeerKey, PeerConfig>) -> Sessions {
    let mut sessions = Sessions {
        peers: generated.clone(),
        ..Sessions::default()
    };
    let mut holders: BTreeMap<PeerKey, &BgpPeer> = BTreeMap::new();
    for peer in own.snapshot.peers() {
        if let Some(error) = misplaced(own, peer) {
            sessions.errors.push(error);
            continue;
        }
        if let PeerTarget::Prefixes(_) = &peer.target {
            apply_range(own, peer, &mut sessions);
            continue;
        }
        sessions.errors.extend(with_itself(own, peer));
        for remote in remotes(own, peer, &generated) {
            if let Some(holder) = holders.get(&remote.key) {
                if holder.name != peer.name {
                    sessions.errors.push(taken(own, peer, &remote, holder));
                }
                continue;
            }
            holders.insert(remote.key, peer);
            let built = build(
                own,
                peer,
                &remote,
                generated.get(&remote.key),
                &mut sessions.errors,
            );
            match built {
                Some(config) => sessions.peers.insert(remote.key, config),
                None => sessions.peers.remove(&remote.key),
            };
        }
    }
    keep_closed(own, &holders, &mut sessions);
    sessions
}

/// A session that a BGPPeer closed must not come about through a range that has its address, nor
/// one of a closed range through a wider one.
fn keep_closed(own: &Own<'_>, holders: &BTreeMap<PeerKey, &BgpPeer>, sessions: &mut Sessions) {
    for (key, peer) in holders {
        let is_in_range = sessions
            .ranges
            .keys()
            .any(|range| range.contains(key.address));
        if sessions.peers.contains_key(key) || !is_in_range {
            continue;
        }
        let asn = peer.asn.unwrap_or(own.asn);
        let mut config = PeerConfig::new(&peer.name, PeerSource::Peer, Some(asn));
        config.passive = true;
        close(&mut config);
        sessions.peers.insert(*key, config);
    }
    for peer in own
        .snapshot
        .peers()
        .filter(|peer| lacks_password(own, peer))
    {
        let PeerTarget::Prefixes(prefixes) = &peer.target else {
            continue;
        };
        for prefix in prefixes {
            if sessions.ranges.keys().any(|range| range.covers(prefix)) {
                let mut config = PeerConfig::new(&peer.name, PeerSource::Range, peer.asn);
                config.passive = true;
                close(&mut config);
                sessions.ranges.insert(*prefix, config);
            }
        }
    }
}

fn close(config: &mut PeerConfig) {
    config.filters = Vec::new();
    config.import_default = ImportDefault::Reject;
    config.export_default = ExportDefault::Reject;
}

/// The other end of one session.
struct Remote<'a> {
    key: PeerKey,
    /// As far as the other end's Node says it.
    asn: Option<Asn>,
    node: Option<&'a Node>,
    /// Families both ends can carry; `None`: not known of the other end.
    families: Option<Vec<Family>>,
}

/// The sessions that a BGPPeer means for us; none if it is for other nodes.
fn remotes<'a>(
    own: &Own<'a>,
    peer: &BgpPeer,
    generated: &BTreeMap<PeerKey, PeerConfig>,
) -> Vec<Remote<'a>> {
    let is_ours = own.node.is_none_or(|node| speaks(&peer.speakers, node));
    match &peer.target {
        PeerTarget::Address(target) => {
            if !is_ours || own.addresses.contains(&target.address) {
                return Vec::new();
            }
            let node = node_with(own, target.address);
            let port = target
                .port
                .or_else(|| generated_port(generated, target.address))
                .or_else(|| node.map(|node| listen_port(own.snapshot, node)))
                .unwrap_or(BGP_PORT);
            let key = PeerKey {
                address: target.address,
                port,
            };
            vec![Remote {
                key,
                asn: node.map(|node| asn_of(own.snapshot, node)),
                node,
                families: node.and_then(|node| between(own, node)).map(|s| s.families),
            }]
        }
        PeerTarget::Nodes(selector) => {
            let Some(own_node) = own.node else {
                return Vec::new();
            };
            let is_reverse = peer.reverse && selector.matches(&own_node.labels);
            own.snapshot
                .nodes()
                .filter(|other| other.name != own_node.name)
                .filter(|other| {
                    let forward = is_ours && selector.matches(&other.labels);
                    forward || is_reverse && speaks(&peer.speakers, other)
                })
                .filter_map(|other| between(own, other).map(|session| (other, session)))
                .map(|(other, session)| of_node(other, session))
                .collect()
        }
        PeerTarget::Prefixes(_) => Vec::new(),
    }
}

fn of_node<'a>(node: &'a Node, session: NodeSession) -> Remote<'a> {
    Remote {
        key: session.key,
        asn: Some(session.remote_asn),
        node: Some(node),
        families: Some(session.families),
    }
}

fn speaks(speakers: &Speakers, node: &Node) -> bool {
    match speakers {
        Speakers::All => true,
        Speakers::Node(name) => *name == node.name,
        Speakers::Selected(selector) => selector.matches(&node.labels),
    }
}

fn node_with<'a>(own: &Own<'a>, address: IpAddr) -> Option<&'a Node> {
    own.snapshot
        .nodes()
        .find(|node| node.addresses().any(|own| own == address))
}

/// A BGPPeer that names no port means the session that is there already.
fn generated_port(generated: &BTreeMap<PeerKey, PeerConfig>, address: IpAddr) -> Option<u16> {
    generated
        .keys()
        .find(|key| key.address == address)
        .map(|key| key.port)
}

/// A reflector is no node: it has nothing to compare these with.
fn misplaced(own: &Own<'_>, peer: &BgpPeer) -> Option<StoreError> {
    let field = match (own.role, &peer.speakers, &peer.target) {
        (Role::Agent, _, _) => return None,
        (Role::Reflector, Speakers::Node(_), _) => "spec.node",
        (Role::Reflector, Speakers::Selected(_), _) => "spec.nodeSelector",
        (Role::Reflector, Speakers::All, PeerTarget::Nodes(_)) => "spec.peerSelector",
        (Role::Reflector, Speakers::All, PeerTarget::Address(_) | PeerTarget::Prefixes(_)) => {
            return None;
        }
    };
    Some(error(
        own,
        peer,
        field,
        "a reflector knows no nodes; use peerIP or peerPrefixes alone",
    ))
}

/// On a node this is how one BGPPeer serves all nodes, the one it names among them. A reflector's file
/// is its own: it is the file of the other reflector, copied.
fn with_itself(own: &Own<'_>, peer: &BgpPeer) -> Option<StoreError> {
    let PeerTarget::Address(target) = &peer.target else {
        return None;
    };
    let is_itself = own.role == Role::Reflector && own.addresses.contains(&target.address);
    let reason = format!(
        "{} is an address of this reflector; write the peer's address",
        target.address
    );
    is_itself.then(|| error(own, peer, "spec.peerIP", &reason))
}

fn taken(own: &Own<'_>, peer: &BgpPeer, remote: &Remote<'_>, holder: &BgpPeer) -> StoreError {
    let reason = format!(
        "the session with {} belongs to BGPPeer {}; remove one of them",
        remote.key, holder.name
    );
    error(own, peer, target_field(peer), &reason)
}

fn target_field(peer: &BgpPeer) -> &'static str {
    match &peer.target {
        PeerTarget::Address(_) => "spec.peerIP",
        PeerTarget::Nodes(_) => "spec.peerSelector",
        PeerTarget::Prefixes(_) => "spec.peerPrefixes",
    }
}

/// `None`: no session; the reason is among the errors.
fn build(
    own: &Own<'_>,
    peer: &BgpPeer,
    remote: &Remote<'_>,
    generated: Option<&PeerConfig>,
    errors: &mut Vec<StoreError>,
) -> Option<PeerConfig> {
    let inherited = generated.and_then(|generated| generated.remote_asn);
    let Some(asn) = peer.asn.or(inherited).or(remote.asn) else {
        errors.push(error(
            own,
            peer,
            "spec.asNumber",
            "missing; write the peer's AS number",
        ));
        return None;
    };
    let mut config = match generated {
        Some(generated) => generated.clone(),
        None => PeerConfig::new(&peer.name, PeerSource::Peer, Some(asn)),
    };
    let was_ebgp = generated.map(|generated| own.is_ebgp(generated));
    config.name.clone_from(&peer.name);
    config.source = PeerSource::Peer;
    config.remote_asn = Some(asn);
    config.local_asn = peer.local_asn.or(config.local_asn);
    if was_ebgp != Some(own.is_ebgp(&config)) {
        own.set_defaults(&mut config);
    }
    if generated.is_none() {
        let known = remote.families.clone();
        config.families = known.unwrap_or_else(|| own.families.clone());
        config.route_reflector_client = is_client_by_cluster(own, remote, &config);
    }
    config.local_address = local_address(own, peer, remote.key.address, errors)?;
    change(own, peer, &mut config, errors)?;
    // Between IPv6 addresses an IPv4 next hop may lead nowhere.
    config.extended_next_hop = peer
        .extended_next_hop
        .unwrap_or(remote.key.address.is_ipv6() && config.families.contains(&Family::Ipv4));
    Some(config)
}

fn apply_range(own: &Own<'_>, peer: &BgpPeer, sessions: &mut Sessions) {
    let is_ours = own.node.is_none_or(|node| speaks(&peer.speakers, node));
    let PeerTarget::Prefixes(prefixes) = &peer.target else {
        return;
    };
    if !is_ours {
        return;
    }
    let mut config = PeerConfig::new(&peer.name, PeerSource::Range, peer.asn);
    config.local_asn = peer.local_asn;
    own.set_defaults(&mut config);
    config.families.clone_from(&own.families);
    if change(own, peer, &mut config, &mut sessions.errors).is_none() {
        return;
    }
    set(&mut config.extended_next_hop, peer.extended_next_hop);
    for (index, prefix) in prefixes.iter().enumerate() {
        match sessions.ranges.get(prefix) {
            Some(holder) => sessions.errors.push(error(
                own,
                peer,
                &format!("spec.peerPrefixes[{index}]"),
                &format!(
                    "{prefix} belongs to BGPPeer {}; remove one of them",
                    holder.name
                ),
            )),
            None => {
                sessions.ranges.insert(*prefix, config.clone());
            }
        }
    }
}

/// Calico's rule: a node with a cluster id reflects to internal peers that are not of its cluster.
fn is_client_by_cluster(own: &Own<'_>, remote: &Remote<'_>, config: &PeerConfig) -> bool {
    let theirs = remote.node.and_then(|node| node.route_reflector_cluster_id);
    match own.role {
        Role::Agent => own.cluster_id.is_some() && theirs != own.cluster_id && !own.is_ebgp(config),
        Role::Reflector => false,
    }
}

/// `None`: the address given cannot be the source of this session.
fn local_address(
    own: &Own<'_>,
    peer: &BgpPeer,
    remote: IpAddr,
    errors: &mut Vec<StoreError>,
) -> Option<Option<IpAddr>> {
    let family = Family::of(remote);
    match peer.source_address.unwrap_or(SourceAddress::NodeAddress) {
        SourceAddress::Any => Some(None),
        SourceAddress::Address(address) if Family::of(address) == family => Some(Some(address)),
        SourceAddress::Address(address) => {
            let reason = format!("{address} and the peer {remote} are of different families");
            errors.push(error(own, peer, "spec.sourceAddress", &reason));
            None
        }
        SourceAddress::NodeAddress => match (own.role, own.address(family)) {
            (Role::Agent, None) => {
                let reason = format!(
                    "this node has no {family} address to reach {remote} from; \
                     write bgp.{family}Address in its Node, or sourceAddress here"
                );
                errors.push(error(own, peer, target_field(peer), &reason));
                None
            }
            (Role::Agent | Role::Reflector, address) => Some(address),
        },
    }
}

/// Replaces what the BGPPeer says. `None`: it cannot be honoured, so there is no session.
fn change(
    own: &Own<'_>,
    peer: &BgpPeer,
    config: &mut PeerConfig,
    errors: &mut Vec<StoreError>,
) -> Option<()> {
    if let Some(families) = &peer.families {
        config.families = usable_families(own, peer, families, errors)?;
    }
    if let Some(is_client) = peer.route_reflector_client {
        config.route_reflector_client = is_client;
    }
    if config.route_reflector_client && config.remote_asn.is_some() && own.is_ebgp(config) {
        errors.push(error(
            own,
            peer,
            "spec.routeReflectorClient",
            "clients are of the own AS (RFC 4456); remove it, or correct asNumber",
        ));
        config.route_reflector_client = false;
    }
    if let Some(hops) = peer.ebgp_multihop {
        config.ttl = match own.is_ebgp(config) {
            true => hops,
            false => 255,
        };
    }
    if let Some(hops) = peer.ttl_security_hops {
        config.ttl_security_hops = hops;
        // RFC 5082 §3: packets are sent with TTL 255.
        if hops.is_some() {
            config.ttl = 255;
        }
    }
    if let Some(asked) = &peer.password {
        config.password = Some(password(own, peer, asked, errors)?);
    }
    set(&mut config.next_hop_mode, peer.next_hop_mode);
    set(&mut config.passive, peer.passive);
    change_timers(peer, config);
    config.max_prefixes = peer.max_prefixes.or(config.max_prefixes);
    set(&mut config.allow_own_as, peer.allow_own_as);
    set(
        &mut config.strict_consecutive_restart,
        peer.strict_consecutive_restart,
    );
    set(&mut config.add_paths, peer.add_paths);
    set(&mut config.role_strict, peer.role_strict);
    set(
        &mut config.long_lived_stale_time,
        peer.long_lived_stale_time,
    );
    config.restart_time = peer.max_restart_time.or(config.restart_time);
    set(&mut config.remove_private_as, peer.remove_private_as);
    config.role = peer.role.or(config.role);
    if config.role.is_some() && config.remote_asn.is_some() && !own.is_ebgp(config) {
        errors.push(error(
            own,
            peer,
            "spec.role",
            "roles are between different AS numbers (RFC 9234); remove it, or correct asNumber",
        ));
        config.role = None;
    }
    if !peer.filters.is_empty() {
        match filters(own, peer, errors) {
            Some(filters) => config.filters = filters,
            None => close(config),
        }
    }
    Some(())
}

/// `None`: it cannot be had.
fn password(
    own: &Own<'_>,
    peer: &BgpPeer,
    asked: &Password,
    errors: &mut Vec<StoreError>,
) -> Option<Secret> {
    let Password::File(path) = asked else {
        // Said when the BGPPeer was read.
        return None;
    };
    match own.passwords.get(path) {
        Some(Ok(secret)) => return Some(secret.clone()),
        Some(Err(reason)) => {
            let reason = format!("{reason}; the session is not configured");
            errors.push(error(own, peer, "spec.password.file", &reason));
        }
        // Not one of the files that were read for this snapshot.
        None => {}
    }
    None
}

fn lacks_password(own: &Own<'_>, peer: &BgpPeer) -> bool {
    match &peer.password {
        Some(Password::File(path)) => !matches!(own.passwords.get(path), Some(Ok(_))),
        Some(Password::Unsupported) => true,
        None => false,
    }
}

fn change_timers(peer: &BgpPeer, config: &mut PeerConfig) {
    set(&mut config.hold_time, peer.hold_time);
    config.keepalive_time = peer.keepalive_time.or(config.keepalive_time);
    set(&mut config.connect_retry_time, peer.connect_retry_time);
    set(&mut config.idle_hold_time, peer.idle_hold_time);
    set(&mut config.idle_hold_max, peer.idle_hold_max);
    config.send_hold_time = peer
        .send_hold_time
        .unwrap_or_else(|| Some(default_send_hold(config.hold_time)));
}

fn default_send_hold(hold_time: HoldTime) -> Duration {
    SHORTEST_SEND_HOLD.max(Duration::from_secs(2 * u64::from(hold_time.seconds())))
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// Those of the wanted families that we have a next hop for; `None` if there are none.
fn usable_families(
    own: &Own<'_>,
    peer: &BgpPeer,
    wanted: &[Family],
    errors: &mut Vec<StoreError>,
) -> Option<Vec<Family>> {
    let (usable, missing): (Vec<Family>, Vec<Family>) = wanted
        .iter()
        .partition(|family| own.families.contains(family));
    for family in missing {
        let reason = format!("{family} is left out: this node has no {family} address");
        errors.push(error(own, peer, "spec.families", &reason));
    }
    (!usable.is_empty()).then_some(usable)
}

/// All filters, in order. `None`: one is missing, so that nothing may pass.
fn filters(own: &Own<'_>, peer: &BgpPeer, errors: &mut Vec<StoreError>) -> Option<Vec<Filter>> {
    let mut filters = Vec::new();
    let mut is_complete = true;
    for (index, name) in peer.filters.iter().enumerate() {
        match own.snapshot.filter(name) {
            Some(filter) => filters.push(filter.filter.clone()),
            None => {
                is_complete = false;
                errors.push(error(
                    own,
                    peer,
                    &format!("spec.filters[{index}]"),
                    &format!(
                        "there is no usable BGPFilter {name}, so nothing passes; add or mend it"
                    ),
                ));
            }
        }
    }
    is_complete.then_some(filters)
}

fn error(own: &Own<'_>, peer: &BgpPeer, field: &str, reason: &str) -> StoreError {
    own.snapshot
        .error(&ObjectId::new(Kind::BgpPeer, &peer.name), field, reason)
}
