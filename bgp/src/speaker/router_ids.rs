//! Peers that have one BGP identifier between them. Each gets routes of the other with its own
//! identifier as ORIGINATOR_ID, and ignores them (RFC 4456 §8): sessions are up and routes missing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::types::{Asn, RouterId};

/// Of internal peers that are up (address, AS, identifier), those that share one, in order. Of one
/// address family only: a router with a session in each is one router.
///
/// RFC 6286 §2.1: identifiers are unique within an AS only, so external peers may share.
pub fn duplicates(peers: impl Iterator<Item = (IpAddr, Asn, RouterId)>) -> Vec<String> {
    let mut first: BTreeMap<(RouterId, Asn, bool), IpAddr> = BTreeMap::new();
    let mut sorted: Vec<_> = peers.collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut duplicates = Vec::new();
    for (address, asn, router_id) in sorted {
        let known = *first
            .entry((router_id, asn, address.is_ipv4()))
            .or_insert(address);
        if known != address {
            duplicates.push(format!(
                "{known} and {address} both have the router id {router_id}: neither uses routes of the other's that we pass on; give each one of its own"
            ));
        }
    }
    duplicates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_peers_of_one_family_that_share_an_identifier_are_named() {
        let peer = |address: &str, asn, id: [u8; 4]| {
            let address = address.parse().expect("an address");
            (address, Asn(asn), RouterId(id.into()))
        };
        for (name, peers, count) in [
            ("one", vec![peer("10.0.0.1", 1, [1; 4])], 0),
            (
                "two of their own",
                vec![peer("10.0.0.1", 1, [1; 4]), peer("10.0.0.2", 1, [2; 4])],
                0,
            ),
            (
                "three with one",
                vec![
                    peer("10.0.0.1", 1, [1; 4]),
                    peer("10.0.0.2", 1, [1; 4]),
                    peer("10.0.0.3", 1, [1; 4]),
                ],
                2,
            ),
            (
                "two ports of one router",
                vec![peer("10.0.0.1", 1, [1; 4]), peer("10.0.0.1", 1, [1; 4])],
                0,
            ),
            (
                "one router by both families",
                vec![peer("10.0.0.1", 1, [1; 4]), peer("fd00::1", 1, [1; 4])],
                0,
            ),
            (
                "another AS",
                vec![peer("10.0.0.1", 1, [1; 4]), peer("10.0.0.2", 2, [1; 4])],
                0,
            ),
        ] {
            assert_eq!(duplicates(peers.into_iter()).len(), count, "{name}");
        }
    }
}
