//! A map by prefix for tables as large as a full feed.
//!
//! Hashed by family: an IPv4 entry takes eight octets and its value, where a key of both families
//! takes twenty.

use bgp::types::{Family, Prefix};
use hashbrown::HashMap;

type Key4 = (u32, u8);
type Key6 = ([u8; 16], u8);

/// In no order.
#[derive(Clone, Debug)]
pub struct PrefixMap<T> {
    ipv4: HashMap<Key4, T>,
    ipv6: HashMap<Key6, T>,
}

impl<T> Default for PrefixMap<T> {
    fn default() -> PrefixMap<T> {
        PrefixMap {
            ipv4: HashMap::new(),
            ipv6: HashMap::new(),
        }
    }
}

impl<T> PrefixMap<T> {
    pub fn get(&self, prefix: &Prefix) -> Option<&T> {
        match *prefix {
            Prefix::V4 { bits, length } => self.ipv4.get(&(bits, length)),
            Prefix::V6 { bits, length } => self.ipv6.get(&(bits, length)),
        }
    }

    pub fn get_mut(&mut self, prefix: &Prefix) -> Option<&mut T> {
        match *prefix {
            Prefix::V4 { bits, length } => self.ipv4.get_mut(&(bits, length)),
            Prefix::V6 { bits, length } => self.ipv6.get_mut(&(bits, length)),
        }
    }

    pub fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        match prefix {
            Prefix::V4 { bits, length } => self.ipv4.insert((bits, length), value),
            Prefix::V6 { bits, length } => self.ipv6.insert((bits, length), value),
        }
    }

    pub fn remove(&mut self, prefix: &Prefix) -> Option<T> {
        match *prefix {
            Prefix::V4 { bits, length } => self.ipv4.remove(&(bits, length)),
            Prefix::V6 { bits, length } => self.ipv6.remove(&(bits, length)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &T)> {
        let ipv4 = self.ipv4.iter().map(|(key, value)| (prefix4(*key), value));
        let ipv6 = self.ipv6.iter().map(|(key, value)| (prefix6(*key), value));
        ipv4.chain(ipv6)
    }

    /// Of one family.
    pub fn prefixes(&self, family: Family) -> impl Iterator<Item = Prefix> {
        let ipv4 = self.ipv4.keys().copied().map(prefix4);
        let ipv6 = self.ipv6.keys().copied().map(prefix6);
        ipv4.filter(move |_| family == Family::Ipv4)
            .chain(ipv6.filter(move |_| family == Family::Ipv6))
    }

    /// Of one family: keeps those of which `is_kept` says so, which may change them.
    pub fn retain(&mut self, family: Family, mut is_kept: impl FnMut(Prefix, &mut T) -> bool) {
        match family {
            Family::Ipv4 => self.ipv4.retain(|key, value| is_kept(prefix4(*key), value)),
            Family::Ipv6 => self.ipv6.retain(|key, value| is_kept(prefix6(*key), value)),
        }
    }
}

fn prefix4((bits, length): Key4) -> Prefix {
    Prefix::V4 { bits, length }
}

fn prefix6((bits, length): Key6) -> Prefix {
    Prefix::V6 { bits, length }
}
