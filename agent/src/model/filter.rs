//! BGPFilter: what is accepted from a peer and said to it, rule by rule.

mod operation;

use bgp::policy::{
    Action, CommunityValue, Filter, InterfacePattern, PeerType, PrefixMatch, Priority, Rule,
};
use bgp::types::{Asn, Family, Prefix};
use serde_json::Value;

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
    let action = read_action(rule);
    let prefixes = read_match(rule, family);
    let source = rule.optional("source", |value| {
        values::choice(value, &[("RemotePeers", true)])
    });
    let peer_type = rule.optional("peerType", |value| {
        values::choice(value, &[("eBGP", PeerType::Ebgp), ("iBGP", PeerType::Ibgp)])
    });
    let interface = rule.optional("interface", interface).flatten();
    let community = read_community(rule);
    let as_path_prefix = read_asns(rule, "asPathPrefix");
    let priority = rule.optional("priority", priority);
    // A problem with any field rejects the object, so that no rule is used without it.
    Some(Rule {
        prefixes: prefixes?,
        from_remote_peers: source.unwrap_or(false),
        interface,
        peer_type,
        community,
        as_path_prefix,
        priority,
        action: action?,
    })
}

fn read_action(rule: &mut Fields<'_, '_>) -> Option<Action> {
    #[derive(Clone, Copy)]
    enum Word {
        Accept,
        Reject,
    }
    let word = rule.required("action", "write Accept or Reject", |value| {
        values::choice(value, &[("Accept", Word::Accept), ("Reject", Word::Reject)])
    });
    let has_operations = rule.has("operations");
    let operations = operation::read(rule);
    match word? {
        Word::Accept => Some(Action::Accept(operations)),
        Word::Reject if has_operations => {
            rule.reject(
                "operations",
                "goes with action Accept only; remove it, or write `action: Accept`",
            );
            None
        }
        Word::Reject => Some(Action::Reject),
    }
}

/// Calico writes an empty text where there is none.
fn interface(value: &Value) -> Result<Option<InterfacePattern>, String> {
    match values::text(value)?.as_str() {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error: bgp::policy::BadInterfacePattern| error.to_string()),
    }
}

fn read_community(rule: &mut Fields<'_, '_>) -> Option<CommunityValue> {
    let mut communities = rule.mapping("communities")?;
    let is_given = communities.has("values");
    let found = communities.list("values", community);
    let count = communities.length("values");
    match (is_given, count) {
        (false, _) => communities.reject("values", "missing; write one community"),
        (true, Some(1) | None) => {}
        (true, Some(count)) => communities.reject(
            "values",
            format!("{count} communities; write exactly one, and a rule for each other"),
        ),
    }
    communities.finish();
    found?.into_iter().next()
}

fn community(value: &Value) -> Result<CommunityValue, String> {
    let wrong = || {
        values::expected(
            "a community aa:nn with both below 65536, or aa:nn:mm with all below 2^32",
            value,
        )
    };
    let text = value.as_str().ok_or_else(wrong)?;
    text.parse().map_err(|_| wrong())
}

fn read_asns(fields: &mut Fields<'_, '_>, name: &'static str) -> Vec<Asn> {
    fields.list(name, values::asn).unwrap_or_default()
}

fn priority(value: &Value) -> Result<Priority, String> {
    let range = u64::from(Priority::MIN)..=u64::from(Priority::MAX);
    let number = values::integer(value, range)?;
    u32::try_from(number)
        .ok()
        .and_then(Priority::new)
        .ok_or_else(|| values::expected("a priority", value))
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
    let (cidr, operator) = (cidr?, operator?);
    let lengths = match lengths {
        Some(lengths) => Some(bounded(rule, &cidr, lengths)?),
        None => None,
    };
    if lengths.is_some() && matches!(operator, Operator::Equal | Operator::NotEqual) {
        rule.report(
            "prefixLength",
            "has no effect: Equal and NotEqual compare the length of cidr already; remove it",
        );
    }
    Some(match operator {
        Operator::Equal => PrefixMatch::Equal(cidr),
        Operator::NotEqual => PrefixMatch::NotEqual(cidr),
        Operator::In => PrefixMatch::In { cidr, lengths },
        Operator::NotIn => PrefixMatch::NotIn { cidr, lengths },
    })
}

/// The lengths that prefixes inside `cidr` can have, as far as they are asked for.
fn bounded(
    rule: &mut Fields<'_, '_>,
    cidr: &Prefix,
    (min, max): (Option<u8>, Option<u8>),
) -> Option<(u8, u8)> {
    let shortest = cidr.length();
    let min = min.map_or(shortest, |min| min.max(shortest));
    let max = max.unwrap_or(longest(cidr.family()));
    if max < shortest {
        rule.reject(
            "prefixLength.max",
            format!(
                "{max} is less than the length of {cidr}, so that no prefix is meant; raise it"
            ),
        );
        return None;
    }
    Some((min, max))
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

#[cfg(test)]
mod tests;
