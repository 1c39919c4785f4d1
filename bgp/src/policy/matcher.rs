//! BGPFilter: rules over routes, the first that matches decides (Calico's semantics).

use super::action::{Action, CommunityValue, Priority};
use super::interface::InterfacePattern;
use crate::types::{Asn, Family, LocalPref, Prefix};
use crate::wire::attribute::PathAttributes;

/// How a rule's `cidr` is compared with a route's prefix.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PrefixMatch {
    /// No cidr given: every prefix of the family.
    Any,
    Equal(Prefix),
    NotEqual(Prefix),
    /// Equal or longer; `lengths` further bounds the length (inclusive).
    In {
        cidr: Prefix,
        lengths: Option<(u8, u8)>,
    },
    NotIn {
        cidr: Prefix,
        lengths: Option<(u8, u8)>,
    },
}

/// Which sessions a rule is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PeerType {
    Ebgp,
    Ibgp,
}

/// One rule. It is about the routes that are all of what it asks; what is not given asks nothing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Rule {
    pub prefixes: PrefixMatch,
    /// Only routes of BGP peers, none of our own. On import all are.
    pub from_remote_peers: bool,
    /// Only routes whose outgoing interface is known and called so.
    pub interface: Option<InterfacePattern>,
    /// Only towards or from such peers.
    pub peer_type: Option<PeerType>,
    pub community: Option<CommunityValue>,
    /// What AS_PATH begins with; empty: anything.
    pub as_path_prefix: Vec<Asn>,
    pub priority: Option<Priority>,
    pub action: Action,
}

impl Rule {
    /// A rule about these prefixes alone.
    pub fn new(prefixes: PrefixMatch, action: Action) -> Rule {
        Rule {
            prefixes,
            from_remote_peers: false,
            interface: None,
            peer_type: None,
            community: None,
            as_path_prefix: Vec::new(),
            priority: None,
            action,
        }
    }

    fn matches(&self, route: &RouteView<'_>) -> bool {
        self.prefixes.matches(route.prefix)
            && (!self.from_remote_peers || !route.is_own)
            && self.peer_type.is_none_or(|kind| kind == route.peer_type)
            && self.matches_interface(route.interface)
            && self
                .community
                .is_none_or(|value| value.is_in(route.attributes))
            && route.attributes.as_path.begins_with(&self.as_path_prefix)
            && self
                .priority
                .is_none_or(|priority| route.local_pref == Some(priority.local_pref()))
    }

    /// BIRD takes a route without interface for one whose interface has the empty name, so that
    /// `*` matches it there. Calico's words are "routes with an outgoing interface that matches".
    fn matches_interface(&self, interface: Option<&str>) -> bool {
        match &self.interface {
            None => true,
            Some(pattern) => interface.is_some_and(|name| pattern.matches(name)),
        }
    }
}

/// One BGPFilter's rules of one direction, by family. Order decides.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Filter {
    /// The object's name: shown in `rejectedReason`.
    pub name: String,
    pub import_v4: Vec<Rule>,
    pub export_v4: Vec<Rule>,
    pub import_v6: Vec<Rule>,
    pub export_v6: Vec<Rule>,
}

/// A route as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct RouteView<'a> {
    pub prefix: &'a Prefix,
    /// On import as received, on export as they are in the table: before changes by the rule.
    pub attributes: &'a PathAttributes,
    pub local_pref: Option<LocalPref>,
    /// This speaker originates it.
    pub is_own: bool,
    /// Of the session it came over or would go over.
    pub peer_type: PeerType,
    /// Where packets to it leave; `None`: not known.
    pub interface: Option<&'a str>,
}

impl PrefixMatch {
    /// Whether `prefix` is meant. A prefix of the other family never is.
    pub fn matches(&self, prefix: &Prefix) -> bool {
        let inside = |cidr: &Prefix, lengths: &Option<(u8, u8)>| {
            cidr.covers(prefix)
                && lengths.is_none_or(|(shortest, longest)| {
                    (shortest..=longest).contains(&prefix.length())
                })
        };
        match self {
            PrefixMatch::Any => true,
            PrefixMatch::Equal(cidr) => cidr == prefix,
            PrefixMatch::NotEqual(cidr) => cidr.family() == prefix.family() && cidr != prefix,
            PrefixMatch::In { cidr, lengths } => inside(cidr, lengths),
            PrefixMatch::NotIn { cidr, lengths } => {
                cidr.family() == prefix.family() && !inside(cidr, lengths)
            }
        }
    }
}

/// Which of a filter's lists is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    Import,
    Export,
}

/// What the filters say of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision<'a> {
    pub action: &'a Action,
    /// The name of the filter whose rule it was.
    pub filter: &'a str,
}

impl Filter {
    fn rules(&self, direction: Direction, family: Family) -> &[Rule] {
        match (direction, family) {
            (Direction::Import, Family::Ipv4) => &self.import_v4,
            (Direction::Import, Family::Ipv6) => &self.import_v6,
            (Direction::Export, Family::Ipv4) => &self.export_v4,
            (Direction::Export, Family::Ipv6) => &self.export_v6,
        }
    }
}

/// Asks the filters in order; the first rule that matches decides. `None`: no rule matched, the
/// default of the peer's kind decides.
pub fn decide<'a>(
    filters: &'a [Filter],
    direction: Direction,
    route: &RouteView<'_>,
) -> Option<Decision<'a>> {
    filters.iter().find_map(|filter| {
        let rules = filter.rules(direction, route.prefix.family());
        let rule = rules.iter().find(|rule| rule.matches(route))?;
        Some(Decision {
            action: &rule.action,
            filter: &filter.name,
        })
    })
}

/// The filters with their rules of one direction alone, in order; those that have none are left out.
/// A change of the other direction's rules is then none of theirs.
pub fn of_direction(filters: &[Filter], direction: Direction) -> Vec<Filter> {
    let alone = |filter: &Filter| match direction {
        Direction::Import => Filter {
            name: filter.name.clone(),
            import_v4: filter.import_v4.clone(),
            import_v6: filter.import_v6.clone(),
            ..Filter::default()
        },
        Direction::Export => Filter {
            name: filter.name.clone(),
            export_v4: filter.export_v4.clone(),
            export_v6: filter.export_v6.clone(),
            ..Filter::default()
        },
    };
    filters
        .iter()
        .map(alone)
        .filter(|filter| {
            let mut families = Family::ALL.into_iter();
            families.any(|family| !filter.rules(direction, family).is_empty())
        })
        .collect()
}

/// Whether any rule of a direction asks for the interface.
pub fn asks_for_interface(filters: &[Filter], direction: Direction) -> bool {
    filters.iter().any(|filter| {
        Family::ALL
            .into_iter()
            .flat_map(|family| filter.rules(direction, family))
            .any(|rule| rule.interface.is_some())
    })
}

#[cfg(test)]
mod tests;
