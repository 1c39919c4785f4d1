//! What this node announces: its own podCIDRs, with its own addresses as next hops.

use std::collections::BTreeMap;

use bgp::speaker::config::Originated;
use bgp::types::{Family, Prefix};

use super::longest_match::LongestMatch;
use crate::api::schema::StoreError;
use crate::model::{Kind, Node, ObjectId, Snapshot};

/// Own podCIDRs whose pool allows it. A family the node has no address in is not announced, which
/// is an error.
pub fn originated(
    snapshot: &Snapshot,
    node: &Node,
) -> (BTreeMap<Prefix, Originated>, Vec<StoreError>) {
    let pools = LongestMatch::new(snapshot.pools().map(|pool| (pool.cidr, pool)), |_, _| false);
    let mut originated = BTreeMap::new();
    let mut errors = Vec::new();
    for (index, cidr) in node.pod_cidrs.iter().enumerate() {
        let pool = pools.covering(cidr).map(|(_, pool)| pool);
        if pool.is_some_and(|pool| pool.disable_bgp_export) {
            continue;
        }
        match node.address(cidr.family()) {
            Some(next_hop) => {
                originated.insert(*cidr, Originated::new(next_hop));
            }
            None => {
                let field = match cidr.family() {
                    Family::Ipv4 => "ipv4Address",
                    Family::Ipv6 => "ipv6Address",
                };
                errors.push(snapshot.error(
                    &ObjectId::new(Kind::Node, node.name.as_str()),
                    &format!("spec.podCIDRs[{index}]"),
                    format!("{cidr} is not announced: set spec.bgp.{field}, its next hop"),
                ));
            }
        }
    }
    (originated, errors)
}
