//! What a table of nftables holds: chains, rules, sets and maps.
//!
//! Pure. Sets and maps are values down to their elements, so that two of them can be compared
//! wherever they come from. A rule is its text: the kernel shows rules in other words than it was
//! given, so chains are compared by a fingerprint that each rule carries in its comment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha1::{Digest, Sha1};

/// Longest name of an interface (IFNAMSIZ less its end).
const INTERFACE_NAME_MAX: usize = 15;
/// Octets of the hash that a fingerprint shows in hexadecimal.
const HASH_OCTETS: usize = 5;

/// By name. Sets and maps share one space of names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }

    /// Appends a rule to a chain that packets are sent to by other rules.
    pub fn rule(&mut self, chain: &str, rule: Rule) {
        self.chains
            .entry(chain.to_owned())
            .or_default()
            .rules
            .push(rule);
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// `None`: only reached by a jump.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain at a hook; what no rule decides is accepted.
    pub fn at(kind: &'static str, hook: &'static str, priority: i32) -> Chain {
        Chain {
            base: Some(Base {
                kind: kind.to_owned(),
                hook: hook.to_owned(),
                priority,
                policy: "accept".to_owned(),
            }),
            rules: Vec::new(),
        }
    }

    /// One comment per rule: what the rule is for, the hash of the whole chain and the rule's place
    /// in it. Whatever is added, removed or moved, the comments read differently.
    pub fn comments(&self) -> Vec<String> {
        let mut hasher = Sha1::new();
        for rule in &self.rules {
            for part in [rule.text.as_str(), "\t", rule.purpose, "\n"] {
                hasher.update(part);
            }
        }
        let digest = hasher.finalize();
        let mut hash = String::new();
        for octet in digest.iter().take(HASH_OCTETS) {
            let _ = write!(hash, "{octet:02x}");
        }
        let comment = |(at, rule): (usize, &Rule)| format!("{} [{hash}.{at}]", rule.purpose);
        self.rules.iter().enumerate().map(comment).collect()
    }
}

/// Where the kernel passes packets to a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    pub hook: String,
    pub priority: i32,
    pub policy: String,
}

/// Statements in the language of nft, without a comment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    pub text: String,
    /// For people who read the table; at most 80 octets without quotes.
    pub purpose: &'static str,
}

impl Rule {
    pub fn new(purpose: &'static str, text: impl Into<String>) -> Rule {
        Rule {
            text: text.into(),
            purpose,
        }
    }
}

/// A set, or with `value` a map.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Set {
    /// The parts that are concatenated.
    pub key: Vec<Kind>,
    pub value: Option<ValueKind>,
    /// Elements may be prefixes; they must not overlap.
    pub is_interval: bool,
    pub elements: BTreeSet<Element>,
}

impl Set {
    pub fn of(key: impl Into<Vec<Kind>>, elements: impl IntoIterator<Item = Vec<Field>>) -> Set {
        let element = |key| Element { key, value: None };
        Set {
            key: key.into(),
            elements: elements.into_iter().map(element).collect(),
            ..Set::default()
        }
    }

    /// Whether both differ in their elements at most.
    pub fn has_type_of(&self, other: &Set) -> bool {
        (&self.key, &self.value, self.is_interval) == (&other.key, &other.value, other.is_interval)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Interface,
    V4,
    V6,
    /// Of IP: 6 is TCP.
    Protocol,
    /// Of TCP, UDP or SCTP.
    Port,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueKind {
    Verdict,
    Fields(Vec<Kind>),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Element {
    pub key: Vec<Field>,
    /// Of a map.
    pub value: Option<Value>,
}

/// One part of an element.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Field {
    Interface(InterfaceName),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// Network and length. Only in sets of intervals.
    Prefix(IpAddr, u8),
    Protocol(u8),
    Port(u16),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Value {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Fields(Vec<Field>),
}

/// A name that can stand in quotes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// `None` if no interface can be called so, or if the name means something else to nft.
    pub fn new(name: &str) -> Option<InterfaceName> {
        let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.:@".contains(&octet);
        let is_fine = (1..=INTERFACE_NAME_MAX).contains(&name.len()) && name.bytes().all(is_plain);
        is_fine.then(|| InterfaceName(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
