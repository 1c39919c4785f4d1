//! Node: a host with its BGP addresses and the prefixes of its workloads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::{Asn, ClusterId, Family, Prefix};

use super::fields::Fields;
use super::names::{Labels, NodeName, RACK_LABEL};
use super::object::Metadata;
use super::values;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Node {
    pub name: NodeName,
    pub labels: Labels,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub asn: Option<Asn>,
    pub route_reflector_cluster_id: Option<ClusterId>,
    /// In the file's order; they do not overlap.
    pub pod_cidrs: Vec<Prefix>,
}

impl Node {
    /// The address BGP uses in `family`.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.ipv4.map(IpAddr::V4),
            Family::Ipv6 => self.ipv6.map(IpAddr::V6),
        }
    }

    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        Family::ALL
            .into_iter()
            .filter_map(|family| self.address(family))
    }

    /// The families it can carry: those it has an address in.
    pub fn families(&self) -> Vec<Family> {
        Family::ALL
            .into_iter()
            .filter(|family| self.address(*family).is_some())
            .collect()
    }

    /// The name of its rack: the label `caracal.dev/rack`.
    pub fn rack(&self) -> Option<&str> {
        self.labels.get(RACK_LABEL).map(String::as_str)
    }
}

pub(super) fn read(metadata: Metadata, spec: &mut Fields<'_, '_>) -> Option<Node> {
    let mut node = Node {
        name: metadata.name.parse().ok()?,
        labels: metadata.labels,
        ipv4: None,
        ipv6: None,
        asn: None,
        route_reflector_cluster_id: None,
        pod_cidrs: Vec::new(),
    };
    if let Some(mut bgp) = spec.mapping("bgp") {
        node.ipv4 = bgp.optional("ipv4Address", values::host_ipv4);
        node.ipv6 = bgp.optional("ipv6Address", values::host_ipv6);
        node.asn = bgp.optional("asNumber", values::asn);
        node.route_reflector_cluster_id = bgp
            .optional("routeReflectorClusterID", values::ipv4_address)
            .map(ClusterId);
        bgp.finish();
    }
    node.pod_cidrs = spec
        .list("podCIDRs", |value| pod_cidr(values::prefix(value)?))
        .unwrap_or_default();
    for (index, cidr) in node.pod_cidrs.iter().enumerate() {
        let earlier = node.pod_cidrs.iter().take(index);
        if let Some(other) = earlier.into_iter().find(|other| other.overlaps(cidr)) {
            spec.reject(
                "podCIDRs",
                format!("{cidr} overlaps {other} of the same node; remove one"),
            );
        }
    }
    Some(node)
}

/// Big enough for the tunnel address, a workload and the last address, which is never given out.
fn pod_cidr(cidr: Prefix) -> Result<Prefix, String> {
    let longest = match cidr.family() {
        Family::Ipv4 => 30,
        Family::Ipv6 => 126,
    };
    if (8..=longest).contains(&cidr.length()) {
        Ok(cidr)
    } else {
        Err(format!(
            "{cidr} is no prefix for a node's workloads; use a length from 8 to {longest}"
        ))
    }
}
