//! BGPFilter: what is accepted from a peer and said to it, rule by rule.

use bgp::policy::{Action, Filter, PrefixMatch, Rule};
use bgp::types::{Family, Prefix};

use super::fields::Fields;
use super::object::Metadata;
use super::values;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BgpFilter {
    pub name: String,
    /// As the speaker takes it.
    pub filter: Filter,
}

pub(super) fn read(metadata: Metadata, spec: &mut Fields<'_, '_>) -> Option<BgpFilter> {
    let filter = Filter {
        name: metadata.name.clone(),
        import_v4: spec.mappings("importV4", |rule| read_rule(rule, Family::Ipv4)),
        export_v4: spec.mappings("exportV4", |rule| read_rule(rule, Family::Ipv4)),
        import_v6: spec.mappings("importV6", |rule| read_rule(rule, Family::Ipv6)),
        export_v6: spec.mappings("exportV6", |rule| read_rule(rule, Family::Ipv6)),
    };
    Some(BgpFilter {
        name: metadata.name,
        filter,
    })
}

#[derive(Clone, Copy)]
enum Operator {
    Equal,
    NotEqual,
    In,
    NotIn,
}

const OPERATORS: &[(&str, Operator)] = &[
    ("Equal", Operator::Equal),
    ("NotEqual", Operator::NotEqual),
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
];

fn read_rule(rule: &mut Fields<'_, '_>, family: Family) -> Option<Rule> {
    let action = rule.required("action", "write Accept or Reject", |value| {
        values::choice(
            value,
            &[("Accept", Action::Accept), ("Reject", Action::Reject)],
        )
    });
    let prefixes = read_match(rule, family);
    // A rule that ignored one of these would match more than it says.
    for field in [
        "source",
        "interface",
        "peerType",
        "communities",
        "asPathPrefix",
        "priority",
        "operations",
    ] {
        rule.refused(field, "match on cidr and prefixLength only");
    }
    Some(Rule {
        prefixes: prefixes?,
        action: action?,
    })
}

fn read_match(rule: &mut Fields<'_, '_>, family: Family) -> Option<PrefixMatch> {
    let has_cidr = rule.has("cidr");
    let has_operator = rule.has("matchOperator");
    let cidr = rule.optional("cidr", |value| of_family(values::prefix(value)?, family));
    let operator = rule.optional("matchOperator", |value| values::choice(value, OPERATORS));
    let lengths = read_lengths(rule, family);
    match (has_cidr, has_operator) {
        (false, false) => {
            if rule.has("prefixLength") {
                rule.reject(
                    "prefixLength",
                    "needs a cidr; write `cidr` and `matchOperator: In`",
                );
                return None;
            }
            return Some(PrefixMatch::Any);
        }
        (true, false) => {
            rule.reject(
                "matchOperator",
                "missing; write how cidr is compared: Equal, NotEqual, In or NotIn",
            );
            return None;
        }
        (false, true) => {
            rule.reject(
                "cidr",
                "missing; write the prefix that matchOperator compares with",
            );
            return None;
        }
        (true, true) => {}
    }
    let cidr = cidr?;
    let bounds = lengths.map(|(min, max)| {
        let longest = longest(family);
        (min.unwrap_or(cidr.length()), max.unwrap_or(longest))
    });
    match operator? {
        Operator::In => Some(PrefixMatch::In {
            cidr,
            lengths: bounds,
        }),
        Operator::NotIn => Some(PrefixMatch::NotIn {
            cidr,
            lengths: bounds,
        }),
        Operator::Equal | Operator::NotEqual if bounds.is_some() => {
            rule.reject(
                "prefixLength",
                "goes with matchOperator In or NotIn; use one of them",
            );
            None
        }
        Operator::Equal => Some(PrefixMatch::Equal(cidr)),
        Operator::NotEqual => Some(PrefixMatch::NotEqual(cidr)),
    }
}

/// `None`: no bounds given.
fn read_lengths(rule: &mut Fields<'_, '_>, family: Family) -> Option<(Option<u8>, Option<u8>)> {
    let longest = longest(family);
    let mut fields = rule.mapping("prefixLength")?;
    let min = fields.optional("min", |value| values::small_integer(value, 0..=longest));
    let max = fields.optional("max", |value| values::small_integer(value, 0..=longest));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        fields.reject("min", format!("{min} is more than max {max}; swap them"));
    }
    fields.finish();
    (min.is_some() || max.is_some()).then_some((min, max))
}

fn longest(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    }
}

fn of_family(cidr: Prefix, family: Family) -> Result<Prefix, String> {
    if cidr.family() == family {
        Ok(cidr)
    } else {
        Err(format!(
            "{cidr} is not {family}; move the rule to the other family's list"
        ))
    }
}
