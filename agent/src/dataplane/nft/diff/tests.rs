use super::*;
use crate::dataplane::nft::model::{Chain, Field, Kind, Rule, Value, ValueKind};
use crate::dataplane::nft::render::script;

fn address(octet: u8) -> Field {
    Field::V4([10, 0, 0, octet].into())
}

fn table() -> Table {
    let mut table = Table::default();
    table
        .chains
        .insert("prerouting".into(), Chain::at("filter", "prerouting", -300));
    table.rule("prerouting", Rule::new("all", "jump checks"));
    table.rule("checks", Rule::new("ours", "ip saddr @peers accept"));
    table.rule("checks", Rule::new("others", "counter drop"));
    table.sets.insert(
        "peers".into(),
        Set::of([Kind::V4], [1, 2].map(|octet| vec![address(octet)])),
    );
    let dispatch = Set {
        key: vec![Kind::V4],
        value: Some(ValueKind::Verdict),
        elements: BTreeSet::from([Element {
            key: vec![address(7)],
            value: Some(Value::Goto("checks".into())),
        }]),
        ..Set::default()
    };
    table.sets.insert("dispatch".into(), dispatch);
    table
}

/// What is written if the kernel has `held`.
fn script_from(held: &Observed, wanted: &Table) -> Vec<String> {
    let changes = changes(wanted, Some(held));
    script(wanted, &changes)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn whole_table_is_one_script_in_order_of_reference() {
    let table = table();
    let changes = changes(&table, None);
    assert_eq!(changes, Changes::Rebuild);
    let hash = |chain: &str| {
        let comments = table.chains[chain].comments();
        let (_, hash) = comments[0].split_once('[').expect("a hash");
        hash.split_once('.').expect("and a place").0.to_owned()
    };
    let (prerouting, checks) = (hash("prerouting"), hash("checks"));
    assert_eq!(
        script(&table, &changes),
        format!(
            "add table inet caracal\n\
             delete table inet caracal\n\
             add table inet caracal\n\
             add map inet caracal dispatch {{ type ipv4_addr : verdict; }}\n\
             add set inet caracal peers {{ type ipv4_addr; }}\n\
             add chain inet caracal checks\n\
             add chain inet caracal prerouting {{ type filter hook prerouting priority -300; policy accept; }}\n\
             add rule inet caracal checks ip saddr @peers accept comment \"ours [{checks}.0]\"\n\
             add rule inet caracal checks counter drop comment \"others [{checks}.1]\"\n\
             add rule inet caracal prerouting jump checks comment \"all [{prerouting}.0]\"\n\
             add element inet caracal dispatch {{ 10.0.0.7 : goto checks }}\n\
             add element inet caracal peers {{ 10.0.0.1, 10.0.0.2 }}\n"
        )
    );
}

#[test]
fn nothing_is_written_when_all_is_right() {
    assert_eq!(script_from(&Observed::of(&table()), &table()), [""; 0]);
    assert_eq!(changes(&Table::default(), None), Changes::None);
}

#[test]
fn only_what_differs_is_written() {
    type Spoil = fn(&mut Observed);
    let all_of_checks: &[&str] = &["flush chain inet caracal checks", "add rule", "add rule"];
    let cases: [(&str, Spoil, &[&str]); 9] = [
        (
            "rule gone",
            |held| {
                drop(
                    held.chains
                        .get_mut("checks")
                        .map(|chain| chain.comments.pop()),
                )
            },
            all_of_checks,
        ),
        (
            "rule without comment added",
            |held| {
                if let Some(chain) = held.chains.get_mut("checks") {
                    chain.comments.push(String::new());
                }
            },
            all_of_checks,
        ),
        (
            "rules in another order",
            |held| {
                if let Some(chain) = held.chains.get_mut("checks") {
                    chain.comments.reverse();
                }
            },
            all_of_checks,
        ),
        (
            "element gone",
            |held| {
                if let Some(ObservedSet::Known(set)) = held.sets.get_mut("peers") {
                    set.elements.pop_first();
                }
            },
            &["add element inet caracal peers { 10.0.0.1 }"],
        ),
        (
            "element added",
            |held| {
                if let Some(ObservedSet::Known(set)) = held.sets.get_mut("peers") {
                    set.elements.insert(Element {
                        key: vec![address(9)],
                        value: None,
                    });
                }
            },
            &["delete element inet caracal peers { 10.0.0.9 }"],
        ),
        (
            "value of a map changed",
            |held| {
                if let Some(ObservedSet::Known(map)) = held.sets.get_mut("dispatch") {
                    map.elements = BTreeSet::from([Element {
                        key: vec![address(7)],
                        value: Some(Value::Drop),
                    }]);
                }
            },
            &[
                "delete element inet caracal dispatch { 10.0.0.7 : drop }",
                "add element inet caracal dispatch { 10.0.0.7 : goto checks }",
            ],
        ),
        (
            "strange elements",
            |held| {
                if let Some(set) = held.sets.get_mut("peers") {
                    *set = ObservedSet::StrangeElements(Set::of([Kind::V4], []));
                }
            },
            &[
                "flush set inet caracal peers",
                "add element inet caracal peers { 10.0.0.1, 10.0.0.2 }",
            ],
        ),
        (
            "chain and set added",
            |held| {
                held.chains
                    .insert("theirs".into(), ObservedChain::default());
                for (name, is_map) in [("their-map", true), ("their-set", false)] {
                    held.sets
                        .insert(name.into(), ObservedSet::StrangeType { is_map });
                }
            },
            &[
                "flush chain inet caracal theirs",
                "flush map inet caracal their-map",
                "flush set inet caracal their-set",
                "delete chain inet caracal theirs",
                "delete map inet caracal their-map",
                "delete set inet caracal their-set",
            ],
        ),
        (
            "set gone, and with it the rules",
            |held| {
                held.sets.remove("peers");
                held.chains.remove("checks");
            },
            &[
                "add set inet caracal peers { type ipv4_addr; }",
                "add chain inet caracal checks",
                "add rule",
                "add rule",
                "add element inet caracal peers { 10.0.0.1, 10.0.0.2 }",
            ],
        ),
    ];
    for (name, spoil, expected) in cases {
        let mut held = Observed::of(&table());
        spoil(&mut held);
        let written = script_from(&held, &table());
        assert_eq!(written.len(), expected.len(), "{name}: {written:?}");
        for (line, expected) in written.iter().zip(expected) {
            let is_as_expected = match *expected {
                "add rule" => line.starts_with("add rule inet caracal checks "),
                whole => line == whole,
            };
            assert!(is_as_expected, "{name}: {line}");
        }
    }
}

#[test]
fn what_cannot_be_changed_in_place_makes_the_table_anew() {
    type Spoil = fn(&mut Observed);
    let cases: [(&str, Spoil); 5] = [
        ("another policy", |held| {
            if let Some(base) = held
                .chains
                .get_mut("prerouting")
                .and_then(|chain| chain.base.as_mut())
            {
                base.policy = "drop".into();
            }
        }),
        ("no hook", |held| {
            if let Some(chain) = held.chains.get_mut("prerouting") {
                chain.base = None;
            }
        }),
        ("another type", |held| {
            held.sets
                .insert("peers".into(), ObservedSet::Known(Set::of([Kind::V6], [])));
        }),
        ("an unknown type", |held| {
            let strange = ObservedSet::StrangeType { is_map: false };
            held.sets.insert("peers".into(), strange);
        }),
        ("another kind of object", |held| {
            held.has_strange_objects = true;
        }),
    ];
    for (name, spoil) in cases {
        let mut held = Observed::of(&table());
        spoil(&mut held);
        assert_eq!(changes(&table(), Some(&held)), Changes::Rebuild, "{name}");
    }
}

#[test]
fn no_wish_removes_the_table_whatever_is_in_it() {
    let mut held = Observed::of(&table());
    held.has_strange_objects = true;
    assert_eq!(
        script_from(&held, &Table::default()),
        ["delete table inet caracal"]
    );
}

#[test]
fn every_change_of_a_rule_shows_in_the_comments_of_all() {
    let before = table().chains["checks"].comments();
    let mut changed = table();
    changed.rule("checks", Rule::new("more", "accept"));
    let after = changed.chains["checks"].comments();
    assert!(before.iter().all(|comment| !after.contains(comment)));
    // The kernel takes 128 octets with the end.
    assert!(after.iter().all(|comment| comment.len() < 100));
}
