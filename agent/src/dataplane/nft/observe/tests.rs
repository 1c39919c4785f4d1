use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

/// What nft 1.0.6 on Linux 6.18 printed of a table made by hand.
const LISTING: &str = include_str!("nft-1.0.6.json");

fn listing() -> Observed {
    parse(LISTING).expect("nft's own output")
}

fn iface(name: &str) -> Field {
    Field::Interface(InterfaceName::new(name).expect("a name"))
}

fn v4(text: &str) -> Field {
    Field::V4(text.parse().expect("an address"))
}

fn elements_of(name: &str) -> BTreeSet<Element> {
    match listing().sets.get(name) {
        Some(ObservedSet::Known(set)) => set.elements.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn chains_are_read_with_their_hook_and_the_comment_of_each_rule() {
    let observed = listing();
    let prerouting = &observed.chains["prerouting"];
    assert_eq!(
        prerouting.base,
        super::super::model::Chain::at("filter", "prerouting", -300).base
    );
    assert_eq!(
        prerouting.comments,
        ["from workloads [0123456789.0]", ""],
        "a rule without a comment counts"
    );
    assert_eq!(observed.chains["fw-a"], ObservedChain::default());
    assert!(!observed.has_strange_objects);
}

#[test]
fn elements_of_sets_are_read_by_their_type() {
    let pair = |name, address| Element {
        key: vec![iface(name), v4(address)],
        value: None,
    };
    assert_eq!(
        elements_of("s4"),
        BTreeSet::from([
            pair("cara0123456789a", "172.17.8.2"),
            pair("cara0123456789b", "172.17.8.3")
        ])
    );
    let networks = [
        Field::Prefix(IpAddr::V6("2001:db8::".parse().expect("an address")), 32),
        Field::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    ];
    let key = |field| Element {
        key: vec![field],
        value: None,
    };
    assert_eq!(elements_of("nets"), networks.map(key).into());
}

#[test]
fn elements_of_maps_are_read_with_their_value() {
    let verdict = |name, value| Element {
        key: vec![iface(name)],
        value: Some(value),
    };
    assert_eq!(
        elements_of("dispatch"),
        BTreeSet::from([
            verdict("cara0123456789a", Value::Jump("fw-a".into())),
            verdict("cara0123456789b", Value::Goto("fw-a".into())),
            verdict("cara0123456789c", Value::Drop),
            verdict("cara0123456789d", Value::Accept),
        ])
    );
    let port = Element {
        key: vec![v4("192.0.2.1"), Field::Protocol(6), Field::Port(80)],
        value: Some(Value::Fields(vec![v4("172.17.8.2"), Field::Port(8080)])),
    };
    assert_eq!(elements_of("ports"), BTreeSet::from([port]));
    let one = Element {
        key: vec![v4("192.0.2.9")],
        value: Some(Value::Fields(vec![v4("172.17.8.2")])),
    };
    assert_eq!(elements_of("one"), BTreeSet::from([one]));
}

#[test]
fn what_we_never_make_is_noticed() {
    let with = |object: &str| {
        parse(&format!("{{\"nftables\": [{object}]}}")).expect("JSON with a list of objects")
    };
    let v4_set = || Set::of([Kind::V4], []);
    for (name, object, expected) in [
        (
            "a range",
            r#"{"set": {"name": "s", "type": "ipv4_addr", "flags": ["interval"], "elem": [{"range": ["10.0.0.1", "10.0.0.9"]}]}}"#,
            ObservedSet::StrangeElements(Set {
                is_interval: true,
                ..v4_set()
            }),
        ),
        (
            "an element of another type",
            r#"{"set": {"name": "s", "type": "ipv4_addr", "elem": ["fe80::1"]}}"#,
            ObservedSet::StrangeElements(v4_set()),
        ),
        (
            "an element with a timeout",
            r#"{"set": {"name": "s", "type": "ipv4_addr", "elem": [{"elem": {"val": "10.0.0.1", "timeout": 5}}]}}"#,
            ObservedSet::StrangeElements(v4_set()),
        ),
        (
            "a size",
            r#"{"set": {"name": "s", "type": "ipv4_addr", "size": 4}}"#,
            ObservedSet::StrangeType { is_map: false },
        ),
        (
            "a flag",
            r#"{"set": {"name": "s", "type": "ipv4_addr", "flags": ["timeout"]}}"#,
            ObservedSet::StrangeType { is_map: false },
        ),
        (
            "a type",
            r#"{"set": {"name": "s", "type": "mark"}}"#,
            ObservedSet::StrangeType { is_map: false },
        ),
        (
            "another verdict",
            r#"{"map": {"name": "s", "type": "ipv4_addr", "map": "verdict", "elem": [["10.0.0.1", {"continue": null}]]}}"#,
            ObservedSet::StrangeElements(Set {
                value: Some(ValueKind::Verdict),
                ..v4_set()
            }),
        ),
    ] {
        assert_eq!(with(object).sets.get("s"), Some(&expected), "{name}");
    }
    assert!(with(r#"{"counter": {"name": "c"}}"#).has_strange_objects);
    assert!(with(r#"{"table": {"name": "caracal", "flags": ["dormant"]}}"#).has_strange_objects);
}

#[test]
fn an_address_alone_is_no_prefix_but_equal_to_what_is_written() {
    let json: Json = serde_json::from_str("\"10.0.0.1\"").expect("JSON");
    assert_eq!(
        field_of(&json, Kind::V4),
        Some(Field::V4(Ipv4Addr::new(10, 0, 0, 1)))
    );
}

#[test]
fn damaged_listings_end_in_an_answer() {
    for length in 0..LISTING.len() {
        let _ = parse(&LISTING[..length]);
    }
    for (from, to) in [
        ("\"name\"", "\"nam\""),
        ("[", "{"),
        ("\"172", "172"),
        ("-300", "1e99"),
    ] {
        let _ = parse(&LISTING.replace(from, to));
    }
    assert!(parse("{}").is_err());
    assert!(parse("").is_err());
    assert!(parse(r#"{"nftables": [{"rule": {}}]}"#).is_err());
}
