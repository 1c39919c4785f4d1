//! The host sides of the workloads on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::api::schema::FailedItem;
use crate::cni::attachment::Attachment;
use crate::dataplane::desired::WorkloadLink;
use crate::model::{Node, Snapshot, WorkloadEndpoint};

/// What to program, and which workloads cannot be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Endpoints {
    /// By host interface.
    pub links: BTreeMap<String, WorkloadLink>,
    pub failed: Vec<FailedItem>,
}

/// Workloads that CNI attached, and those that WorkloadEndpoints of this node declare. Of two
/// that claim one address or interface the smallest (kind, namespace, name) gets it; nothing of the
/// other is programmed.
pub fn resolve_endpoints<'a>(
    snapshot: &'a Snapshot,
    node: &Node,
    attachments: impl IntoIterator<Item = &'a Attachment>,
) -> Endpoints {
    let attached = attachments.into_iter().map(Candidate::attached);
    let declared = snapshot
        .workloads()
        .filter(|workload| workload.node == node.name)
        .filter_map(Candidate::declared);
    let mut candidates: Vec<Candidate<'_>> = attached.chain(declared).collect();
    candidates.sort();

    let mut endpoints = Endpoints::default();
    let mut holders: BTreeMap<Claim<'_>, String> = own_addresses(node);
    for candidate in candidates {
        let claims = candidate.claims();
        let conflict = claims
            .iter()
            .find_map(|claim| holders.get(claim).map(|holder| (claim, holder)));
        if let Some((claim, holder)) = conflict {
            endpoints.failed.push(FailedItem {
                object: candidate.object(),
                error: format!("{} belongs to {holder}", claim.shown()),
                attempts: 0,
            });
            continue;
        }
        for claim in claims {
            holders.insert(claim, candidate.object());
        }
        endpoints.links.insert(
            candidate.interface.to_owned(),
            WorkloadLink {
                addresses: candidate.addresses.to_vec(),
                mac: candidate.mac,
            },
        );
    }
    endpoints
}

/// Sorted as conflicts are settled.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    container_id: &'a str,
    container_interface: &'a str,
    interface: &'a str,
    addresses: &'a [IpAddr],
    mac: Option<[u8; 6]>,
}

impl<'a> Candidate<'a> {
    fn attached(attachment: &'a Attachment) -> Candidate<'a> {
        Candidate {
            kind: "Attachment",
            namespace: &attachment.namespace,
            name: &attachment.name,
            container_id: &attachment.container_id,
            container_interface: &attachment.container_interface,
            interface: &attachment.host_interface,
            addresses: &attachment.addresses,
            mac: Some(attachment.mac),
        }
    }

    /// `None`: no interface here, only a member for selectors.
    fn declared(workload: &'a WorkloadEndpoint) -> Option<Candidate<'a>> {
        Some(Candidate {
            kind: "WorkloadEndpoint",
            namespace: &workload.namespace,
            name: &workload.name,
            container_id: "",
            container_interface: "",
            interface: workload.interface.as_deref()?,
            addresses: &workload.addresses,
            mac: workload.mac,
        })
    }

    fn claims(&self) -> BTreeSet<Claim<'a>> {
        let addresses = self
            .addresses
            .iter()
            .map(|address| Claim::Address(*address));
        addresses
            .chain([Claim::Interface(self.interface)])
            .collect()
    }

    fn object(&self) -> String {
        match self.name {
            "" => format!("{}/{}", self.kind, self.container_id),
            name => format!("{}/{}/{name}", self.kind, self.namespace),
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Claim<'a> {
    Address(IpAddr),
    Interface(&'a str),
}

impl Claim<'_> {
    fn shown(&self) -> String {
        match self {
            Claim::Address(address) => address.to_string(),
            Claim::Interface(interface) => format!("interface {interface}"),
        }
    }
}

/// Addresses that no workload may have: the node's own and the tunnels'.
fn own_addresses(node: &Node) -> BTreeMap<Claim<'static>, String> {
    let object = format!("Node/{}", node.name);
    let tunnel = super::tunnel::tunnel_address(node).map(IpAddr::V4);
    let tunnel6 = super::tunnel::tunnel_address6(node).map(IpAddr::V6);
    node.addresses()
        .chain(tunnel)
        .chain(tunnel6)
        .map(|address| (Claim::Address(address), object.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
