//! What differs between the wanted table and the one the kernel shows.
//!
//! Pure. A chain that differs in anything is emptied and filled again; a set loses and gets only
//! the elements that differ. What cannot be changed in place (a hook, the type of a set, objects of
//! kinds that we never make) has the whole table made anew.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Base, Element, Set, Table};

/// Our table as read from the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    pub chains: BTreeMap<String, ObservedChain>,
    pub sets: BTreeMap<String, ObservedSet>,
    /// It has counters, quotas or other objects, none of which we make.
    pub has_strange_objects: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObservedChain {
    pub base: Option<Base>,
    /// One per rule, empty for a rule without.
    pub comments: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObservedSet {
    Known(Set),
    /// Of a type that we make, with elements that we never write.
    StrangeElements(Set),
    StrangeType {
        is_map: bool,
    },
}

impl ObservedSet {
    fn named(&self, name: &str) -> SetName {
        let is_map = match self {
            ObservedSet::Known(set) | ObservedSet::StrangeElements(set) => set.value.is_some(),
            ObservedSet::StrangeType { is_map } => *is_map,
        };
        SetName {
            name: name.to_owned(),
            is_map,
        }
    }
}

/// nft wants to be told what it is to empty or delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetName {
    pub name: String,
    pub is_map: bool,
}

impl Observed {
    /// As it is right after `table` was written.
    pub fn of(table: &Table) -> Observed {
        let chain = |chain: &super::model::Chain| ObservedChain {
            base: chain.base.clone(),
            comments: chain.comments(),
        };
        Observed {
            chains: table
                .chains
                .iter()
                .map(|(name, one)| (name.clone(), chain(one)))
                .collect(),
            sets: table
                .sets
                .iter()
                .map(|(name, set)| (name.clone(), ObservedSet::Known(set.clone())))
                .collect(),
            has_strange_objects: false,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changes {
    None,
    RemoveTable,
    /// Make all of it anew, in one transaction.
    Rebuild,
    Parts(Box<PartChanges>),
}

/// Names, and elements by the name of their set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PartChanges {
    pub new_sets: Vec<String>,
    pub new_chains: Vec<String>,
    pub emptied_chains: Vec<String>,
    pub emptied_sets: Vec<SetName>,
    pub removed_elements: BTreeMap<String, BTreeSet<Element>>,
    pub filled_chains: Vec<String>,
    pub added_elements: BTreeMap<String, BTreeSet<Element>>,
    pub gone_chains: Vec<String>,
    pub gone_sets: Vec<SetName>,
}

impl PartChanges {
    /// Every chain and set that is touched, once.
    pub fn names(&self) -> BTreeSet<&str> {
        let lists = [
            &self.new_sets,
            &self.new_chains,
            &self.emptied_chains,
            &self.filled_chains,
            &self.gone_chains,
        ];
        let sets = self.emptied_sets.iter().chain(&self.gone_sets);
        let named = lists.into_iter().flatten();
        let named = named.chain(sets.map(|set| &set.name));
        let with_elements = self
            .removed_elements
            .keys()
            .chain(self.added_elements.keys());
        named.chain(with_elements).map(String::as_str).collect()
    }
}

/// A chain or a set by name: what is there, and what would be.
pub type Part<'a> = (&'a str, Option<String>, Option<String>);

impl PartChanges {
    /// In words, once for every chain and set that is touched.
    pub fn in_words(&self) -> Vec<Part<'_>> {
        let names = self.names().into_iter();
        names.map(|name| self.part_in_words(name)).collect()
    }

    fn part_in_words<'a>(&self, name: &'a str) -> Part<'a> {
        let is_in = |names: &[String]| names.iter().any(|one| one == name);
        let is_new = is_in(&self.new_sets) || is_in(&self.new_chains);
        let is_gone = is_in(&self.gone_chains) || self.gone_sets.iter().any(|set| set.name == name);
        let count = |elements: &BTreeMap<String, BTreeSet<Element>>| {
            elements.get(name).map_or(0, BTreeSet::len)
        };
        let wanted = match (count(&self.added_elements), count(&self.removed_elements)) {
            (0, 0) => "filled anew".to_owned(),
            (added, removed) => format!("with {added} elements more and {removed} less"),
        };
        let present = (!is_new).then(|| "it differs".to_owned());
        (name, present, (!is_gone).then_some(wanted))
    }
}

/// `observed`: `None` if there is no table. An empty `wanted` wants none.
pub fn changes(wanted: &Table, observed: Option<&Observed>) -> Changes {
    let Some(observed) = observed else {
        return if wanted.is_empty() {
            Changes::None
        } else {
            Changes::Rebuild
        };
    };
    if wanted.is_empty() {
        return Changes::RemoveTable;
    }
    let mut changes = PartChanges::default();
    let is_changeable = !observed.has_strange_objects
        && compare_chains(wanted, observed, &mut changes)
        && compare_sets(wanted, observed, &mut changes);
    if !is_changeable {
        return Changes::Rebuild;
    }
    if changes == PartChanges::default() {
        return Changes::None;
    }
    Changes::Parts(Box::new(changes))
}

/// Returns whether the differences can be put right in place.
fn compare_chains(wanted: &Table, observed: &Observed, changes: &mut PartChanges) -> bool {
    for (name, chain) in &wanted.chains {
        match observed.chains.get(name) {
            None => {
                changes.new_chains.push(name.clone());
                changes.filled_chains.push(name.clone());
            }
            Some(held) if held.base != chain.base => return false,
            Some(held) if held.comments != chain.comments() => {
                changes.emptied_chains.push(name.clone());
                changes.filled_chains.push(name.clone());
            }
            Some(_) => {}
        }
    }
    for name in observed.chains.keys() {
        if !wanted.chains.contains_key(name) {
            // Emptied first: chains that go may jump to each other.
            changes.emptied_chains.push(name.clone());
            changes.gone_chains.push(name.clone());
        }
    }
    true
}

/// Returns whether the differences can be put right in place.
fn compare_sets(wanted: &Table, observed: &Observed, changes: &mut PartChanges) -> bool {
    for (name, set) in &wanted.sets {
        let held = match observed.sets.get(name) {
            None => {
                changes.new_sets.push(name.clone());
                &BTreeSet::new()
            }
            Some(strange @ ObservedSet::StrangeElements(held)) if held.has_type_of(set) => {
                changes.emptied_sets.push(strange.named(name));
                &BTreeSet::new()
            }
            Some(ObservedSet::Known(held)) if held.has_type_of(set) => &held.elements,
            Some(_) => return false,
        };
        let removed: BTreeSet<Element> = held.difference(&set.elements).cloned().collect();
        let added: BTreeSet<Element> = set.elements.difference(held).cloned().collect();
        if !removed.is_empty() {
            changes.removed_elements.insert(name.clone(), removed);
        }
        if !added.is_empty() {
            changes.added_elements.insert(name.clone(), added);
        }
    }
    for (name, set) in &observed.sets {
        if !wanted.sets.contains_key(name) {
            // A map that goes may refer to chains that go.
            changes.emptied_sets.push(set.named(name));
            changes.gone_sets.push(set.named(name));
        }
    }
    true
}

#[cfg(test)]
mod tests;
