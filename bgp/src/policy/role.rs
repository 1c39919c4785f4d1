//! Route leaks are stopped by roles and the OTC attribute (RFC 9234 §5): a route that came from a
//! provider, a peer or a route server goes to customers only.
//!
//! Only for eBGP sessions with a role, and unicast families, which are all of ours. `role` is our own
//! throughout: who is a customer has a provider at the other end.

use crate::types::{Asn, Role};
use crate::wire::attribute::PathAttributes;

/// Whether a route of the peer is a leak: it was for customers only and comes from one, or from a
/// lateral peer that did not get it from its own customers (RFC 9234 §5, ingress 1 and 2).
pub fn is_leak(role: Role, remote_asn: Asn, attributes: &PathAttributes) -> bool {
    match (role, attributes.only_to_customer) {
        (_, None) => false,
        (Role::Provider | Role::RouteServer, Some(_)) => true,
        (Role::Peer, Some(marked_by)) => marked_by != remote_asn,
        (Role::Customer | Role::RouteServerClient, Some(_)) => false,
    }
}

/// Marks what came from a provider, a lateral peer or a route server (RFC 9234 §5, ingress 3).
pub fn mark_received(role: Role, remote_asn: Asn, attributes: &mut PathAttributes) {
    match role {
        Role::Customer | Role::Peer | Role::RouteServerClient => {
            attributes.only_to_customer.get_or_insert(remote_asn);
        }
        Role::Provider | Role::RouteServer => {}
    }
}

/// Whether a route may be said to the peer: what is marked goes to customers and route server
/// clients only (RFC 9234 §5, egress 2).
pub fn may_say(role: Role, attributes: &PathAttributes) -> bool {
    match role {
        Role::Customer | Role::Peer | Role::RouteServerClient => {
            attributes.only_to_customer.is_none()
        }
        Role::Provider | Role::RouteServer => true,
    }
}

/// Marks what goes to a customer, a lateral peer or a route server client (RFC 9234 §5, egress 1).
pub fn mark_said(role: Role, local_asn: Asn, attributes: &mut PathAttributes) {
    match role {
        Role::Provider | Role::Peer | Role::RouteServer => {
            attributes.only_to_customer.get_or_insert(local_asn);
        }
        Role::Customer | Role::RouteServerClient => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Asn = Asn(65001);
    const THEM: Asn = Asn(65002);
    const OTHER: Asn = Asn(65003);

    fn marked(by: Option<Asn>) -> PathAttributes {
        let mut attributes = PathAttributes::originated([192, 0, 2, 1].into());
        attributes.only_to_customer = by;
        attributes
    }

    #[test]
    fn received_routes_are_judged_and_marked_as_rfc_9234_says() {
        use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        // Our role, OTC as received, leak?, OTC afterwards.
        for (role, otc, leak, after) in [
            (Provider, None, false, None),
            (Provider, Some(THEM), true, Some(THEM)),
            (RouteServer, None, false, None),
            (RouteServer, Some(OTHER), true, Some(OTHER)),
            (Peer, None, false, Some(THEM)),
            (Peer, Some(THEM), false, Some(THEM)),
            (Peer, Some(OTHER), true, Some(OTHER)),
            (Customer, None, false, Some(THEM)),
            (Customer, Some(OTHER), false, Some(OTHER)),
            (RouteServerClient, None, false, Some(THEM)),
            (RouteServerClient, Some(OTHER), false, Some(OTHER)),
        ] {
            let mut attributes = marked(otc);
            assert_eq!(is_leak(role, THEM, &attributes), leak, "{role}, {otc:?}");
            mark_received(role, THEM, &mut attributes);
            assert_eq!(attributes.only_to_customer, after, "{role}, {otc:?}");
        }
    }

    #[test]
    fn said_routes_are_held_back_and_marked_as_rfc_9234_says() {
        use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        // Our role, OTC of the route, said?, OTC as said.
        for (role, otc, said, after) in [
            (Provider, None, true, Some(US)),
            (Provider, Some(OTHER), true, Some(OTHER)),
            (RouteServer, None, true, Some(US)),
            (RouteServer, Some(OTHER), true, Some(OTHER)),
            (Peer, None, true, Some(US)),
            (Peer, Some(OTHER), false, Some(OTHER)),
            (Customer, None, true, None),
            (Customer, Some(OTHER), false, Some(OTHER)),
            (RouteServerClient, None, true, None),
            (RouteServerClient, Some(OTHER), false, Some(OTHER)),
        ] {
            let mut attributes = marked(otc);
            assert_eq!(may_say(role, &attributes), said, "{role}, {otc:?}");
            mark_said(role, US, &mut attributes);
            assert_eq!(attributes.only_to_customer, after, "{role}, {otc:?}");
        }
    }
}
