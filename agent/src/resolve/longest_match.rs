//! A table of prefixes, asked for the longest one that covers something.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::types::{Family, Prefix};

/// Built once and asked often. A lookup takes one map access for each prefix length present.
#[derive(Clone, Debug)]
pub struct LongestMatch<T> {
    entries: BTreeMap<Prefix, T>,
    lengths_v4: BTreeSet<u8>,
    lengths_v6: BTreeSet<u8>,
}

impl<T> LongestMatch<T> {
    /// Of two values for one prefix `prefers(new, old)` says whether the later replaces the earlier.
    pub fn new(
        values: impl IntoIterator<Item = (Prefix, T)>,
        prefers: impl Fn(&T, &T) -> bool,
    ) -> LongestMatch<T> {
        let mut table = LongestMatch {
            entries: BTreeMap::new(),
            lengths_v4: BTreeSet::new(),
            lengths_v6: BTreeSet::new(),
        };
        for (prefix, value) in values {
            if table
                .entries
                .get(&prefix)
                .is_some_and(|old| !prefers(&value, old))
            {
                continue;
            }
            match prefix.family() {
                Family::Ipv4 => table.lengths_v4.insert(prefix.length()),
                Family::Ipv6 => table.lengths_v6.insert(prefix.length()),
            };
            table.entries.insert(prefix, value);
        }
        table
    }

    /// The value of the longest prefix that covers `inner`, itself included.
    pub fn covering(&self, inner: &Prefix) -> Option<(Prefix, &T)> {
        let lengths = match inner.family() {
            Family::Ipv4 => &self.lengths_v4,
            Family::Ipv6 => &self.lengths_v6,
        };
        lengths.range(..=inner.length()).rev().find_map(|length| {
            let outer = Prefix::new(inner.network(), *length)?;
            self.entries.get(&outer).map(|value| (outer, value))
        })
    }

    pub fn of_address(&self, address: IpAddr) -> Option<(Prefix, &T)> {
        self.covering(&Prefix::host(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_covering_prefix_is_found() {
        let prefix = |text: &str| text.parse::<Prefix>().expect(text);
        let table = LongestMatch::new(
            ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]
                .map(|text| (prefix(text), text)),
            |_, _| true,
        );
        for (name, inner, expected) in [
            ("inside the longest", "10.1.2.0/24", Some("10.1.0.0/16")),
            ("itself", "10.1.0.0/16", Some("10.1.0.0/16")),
            (
                "shorter than the longest",
                "10.0.0.0/15",
                Some("10.0.0.0/8"),
            ),
            ("default", "192.0.2.0/24", Some("0.0.0.0/0")),
            ("the default itself", "0.0.0.0/0", Some("0.0.0.0/0")),
            ("v6", "2001:db8:1::/48", Some("2001:db8::/32")),
            ("v6 without default", "2001:db9::/32", None),
        ] {
            let found = table.covering(&prefix(inner)).map(|(_, text)| *text);
            assert_eq!(found, expected, "{name}");
        }
    }
}
