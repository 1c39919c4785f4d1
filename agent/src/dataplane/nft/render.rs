//! Changes as one script for `nft -f -`, which the kernel takes whole or not at all.
//!
//! Pure. The order within a script: what is referred to comes before what refers to it, and goes
//! after it.

use std::fmt::Write;

use super::diff::{Changes, SetName};
use super::model::{Chain, Element, Field, Kind, Set, Table, Value, ValueKind};
use super::names::TABLE;

/// Elements of one statement; a statement is one line of the script.
const ELEMENTS_PER_LINE: usize = 200;

/// The script that brings `wanted` about, `changes` being what differs from the kernel's table.
/// Empty if nothing does.
pub fn script(wanted: &Table, changes: &Changes) -> String {
    let mut script = String::new();
    match changes {
        Changes::None => {}
        Changes::RemoveTable => line(&mut script, format_args!("delete table inet {TABLE}")),
        // An add before the delete, for a table that may not be there; all in one transaction, so
        // packets never meet an empty one.
        Changes::Rebuild => {
            line(&mut script, format_args!("add table inet {TABLE}"));
            line(&mut script, format_args!("delete table inet {TABLE}"));
            line(&mut script, format_args!("add table inet {TABLE}"));
            let everything = Parts {
                new_sets: wanted.sets.iter().collect(),
                new_chains: wanted.chains.iter().collect(),
                filled_chains: wanted.chains.iter().collect(),
                added: wanted
                    .sets
                    .iter()
                    .map(|(name, set)| (name.as_str(), set.elements.iter().collect()))
                    .collect(),
                ..Parts::default()
            };
            write_parts(&mut script, &everything);
        }
        Changes::Parts(changes) => {
            let set = |name: &String| wanted.sets.get_key_value(name);
            let chain = |name: &String| wanted.chains.get_key_value(name);
            let parts = Parts {
                new_sets: changes.new_sets.iter().filter_map(set).collect(),
                new_chains: changes.new_chains.iter().filter_map(chain).collect(),
                emptied_chains: changes.emptied_chains.iter().map(String::as_str).collect(),
                emptied_sets: changes.emptied_sets.iter().collect(),
                removed: elements(&changes.removed_elements),
                filled_chains: changes.filled_chains.iter().filter_map(chain).collect(),
                added: elements(&changes.added_elements),
                gone_chains: changes.gone_chains.iter().map(String::as_str).collect(),
                gone_sets: changes.gone_sets.iter().collect(),
            };
            write_parts(&mut script, &parts);
        }
    }
    script
}

type Elements<'a> = (&'a str, Vec<&'a Element>);

#[derive(Default)]
struct Parts<'a> {
    new_sets: Vec<(&'a String, &'a Set)>,
    new_chains: Vec<(&'a String, &'a Chain)>,
    emptied_chains: Vec<&'a str>,
    emptied_sets: Vec<&'a SetName>,
    removed: Vec<Elements<'a>>,
    filled_chains: Vec<(&'a String, &'a Chain)>,
    added: Vec<Elements<'a>>,
    gone_chains: Vec<&'a str>,
    gone_sets: Vec<&'a SetName>,
}

fn elements(
    by_set: &std::collections::BTreeMap<String, std::collections::BTreeSet<Element>>,
) -> Vec<Elements<'_>> {
    by_set
        .iter()
        .map(|(name, elements)| (name.as_str(), elements.iter().collect()))
        .collect()
}

fn write_parts(script: &mut String, parts: &Parts<'_>) {
    for (name, set) in &parts.new_sets {
        write_set(script, name, set);
    }
    for (name, chain) in &parts.new_chains {
        write_chain(script, name, chain);
    }
    for name in &parts.emptied_chains {
        line(script, format_args!("flush chain inet {TABLE} {name}"));
    }
    for set in &parts.emptied_sets {
        let (word, name) = (word_for(set), &set.name);
        line(script, format_args!("flush {word} inet {TABLE} {name}"));
    }
    for (name, elements) in &parts.removed {
        write_elements(script, "delete", name, elements);
    }
    for (name, chain) in &parts.filled_chains {
        for (rule, comment) in chain.rules.iter().zip(chain.comments()) {
            line(
                script,
                format_args!(
                    "add rule inet {TABLE} {name} {} comment \"{comment}\"",
                    rule.text
                ),
            );
        }
    }
    for (name, elements) in &parts.added {
        write_elements(script, "add", name, elements);
    }
    for name in &parts.gone_chains {
        line(script, format_args!("delete chain inet {TABLE} {name}"));
    }
    for set in &parts.gone_sets {
        let (word, name) = (word_for(set), &set.name);
        line(script, format_args!("delete {word} inet {TABLE} {name}"));
    }
}

fn word_for(set: &SetName) -> &'static str {
    if set.is_map { "map" } else { "set" }
}

fn write_set(script: &mut String, name: &str, set: &Set) {
    let key = joined(set.key.iter().map(|kind| kind_name(*kind)));
    let flags = if set.is_interval {
        " flags interval;"
    } else {
        ""
    };
    match &set.value {
        None => line(
            script,
            format_args!("add set inet {TABLE} {name} {{ type {key};{flags} }}"),
        ),
        Some(value) => {
            let value = match value {
                ValueKind::Verdict => "verdict".to_owned(),
                ValueKind::Fields(kinds) => joined(kinds.iter().map(|kind| kind_name(*kind))),
            };
            line(
                script,
                format_args!("add map inet {TABLE} {name} {{ type {key} : {value};{flags} }}"),
            );
        }
    }
}

fn write_chain(script: &mut String, name: &str, chain: &Chain) {
    match &chain.base {
        None => line(script, format_args!("add chain inet {TABLE} {name}")),
        Some(base) => line(
            script,
            format_args!(
                "add chain inet {TABLE} {name} {{ type {} hook {} priority {}; policy {}; }}",
                base.kind, base.hook, base.priority, base.policy
            ),
        ),
    }
}

fn write_elements(script: &mut String, verb: &str, name: &str, elements: &[&Element]) {
    for some in elements.chunks(ELEMENTS_PER_LINE) {
        let some: Vec<String> = some.iter().map(|element| element_text(element)).collect();
        let some = some.join(", ");
        line(
            script,
            format_args!("{verb} element inet {TABLE} {name} {{ {some} }}"),
        );
    }
}

fn element_text(element: &Element) -> String {
    let key = fields_text(&element.key);
    match &element.value {
        None => key,
        Some(value) => {
            let value = match value {
                Value::Accept => "accept".to_owned(),
                Value::Drop => "drop".to_owned(),
                Value::Jump(chain) => format!("jump {chain}"),
                Value::Goto(chain) => format!("goto {chain}"),
                Value::Fields(fields) => fields_text(fields),
            };
            format!("{key} : {value}")
        }
    }
}

fn fields_text(fields: &[Field]) -> String {
    joined(fields.iter().map(field_text))
}

fn field_text(field: &Field) -> String {
    match field {
        Field::Interface(name) => format!("\"{}\"", name.as_str()),
        Field::V4(address) => address.to_string(),
        Field::V6(address) => address.to_string(),
        Field::Prefix(network, length) => format!("{network}/{length}"),
        Field::Protocol(number) => number.to_string(),
        Field::Port(number) => number.to_string(),
    }
}

/// As nft calls it, in scripts and in its JSON.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Interface => "ifname",
        Kind::V4 => "ipv4_addr",
        Kind::V6 => "ipv6_addr",
        Kind::Protocol => "inet_proto",
        Kind::Port => "inet_service",
    }
}

fn joined<T: AsRef<str>>(parts: impl Iterator<Item = T>) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() {
            text.push_str(" . ");
        }
        text.push_str(part.as_ref());
    }
    text
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(script, "{text}");
}
