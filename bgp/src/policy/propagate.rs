//! The defaults: what passes where no filter decided, and why something did not.

use std::net::IpAddr;

use super::matcher::{self, Action, Direction, Filter};
use super::reflect;
use super::role;
use crate::speaker::config::NextHopMode;
use crate::types::{Asn, ClusterId, Family, LocalPref, Prefix, Role, RouterId};
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

/// What an export says that no filter decided.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ExportDefault {
    /// Whatever the rules of iBGP, eBGP and reflection pass on.
    Accept,
    /// Only routes this speaker originates (an agent's eBGP peer).
    OwnOnly,
    Reject,
}

/// Why a route is not used or not said. Its `Display` is `rejectedReason`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Rejection {
    #[error("rejected by filter {0}")]
    Filter(String),
    #[error("outside every IPPool and no filter accepts it")]
    OutsidePools,
    #[error("the default route is not accepted from eBGP without a filter")]
    DefaultRoute,
    #[error("equal to or covering own prefix {0}")]
    CoversOwn(Prefix),
    #[error("inside own prefix {0} and not lent")]
    InsideOwn(Prefix),
    #[error("martian prefix")]
    Martian,
    #[error("own AS in AS_PATH")]
    OwnAs,
    #[error("own ORIGINATOR_ID")]
    OwnOriginatorId,
    #[error("own cluster id in CLUSTER_LIST")]
    OwnCluster,
    #[error("next hop is an own address")]
    NextHopSelf,
    #[error("next hop is not a unicast address")]
    NextHopInvalid,
    #[error("no route leads to the next hop")]
    NextHopUnresolvable,
    #[error("first AS in AS_PATH is not the peer's")]
    FirstAs,
    #[error("route leak: OTC says it is for customers only (RFC 9234)")]
    RouteLeak,
    #[error("no route is accepted from this peer")]
    Closed,
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

impl ImportContext<'_> {
    /// What import makes of a peer's attributes before anything looks at them.
    pub fn transform(&self, attributes: &mut PathAttributes) {
        // RFC 8326 §4.1: who is about to stop is used only where nobody else has the prefix. Also
        // from iBGP, where nodes that drain say it themselves and reflectors pass it on.
        if attributes
            .communities
            .contains(&Community::GRACEFUL_SHUTDOWN)
        {
            attributes.local_pref = Some(LocalPref(0));
        }
        if let Some(role) = self.role.filter(|_| self.ebgp) {
            role::mark_received(role, self.remote_asn, attributes);
        }
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

    /// Filters, then the default.
    ///
    /// # Errors
    /// Why this prefix is not accepted.
    pub fn check_prefix(&self, prefix: &Prefix) -> Result<(), Rejection> {
        match matcher::decide(self.filters, Direction::Import, prefix) {
            Some((Action::Accept, _)) => Ok(()),
            Some((Action::Reject, filter)) => Err(Rejection::Filter(filter.to_owned())),
            None => self.default.check(prefix),
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

/// Where a route came from, as far as passing it on depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RouteSource {
    Local,
    Ebgp,
    /// `router_id` becomes ORIGINATOR_ID where none is set yet.
    Ibgp {
        client: bool,
        router_id: RouterId,
    },
}

/// How routes are said to one group of peers. Peers with equal treatment share their messages.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ExportPolicy {
    pub ebgp: bool,
    /// The peers are reflection clients of ours.
    pub client: bool,
    /// What is prepended towards eBGP.
    pub local_asn: Asn,
    /// Ours towards an eBGP peer.
    pub role: Option<Role>,
    /// Private AS numbers are taken out of AS_PATH towards eBGP peers of this AS, but its own.
    pub remove_private_as: Option<Asn>,
    /// Every route asks to be used last (RFC 8326 §4.2).
    pub is_draining: bool,
    /// The peers take IPv4 prefixes with an IPv6 next hop (RFC 8950).
    pub ipv4_over_ipv6: bool,
    /// The peers know what LLGR_STALE means (RFC 9494).
    pub long_lived: bool,
    pub cluster_id: ClusterId,
    pub next_hop_mode: NextHopMode,
    /// Next hop where it is self: the first one of the family that is wanted.
    pub own_addresses: Vec<IpAddr>,
    /// LOCAL_PREF towards iBGP of routes that have none.
    pub local_pref: LocalPref,
    pub filters: Vec<Filter>,
    pub default: ExportDefault,
}

impl ExportPolicy {
    /// Whether a prefix may be said at all, by filters and default.
    pub fn admits_prefix(&self, prefix: &Prefix, source: RouteSource) -> bool {
        match matcher::decide(&self.filters, Direction::Export, prefix) {
            Some((Action::Accept, _)) => true,
            Some((Action::Reject, _)) => false,
            None => match self.default {
                ExportDefault::Accept => true,
                ExportDefault::OwnOnly => source == RouteSource::Local,
                ExportDefault::Reject => false,
            },
        }
    }

    /// The attributes of a prefix of `family` as these peers get them, or `None` where the route does
    /// not pass.
    pub fn transform(
        &self,
        attributes: &PathAttributes,
        source: RouteSource,
        family: Family,
    ) -> Option<PathAttributes> {
        // RFC 1997: well-known communities.
        let has = |community| attributes.communities.contains(&community);
        if has(Community::NO_ADVERTISE)
            || (self.ebgp && (has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED)))
        {
            return None;
        }
        if !reflect::passes(source, self.ebgp, self.client) {
            return None;
        }
        // RFC 9494 §4.3: only who knows what it means may hear of a route that is stale for long.
        if !self.long_lived && has(Community::LLGR_STALE) {
            return None;
        }
        let role = self.role.filter(|_| self.ebgp);
        if role.is_some_and(|role| !role::may_say(role, attributes)) {
            return None;
        }
        let mut out = attributes.clone();
        if self.ebgp {
            self.clean_for_ebgp(&mut out, source);
        } else {
            // RFC 4271 §5.1.5: LOCAL_PREF is in every UPDATE to internal peers.
            out.local_pref = out.local_pref.or(Some(self.local_pref));
            if let RouteSource::Ibgp { router_id, .. } = source {
                reflect::mark(&mut out, router_id, self.cluster_id);
            }
        }
        if let Some(role) = role {
            role::mark_said(role, self.local_asn, &mut out);
        }
        if self.is_draining {
            self.ask_to_be_used_last(&mut out);
        }
        self.set_next_hop(&mut out, source, family)?;
        Some(out)
    }

    /// RFC 8326 §4.2. Peers inside the AS may not know the community, but all know LOCAL_PREF.
    fn ask_to_be_used_last(&self, out: &mut PathAttributes) {
        if !out.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
            out.communities.push(Community::GRACEFUL_SHUTDOWN);
        }
        if !self.ebgp {
            out.local_pref = Some(LocalPref(0));
        }
    }

    fn clean_for_ebgp(&self, out: &mut PathAttributes, source: RouteSource) {
        if let Some(receiver) = self.remove_private_as {
            out.as_path.remove_private(receiver);
        }
        out.as_path.prepend(self.local_asn, 1);
        // RFC 4271 §5.1.5, RFC 4456 §8: internal attributes stay inside.
        out.local_pref = None;
        out.originator_id = None;
        out.cluster_list.clear();
        // RFC 4271 §5.1.4: a MED received from a neighbour is not passed to other ASes.
        if source != RouteSource::Local {
            out.med = None;
        }
    }

    /// RFC 4271 §5.1.3. `None` where no next hop is left that these peers can take.
    fn set_next_hop(
        &self,
        out: &mut PathAttributes,
        source: RouteSource,
        family: Family,
    ) -> Option<()> {
        let to_self = match self.next_hop_mode {
            NextHopMode::Keep => false,
            NextHopMode::SelfAddress => true,
            // Routes of our own already have our address.
            NextHopMode::Auto => self.ebgp && source != RouteSource::Local,
        };
        if to_self {
            out.next_hop = self.own_next_hop(family)?.into();
        }
        // RFC 8950 §4: only who announced that it takes them.
        let is_over_ipv6 = family == Family::Ipv4 && out.next_hop.address.is_ipv6();
        (!is_over_ipv6 || self.ipv4_over_ipv6).then_some(())
    }

    /// Our address for prefixes of `family`: one of that family, else for IPv4 an IPv6 one.
    fn own_next_hop(&self, family: Family) -> Option<IpAddr> {
        let of = |family| {
            let mut own = self.own_addresses.iter().copied();
            own.find(|own| Family::of(*own) == family)
        };
        of(family).or_else(|| match family {
            Family::Ipv4 if self.ipv4_over_ipv6 => of(Family::Ipv6),
            Family::Ipv4 | Family::Ipv6 => None,
        })
    }
}

#[cfg(test)]
mod tests;
