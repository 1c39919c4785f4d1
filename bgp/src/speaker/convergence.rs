//! How long it takes until what a peer said has reached the others: from the moment a read of its
//! socket brought UPDATEs until the last member's socket took the last octet of what they caused.
//!
//! A round is one turn of the core. It is attached to the messages that the turn's changes caused,
//! and noted once none of them waits any more; each read that the turn worked off is one observation.
//! So the cost is a timestamp per read and one per write, whatever the number of routes.
//!
//! The last member is the last one that took its messages: one whose connection ends before is not a
//! member any more. One without room in that turn (it is lagging) does not belong to it either: it
//! catches up later from the table, with what then is true, and one reader that stopped would
//! otherwise hide how all others fare. One that was given the messages and is slow to take them
//! counts. What caused nothing to be said is not observed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets; what took longer is in one more.
pub const BOUNDS: [Duration; 16] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_micros(1000),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];
const BUCKETS: usize = BOUNDS.len() + 1;

/// The histogram.
#[derive(Debug, Default)]
pub struct Convergence {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

/// What the histogram came to since the speaker started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConvergenceCounts {
    /// Observations by bucket, not accumulated: one per bound of [`BOUNDS`], then those above all.
    pub buckets: [u64; BUCKETS],
    pub sum: Duration,
}

impl ConvergenceCounts {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Convergence {
    pub fn counts(&self) -> ConvergenceCounts {
        ConvergenceCounts {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)),
        }
    }

    fn note(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos(took), Ordering::Relaxed);
    }
}

/// The reads that one turn worked off. Who holds a clone has messages of it to write; what it came to
/// is noted when the last one is dropped.
#[derive(Debug)]
pub struct Round {
    began: Instant,
    reads: Vec<Instant>,
    /// Nanoseconds after `began` that somebody took the last octet; 0: nobody has.
    taken_after: AtomicU64,
    convergence: Arc<Convergence>,
}

impl Round {
    /// `None` without reads: then nothing is to be observed.
    pub fn begin(
        reads: Vec<Instant>,
        convergence: &Arc<Convergence>,
        now: Instant,
    ) -> Option<Arc<Round>> {
        if reads.is_empty() {
            return None;
        }
        Some(Arc::new(Round {
            began: now,
            reads,
            taken_after: AtomicU64::new(0),
            convergence: convergence.clone(),
        }))
    }

    /// A member's socket took all of the round's messages that were meant for it.
    pub fn taken(&self, now: Instant) {
        let after = nanos(now.saturating_duration_since(self.began)).max(1);
        self.taken_after.fetch_max(after, Ordering::Relaxed);
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let after = *self.taken_after.get_mut();
        if after == 0 {
            return;
        }
        let last_taken = self.began + Duration::from_nanos(after);
        for read in &self.reads {
            self.convergence
                .note(last_taken.saturating_duration_since(*read));
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(convergence: &Convergence) -> Vec<(usize, u64)> {
        let buckets = convergence.counts().buckets.into_iter().enumerate();
        buckets.filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn each_read_lasts_until_the_last_member_took_it() {
        let convergence = Arc::new(Convergence::default());
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let round = Round::begin(vec![at(0), at(8)], &convergence, at(10)).expect("reads");
        let (quick, slow) = (round.clone(), round);
        slow.taken(at(12));
        drop(slow);
        assert_eq!(counted(&convergence), [], "one still writes");
        quick.taken(at(11));
        drop(quick);
        // 12 ms and 4 ms.
        assert_eq!(counted(&convergence), [(5, 1), (7, 1)]);
        assert_eq!(convergence.counts().sum, Duration::from_millis(16));
    }

    #[test]
    fn who_goes_before_it_took_anything_does_not_count() {
        let convergence = Arc::new(Convergence::default());
        let start = Instant::now();
        let round = Round::begin(vec![start], &convergence, start).expect("a read");
        let gone = round.clone();
        round.taken(start + Duration::from_micros(100));
        drop(round);
        drop(gone);
        assert_eq!(counted(&convergence), [(0, 1)]);
        drop(Round::begin(vec![start], &convergence, start));
        assert_eq!(convergence.counts().count(), 1, "nobody was told");
    }

    #[test]
    fn without_a_read_there_is_nothing_to_observe() {
        let now = Instant::now();
        assert!(Round::begin(Vec::new(), &Arc::default(), now).is_none());
    }

    #[test]
    fn what_takes_longer_than_all_bounds_has_a_bucket() {
        let convergence = Convergence::default();
        convergence.note(Duration::from_secs(11));
        convergence.note(BOUNDS[15]);
        assert_eq!(counted(&convergence), [(15, 1), (16, 1)]);
    }
}
