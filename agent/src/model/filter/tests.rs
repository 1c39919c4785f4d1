use bgp::policy::Operation;
use serde_json::{Map, json};

use super::*;
use crate::model::fields::{Effect, Problem};

/// What is read of a rule, and `field: reason` of what is wrong with it.
fn read_one(rule: Value, family: Family) -> (Option<Rule>, Vec<Problem>) {
    let mut problems = Vec::new();
    let map: Map<String, Value> = rule.as_object().expect("a mapping").clone();
    let mut fields = Fields::of_document(&map, &mut problems);
    let rule = read_rule(&mut fields, family);
    fields.finish();
    (rule, problems)
}

fn read_v4(rule: Value) -> Rule {
    let (read, problems) = read_one(rule.clone(), Family::Ipv4);
    assert_eq!(problems, [], "{rule}");
    read.expect("no problems")
}

/// A rule with this beside its action.
fn with(fields: Value) -> Value {
    let mut rule = fields;
    let map = rule.as_object_mut().expect("a mapping");
    map.entry("action").or_insert(json!("Accept"));
    rule
}

fn any(action: Action) -> Rule {
    Rule::new(PrefixMatch::Any, action)
}

fn accept() -> Rule {
    any(Action::ACCEPT)
}

#[test]
fn every_field_is_read() {
    for (fields, expected) in [
        (json!({}), accept()),
        (json!({"action": "Reject"}), any(Action::Reject)),
        (
            json!({"source": "RemotePeers"}),
            Rule {
                from_remote_peers: true,
                ..accept()
            },
        ),
        (
            json!({"interface": "*.calico"}),
            Rule {
                interface: "*.calico".parse().ok(),
                ..accept()
            },
        ),
        (json!({"interface": ""}), accept()),
        (
            json!({"peerType": "eBGP"}),
            Rule {
                peer_type: Some(PeerType::Ebgp),
                ..accept()
            },
        ),
        (
            json!({"peerType": "iBGP"}),
            Rule {
                peer_type: Some(PeerType::Ibgp),
                ..accept()
            },
        ),
        (
            json!({"communities": {"values": ["65000:100"]}}),
            Rule {
                community: "65000:100".parse().ok(),
                ..accept()
            },
        ),
        (
            json!({"communities": {"values": ["65000:100:4294967295"]}}),
            Rule {
                community: "65000:100:4294967295".parse().ok(),
                ..accept()
            },
        ),
        (
            json!({"asPathPrefix": [65000, "65001", "1.10"]}),
            Rule {
                as_path_prefix: vec![Asn(65000), Asn(65001), Asn(65546)],
                ..accept()
            },
        ),
        (json!({"asPathPrefix": []}), accept()),
        (
            json!({"priority": 2147483646}),
            Rule {
                priority: Priority::new(2_147_483_646),
                ..accept()
            },
        ),
        (
            json!({"operations": [
                {"addCommunity": {"value": "65000:200"}},
                {"prependASPath": {"prefix": [65001, "0.65002"]}},
                {"setPriority": {"value": 256}},
                {"addCommunity": {"value": "1:2:3"}},
            ]}),
            any(Action::Accept(vec![
                Operation::AddCommunity("65000:200".parse().expect("community")),
                Operation::PrependAsPath(vec![Asn(65001), Asn(65002)]),
                Operation::SetPriority(Priority::new(256).expect("in range")),
                Operation::AddCommunity("1:2:3".parse().expect("community")),
            ])),
        ),
    ] {
        assert_eq!(read_v4(with(fields.clone())), expected, "{fields}");
    }
}

/// The example of Calico's documentation with every match and operation in one rule.
#[test]
fn all_fields_go_together() {
    let rule = read_v4(json!({
        "cidr": "10.244.0.0/16",
        "matchOperator": "In",
        "prefixLength": {"min": 24, "max": 28},
        "source": "RemotePeers",
        "peerType": "iBGP",
        "communities": {"values": ["65000:100"]},
        "asPathPrefix": [65000],
        "priority": 512,
        "interface": "eth0",
        "action": "Accept",
        "operations": [
            {"setPriority": {"value": 256}},
            {"addCommunity": {"value": "65000:200"}},
            {"prependASPath": {"prefix": [65001, 65002]}},
        ],
    }));
    assert_eq!(
        rule,
        Rule {
            prefixes: PrefixMatch::In {
                cidr: "10.244.0.0/16".parse().expect("cidr"),
                lengths: Some((24, 28)),
            },
            from_remote_peers: true,
            interface: "eth0".parse().ok(),
            peer_type: Some(PeerType::Ibgp),
            community: "65000:100".parse().ok(),
            as_path_prefix: vec![Asn(65000)],
            priority: Priority::new(512),
            action: Action::Accept(vec![
                Operation::SetPriority(Priority::new(256).expect("in range")),
                Operation::AddCommunity("65000:200".parse().expect("community")),
                Operation::PrependAsPath(vec![Asn(65001), Asn(65002)]),
            ]),
        }
    );
}

#[test]
fn lengths_are_those_that_prefixes_inside_the_cidr_can_have() {
    for (family, cidr, lengths, expected) in [
        (Family::Ipv4, "10.0.0.0/8", json!({"min": 16}), (16, 32)),
        (Family::Ipv4, "10.0.0.0/8", json!({"max": 24}), (8, 24)),
        (Family::Ipv4, "10.0.0.0/8", json!({"min": 0}), (8, 32)),
        (
            Family::Ipv4,
            "10.0.0.0/8",
            json!({"min": 2, "max": 8}),
            (8, 8),
        ),
        (Family::Ipv6, "fd00::/8", json!({"min": 48}), (48, 128)),
        (
            Family::Ipv6,
            "fd00::/8",
            json!({"min": 4, "max": 64}),
            (8, 64),
        ),
    ] {
        for operator in ["In", "NotIn"] {
            let rule = with(json!({
                "cidr": cidr,
                "matchOperator": operator,
                "prefixLength": lengths.clone(),
            }));
            let (read, problems) = read_one(rule.clone(), family);
            assert_eq!(problems, [], "{rule}");
            let cidr = cidr.parse().expect(cidr);
            let lengths = Some(expected);
            let expected = match operator {
                "In" => PrefixMatch::In { cidr, lengths },
                _ => PrefixMatch::NotIn { cidr, lengths },
            };
            assert_eq!(read.map(|rule| rule.prefixes), Some(expected), "{rule}");
        }
    }
}

#[test]
fn lengths_beside_equal_are_reported_and_change_nothing() {
    let cidr = "10.0.0.0/8".parse().expect("cidr");
    for (operator, expected) in [
        ("Equal", PrefixMatch::Equal(cidr)),
        ("NotEqual", PrefixMatch::NotEqual(cidr)),
    ] {
        let rule = with(json!({
            "cidr": "10.0.0.0/8",
            "matchOperator": operator,
            "prefixLength": {"max": 16},
        }));
        let (read, problems) = read_one(rule, Family::Ipv4);
        assert_eq!(read.map(|rule| rule.prefixes), Some(expected));
        let expected = Problem {
            field: "prefixLength".to_owned(),
            reason:
                "has no effect: Equal and NotEqual compare the length of cidr already; remove it"
                    .to_owned(),
            effect: Effect::Reported,
        };
        assert_eq!(problems, [expected]);
    }
}

#[test]
fn wrong_fields_are_named_with_what_to_write() {
    let eleven_operations = vec![json!({"setPriority": {"value": 1}}); 11];
    let eleven_asns = vec![65001; 11];
    for (fields, expected) in [
        (
            json!({"source": "Local"}),
            vec!["source: expected one of RemotePeers, found \"Local\""],
        ),
        (
            json!({"peerType": "ebgp"}),
            vec!["peerType: expected one of eBGP, iBGP, found \"ebgp\""],
        ),
        (
            json!({"interface": "eth&"}),
            vec![
                "interface: '&' is not in an interface's name; write letters, digits, `_`, `.`, `-` and `*`",
            ],
        ),
        (
            json!({"interface": "a234567890123456"}),
            vec!["interface: an interface has a name of 1 to 15 characters"],
        ),
        (
            json!({"communities": {}}),
            vec!["communities.values: missing; write one community"],
        ),
        (
            json!({"communities": {"values": []}}),
            vec!["communities.values: 0 communities; write exactly one, and a rule for each other"],
        ),
        (
            json!({"communities": {"values": ["1:2", "3:4"]}}),
            vec!["communities.values: 2 communities; write exactly one, and a rule for each other"],
        ),
        (
            json!({"communities": {"values": ["65536:1"]}}),
            vec![
                "communities.values[0]: expected a community aa:nn with both below 65536, or aa:nn:mm with all below 2^32, found \"65536:1\"",
            ],
        ),
        (
            json!({"communities": {"values": [65000]}}),
            vec![
                "communities.values[0]: expected a community aa:nn with both below 65536, or aa:nn:mm with all below 2^32, found the number 65000",
            ],
        ),
        (
            json!({"communities": ["1:2"]}),
            vec!["communities: expected a mapping, found a list"],
        ),
        (
            json!({"asPathPrefix": [65000, "x", 4294967296u64]}),
            vec![
                "asPathPrefix[1]: expected an AS number from 1 to 4294967295 (`HIGH.LOW` in quotes), found \"x\"",
                "asPathPrefix[2]: expected an AS number from 1 to 4294967295 (`HIGH.LOW` in quotes), found the number 4294967296",
            ],
        ),
        (
            json!({"priority": 0}),
            vec!["priority: expected a whole number from 1 to 2147483646, found the number 0"],
        ),
        (
            json!({"priority": 2147483647}),
            vec![
                "priority: expected a whole number from 1 to 2147483646, found the number 2147483647",
            ],
        ),
        (
            json!({"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}),
            vec!["operations: goes with action Accept only; remove it, or write `action: Accept`"],
        ),
        (
            json!({"operations": []}),
            vec!["operations: empty; write at least one, or remove it"],
        ),
        (
            json!({"operations": eleven_operations}),
            vec!["operations: 11 operations; write 10 at most"],
        ),
        (
            json!({"operations": [{}]}),
            vec![
                "operations[0]: no operation; write one of addCommunity, prependASPath, setPriority",
            ],
        ),
        (
            json!({"operations": [{"setPriority": {"value": 1}, "addCommunity": {"value": "1:2"}}]}),
            vec![
                "operations[0].setPriority: addCommunity is given as well; write an operation for each",
            ],
        ),
        (
            json!({"operations": [{"setPriority": {}}, {"addCommunity": {"value": "1"}}]}),
            vec![
                "operations[0].setPriority.value: missing; write the priority to set",
                "operations[1].addCommunity.value: expected a community aa:nn with both below 65536, or aa:nn:mm with all below 2^32, found \"1\"",
            ],
        ),
        (
            json!({"operations": [{"prependASPath": {}}, {"prependASPath": {"prefix": []}}, {"prependASPath": {"prefix": eleven_asns}}]}),
            vec![
                "operations[0].prependASPath.prefix: missing; write the AS numbers to prepend",
                "operations[1].prependASPath.prefix: empty; write at least one AS number",
                "operations[2].prependASPath.prefix: 11 AS numbers; write 10 at most",
            ],
        ),
        (
            json!({"operations": [{"setPriorty": {"value": 1}}]}),
            vec![
                "operations[0].setPriorty: unknown field; did you mean `setPriority`?",
                "operations[0]: no operation; write one of addCommunity, prependASPath, setPriority",
            ],
        ),
        (
            json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 7}}),
            vec![
                "prefixLength.max: 7 is less than the length of 10.0.0.0/8, so that no prefix is meant; raise it",
            ],
        ),
        (
            json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 33}}),
            vec!["prefixLength.max: expected a whole number from 0 to 32, found the number 33"],
        ),
    ] {
        let (_, problems) = read_one(with(fields.clone()), Family::Ipv4);
        let mut shown: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}", problem.field, problem.reason))
            .collect();
        shown.sort();
        assert_eq!(shown, expected, "{fields}");
        assert!(
            problems.iter().all(|p| p.effect == Effect::Rejects),
            "{fields}"
        );
    }
}
