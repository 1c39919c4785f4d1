//! How long to wait after errors, and when to refuse a peer that keeps sending wrong messages.

use std::time::Duration;

use super::event::DownReason;
use crate::wire::notification::code;

/// Errors since the session last stayed up for its hold time.
#[derive(Clone, Default, Debug)]
pub(super) struct BackOff {
    failures: u32,
    offences: u32,
}

impl BackOff {
    /// Counts one more end of a connection.
    pub(super) fn record(&mut self, reason: &DownReason) {
        self.failures = self.failures.saturating_add(1);
        if is_offence(reason) {
            self.offences = self.offences.saturating_add(1);
        } else {
            self.offences = 0;
        }
    }

    pub(super) fn reset(&mut self) {
        *self = BackOff::default();
    }

    /// `first` after one failure, doubled with each further one, never above `max`.
    pub(super) fn wait(&self, first: Duration, max: Duration) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(31);
        first.saturating_mul(1 << doublings).min(max)
    }

    /// Whether the peer's messages were wrong twice in a row. One may be an accident, or the first
    /// try after a change of configuration that is half done.
    pub(super) fn is_peer_refused(&self) -> bool {
        self.offences >= 2
    }
}

/// Whether the connection ended because what the peer sent was wrong.
fn is_offence(reason: &DownReason) -> bool {
    match reason {
        DownReason::NotificationSent(sent) => matches!(
            sent.code,
            code::HEADER | code::OPEN | code::UPDATE | code::FSM | code::ROUTE_REFRESH
        ),
        DownReason::ConnectionLost
        | DownReason::Replaced
        | DownReason::NotificationReceived(_)
        | DownReason::HoldTimerExpired
        | DownReason::SendHoldTimerExpired
        | DownReason::StoppedSilently => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Notification;

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(10));
        let mut back_off = BackOff::default();
        let waits: Vec<u64> = (0..40)
            .map(|_| {
                back_off.record(&DownReason::ConnectionLost);
                back_off.wait(first, max).as_secs()
            })
            .collect();
        assert_eq!(waits[..6], [1, 2, 4, 8, 10, 10]);
        assert_eq!(waits[39], 10);
        back_off.reset();
        back_off.record(&DownReason::ConnectionLost);
        assert_eq!(back_off.wait(first, max), first);
    }

    #[test]
    fn a_peer_is_refused_after_two_offences_in_a_row() {
        let offence = DownReason::NotificationSent(Notification::new(code::OPEN, 2));
        let mut back_off = BackOff::default();
        back_off.record(&offence);
        assert!(!back_off.is_peer_refused());
        back_off.record(&offence);
        assert!(back_off.is_peer_refused());
        back_off.record(&DownReason::ConnectionLost);
        assert!(!back_off.is_peer_refused());
    }
}
