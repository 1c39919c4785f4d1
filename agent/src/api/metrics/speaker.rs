//! The speaker's counters as metrics. Labels: a peer's address, and an update group's number with what
//! its members are to us.

use std::fmt;
use std::sync::atomic::AtomicU64;

use bgp::speaker::convergence::{BOUNDS, ConvergenceCounts};
use bgp::speaker::counters::{Counters, PeerCounters};
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::clamp;

type Counters64<L> = Family<L, Counter<u64, AtomicU64>>;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct PeerLabel {
    peer: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct FamilyLabel {
    peer: String,
    family: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct DirectionLabel {
    peer: String,
    direction: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ActionLabel {
    peer: String,
    /// As `updateErrors` spells it.
    action: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct GroupLabel {
    group: u64,
    r#type: &'static str,
    client: &'static str,
}

pub fn register(registry: &mut Registry, counters: &Counters) {
    register_peers(registry, &counters.peers);
    register_traffic(registry, &counters.peers);
    register_groups(registry, counters);
    registry.register(
        "bgp_convergence_seconds",
        "From a read that brought UPDATEs until the last peer's socket took what they caused",
        Convergence(counters.convergence.clone()),
    );
}

fn register_peers(registry: &mut Registry, peers: &[PeerCounters]) {
    let states = Family::<PeerLabel, Gauge>::default();
    let lagging = Family::<PeerLabel, Gauge>::default();
    let received = Family::<FamilyLabel, Gauge>::default();
    let accepted = Family::<FamilyLabel, Gauge>::default();
    let flaps = Counters64::<PeerLabel>::default();
    let errors = Counters64::<ActionLabel>::default();
    for one in peers {
        let peer = || one.peer.clone();
        let label = PeerLabel { peer: peer() };
        states.get_or_create(&label).set(state_number(one.state));
        lagging.get_or_create(&label).set(i64::from(one.is_lagging));
        flaps.get_or_create(&label).inc_by(one.flaps);
        for (family, was_received, was_accepted) in [
            ("ipv4", one.received.ipv4, one.accepted.ipv4),
            ("ipv6", one.received.ipv6, one.accepted.ipv6),
        ] {
            let label = FamilyLabel {
                peer: peer(),
                family,
            };
            received.get_or_create(&label).set(clamp(was_received));
            accepted.get_or_create(&label).set(clamp(was_accepted));
        }
        for (action, count) in [
            ("treatAsWithdraw", one.update_errors.treat_as_withdraw),
            ("attributeDiscard", one.update_errors.attribute_discard),
        ] {
            let label = ActionLabel {
                peer: peer(),
                action,
            };
            errors.get_or_create(&label).inc_by(count);
        }
    }
    registry.register(
        "bgp_peer_state",
        "Session state as in RFC 4273: 1 idle, 2 connect, 3 active, 4 openSent, 5 openConfirm, 6 established",
        states,
    );
    registry.register(
        "bgp_peer_lagging",
        "Whether the peer had no room for what was said last",
        lagging,
    );
    registry.register(
        "bgp_peer_prefixes_received",
        "Routes that the peer sent and has not withdrawn",
        received,
    );
    registry.register(
        "bgp_peer_prefixes_accepted",
        "Those of them that policy accepted",
        accepted,
    );
    registry.register("bgp_peer_flaps", "Established sessions that ended", flaps);
    registry.register(
        "bgp_peer_update_errors",
        "Malformed attributes that did not end the session (RFC 7606)",
        errors,
    );
}

fn register_traffic(registry: &mut Registry, peers: &[PeerCounters]) {
    let messages = Counters64::<DirectionLabel>::default();
    let octets = Counters64::<DirectionLabel>::default();
    for one in peers {
        for (direction, flow) in [("in", one.messages_in), ("out", one.messages_out)] {
            let label = DirectionLabel {
                peer: one.peer.clone(),
                direction,
            };
            messages.get_or_create(&label).inc_by(flow.messages);
            octets.get_or_create(&label).inc_by(flow.octets);
        }
    }
    registry.register("bgp_peer_messages", "BGP messages of every kind", messages);
    registry.register("bgp_peer_bytes", "Octets over TCP", octets);
}

fn register_groups(registry: &mut Registry, counters: &Counters) {
    let members = Family::<GroupLabel, Gauge>::default();
    let messages = Counters64::<GroupLabel>::default();
    let octets = Counters64::<GroupLabel>::default();
    for group in &counters.groups {
        let label = GroupLabel {
            group: group.group as u64,
            r#type: if group.ebgp { "ebgp" } else { "ibgp" },
            client: if group.client { "true" } else { "false" },
        };
        members
            .get_or_create(&label)
            .set(clamp(group.members as u64));
        messages
            .get_or_create(&label)
            .inc_by(group.encoded.messages);
        octets.get_or_create(&label).inc_by(group.encoded.octets);
    }
    registry.register(
        "bgp_group_members",
        "Peers that are treated alike and share messages",
        members,
    );
    registry.register(
        "bgp_group_messages",
        "UPDATEs encoded for the group, each once",
        messages,
    );
    registry.register("bgp_group_bytes", "Octets of these UPDATEs", octets);
}

/// RFC 4273, bgpPeerState. 0 is none of them.
fn state_number(state: &str) -> i64 {
    let at = super::PEER_STATES.iter().position(|one| *one == state);
    at.map_or(0, |index| clamp(index as u64 + 1))
}

#[derive(Debug)]
struct Convergence(ConvergenceCounts);

impl EncodeMetric for Convergence {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(std::time::Duration::as_secs_f64);
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(self.0.buckets).collect();
        let (sum, count) = (self.0.sum.as_secs_f64(), self.0.count());
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
