use super::*;
use crate::wire::community::{Community, LargeCommunity};

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

/// A route that has one of everything a rule can ask for.
fn attributes() -> PathAttributes {
    PathAttributes {
        as_path: "65000 65001 65002".parse().expect("path"),
        communities: thin_vec::thin_vec![Community(65000 << 16 | 100)],
        large_communities: thin_vec::thin_vec![LargeCommunity([65000, 100, 200])],
        ..PathAttributes::originated([192, 0, 2, 1].into())
    }
}

fn view<'a>(prefix: &'a Prefix, attributes: &'a PathAttributes) -> RouteView<'a> {
    RouteView {
        prefix,
        attributes,
        local_pref: Some(LocalPref(2_147_483_647 - 100)),
        is_own: false,
        peer_type: PeerType::Ebgp,
        interface: Some("eth0"),
    }
}

fn any() -> Rule {
    Rule::new(PrefixMatch::Any, Action::ACCEPT)
}

/// Fields of a rule, each with something that matches [`view`] and something that does not.
type Field = (&'static str, fn(Rule) -> Rule, bool);

fn fields() -> Vec<Field> {
    vec![
        ("nothing", |rule| rule, true),
        (
            "cidr",
            |rule| Rule {
                prefixes: PrefixMatch::Equal(prefix("10.1.0.0/16")),
                ..rule
            },
            true,
        ),
        (
            "another cidr",
            |rule| Rule {
                prefixes: PrefixMatch::NotEqual(prefix("10.1.0.0/16")),
                ..rule
            },
            false,
        ),
        (
            "source",
            |rule| Rule {
                from_remote_peers: true,
                ..rule
            },
            true,
        ),
        (
            "interface",
            |rule| Rule {
                interface: Some("eth*".parse().expect("pattern")),
                ..rule
            },
            true,
        ),
        (
            "another interface",
            |rule| Rule {
                interface: Some("eth1".parse().expect("pattern")),
                ..rule
            },
            false,
        ),
        (
            "peer type",
            |rule| Rule {
                peer_type: Some(PeerType::Ebgp),
                ..rule
            },
            true,
        ),
        (
            "another peer type",
            |rule| Rule {
                peer_type: Some(PeerType::Ibgp),
                ..rule
            },
            false,
        ),
        (
            "community",
            |rule| Rule {
                community: "65000:100".parse().ok(),
                ..rule
            },
            true,
        ),
        (
            "another community",
            |rule| Rule {
                community: "65000:200".parse().ok(),
                ..rule
            },
            false,
        ),
        (
            "large community",
            |rule| Rule {
                community: "65000:100:200".parse().ok(),
                ..rule
            },
            true,
        ),
        (
            "another large community",
            |rule| Rule {
                community: "65000:100:100".parse().ok(),
                ..rule
            },
            false,
        ),
        (
            "AS path",
            |rule| Rule {
                as_path_prefix: vec![Asn(65000), Asn(65001)],
                ..rule
            },
            true,
        ),
        (
            "another AS path",
            |rule| Rule {
                as_path_prefix: vec![Asn(65001)],
                ..rule
            },
            false,
        ),
        (
            "priority",
            |rule| Rule {
                priority: Priority::new(100),
                ..rule
            },
            true,
        ),
        (
            "another priority",
            |rule| Rule {
                priority: Priority::new(101),
                ..rule
            },
            false,
        ),
    ]
}

#[test]
fn a_rule_matches_what_is_all_it_asks_for() {
    let (prefix, attributes) = (prefix("10.1.0.0/16"), attributes());
    let route = view(&prefix, &attributes);
    for (first, with_first, first_matches) in fields() {
        for (second, with_second, second_matches) in fields() {
            // The second of one field replaces the first.
            let same_field = |name: &str| name.trim_start_matches("another ").replace("large ", "");
            if same_field(first) == same_field(second) && first != second {
                continue;
            }
            let rule = with_second(with_first(any()));
            assert_eq!(
                rule.matches(&route),
                first_matches && second_matches,
                "{first} and {second}"
            );
        }
    }
}

#[test]
fn what_is_not_known_of_a_route_matches_no_rule_that_asks() {
    let (prefix, attributes) = (prefix("10.1.0.0/16"), attributes());
    let route = view(&prefix, &attributes);
    let unknown = |change: fn(&mut RouteView<'_>)| {
        let mut route = route;
        change(&mut route);
        route
    };
    for (name, rule, route) in [
        (
            "no interface",
            Rule {
                interface: Some("*".parse().expect("pattern")),
                ..any()
            },
            unknown(|route| route.interface = None),
        ),
        (
            "no LOCAL_PREF",
            Rule {
                priority: Priority::new(100),
                ..any()
            },
            unknown(|route| route.local_pref = None),
        ),
        (
            "our own",
            Rule {
                from_remote_peers: true,
                ..any()
            },
            unknown(|route| route.is_own = true),
        ),
    ] {
        assert!(!rule.matches(&route), "{name}");
        assert!(any().matches(&route), "{name}: a rule that does not ask");
    }
}

fn inside(text: &str, action: Action) -> Rule {
    let cidr = prefix(text);
    let inside = PrefixMatch::In {
        cidr,
        lengths: None,
    };
    Rule::new(inside, action)
}

fn importing(name: &str, import_v4: Vec<Rule>) -> Filter {
    Filter {
        name: name.into(),
        import_v4,
        ..Filter::default()
    }
}

#[test]
fn first_matching_rule_decides_across_filters() {
    let filters = [
        importing("first", vec![inside("10.1.0.0/16", Action::Reject)]),
        importing("second", vec![inside("10.0.0.0/8", Action::ACCEPT)]),
    ];
    let attributes = attributes();
    let ask = |direction, text: &str| {
        let prefix = prefix(text);
        decide(&filters, direction, &view(&prefix, &attributes))
            .map(|decision| (decision.action.clone(), decision.filter))
    };
    let import = |text| ask(Direction::Import, text);
    assert_eq!(import("10.1.2.0/24"), Some((Action::Reject, "first")));
    assert_eq!(import("10.2.0.0/16"), Some((Action::ACCEPT, "second")));
    assert_eq!(import("192.0.2.0/24"), None);
    assert_eq!(import("2001:db8::/32"), None);
    assert_eq!(ask(Direction::Export, "10.1.2.0/24"), None);
}

#[test]
fn a_rule_that_does_not_match_leaves_the_word_to_later_ones() {
    let tagged = |value: &str, action| Rule {
        community: value.parse().ok(),
        ..Rule::new(PrefixMatch::Any, action)
    };
    let filters = [
        importing("tags", vec![tagged("65000:999", Action::Reject)]),
        importing(
            "rest",
            vec![
                Rule {
                    peer_type: Some(PeerType::Ibgp),
                    ..Rule::new(PrefixMatch::Any, Action::Reject)
                },
                tagged("65000:100", Action::ACCEPT),
                Rule::new(PrefixMatch::Any, Action::Reject),
            ],
        ),
    ];
    let (prefix, attributes) = (prefix("10.1.0.0/16"), attributes());
    let ask = |route: &RouteView<'_>| {
        decide(&filters, Direction::Import, route)
            .map(|decision| (decision.filter, decision.action.clone()))
    };
    let route = view(&prefix, &attributes);
    assert_eq!(ask(&route), Some(("rest", Action::ACCEPT)));
    let internal = RouteView {
        peer_type: PeerType::Ibgp,
        ..route
    };
    assert_eq!(ask(&internal), Some(("rest", Action::Reject)));
    let mut tagged = attributes.clone();
    tagged.communities.push(Community(65000 << 16 | 999));
    let tagged = view(&prefix, &tagged);
    assert_eq!(ask(&tagged), Some(("tags", Action::Reject)));
}

#[test]
fn only_rules_of_the_direction_ask_for_the_interface() {
    let asking = Rule {
        interface: "eth0".parse().ok(),
        ..any()
    };
    let v6 = Filter {
        export_v6: vec![asking.clone()],
        ..importing("v6", vec![any()])
    };
    let asks = |filter: &Filter| {
        let filters = std::slice::from_ref(filter);
        (
            asks_for_interface(filters, Direction::Import),
            asks_for_interface(filters, Direction::Export),
        )
    };
    assert_eq!(asks(&importing("plain", vec![any()])), (false, false));
    assert_eq!(asks(&importing("v4", vec![any(), asking])), (true, false));
    assert_eq!(asks(&v6), (false, true));
}

#[test]
fn filters_of_one_direction_have_all_its_rules_in_order() {
    let reject = || Rule::new(PrefixMatch::Any, Action::Reject);
    let both = Filter {
        export_v4: vec![any()],
        import_v6: vec![reject()],
        ..importing("both", vec![any(), reject()])
    };
    let filters = [importing("import", vec![reject()]), both];
    let import = of_direction(&filters, Direction::Import);
    assert_eq!(
        import,
        [
            importing("import", vec![reject()]),
            Filter {
                import_v6: vec![reject()],
                ..importing("both", vec![any(), reject()])
            }
        ]
    );
    let export = of_direction(&filters, Direction::Export);
    assert_eq!(
        export,
        [Filter {
            export_v4: vec![any()],
            ..importing("both", vec![])
        }]
    );
}
