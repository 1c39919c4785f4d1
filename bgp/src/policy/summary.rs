//! Which routes an aggregate stands for, and who hears it in their place (RFC 4271 §9.1.4, §9.2.2.2).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::propagate::{ExportPolicy, RouteSource};
use crate::speaker::config::Aggregate;
use crate::types::Prefix;
use crate::wire::attribute::PathAttributes;
use crate::wire::community::Community;

/// Whether a route can bring up an aggregate, and be left out for it: one of a client of ours that
/// may leave the AS. What its sender keeps inside must not get out as part of something larger
/// (RFC 1997), nor must what is for customers only (RFC 9234 §5).
pub fn may_be_aggregated(source: RouteSource, attributes: &PathAttributes) -> bool {
    const INSIDE: [Community; 3] = [
        Community::NO_EXPORT,
        Community::NO_EXPORT_SUBCONFED,
        Community::NO_ADVERTISE,
    ];
    let is_of_client = match source {
        RouteSource::Ibgp { client, .. } => client,
        RouteSource::Local | RouteSource::Aggregate | RouteSource::Ebgp => false,
    };
    let has = |community| attributes.communities.contains(community);
    is_of_client && attributes.only_to_customer.is_none() && !INSIDE.iter().any(has)
}

/// Whether `aggregate` can stand for `prefix`: it is shorter, and covers it.
pub fn is_within(aggregate: &Prefix, prefix: &Prefix) -> bool {
    aggregate.length() < prefix.length() && aggregate.covers(prefix)
}

impl ExportPolicy {
    /// This policy for the peer at `receiver`, who hears these aggregates in place of their
    /// specifics. But who is an aggregate's next hop needs those, and whoever does not get to hear an
    /// aggregate would have nothing.
    pub fn summarizing(
        self,
        aggregates: &BTreeMap<Prefix, Aggregate>,
        receiver: IpAddr,
    ) -> ExportPolicy {
        let is_heard = |prefix: &Prefix, aggregate: &Aggregate| {
            let attributes = PathAttributes::originated(aggregate.next_hop);
            self.say(prefix, &attributes, RouteSource::Aggregate, None)
                .is_ok()
        };
        let summarized = aggregates
            .iter()
            .filter(|(_, aggregate)| aggregate.summary_only && aggregate.next_hop != receiver)
            .filter(|(prefix, aggregate)| is_heard(prefix, aggregate))
            .map(|(prefix, _)| *prefix)
            .collect();
        ExportPolicy { summarized, ..self }
    }

    /// The aggregate that is said in place of a route. Where that is the best of its prefix the
    /// aggregate is there: the route itself is why. What ADD-PATH would bring besides is left out, too.
    pub(super) fn summary_of(
        &self,
        prefix: &Prefix,
        attributes: &PathAttributes,
        source: RouteSource,
    ) -> Option<Prefix> {
        let mut summarized = self.summarized.iter();
        let aggregate = summarized.find(|aggregate| is_within(aggregate, prefix))?;
        may_be_aggregated(source, attributes).then_some(*aggregate)
    }
}
