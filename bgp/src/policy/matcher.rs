//! BGPFilter: rules over prefixes, first match wins (Calico's semantics).

use crate::types::Prefix;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Action {
    Accept,
    Reject,
}

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

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Rule {
    pub prefixes: PrefixMatch,
    pub action: Action,
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
