//! How soon what others change is looked at: at once, unless changes follow each other.
//!
//! What comes one by one, such as a thousand links that are deleted, shares passes: each reads all
//! links. And two programs that undo each other's work would keep two processors busy, and a log.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Pace {
    passes: Series,
    repairs: Series,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            passes: Series {
                first: Duration::from_millis(2),
                longest: Duration::from_millis(64),
                apart: Duration::from_millis(100),
                state: None,
            },
            repairs: Series {
                first: Duration::from_millis(10),
                // What is ours is repaired within a second all the same.
                longest: Duration::from_millis(500),
                apart: Duration::from_secs(3),
                state: None,
            },
        }
    }
}

impl Pace {
    /// A pass that a change of the kernel led to lasted from `begun` to `ended`.
    pub fn note(&mut self, begun: Instant, ended: Instant, has_repaired: bool) {
        self.passes.note(begun, ended);
        if has_repaired {
            self.repairs.note(begun, ended);
        }
    }

    /// `None`: at once.
    pub fn not_before(&self) -> Option<Instant> {
        self.passes.not_before().max(self.repairs.not_before())
    }
}

#[derive(Debug)]
struct Series {
    /// The first wait; each further one is twice as long.
    first: Duration,
    longest: Duration,
    /// What is so far apart has nothing to do with each other.
    apart: Duration,
    /// The end of the last one, and the wait after it.
    state: Option<(Instant, Duration)>,
}

impl Series {
    fn note(&mut self, begun: Instant, ended: Instant) {
        let before = self
            .state
            .filter(|(last, _)| begun.duration_since(*last) < self.apart);
        let wait = before.map_or(self.first, |(_, wait)| (wait * 2).min(self.longest));
        self.state = Some((ended, wait));
    }

    fn not_before(&self) -> Option<Instant> {
        self.state.map(|(last, wait)| last + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes in `time`, each right when the one before allows it.
    fn passes(pace: &mut Pace, has_repaired: bool, time: Duration) -> u32 {
        let start = Instant::now();
        let mut now = start;
        let mut passes = 0;
        while now < start + time {
            pace.note(now, now, has_repaired);
            passes += 1;
            now = pace.not_before().expect("a pass was made");
        }
        passes
    }

    #[test]
    fn repairs_in_a_row_are_made_ever_less_often_and_a_first_one_at_once() {
        let mut pace = Pace::default();
        assert_eq!(pace.not_before(), None);
        let repairs = passes(&mut pace, true, Duration::from_secs(10));
        assert!((15..30).contains(&repairs), "{repairs} in 10 s");
        let later = pace.not_before().expect("paced") + pace.repairs.apart;
        pace.note(later, later, true);
        assert_eq!(pace.not_before(), Some(later + pace.repairs.first));
    }

    #[test]
    fn changes_that_follow_each_other_share_passes_and_a_single_one_waits_for_none() {
        let mut pace = Pace::default();
        let passes = passes(&mut pace, false, Duration::from_secs(1));
        assert!((15..30).contains(&passes), "{passes} in 1 s");
        let later = pace.not_before().expect("paced") + pace.passes.apart;
        pace.note(later, later, false);
        assert_eq!(pace.not_before(), Some(later + pace.passes.first));
    }
}
