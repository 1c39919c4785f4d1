//! Adj-RIB-In: what peers announce, as import policy judges it.
//!
//! A path keeps what its peer sent beside what policy made of it, so that a new policy, or news of
//! its next hop, judges it again without asking the peer.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::attributes::Interner;
use super::path::Path;
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
        attributes: impl Into<Arc<PathAttributes>>,
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
        let next_hop = received.next_hop.address;
        let interface = self.next_hops.interface(next_hop).cloned();
        let is_unresolvable = super::is_unresolvable(&self.next_hops, id, received);
        let mut used = UsedAttributes::default();
        for (path, is_stale) in paths {
            let judged = match &refusal {
                Some(refusal) => Err(refusal.clone()),
                None => context.check_prefix(&path.prefix, received, interface.as_deref()),
            };
            let (attributes, verdict) = match judged {
                Ok(operations) => {
                    let used = used.get(&context, received, operations, &mut self.interner);
                    (used.clone(), None)
                }
                Err(refusal) => (received.clone(), Some(refusal)),
            };
            let is_changed = !Arc::ptr_eq(&attributes, received);
            let judged = Path {
                received: is_changed.then(|| received.clone()),
                is_unresolvable,
                is_stale,
                ..Path::new(id, path.path_id, attributes)
            };
            self.insert_path(&path.prefix, judged, verdict);
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
    ) -> &Arc<PathAttributes> {
        let identity = action::identity(operations);
        let mut known = self.by_operations.iter();
        let index = known.position(|(known, _)| *known == identity);
        let index = index.unwrap_or_else(|| {
            let used = match context.transform(received, operations) {
                Cow::Owned(used) if used != **received => interner.intern(used),
                Cow::Owned(_) | Cow::Borrowed(_) => received.clone(),
            };
            self.by_operations.push((identity, used));
            self.by_operations.len() - 1
        });
        &self.by_operations[index].1
    }
}
