//! Route reflection (RFC 4456): who hears what from whom, and what is noted on the way.

use super::propagate::RouteSource;
use crate::types::{ClusterId, RouterId};
use crate::wire::attribute::PathAttributes;

/// Whether a route from `source` goes to a peer of this kind (RFC 4456 §6; RFC 4271 §9.2).
pub fn passes(source: RouteSource, to_ebgp: bool, to_client: bool) -> bool {
    match source {
        RouteSource::Local | RouteSource::Ebgp | RouteSource::Ibgp { client: true, .. } => true,
        // Whoever shares the IGP, or hears us reflect, has the specifics.
        RouteSource::Aggregate => to_ebgp,
        RouteSource::Ibgp { client: false, .. } => to_ebgp || to_client,
    }
}

/// What reflection adds (RFC 4456 §8): who brought the route into the AS, and our cluster in front.
pub fn mark(attributes: &mut PathAttributes, from: RouterId, cluster_id: ClusterId) {
    attributes.originator_id.get_or_insert(from);
    attributes.cluster_list.insert(0, cluster_id);
}
