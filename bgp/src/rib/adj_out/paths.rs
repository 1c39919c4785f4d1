//! What groups with ADD-PATH were told (RFC 7911): every eligible path of a prefix that passes, each
//! under the number the table gave it.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::GroupTurn;
use super::pack::{Packer, Surroundings};
use crate::policy::propagate::RouteSource;
use crate::rib::PeerId;
use crate::rib::path::Path;
use crate::rib::table::{Key, Table};
use crate::types::{PathPrefix, Prefix};
use crate::wire::attribute::PathAttributes;

/// One path a group was told of.
#[derive(Clone, Debug)]
pub struct SaidPath {
    pub local_id: u32,
    pub source: PeerId,
    /// What the source was to us: whether a path passes depends on it.
    via: RouteSource,
    /// As they are in the table.
    pub attributes: Arc<PathAttributes>,
}

impl SaidPath {
    fn of(path: &Path, around: &Surroundings<'_>) -> SaidPath {
        SaidPath {
            local_id: path.local_id,
            source: path.source,
            via: around.source(path.source),
            attributes: path.attributes.clone(),
        }
    }

    fn is(&self, path: &Path, around: &Surroundings<'_>) -> bool {
        self.local_id == path.local_id
            && self.source == path.source
            && self.via == around.source(path.source)
            && Arc::ptr_eq(&self.attributes, &path.attributes)
    }
}

type Said = SmallVec<[SaidPath; 2]>;

/// The paths one group was told of, by prefix; bounded by the table.
#[derive(Debug, Default)]
pub struct SaidPaths {
    by_prefix: HashMap<Prefix, Said>,
}

impl SaidPaths {
    pub fn iter(&self) -> impl Iterator<Item = (PathPrefix, &SaidPath)> {
        self.by_prefix.iter().flat_map(|(prefix, said)| {
            said.iter()
                .map(|path| (numbered(*prefix, path.local_id), path))
        })
    }

    /// Makes the group hear of the present paths of a prefix: packs what is new or changed, and
    /// notes in `turn` what is gone.
    pub(super) fn follow<K: Key>(
        &mut self,
        prefix: Prefix,
        table: &Table<K>,
        around: &Surroundings<'_>,
        packer: &mut Packer<'_>,
        turn: &mut GroupTurn,
    ) {
        let before = self.by_prefix.remove(&prefix).unwrap_or_default();
        let mut said = Said::new();
        for path in eligible(table, &prefix) {
            let known = before.iter().find(|known| known.local_id == path.local_id);
            let numbered = numbered(prefix, path.local_id);
            // By another interface the same path may pass or not.
            let is_same =
                known.is_some_and(|known| known.is(path, around)) && !packer.asks_for_interface;
            if !is_same && !packer.pack(around, numbered, path.source, &path.attributes) {
                continue;
            }
            // The new source of the number hears nothing of its own path, and forgets the old one.
            if known.is_some_and(|known| known.source != path.source) {
                turn.withdraw_from_source(path.source, numbered);
            }
            said.push(SaidPath::of(path, around));
        }
        for known in before {
            if !said.iter().any(|path| path.local_id == known.local_id) {
                turn.withdraw(Some(known.source), numbered(prefix, known.local_id));
            }
        }
        self.set(prefix, said);
    }

    /// Packs all present paths of a prefix, for a member that joins.
    pub(super) fn repeat<K: Key>(
        &mut self,
        prefix: Prefix,
        table: &Table<K>,
        around: &Surroundings<'_>,
        packer: &mut Packer<'_>,
    ) {
        let said = eligible(table, &prefix)
            .filter(|path| {
                let numbered = numbered(prefix, path.local_id);
                packer.pack(around, numbered, path.source, &path.attributes)
            })
            .map(|path| SaidPath::of(path, around))
            .collect();
        self.set(prefix, said);
    }

    /// It was not said after all.
    pub(super) fn remove(&mut self, path: &PathPrefix) {
        if let Some(mut said) = self.by_prefix.remove(&path.prefix) {
            said.retain(|known| known.local_id != path.path_id);
            self.set(path.prefix, said);
        }
    }

    fn set(&mut self, prefix: Prefix, said: Said) {
        if !said.is_empty() {
            self.by_prefix.insert(prefix, said);
        }
    }
}

fn numbered(prefix: Prefix, path_id: u32) -> PathPrefix {
    PathPrefix { prefix, path_id }
}

pub(super) fn eligible<'a, K: Key>(
    table: &'a Table<K>,
    prefix: &Prefix,
) -> impl Iterator<Item = &'a Path> {
    let paths = table.get(prefix).map(|destination| &destination.paths);
    paths
        .into_iter()
        .flat_map(|paths| paths.iter())
        .filter(|path| path.is_eligible())
}
