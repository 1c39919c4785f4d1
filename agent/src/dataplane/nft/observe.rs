//! Reads what `nft -j -n list table inet caracal` prints.
//!
//! Pure. What is not understood is not an error: others may put anything into our table, and the
//! comparison then finds it different.

use std::net::IpAddr;

use serde_json::Value as Json;

use super::diff::{Observed, ObservedChain, ObservedSet};
use super::model::{Base, Element, Field, InterfaceName, Kind, Set, Value, ValueKind};
use super::render::kind_name;

const KINDS: [Kind; 5] = [
    Kind::Interface,
    Kind::V4,
    Kind::V6,
    Kind::Protocol,
    Kind::Port,
];

/// # Errors
/// What is wrong with the text; then nothing is known.
pub fn parse(text: &str) -> Result<Observed, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let objects = json
        .get("nftables")
        .and_then(Json::as_array)
        .ok_or("no list `nftables`")?;
    let mut observed = Observed::default();
    for object in objects.iter().filter_map(Json::as_object) {
        for (kind, object) in object {
            match kind.as_str() {
                "metainfo" => {}
                // Such as `dormant`: then nothing in it does anything.
                "table" => observed.has_strange_objects |= object.get("flags").is_some(),
                "chain" => {
                    let chain = observed.chains.entry(name_in(object, "name")?).or_default();
                    chain.base = base_of(object);
                }
                "rule" => {
                    let chain: &mut ObservedChain = observed
                        .chains
                        .entry(name_in(object, "chain")?)
                        .or_default();
                    chain.comments.push(text_in(object, "comment"));
                }
                "set" | "map" => {
                    let name = name_in(object, "name")?;
                    observed.sets.insert(name, read_set(object));
                }
                _ => observed.has_strange_objects = true,
            }
        }
    }
    Ok(observed)
}

fn name_in(object: &Json, key: &str) -> Result<String, String> {
    match object.get(key).and_then(Json::as_str) {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!("an object without {key}")),
    }
}

fn text_in(object: &Json, key: &str) -> String {
    let text = object.get(key).and_then(Json::as_str);
    text.unwrap_or_default().to_owned()
}

fn base_of(chain: &Json) -> Option<Base> {
    let priority = chain.get("prio")?.as_i64()?;
    Some(Base {
        kind: text_in(chain, "type"),
        hook: text_in(chain, "hook"),
        priority: i32::try_from(priority).ok()?,
        policy: text_in(chain, "policy"),
    })
}

fn read_set(object: &Json) -> ObservedSet {
    let Some(mut set) = type_of(object) else {
        return ObservedSet::StrangeType {
            is_map: object.get("map").is_some(),
        };
    };
    let elements = object.get("elem").and_then(Json::as_array);
    for element in elements.into_iter().flatten() {
        match element_of(element, &set) {
            Some(element) => drop(set.elements.insert(element)),
            None => return ObservedSet::StrangeElements(set),
        }
    }
    ObservedSet::Known(set)
}

/// The set without its elements; `None` for types and flags that we never give one.
fn type_of(object: &Json) -> Option<Set> {
    let value = match object.get("map") {
        None => None,
        Some(Json::String(name)) if name == "verdict" => Some(ValueKind::Verdict),
        Some(kinds) => Some(ValueKind::Fields(kinds_of(kinds)?)),
    };
    let is_interval = match object.get("flags").and_then(Json::as_array) {
        None => false,
        Some(flags) if flags.iter().all(|flag| flag == "interval") => true,
        Some(_) => return None,
    };
    let has_strange_option = ["policy", "timeout", "gc-interval", "size", "stmt"]
        .iter()
        .any(|option| object.get(option).is_some());
    if has_strange_option {
        return None;
    }
    Some(Set {
        key: kinds_of(object.get("type")?)?,
        value,
        is_interval,
        ..Set::default()
    })
}

/// A name, a list of names, or for the value of a map names with dots between.
fn kinds_of(json: &Json) -> Option<Vec<Kind>> {
    let kind = |name: &str| KINDS.into_iter().find(|kind| kind_name(*kind) == name);
    match json {
        Json::String(names) => names.split(" . ").map(kind).collect(),
        Json::Array(names) => names
            .iter()
            .map(|name| name.as_str().and_then(kind))
            .collect(),
        _ => None,
    }
}

fn element_of(json: &Json, set: &Set) -> Option<Element> {
    let Some(kind) = &set.value else {
        return Some(Element {
            key: fields_of(json, &set.key)?,
            value: None,
        });
    };
    let [key, value] = json.as_array()?.as_slice() else {
        return None;
    };
    let value = match kind {
        ValueKind::Verdict => verdict_of(value)?,
        ValueKind::Fields(kinds) => Value::Fields(fields_of(value, kinds)?),
    };
    Some(Element {
        key: fields_of(key, &set.key)?,
        value: Some(value),
    })
}

fn verdict_of(json: &Json) -> Option<Value> {
    let (verb, about) = json.as_object()?.iter().next()?;
    let target = || Some(about.get("target")?.as_str()?.to_owned());
    match verb.as_str() {
        "accept" => Some(Value::Accept),
        "drop" => Some(Value::Drop),
        "jump" => Some(Value::Jump(target()?)),
        "goto" => Some(Value::Goto(target()?)),
        _ => None,
    }
}

fn fields_of(json: &Json, kinds: &[Kind]) -> Option<Vec<Field>> {
    let one = [json];
    let parts: Vec<&Json> = match json.get("concat").and_then(Json::as_array) {
        Some(parts) => parts.iter().collect(),
        None => one.to_vec(),
    };
    if parts.len() != kinds.len() {
        return None;
    }
    parts
        .into_iter()
        .zip(kinds)
        .map(|(part, kind)| field_of(part, *kind))
        .collect()
}

fn field_of(json: &Json, kind: Kind) -> Option<Field> {
    let number = || json.as_u64();
    match kind {
        Kind::Interface => InterfaceName::new(json.as_str()?).map(Field::Interface),
        Kind::Protocol => u8::try_from(number()?).ok().map(Field::Protocol),
        Kind::Port => u16::try_from(number()?).ok().map(Field::Port),
        Kind::V4 | Kind::V6 => address_of(json).filter(|field| is_of(field, kind)),
    }
}

fn is_of(field: &Field, kind: Kind) -> bool {
    match field {
        Field::V4(_) | Field::Prefix(IpAddr::V4(_), _) => kind == Kind::V4,
        Field::V6(_) | Field::Prefix(IpAddr::V6(_), _) => kind == Kind::V6,
        Field::Interface(_) | Field::Protocol(_) | Field::Port(_) => false,
    }
}

fn address_of(json: &Json) -> Option<Field> {
    let Some(prefix) = json.get("prefix") else {
        return match json.as_str()?.parse().ok()? {
            IpAddr::V4(address) => Some(Field::V4(address)),
            IpAddr::V6(address) => Some(Field::V6(address)),
        };
    };
    let network: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
    let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
    Some(Field::Prefix(network, length))
}

#[cfg(test)]
mod tests;
