//! BGPFilter: rules over prefixes, first match wins (Calico's semantics).

use crate::types::{Family, Prefix};

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

/// Asks the filters in order; the first rule that matches decides, with its filter's name.
/// `None`: no rule matched, the default of the peer's kind decides.
pub fn decide<'a>(
    filters: &'a [Filter],
    direction: Direction,
    prefix: &Prefix,
) -> Option<(Action, &'a str)> {
    filters.iter().find_map(|filter| {
        filter
            .rules(direction, prefix.family())
            .iter()
            .find(|rule| rule.prefixes.matches(prefix))
            .map(|rule| (rule.action, filter.name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect(text)
    }

    #[test]
    fn match_operators_follow_calico() {
        let inside = |lengths| PrefixMatch::In {
            cidr: prefix("10.0.0.0/8"),
            lengths,
        };
        let outside = |lengths| PrefixMatch::NotIn {
            cidr: prefix("10.0.0.0/8"),
            lengths,
        };
        for (name, rule, text, expected) in [
            ("any", PrefixMatch::Any, "10.0.0.0/8", true),
            (
                "equal",
                PrefixMatch::Equal(prefix("10.0.0.0/8")),
                "10.0.0.0/8",
                true,
            ),
            (
                "equal is exact",
                PrefixMatch::Equal(prefix("10.0.0.0/8")),
                "10.1.0.0/16",
                false,
            ),
            (
                "not equal",
                PrefixMatch::NotEqual(prefix("10.0.0.0/8")),
                "10.1.0.0/16",
                true,
            ),
            (
                "not equal, other family",
                PrefixMatch::NotEqual(prefix("10.0.0.0/8")),
                "2001:db8::/32",
                false,
            ),
            ("in takes itself", inside(None), "10.0.0.0/8", true),
            ("in takes longer", inside(None), "10.1.0.0/16", true),
            (
                "in with lengths",
                inside(Some((24, 32))),
                "10.1.0.0/16",
                false,
            ),
            (
                "in with lengths, inclusive",
                inside(Some((16, 32))),
                "10.1.0.0/16",
                true,
            ),
            ("not in", outside(None), "11.0.0.0/8", true),
            (
                "not in, wrong length",
                outside(Some((24, 32))),
                "10.1.0.0/16",
                true,
            ),
        ] {
            assert_eq!(rule.matches(&prefix(text)), expected, "{name}");
        }
    }

    #[test]
    fn first_matching_rule_decides_across_filters() {
        let rule = |text: &str, action| Rule {
            prefixes: PrefixMatch::In {
                cidr: prefix(text),
                lengths: None,
            },
            action,
        };
        let first = Filter {
            name: "first".into(),
            import_v4: vec![rule("10.1.0.0/16", Action::Reject)],
            ..Filter::default()
        };
        let second = Filter {
            name: "second".into(),
            import_v4: vec![rule("10.0.0.0/8", Action::Accept)],
            ..Filter::default()
        };
        let filters = [first, second];
        let ask = |text: &str| decide(&filters, Direction::Import, &prefix(text));
        assert_eq!(ask("10.1.2.0/24"), Some((Action::Reject, "first")));
        assert_eq!(ask("10.2.0.0/16"), Some((Action::Accept, "second")));
        assert_eq!(ask("192.0.2.0/24"), None);
        assert_eq!(
            decide(&filters, Direction::Export, &prefix("10.1.2.0/24")),
            None
        );
    }
}
