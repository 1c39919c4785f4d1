//! Which paths leave in one message: those with equal attributes as sent, of one source.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::policy::propagate::RouteSource;
use crate::rib::PeerId;
use crate::rib::peer::{GroupKey, Peer};
use crate::types::{Family, PathPrefix};
use crate::wire::attribute::PathAttributes;
use crate::wire::update::EncodeContext;

/// The paths that leave together: same attributes as sent, same source.
pub(super) struct Bucket {
    pub(super) attributes: Arc<PathAttributes>,
    pub(super) source: PeerId,
    pub(super) paths: Vec<PathPrefix>,
}

/// Export decisions of one group within one turn. Attributes are transformed once per set and source.
pub(super) struct Packer<'a> {
    key: &'a GroupKey,
    family: Family,
    transformed: HashMap<(usize, PeerId), Option<usize>>,
    pub(super) buckets: Vec<Bucket>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(key: &'a GroupKey, family: Family) -> Packer<'a> {
        Packer {
            key,
            family,
            transformed: HashMap::new(),
            buckets: Vec::new(),
        }
    }

    /// Puts `path` where it belongs; `false` if it is not said to this group.
    pub(super) fn pack(
        &mut self,
        peers: &[Option<Peer>],
        path: PathPrefix,
        source: PeerId,
        attributes: &Arc<PathAttributes>,
    ) -> bool {
        let route_source = route_source(peers, source);
        if !self.key.export.admits_prefix(&path.prefix, route_source) {
            return false;
        }
        let buckets = &mut self.buckets;
        let bucket = *self
            .transformed
            .entry((Arc::as_ptr(attributes) as usize, source))
            .or_insert_with(|| {
                let export = &self.key.export;
                let attributes = export.transform(attributes, route_source, self.family)?;
                let attributes = Arc::new(attributes);
                buckets.push(Bucket {
                    attributes,
                    source,
                    paths: Vec::new(),
                });
                Some(buckets.len() - 1)
            });
        match bucket {
            Some(index) => {
                buckets[index].paths.push(path);
                true
            }
            None => false,
        }
    }
}

pub(super) fn route_source(peers: &[Option<Peer>], source: PeerId) -> RouteSource {
    peers
        .get(source.0 as usize)
        .and_then(Option::as_ref)
        .map_or(RouteSource::Local, Peer::source)
}

pub(super) fn encode_context(key: &GroupKey) -> EncodeContext {
    EncodeContext {
        four_octet_as: key.four_octet_as,
        max_len: key.max_message_len,
        add_path: key.add_path,
    }
}
