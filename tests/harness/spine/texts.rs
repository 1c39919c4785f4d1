//! The files of a spine: the reflectors', FRR's and the racks. Pure.

use std::net::{IpAddr, Ipv4Addr};

use agent::lab::topology::Rack;

use super::{Peering, Plan, Reflector};

/// Nobody is there: a peer that a change adds.
pub const NOBODY: u8 = 77;

/// The hold time of the nodes once a change has set it.
pub const OTHER_HOLD_TIME_SECS: u16 = 60;

/// How long others keep a reflector's routes once a change has said so.
const SHORT_RESTART_TIME_SECS: u16 = 2;

/// What is in a reflector's file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Edition {
    /// As it starts.
    First,
    /// With a filter that admits what was admitted before, on every session, and with a peer more.
    Filtered,
    /// With another hold time for the nodes as well, which resets their sessions.
    Timed,
    /// With other hold and restart times for everyone, which resets all sessions.
    SoonForgotten,
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: caracal.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n\
         spec: {{{spec}}}\n"
    )
}

/// The racks with their reflectors, for the agents' store.
pub fn racks(plan: Plan) -> String {
    let rack = |rack: &Rack| {
        let reflectors = plan.reflectors_of(rack);
        let addresses: Vec<String> = reflectors
            .iter()
            .map(|reflector| reflector.address.to_string())
            .collect();
        let spec = format!(
            "asNumber: {}, reflectors: [{}]",
            rack.asn,
            addresses.join(", ")
        );
        document("Rack", rack.name, &spec)
    };
    Rack::ALL.iter().map(rack).collect()
}

/// The reflectors of rack a are one cluster, those of rack b one each.
fn cluster(reflector: &Reflector) -> Ipv4Addr {
    if reflector.rack == Rack::A {
        Rack::A.reflector()
    } else {
        reflector.address
    }
}

pub fn reflector(plan: Plan, reflector: &Reflector, edition: Edition) -> String {
    let (rack, address) = (reflector.rack, reflector.address);
    let spec = format!(
        "asNumber: {}, routerID: {address}, clusterID: {}, listenAddresses: [{address}]",
        rack.asn,
        cluster(reflector)
    );
    let mut text = document("BGPConfiguration", "default", &spec);
    let mut of_all = String::new();
    if edition >= Edition::SoonForgotten {
        // A restart time alone would be said when a session comes up for another reason.
        of_all += &format!(", holdTime: 30s, maxRestartTime: {SHORT_RESTART_TIME_SECS}s");
    }
    if edition >= Edition::Filtered {
        text += &document(
            "BGPFilter",
            "same",
            "importV4: [{action: Accept}], exportV4: [{action: Accept}]",
        );
        let spec = format!("peerIP: {}, asNumber: {}", rack.host(NOBODY), rack.asn);
        text += &document("BGPPeer", "nobody", &spec);
        of_all += ", filters: [same]";
    }
    let hold_time = match edition {
        Edition::Timed => format!(", holdTime: {OTHER_HOLD_TIME_SECS}s"),
        Edition::First | Edition::Filtered | Edition::SoonForgotten => String::new(),
    };
    let mut peer = |name: &str, spec: &str| {
        text += &document("BGPPeer", name, &format!("{spec}{of_all}"));
    };
    peer(
        "nodes",
        &format!(
            "peerPrefixes: [{}], asNumber: {}, routeReflectorClient: true{hold_time}",
            rack.subnet(),
            rack.asn
        ),
    );
    let mut spine = if plan.peering == Peering::Ranges {
        format!("peerPrefixes: [{}/32]", rack.router())
    } else {
        format!("peerIP: {}", rack.router())
    };
    spine += &format!(", asNumber: {}", plan.spine_asn());
    if plan.peering == (Peering::Inside { is_client: true }) && rack.asn == plan.spine_asn() {
        spine += ", routeReflectorClient: true";
    }
    peer("spine", &spine);
    for other in plan.listed_by(reflector) {
        let spec = format!("peerIP: {}, asNumber: {}", other.address, other.rack.asn);
        peer(&other.name, &spec);
    }
    text
}

/// FRR peers with every reflector, and asks all to keep its routes while it restarts. A next hop in
/// the other rack is not on its subnet with the external peer.
pub fn frr(plan: Plan) -> String {
    let asn = plan.spine_asn();
    let mut text = format!(
        "hostname spine\nrouter bgp {asn}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
         bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n",
        Rack::A.router()
    );
    for reflector in plan.reflectors() {
        let address = IpAddr::from(reflector.address);
        let its_asn = reflector.rack.asn;
        text += &format!(
            " neighbor {address} remote-as {its_asn}\n neighbor {address} timers connect 1\n"
        );
        if its_asn != asn {
            text += &format!(" neighbor {address} ebgp-multihop 2\n");
        }
    }
    text
}
