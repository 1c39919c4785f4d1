//! Which paths leave in one message: those with equal attributes as sent, of one source.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::policy::action;
use crate::policy::propagate::RouteSource;
use crate::rib::next_hop::NextHops;
use crate::rib::peer::{GroupKey, Peer};
use crate::rib::{PeerId, Rib};
use crate::speaker::config::Originated;
use crate::types::{Family, PathPrefix, Prefix};
use crate::wire::attribute::PathAttributes;
use crate::wire::update::EncodeContext;

/// The paths that leave together: same attributes as sent, same source.
pub(super) struct Bucket {
    pub(super) attributes: PathAttributes,
    pub(super) source: PeerId,
    pub(super) paths: Vec<PathPrefix>,
}

/// The paths that `receiver`, whose address is `address`, would be the next hop of and did not send
/// itself: they are withdrawn from it (RFC 4271 §5.1.3).
pub(super) fn leading_to<'a>(
    buckets: &'a [Bucket],
    receiver: PeerId,
    address: &'a IpAddr,
) -> impl Iterator<Item = PathPrefix> + 'a {
    let leading = buckets.iter().filter(move |bucket| {
        bucket.attributes.next_hop.address == *address && bucket.source != receiver
    });
    leading.flat_map(|bucket| bucket.paths.iter().copied())
}

/// What export asks about a route that is not in its path.
#[derive(Clone, Copy)]
pub(in crate::rib) struct Surroundings<'a> {
    pub peers: &'a [Option<Peer>],
    pub next_hops: &'a NextHops,
    pub originated: &'a BTreeMap<Prefix, Originated>,
}

impl<'a> Surroundings<'a> {
    pub fn source(&self, source: PeerId) -> RouteSource {
        if source == PeerId::AGGREGATE {
            return RouteSource::Aggregate;
        }
        self.peers
            .get(source.0 as usize)
            .and_then(Option::as_ref)
            .map_or(RouteSource::Local, Peer::source)
    }

    /// Where packets to a route leave, as far as known.
    pub fn interface(
        &self,
        prefix: &Prefix,
        source: PeerId,
        attributes: &PathAttributes,
    ) -> Option<&'a str> {
        if source.is_own() {
            self.originated.get(prefix)?.interface.as_deref()
        } else {
            let next_hop = attributes.next_hop.address;
            self.next_hops.interface(next_hop).map(|name| &**name)
        }
    }
}

/// Borrows what it needs only, so that the tables stay free.
pub(in crate::rib) fn surroundings<'a>(
    peers: &'a [Option<Peer>],
    next_hops: &'a NextHops,
    originated: &'a BTreeMap<Prefix, Originated>,
) -> Surroundings<'a> {
    Surroundings {
        peers,
        next_hops,
        originated,
    }
}

impl Rib {
    pub(in crate::rib) fn surroundings(&self) -> Surroundings<'_> {
        surroundings(&self.peers, &self.next_hops, &self.originated)
    }
}

/// Attributes by address, the source, and the identity of what the admitting rule changes.
type TransformedKey = (usize, PeerId, usize);

/// Export decisions of one group within one turn. Attributes are transformed once per set, source
/// and admitting rule's changes.
pub(super) struct Packer<'a> {
    key: &'a GroupKey,
    family: Family,
    pub(super) asks_for_interface: bool,
    transformed: HashMap<TransformedKey, Option<usize>>,
    /// The last of these: prefixes with equal attributes come one after the other.
    last: Option<(TransformedKey, Option<usize>)>,
    pub(super) buckets: Vec<Bucket>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(key: &'a GroupKey, family: Family) -> Packer<'a> {
        Packer {
            key,
            family,
            asks_for_interface: key.export.asks_for_interface(),
            transformed: HashMap::new(),
            last: None,
            buckets: Vec::new(),
        }
    }

    /// Puts `path` where it belongs; `false` if it is not said to this group.
    pub(super) fn pack(
        &mut self,
        around: &Surroundings<'_>,
        path: PathPrefix,
        source: PeerId,
        attributes: &Arc<PathAttributes>,
    ) -> bool {
        let route_source = around.source(source);
        let interface = self
            .asks_for_interface
            .then(|| around.interface(&path.prefix, source, attributes))
            .flatten();
        let export = &self.key.export;
        let admitted = export.admits(&path.prefix, attributes, route_source, interface);
        let Some(operations) = admitted else {
            return false;
        };
        let buckets = &mut self.buckets;
        let key = (
            Arc::as_ptr(attributes) as usize,
            source,
            action::identity(operations),
        );
        let family = self.family;
        let bucket = match self.last {
            Some((last, bucket)) if last == key => bucket,
            _ => *self.transformed.entry(key).or_insert_with(|| {
                let said = export.transform(attributes, route_source, family, operations);
                buckets.push(Bucket {
                    attributes: said.ok()?,
                    source,
                    paths: Vec::new(),
                });
                Some(buckets.len() - 1)
            }),
        };
        self.last = Some((key, bucket));
        match bucket {
            Some(index) => {
                buckets[index].paths.push(path);
                true
            }
            None => false,
        }
    }
}

pub(in crate::rib) fn encode_context(key: &GroupKey) -> EncodeContext {
    EncodeContext {
        four_octet_as: key.four_octet_as,
        max_len: key.max_message_len,
        add_path: key.add_path,
    }
}
