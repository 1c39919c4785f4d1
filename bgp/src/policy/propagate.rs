//! What is said to peers: filters, the default where none decided, and what becomes of the
//! attributes.

use std::net::IpAddr;

use super::action::{self, Action, Operation};
use super::matcher::{self, Direction, Filter, PeerType, RouteView};
use super::reflect;
use super::role;
use crate::speaker::config::NextHopMode;
use crate::types::{Asn, ClusterId, Family, LocalPref, Prefix, Role, RouterId};
use crate::wire::attribute::PathAttributes;
use crate::wire::community::Community;

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
    #[error("not a route of our own and no filter accepts it")]
    NotOwn,
    #[error("no route is said to this peer")]
    ClosedForExport,
    #[error("its community {0} forbids it")]
    Community(Community),
    #[error("learned by iBGP, and neither side is a client of ours")]
    NotReflected,
    #[error("stale for long, and the peer does not know what that means (RFC 9494)")]
    LongStale,
    #[error("no next hop that the peer can take")]
    NoNextHop,
    #[error("the aggregate {0} stands for it")]
    Summarized(Prefix),
    #[error("an aggregate of ours is for external peers only")]
    AggregateInside,
}

/// What a default changes.
pub(super) const NO_OPERATIONS: &[Operation] = &[];

pub(super) fn peer_type(ebgp: bool) -> PeerType {
    if ebgp { PeerType::Ebgp } else { PeerType::Ibgp }
}

/// Where a route came from, as far as passing it on depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RouteSource {
    Local,
    /// Our own, and with a next hop that is configured.
    Aggregate,
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
    /// Aggregates that these peers hear in place of what they stand for; set by
    /// [`ExportPolicy::summarizing`].
    pub summarized: Vec<Prefix>,
    pub filters: Vec<Filter>,
    pub default: ExportDefault,
}

impl ExportPolicy {
    /// Whether a route may be said at all, by filters and default, and what the accepting rule
    /// changes. `interface` is where packets to it leave, as far as known; asked for only where
    /// [`ExportPolicy::asks_for_interface`].
    pub fn admits(
        &self,
        prefix: &Prefix,
        attributes: &PathAttributes,
        source: RouteSource,
        interface: Option<&str>,
    ) -> Option<&[Operation]> {
        self.decide(prefix, attributes, source, interface).ok()
    }

    /// A route as these peers hear it.
    ///
    /// # Errors
    /// Why they do not.
    pub fn say(
        &self,
        prefix: &Prefix,
        attributes: &PathAttributes,
        source: RouteSource,
        interface: Option<&str>,
    ) -> Result<PathAttributes, Rejection> {
        let operations = self.decide(prefix, attributes, source, interface)?;
        self.transform(attributes, source, prefix.family(), operations)
    }

    /// Whether the interface of a route makes a difference.
    pub fn asks_for_interface(&self) -> bool {
        matcher::asks_for_interface(&self.filters, Direction::Export)
    }

    fn decide<'p>(
        &'p self,
        prefix: &Prefix,
        attributes: &PathAttributes,
        source: RouteSource,
        interface: Option<&str>,
    ) -> Result<&'p [Operation], Refused<'p>> {
        if let Some(aggregate) = self.summary_of(prefix, attributes, source) {
            return Err(Refused::Summarized(aggregate));
        }
        let is_own = matches!(source, RouteSource::Local | RouteSource::Aggregate);
        let route = RouteView {
            prefix,
            attributes,
            // What it has towards iBGP, whether or not these peers are.
            local_pref: attributes.local_pref.or(Some(self.local_pref)),
            is_own,
            peer_type: peer_type(self.ebgp),
            interface,
        };
        match matcher::decide(&self.filters, Direction::Export, &route) {
            Some(decision) => match decision.action {
                Action::Accept(operations) => Ok(operations),
                Action::Reject => Err(Refused::ByFilter(decision.filter)),
            },
            None => match self.default {
                ExportDefault::Accept => Ok(NO_OPERATIONS),
                ExportDefault::OwnOnly if is_own => Ok(NO_OPERATIONS),
                ExportDefault::OwnOnly => Err(Refused::NotOwn),
                ExportDefault::Reject => Err(Refused::Closed),
            },
        }
    }

    /// The attributes of a prefix of `family` as these peers get them, with the changes of the rule
    /// that admitted the route.
    ///
    /// # Errors
    /// Why no route with these attributes passes.
    pub fn transform(
        &self,
        attributes: &PathAttributes,
        source: RouteSource,
        family: Family,
        operations: &[Operation],
    ) -> Result<PathAttributes, Rejection> {
        // RFC 1997: well-known communities. Those that the rule adds are for the receiver.
        let has = |community| attributes.communities.contains(&community);
        if has(Community::NO_ADVERTISE) {
            return Err(Rejection::Community(Community::NO_ADVERTISE));
        }
        let inside = [Community::NO_EXPORT, Community::NO_EXPORT_SUBCONFED];
        if let Some(community) = inside.into_iter().find(|c| self.ebgp && has(*c)) {
            return Err(Rejection::Community(community));
        }
        if source == RouteSource::Aggregate && !self.ebgp {
            return Err(Rejection::AggregateInside);
        }
        if !reflect::passes(source, self.ebgp, self.client) {
            return Err(Rejection::NotReflected);
        }
        // RFC 9494 §4.3: only who knows what it means may hear of a route that is stale for long.
        if !self.long_lived && has(Community::LLGR_STALE) {
            return Err(Rejection::LongStale);
        }
        let role = self.role.filter(|_| self.ebgp);
        if role.is_some_and(|role| !role::may_say(role, attributes)) {
            return Err(Rejection::RouteLeak);
        }
        let mut out = attributes.clone();
        if let Some(receiver) = self.remove_private_as.filter(|_| self.ebgp) {
            out.as_path.remove_private(receiver);
        }
        // What the rule prepends stays, private or not, and comes before our own AS.
        action::apply(operations, &mut out);
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
        self.set_next_hop(&mut out, source, family)
            .ok_or(Rejection::NoNextHop)?;
        Ok(out)
    }

    /// RFC 8326 §4.2. Peers inside the AS may not know the community, but all know LOCAL_PREF.
    fn ask_to_be_used_last(&self, out: &mut PathAttributes) {
        out.add_community(Community::GRACEFUL_SHUTDOWN);
        if !self.ebgp {
            out.local_pref = Some(LocalPref(0));
        }
    }

    fn clean_for_ebgp(&self, out: &mut PathAttributes, source: RouteSource) {
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
            // We forward nothing: who has the specifics is configured.
            _ if source == RouteSource::Aggregate => false,
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

/// A [`Rejection`] on export, not put in words yet: most routes are refused to somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused<'a> {
    Summarized(Prefix),
    ByFilter(&'a str),
    NotOwn,
    Closed,
}

impl From<Refused<'_>> for Rejection {
    fn from(refused: Refused<'_>) -> Rejection {
        match refused {
            Refused::Summarized(aggregate) => Rejection::Summarized(aggregate),
            Refused::ByFilter(name) => Rejection::Filter(name.to_owned()),
            Refused::NotOwn => Rejection::NotOwn,
            Refused::Closed => Rejection::ClosedForExport,
        }
    }
}

#[cfg(test)]
mod tests;
