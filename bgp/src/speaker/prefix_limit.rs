//! The maximum of prefixes: who has more is told so, and held down (RFC 4271 §6.7, RFC 4486 §4).

use std::time::Duration;

use tracing::warn;

use super::clock;
use super::control::Control;
use super::core::Core;
use crate::rib::PeerId;
use crate::types::Family;
use crate::wire::Notification;

/// How long a peer with too many prefixes stays Idle, unless its maximum is changed: it would bring
/// them again, and each time cost everybody a table that comes and goes.
const TOO_MANY_PREFIXES_HOLD: Duration = Duration::from_secs(300);
/// Of the maximum of prefixes, above which the log warns.
const WARN_PERCENT: u64 = 75;

impl Core {
    /// Ends the session of a peer that has more than its maximum, and warns of one that is near it.
    pub(super) fn enforce_max_prefixes(&mut self, id: PeerId) {
        let Some(slot) = self.peers.get(id.0 as usize).and_then(Option::as_ref) else {
            return;
        };
        let Some(limit) = slot.config.max_prefixes else {
            return;
        };
        let limit_of_all = u64::from(limit) * 2;
        // Stale ones go when the peer has repeated what it has, so that a restart, or a refresh, in
        // which it has others than before does not look like too many. But the maximum bounds them,
        // too: a peer could make what it sent stale again and again.
        let received = |family| {
            let counts = self.rib.counts(id, family);
            counts.received - counts.stale
        };
        let over = Family::ALL.into_iter().find(|family| {
            received(*family) > u64::from(limit)
                || self.rib.counts(id, *family).received > limit_of_all
        });
        if let Some(family) = over {
            let cease = Control::Cease {
                notification: Notification::maximum_prefixes(family, limit),
                hold_down: Some(TOO_MANY_PREFIXES_HOLD),
            };
            slot.control.send(cease);
            if let Some(slot) = self.slot(id) {
                slot.held_until = Some(clock::now() + TOO_MANY_PREFIXES_HOLD);
            }
            return;
        }
        let most = Family::ALL.map(received).into_iter().max().unwrap_or(0);
        let is_near = most * 100 > u64::from(limit) * WARN_PERCENT;
        let Some(slot) = self.slot(id) else { return };
        if is_near && !slot.is_warned_of_prefixes {
            warn!(peer = %slot.key, received = most, limit, "near the maximum of prefixes");
        }
        slot.is_warned_of_prefixes = is_near;
    }
}
