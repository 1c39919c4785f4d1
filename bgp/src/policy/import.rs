//! What is accepted from peers: checks of the protocol, filters, and the default where none decided.

use std::borrow::Cow;
use std::net::IpAddr;

use super::action::{self, Action, Operation};
use super::matcher::{self, Direction, Filter, RouteView};
use super::propagate::{NO_OPERATIONS, Rejection, peer_type};
use super::role;
use crate::types::{Asn, ClusterId, LocalPref, Prefix, Role, RouterId};
use crate::wire::attribute::PathAttributes;
use crate::wire::community::Community;

/// What an import accepts that no filter decided.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ImportDefault {
    /// iBGP: everything.
    Accept,
    /// An agent's eBGP peer: prefixes inside `pools`, not the default route, nothing equal to or
    /// covering an own block; a longer one inside an own block only if `lent` has it.
    InsidePools {
        pools: Vec<Prefix>,
        own: Vec<Prefix>,
        lent: Vec<Prefix>,
    },
    /// A reflector's eBGP peer: everything but the default route, martians and own-AS paths;
    /// bounded to `pools` unless that is empty.
    AllButMartians { pools: Vec<Prefix> },
    /// Nothing.
    Reject,
}

/// What an import check knows about the peer and about us.
#[derive(Clone, Copy, Debug)]
pub struct ImportContext<'a> {
    pub ebgp: bool,
    pub local_asn: Asn,
    pub remote_asn: Asn,
    pub router_id: RouterId,
    pub cluster_id: ClusterId,
    pub local_addresses: &'a [IpAddr],
    /// How often our own AS may occur in AS_PATH.
    pub allow_own_as: u8,
    /// Ours towards an eBGP peer.
    pub role: Option<Role>,
    pub filters: &'a [Filter],
    pub default: &'a ImportDefault,
}

impl<'a> ImportContext<'a> {
    /// The attributes as they are used, after the changes of the accepting rule. Borrowed where
    /// nothing is to change, which is the rule.
    pub fn transform<'r>(
        &self,
        received: &'r PathAttributes,
        operations: &[Operation],
    ) -> Cow<'r, PathAttributes> {
        let mut used = Cow::Borrowed(received);
        if !operations.is_empty() {
            action::apply(operations, used.to_mut());
        }
        // RFC 8326 §4.1: who is about to stop is used only where nobody else has the prefix,
        // whatever the rule wants. Also from iBGP, where nodes that drain say it themselves and
        // reflectors pass it on.
        if used.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
            used.to_mut().local_pref = Some(LocalPref(0));
        }
        if let Some(role) = self.role.filter(|_| self.ebgp) {
            role::mark_received(role, self.remote_asn, used.to_mut());
        }
        used
    }

    /// The checks that concern the attributes alone, once per set.
    ///
    /// # Errors
    /// The first reason why no route with these attributes is used.
    pub fn check_attributes(&self, attributes: &PathAttributes) -> Result<(), Rejection> {
        // RFC 4271 §9.1.2: a path that holds our own AS is a loop.
        let own = attributes
            .as_path
            .asns()
            .filter(|asn| *asn == self.local_asn)
            .count();
        if own > usize::from(self.allow_own_as) {
            return Err(Rejection::OwnAs);
        }
        // RFC 7947 §2.2.2.1: a route server does not put its own AS into the path.
        let is_of_route_server = self.role == Some(Role::RouteServerClient);
        if self.ebgp
            && !is_of_route_server
            && attributes.as_path.first_as() != Some(self.remote_asn)
        {
            // RFC 4271 §6.3: optional check of the leftmost AS; RFC 7606 makes it no session error.
            return Err(Rejection::FirstAs);
        }
        if let Some(role) = self.role
            && self.ebgp
            && role::is_leak(role, self.remote_asn, attributes)
        {
            return Err(Rejection::RouteLeak);
        }
        // RFC 4456 §8.
        if attributes.originator_id == Some(self.router_id) {
            return Err(Rejection::OwnOriginatorId);
        }
        if attributes.cluster_list.contains(&self.cluster_id) {
            return Err(Rejection::OwnCluster);
        }
        let next_hop = attributes.next_hop.address;
        if !is_usable_next_hop(next_hop) {
            return Err(Rejection::NextHopInvalid);
        }
        if self.local_addresses.contains(&next_hop) {
            return Err(Rejection::NextHopSelf);
        }
        Ok(())
    }

    /// Filters, then the default. `attributes` are those received; `interface` is where packets to
    /// their next hop leave, as far as known. Returns what the accepting rule changes.
    ///
    /// # Errors
    /// Why this prefix is not accepted.
    pub fn check_prefix(
        &self,
        prefix: &Prefix,
        attributes: &PathAttributes,
        interface: Option<&str>,
    ) -> Result<&'a [Operation], Rejection> {
        let route = RouteView {
            prefix,
            attributes,
            local_pref: attributes.local_pref,
            is_own: false,
            peer_type: peer_type(self.ebgp),
            interface,
        };
        match matcher::decide(self.filters, Direction::Import, &route) {
            Some(decision) => match decision.action {
                Action::Accept(operations) => Ok(operations),
                Action::Reject => Err(Rejection::Filter(decision.filter.to_owned())),
            },
            None => self.default.check(prefix).map(|()| NO_OPERATIONS),
        }
    }
}

impl ImportDefault {
    fn check(&self, prefix: &Prefix) -> Result<(), Rejection> {
        match self {
            ImportDefault::Accept => Ok(()),
            ImportDefault::Reject => Err(Rejection::Closed),
            ImportDefault::InsidePools { pools, own, lent } => {
                if prefix.is_default() {
                    return Err(Rejection::DefaultRoute);
                }
                if let Some(own) = own.iter().find(|own| prefix.covers(own)) {
                    return Err(Rejection::CoversOwn(*own));
                }
                if let Some(own) = own.iter().find(|own| own.covers(prefix)) {
                    return if lent.contains(prefix) {
                        Ok(())
                    } else {
                        Err(Rejection::InsideOwn(*own))
                    };
                }
                if pools.iter().any(|pool| pool.covers(prefix)) {
                    Ok(())
                } else {
                    Err(Rejection::OutsidePools)
                }
            }
            ImportDefault::AllButMartians { pools } => {
                if prefix.is_default() {
                    Err(Rejection::DefaultRoute)
                } else if is_martian(prefix) {
                    Err(Rejection::Martian)
                } else if pools.is_empty() || pools.iter().any(|pool| pool.covers(prefix)) {
                    Ok(())
                } else {
                    Err(Rejection::OutsidePools)
                }
            }
        }
    }
}

fn is_usable_next_hop(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.octets()[0] == 0 || address.is_loopback() || address.octets()[0] >= 224)
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        }
    }
}

/// Prefixes that never belong in a routing table between hosts: this-network, loopback, link-local,
/// multicast and reserved (RFC 6890). Private and documentation prefixes are what pods live in.
fn is_martian(prefix: &Prefix) -> bool {
    match prefix.network() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            first == 0 || first == 127 || first >= 224 || (first == 169 && second == 254)
        }
        IpAddr::V6(address) => {
            let first = address.segments()[0];
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || (first & 0xffc0) == 0xfe80
        }
    }
}

#[cfg(test)]
mod tests;
