//! Log lines whose number a stranger or a peer decides: at most one a second, which says how many
//! it stands for. Pure.

use std::time::{Duration, Instant};

/// Between two lines in the log.
const QUIET: Duration = Duration::from_secs(1);

/// The lines about one thing.
#[derive(Debug, Default)]
pub struct Quiet {
    logged_at: Option<Instant>,
    unlogged: usize,
}

impl Quiet {
    /// `count` more happened: for how many a line is due now, if one is.
    pub fn note(&mut self, count: usize, now: Instant) -> Option<usize> {
        self.unlogged = self.unlogged.saturating_add(count);
        let is_due = self
            .logged_at
            .is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        is_due.then(|| {
            self.logged_at = Some(now);
            std::mem::take(&mut self.unlogged)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_stands_for_all() {
        let mut quiet = Quiet::default();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let lines = [(0, 1), (1, 1), (999, 3), (1000, 1), (1999, 1), (5000, 2)]
            .map(|(ms, count)| quiet.note(count, at(ms)));
        assert_eq!(lines, [Some(1), None, None, Some(5), None, Some(3)]);
    }
}
