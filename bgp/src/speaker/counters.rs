//! The speaker in numbers, for metrics. Everything is counted where it happens, so asking costs a
//! look at each peer and group, however many routes there are. How many prefixes a peer is told is
//! not here: that is a walk over the table, which `peers` does for people.

use super::convergence::ConvergenceCounts;
use super::core::Core;
use super::show::state_name;
use super::status::{FamilyCounts, UpdateErrorCounts};
use super::traffic::FlowCounts;
use crate::rib::PeerId;
pub use crate::rib::show::GroupCounts;
use crate::types::Family;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub peers: Vec<PeerCounters>,
    pub groups: Vec<GroupCounts>,
    pub convergence: ConvergenceCounts,
}

/// Of one peer since it was configured, or since it connected where it came from a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerCounters {
    /// Its address, with the port where that is not 179.
    pub peer: String,
    /// As [`super::status::PeerStatus`] spells it.
    pub state: &'static str,
    pub received: FamilyCounts,
    pub accepted: FamilyCounts,
    /// Had no room for what was said last, and catches up from the table.
    pub is_lagging: bool,
    pub flaps: u64,
    pub update_errors: UpdateErrorCounts,
    pub messages_in: FlowCounts,
    pub messages_out: FlowCounts,
}

impl Core {
    pub(super) fn count(&self) -> Counters {
        // One that leaves may have its successor beside it, under the same name.
        let slots = self.peers.iter().enumerate();
        let present = slots.filter_map(|(index, slot)| {
            let slot = slot.as_ref().filter(|slot| !slot.is_leaving)?;
            Some((PeerId(u32::try_from(index).ok()?), slot))
        });
        let mut peers: Vec<PeerCounters> = present
            .map(|(id, slot)| {
                let [ipv4, ipv6] = Family::ALL.map(|family| self.rib.counts(id, family));
                PeerCounters {
                    peer: slot.key.to_string(),
                    state: state_name(slot.state),
                    received: FamilyCounts {
                        ipv4: ipv4.received,
                        ipv6: ipv6.received,
                    },
                    accepted: FamilyCounts {
                        ipv4: ipv4.accepted,
                        ipv6: ipv6.accepted,
                    },
                    is_lagging: self.rib.peer(id).is_some_and(|peer| {
                        let member = &peer.member;
                        member.is_lagging && member.is_waiting()
                    }),
                    flaps: slot.flaps,
                    update_errors: slot.faults.counts,
                    messages_in: slot.traffic.received.counts(),
                    messages_out: slot.traffic.sent.counts(),
                }
            })
            .collect();
        peers.sort_by(|a, b| a.peer.cmp(&b.peer));
        Counters {
            peers,
            groups: self.rib.group_counts(),
            convergence: self.convergence.counts(),
        }
    }
}
