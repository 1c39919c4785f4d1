//! Sessions and routes as users see them, and the peer's configuration as the FSM and the RIB do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::RouteSelection;
use super::config::PeerConfig;
use super::core::Core;
use super::slot::PeerSlot;
use super::status::{
    AddPathsStatus, ConnectErrorStatus, FamilyCounts, LastErrorStatus, PeerStatus, RouteStatus,
};
use crate::fsm::session::{Negotiated, SessionConfig, State};
use crate::policy::matcher::{Direction, of_direction};
use crate::policy::propagate::ExportPolicy;
use crate::rib::PeerId;
use crate::rib::peer::{GroupKey, ImportPolicy, PeerSetup};
use crate::rib::show::{Selection, ShownPath};
use crate::types::{Family, FamilySet, Prefix};
use crate::wire::attribute::PathAttributes;
use crate::wire::capability::GracefulRestart;
use crate::wire::frame::{MAX_EXTENDED_LEN, MAX_LEN};

impl Core {
    pub(super) fn session_config(&self, peer: &PeerConfig) -> SessionConfig {
        let restart = &self.config.graceful_restart;
        let graceful_restart = restart.enabled.then(|| GracefulRestart {
            restart_state: self.is_restarting(),
            // RFC 8538 §2: NOTIFICATIONs are covered.
            notification: true,
            restart_time_secs: {
                let time = peer.restart_time.unwrap_or(restart.restart_time);
                u16::try_from(time.as_secs()).unwrap_or(4095).min(4095)
            },
            families: peer
                .families
                .iter()
                .map(|family| (*family, self.preserves_forwarding()))
                .collect(),
        });
        let local_asn = peer.local_asn.unwrap_or(self.config.asn);
        SessionConfig {
            hold_time: peer.hold_time,
            keepalive_time: peer.keepalive_time,
            connect_retry_time: peer.connect_retry_time,
            idle_hold_time: peer.idle_hold_time,
            idle_hold_max: peer.idle_hold_max,
            send_hold_time: peer.send_hold_time,
            passive: peer.passive,
            families: peer.families.clone(),
            graceful_restart,
            long_lived_stale_time: peer.long_lived_stale_time,
            add_path_send: families_if(peer.add_paths.send, peer),
            add_path_receive: families_if(peer.add_paths.receive, peer),
            extended_next_hop: peer.extended_next_hop,
            role: peer.role,
            role_strict: peer.role_strict,
            ..SessionConfig::new(local_asn, peer.remote_asn, self.config.router_id)
        }
    }

    pub(super) fn peer_setup(&self, slot: &PeerSlot, negotiated: &Negotiated) -> PeerSetup {
        let config = &slot.config;
        let local_asn = config.local_asn.unwrap_or(self.config.asn);
        let ebgp = negotiated.remote_asn != local_asn;
        PeerSetup {
            address: slot.key.address,
            router_id: negotiated.remote_router_id,
            ebgp,
            client: config.route_reflector_client && !ebgp,
            enhanced_route_refresh: negotiated.enhanced_route_refresh,
            import: Arc::new(ImportPolicy {
                ebgp,
                local_asn,
                remote_asn: negotiated.remote_asn,
                allow_own_as: config.allow_own_as,
                role: negotiated.role,
                filters: of_direction(&config.filters, Direction::Import),
                default: config.import_default.clone(),
            }),
            group: GroupKey {
                export: ExportPolicy {
                    ebgp,
                    client: config.route_reflector_client && !ebgp,
                    local_asn,
                    role: negotiated.role,
                    remove_private_as: Some(negotiated.remote_asn)
                        .filter(|_| config.remove_private_as && ebgp),
                    is_draining: self.config.is_draining,
                    ipv4_over_ipv6: negotiated.ipv4_over_ipv6,
                    long_lived: negotiated.long_lived.is_some(),
                    cluster_id: self.config.effective_cluster_id(),
                    next_hop_mode: config.next_hop_mode,
                    own_addresses: own_next_hops(
                        negotiated.local.ip().to_canonical(),
                        &self.config.local_addresses,
                    ),
                    local_pref: self.config.local_pref,
                    summarized: Vec::new(),
                    filters: of_direction(&config.filters, Direction::Export),
                    default: config.export_default.clone(),
                }
                .summarizing(&self.config.aggregates, slot.key.address),
                families: negotiated.families.clone(),
                four_octet_as: negotiated.four_octet_as,
                max_message_len: if negotiated.extended_message {
                    MAX_EXTENDED_LEN
                } else {
                    MAX_LEN
                },
                add_path: negotiated.add_path_send,
            },
        }
    }

    pub(super) fn show_peers(&self) -> Vec<PeerStatus> {
        let advertised = self.rib.advertised_counts();
        let mut shown: Vec<PeerStatus> = self
            .peers
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| {
                let id = PeerId(u32::try_from(index).ok()?);
                let told = advertised.get(&id).copied().unwrap_or_default();
                Some(self.show_peer(id, slot.as_ref()?, told))
            })
            .collect();
        // Their ids are others' by now.
        let nobody = PeerId(u32::MAX);
        let departed = self.departed.iter();
        shown.extend(departed.map(|slot| self.show_peer(nobody, slot, [0; 2])));
        shown.sort_by_key(|peer| (peer.peer, peer.port));
        shown
    }

    fn show_peer(&self, id: PeerId, slot: &PeerSlot, told: [u64; 2]) -> PeerStatus {
        let config = &slot.config;
        let session = slot.session.as_ref().map(|session| &*session.negotiated);
        let local_asn = config.local_asn.unwrap_or(self.config.asn);
        let peer_asn = session
            .map(|session| session.remote_asn)
            .or(config.remote_asn);
        let is_ebgp = peer_asn.is_some_and(|asn| asn != local_asn);
        let counts = [Family::Ipv4, Family::Ipv6].map(|family| self.rib.counts(id, family));
        PeerStatus {
            name: config.name.clone(),
            source: config.source.to_string(),
            peer: slot.key.address,
            port: slot.key.port,
            local: session
                .map(|session| session.local.ip().to_canonical())
                .or(config.local_address),
            peer_asn,
            local_asn,
            kind: if is_ebgp { "ebgp" } else { "ibgp" }.to_owned(),
            client: config.route_reflector_client && !is_ebgp,
            state: state_name(slot.state).to_owned(),
            since: rfc3339(slot.since),
            router_id: session.map(|session| session.remote_router_id.to_string()),
            hold_time_seconds: session.map(|session| session.hold_time.seconds()),
            keepalive_seconds: session.map(|session| session.keepalive_time.as_secs()),
            families: session
                .map_or(&config.families, |session| &session.families)
                .iter()
                .map(Family::to_string)
                .collect(),
            capabilities: session
                .map(|session| {
                    session
                        .capabilities
                        .iter()
                        .map(super::capability_name::describe)
                        .collect()
                })
                .unwrap_or_default(),
            received: FamilyCounts {
                ipv4: counts[0].received,
                ipv6: counts[1].received,
            },
            accepted: FamilyCounts {
                ipv4: counts[0].accepted,
                ipv6: counts[1].accepted,
            },
            advertised: FamilyCounts {
                ipv4: told[0],
                ipv6: told[1],
            },
            flaps: slot.flaps,
            last_error: slot.last_error.as_ref().map(|(error, at)| LastErrorStatus {
                code: error.notification.code,
                subcode: error.notification.subcode,
                data_hex: error
                    .notification
                    .data
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
                direction: if error.sent { "sent" } else { "received" }.to_owned(),
                reason: error.reason.clone(),
                at: rfc3339(*at),
            }),
            last_connect_error: slot.last_connect_error.as_ref().map(|(reason, at)| {
                ConnectErrorStatus {
                    reason: reason.clone(),
                    at: rfc3339(*at),
                }
            }),
            update_errors: slot.faults.counts,
            last_malformed: slot.faults.last(),
            max_prefixes: config.max_prefixes,
            add_paths: session.map_or_else(AddPathsStatus::default, |session| AddPathsStatus {
                send: names(session.add_path_send),
                receive: names(session.add_path_receive),
            }),
            role: config.role.map(|role| role.to_string()),
        }
    }

    pub(super) fn show_routes(&self, selection: RouteSelection) -> Vec<RouteStatus> {
        let id_of = |address| {
            self.find(|slot| slot.key.address == address)
                .and_then(|index| u32::try_from(index).ok())
                .map(PeerId)
        };
        if let Some(address) = selection.advertised {
            let Some(id) = id_of(address) else {
                return Vec::new();
            };
            let told = self.rib.show_advertised(id, selection.prefix);
            return told
                .into_iter()
                .map(|(path, peer, attributes)| RouteStatus {
                    peer,
                    path_id: Some(path.path_id).filter(|id| *id != 0),
                    ..route_status(path.prefix, &attributes)
                })
                .collect();
        }
        let received_from = match selection.received.map(id_of) {
            Some(None) => return Vec::new(),
            Some(id) => id,
            None => None,
        };
        let shown = self.rib.show(Selection {
            prefix: selection.prefix,
            received_from,
        });
        shown.iter().map(path_status).collect()
    }
}

/// All of the peer's families, or none.
fn families_if(is_wanted: bool, peer: &PeerConfig) -> FamilySet {
    let families = peer.families.iter().copied();
    families.filter(|_| is_wanted).collect()
}

fn names(families: FamilySet) -> Vec<String> {
    families.iter().map(|family| family.to_string()).collect()
}

/// The session's own address first, then one of the other family.
fn own_next_hops(local: IpAddr, all: &[IpAddr]) -> Vec<IpAddr> {
    let other = all
        .iter()
        .find(|address| Family::of(**address) != Family::of(local));
    std::iter::once(local).chain(other.copied()).collect()
}

fn path_status(path: &ShownPath) -> RouteStatus {
    RouteStatus {
        peer: path.peer,
        path_id: Some(path.path_id).filter(|id| *id != 0),
        best: path.is_best,
        multipath: path.is_multipath,
        stale: path.is_stale,
        rejected_reason: path.rejection.as_ref().map(ToString::to_string),
        deciding_step: path.deciding_step.map(|step| step.to_string()),
        ..route_status(path.prefix, &path.attributes)
    }
}

fn route_status(prefix: Prefix, attributes: &PathAttributes) -> RouteStatus {
    RouteStatus {
        prefix,
        peer: None,
        path_id: None,
        next_hop: attributes.next_hop.address,
        as_path: attributes.as_path.to_string(),
        origin: attributes.origin.to_string(),
        local_pref: attributes.local_pref.map(|value| value.0),
        med: attributes.med.map(|value| value.0),
        communities: attributes
            .communities
            .iter()
            .map(ToString::to_string)
            .collect(),
        only_to_customer: attributes.only_to_customer,
        large_communities: attributes
            .large_communities
            .iter()
            .map(ToString::to_string)
            .collect(),
        originator_id: attributes.originator_id.map(|id| id.to_string()),
        cluster_list: attributes
            .cluster_list
            .iter()
            .map(ToString::to_string)
            .collect(),
        best: false,
        multipath: false,
        stale: false,
        rejected_reason: None,
        deciding_step: None,
        kernel: None,
    }
}

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Connect => "connect",
        State::Active => "active",
        State::OpenSent => "openSent",
        State::OpenConfirm => "openConfirm",
        State::Established => "established",
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
