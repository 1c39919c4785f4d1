//! The timers of a session: which are set, which have expired. They never fire by themselves;
//! the driver sleeps until [`TimerTable::next_timeout`].

use std::time::{Duration, Instant};

/// What a deadline is for. The first three belong to the peer, the others to one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// When to dial (again) (RFC 4271 §8.1.3, event 9).
    ConnectRetry,
    /// When the wait after an error ends (RFC 4271 §8.1.3, event 13).
    IdleHold,
    /// When a peer that was held down by a Cease may come back (ours alone; RFC 4271 has one idle
    /// hold timer, whose wait the back-off bounds).
    HoldDown,
    /// When silence of the peer ends the connection (RFC 4271 §6.5, event 10).
    Hold,
    /// When to send the next KEEPALIVE (RFC 4271 §4.4, event 11).
    Keepalive,
}

impl Timer {
    const COUNT: usize = 5;
}

/// At most one deadline for each [`Timer`].
#[derive(Clone, Default, Debug)]
pub struct TimerTable {
    deadlines: [Option<Instant>; Timer::COUNT],
}

impl TimerTable {
    /// Sets or moves the deadline.
    pub fn set(&mut self, timer: Timer, deadline: Instant) {
        self.deadlines[timer as usize] = Some(deadline);
    }

    pub fn stop(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    pub fn get(&self, timer: Timer) -> Option<Instant> {
        self.deadlines[timer as usize]
    }

    pub fn is_set(&self, timer: Timer) -> bool {
        self.get(timer).is_some()
    }

    /// Whether the timer is set and its deadline is `now` or earlier.
    pub fn is_expired(&self, timer: Timer, now: Instant) -> bool {
        self.get(timer).is_some_and(|deadline| deadline <= now)
    }

    /// Stops the timer if it has expired, and says whether it had.
    pub fn take_expired(&mut self, timer: Timer, now: Instant) -> bool {
        let is_expired = self.is_expired(timer, now);
        if is_expired {
            self.stop(timer);
        }
        is_expired
    }

    /// The earliest deadline; `None` while no timer is set.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.iter().flatten().min().copied()
    }
}

/// What a waiting time is multiplied by, 0.75 to 1.0, so that speakers which started together do
/// not stay in step (RFC 4271 §10). The caller draws a new one for every call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Jitter {
    thousandths: u16,
}

impl Jitter {
    /// The whole waiting time.
    pub const NONE: Jitter = Jitter { thousandths: 1000 };

    /// Spreads evenly distributed `bits` over 0.75 to 1.0.
    pub fn from_random(bits: u32) -> Jitter {
        let above_minimum = u16::try_from(bits % 251).expect("a remainder of 251 fits 16 bits");
        Jitter {
            thousandths: 750 + above_minimum,
        }
    }

    pub fn apply(self, wait: Duration) -> Duration {
        wait * u32::from(self.thousandths) / 1000
    }
}

/// The instant of one call and the jitter drawn for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) jitter: Jitter,
}

impl Moment {
    /// When a wait that begins now is over, jitter applied.
    pub(super) fn after(self, wait: Duration) -> Instant {
        self.now + self.jitter.apply(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_is_next() {
        let now = Instant::now();
        let mut timers = TimerTable::default();
        assert_eq!(timers.next_timeout(), None);
        timers.set(Timer::Hold, now + Duration::from_secs(90));
        timers.set(Timer::Keepalive, now + Duration::from_secs(30));
        assert_eq!(timers.next_timeout(), Some(now + Duration::from_secs(30)));
        timers.stop(Timer::Keepalive);
        assert_eq!(timers.next_timeout(), Some(now + Duration::from_secs(90)));
    }

    #[test]
    fn an_expired_timer_is_taken_once() {
        let now = Instant::now();
        let mut timers = TimerTable::default();
        timers.set(Timer::Hold, now + Duration::from_secs(1));
        assert!(!timers.take_expired(Timer::Hold, now));
        assert!(timers.take_expired(Timer::Hold, now + Duration::from_secs(1)));
        assert!(!timers.take_expired(Timer::Hold, now + Duration::from_secs(1)));
    }

    #[test]
    fn jitter_stays_between_three_quarters_and_the_whole() {
        let wait = Duration::from_secs(30);
        for bits in [0, 1, 250, 251, u32::MAX] {
            let jittered = Jitter::from_random(bits).apply(wait);
            assert!(
                jittered >= wait * 3 / 4 && jittered <= wait,
                "{bits}: {jittered:?}"
            );
        }
        assert_eq!(Jitter::NONE.apply(wait), wait);
    }
}
