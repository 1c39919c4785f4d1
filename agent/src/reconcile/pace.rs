//! How soon what others change is looked at: at once, unless they change back what was just repaired.
//!
//! Two programs that undo each other's work would otherwise keep two processors busy, and a log.

use std::time::{Duration, Instant};

/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(10);
/// What is ours is repaired within a second all the same.
const LONGEST: Duration = Duration::from_millis(500);
/// Repairs that are further apart have nothing to do with each other.
const QUIET: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub struct Pace {
    wait: Duration,
    last_repair: Option<Instant>,
}

impl Pace {
    /// A pass that a change of the kernel led to ended at `now`.
    pub fn note(&mut self, now: Instant, has_repaired: bool) {
        let is_quiet = self
            .last_repair
            .is_none_or(|last| now.duration_since(last) >= QUIET);
        if is_quiet {
            self.wait = Duration::ZERO;
        }
        if has_repaired {
            self.wait = (self.wait * 2).clamp(FIRST, LONGEST);
            self.last_repair = Some(now);
        }
    }

    /// `None`: at once.
    pub fn not_before(&self) -> Option<Instant> {
        self.last_repair.map(|last| last + self.wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_in_a_row_are_made_ever_less_often_and_a_first_one_at_once() {
        let mut pace = Pace::default();
        assert_eq!(pace.not_before(), None);
        let start = Instant::now();
        let mut now = start;
        let mut repairs = 0;
        while now < start + Duration::from_secs(10) {
            pace.note(now, true);
            repairs += 1;
            now = pace.not_before().expect("a repair was made");
        }
        assert!((15..30).contains(&repairs), "{repairs} in 10 s");
        pace.note(now + QUIET, true);
        assert_eq!(pace.not_before(), Some(now + QUIET + FIRST));
    }
}
