//! Adj-RIB-In: what peers announce, as import policy judges it.
//!
//! A path keeps what its peer sent beside what policy made of it, so that a new policy, or news of
//! its next hop, judges it again without asking the peer.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::attributes::Interner;
use super::table::Path;
use super::{PeerId, Rib};
use crate::policy::action::{self, Operation};
use crate::policy::import::ImportContext;
use crate::types::{Family, PathPrefix};
use crate::wire::attribute::PathAttributes;

/// A path that is judged: which one, and whether it is stale.
type Judged = (PathPrefix, bool);

impl Rib {
    /// One peer's announcements of one attribute set.
    pub fn announce(
        &mut self,
        id: PeerId,
        attributes: PathAttributes,
        paths: impl Iterator<Item = impl Into<PathPrefix>>,
    ) {
        let received = self.interner.intern(attributes);
        self.judge(id, &received, paths.map(|path| (path.into(), false)));
    }

    /// Judges the peer's paths that `is_concerned` anew, by what it sent.
    pub(super) fn judge_again(&mut self, id: PeerId, is_concerned: impl Fn(&Path) -> bool) {
        let mut by_attributes: HashMap<usize, (Arc<PathAttributes>, Vec<Judged>)> = HashMap::new();
        for family in Family::ALL {
            let paths = super::with_table!(self, family, table => {
                table.select_paths(id, |path| {
                    is_concerned(path).then(|| (path.received().clone(), path.is_stale))
                })
            });
            for (path, (received, is_stale)) in paths {
                by_attributes
                    .entry(Arc::as_ptr(&received) as usize)
                    .or_insert_with(|| (received, Vec::new()))
                    .1
                    .push((path, is_stale));
            }
        }
        for (received, paths) in by_attributes.into_values() {
            self.judge(id, &received, paths.into_iter());
        }
    }

    fn judge(
        &mut self,
        id: PeerId,
        received: &Arc<PathAttributes>,
        paths: impl Iterator<Item = Judged>,
    ) {
        let Some(import) = self.peer(id).map(|peer| peer.setup.import.clone()) else {
            return;
        };
        self.next_hops.note(received.next_hop.address);
        let config = self.config.clone();
        let context = import.context(&config);
        let refusal = context.check_attributes(received).err();
        let interface = self.next_hops.interface(received.next_hop.address).cloned();
        let mut used = UsedAttributes::default();
        for (path, is_stale) in paths {
            let judged = match &refusal {
                Some(refusal) => Err(refusal.clone()),
                None => context.check_prefix(&path.prefix, received, interface.as_deref()),
            };
            let (attributes, verdict) = match judged {
                Ok(operations) => {
                    let used = used.get(&context, received, operations, &mut self.interner);
                    (used, None)
                }
                Err(refusal) => (received.clone(), Some(refusal)),
            };
            let is_changed = !Arc::ptr_eq(&attributes, received);
            let inserted = Path {
                received: is_changed.then(|| received.clone()),
                is_stale,
                ..self.new_path(id, path.path_id, attributes)
            };
            self.insert_path(&path.prefix, inserted, verdict);
        }
    }
}

/// What the accepting rules make of one attribute set, each made once. By the identity of their
/// changes, which live as long as the call.
#[derive(Default)]
struct UsedAttributes {
    by_operations: SmallVec<[(usize, Arc<PathAttributes>); 1]>,
}

impl UsedAttributes {
    fn get(
        &mut self,
        context: &ImportContext<'_>,
        received: &Arc<PathAttributes>,
        operations: &[Operation],
        interner: &mut Interner,
    ) -> Arc<PathAttributes> {
        let identity = action::identity(operations);
        let mut known = self.by_operations.iter();
        if let Some((_, used)) = known.find(|(known, _)| *known == identity) {
            return used.clone();
        }
        let mut used = PathAttributes::clone(received);
        action::apply(operations, &mut used);
        // After the rule's changes: who is about to stop is used last whatever the rule wants.
        context.transform(&mut used);
        let used = if used == **received {
            received.clone()
        } else {
            interner.intern(used)
        };
        self.by_operations.push((identity, used.clone()));
        used
    }
}
