//! Several dumps that may each lack routes that stand still.
//!
//! Pure: dumps and what was heard in, one view out. By prefix, as the kernel counts: it sends or
//! passes over all routes of a prefix.

use bgp::types::Prefix;
use hashbrown::HashSet;

use crate::dataplane::deletions::Heard;
use crate::dataplane::diff::KernelRoute;

/// The newest dump, and what earlier ones had of prefixes that nobody touched since.
#[derive(Default)]
pub struct Joined {
    pub routes: Vec<KernelRoute>,
    /// Heard in the last dump: what it has of these may be gone.
    last: HashSet<Prefix>,
    ever: HashSet<Prefix>,
    /// Dumps in a row that had nothing new of a prefix that was never touched.
    pub quiet: u32,
}

impl From<Vec<KernelRoute>> for Joined {
    fn from(routes: Vec<KernelRoute>) -> Joined {
        Joined {
            routes,
            ..Joined::default()
        }
    }
}

impl Joined {
    /// Takes a dump, what was heard between the last one and this, and what during this.
    pub fn add(&mut self, dump: Vec<KernelRoute>, between: &Heard, during: &Heard) {
        self.ever.extend(&between.prefixes);
        self.ever.extend(&during.prefixes);
        let known = prefixes(&self.routes);
        let is_new = |prefix: &Prefix| !known.contains(prefix) && !self.ever.contains(prefix);
        let is_quiet =
            !between.is_lost && !during.is_lost && !dump.iter().any(|route| is_new(&route.prefix));
        self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
        let seen = prefixes(&dump);
        self.routes.retain(|route| {
            let prefix = &route.prefix;
            let heard = [&self.last, &between.prefixes, &during.prefixes];
            !seen.contains(prefix) && !heard.iter().any(|heard| heard.contains(prefix))
        });
        self.routes.extend(dump);
        self.last = during.prefixes.clone();
    }

    /// Adds what was known before, of which `heard` tells what happened since.
    pub fn add_known(&mut self, known: impl Iterator<Item = KernelRoute>, heard: &Heard) {
        if heard.is_lost {
            return;
        }
        let seen = prefixes(&self.routes);
        let stands = |prefix: &Prefix| !seen.contains(prefix) && !heard.prefixes.contains(prefix);
        self.routes
            .extend(known.filter(|route| stands(&route.prefix)));
    }
}

fn prefixes(routes: &[KernelRoute]) -> HashSet<Prefix> {
    routes.iter().map(|route| route.prefix).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smallvec::SmallVec;

    use super::*;
    use crate::dataplane::diff::{FibInfo, RouteKind};

    fn prefix(number: u8) -> Prefix {
        let bits = [number; 16];
        Prefix::V6 { bits, length: 128 }
    }

    fn dump(numbers: &[u8]) -> Vec<KernelRoute> {
        let info = Arc::new(FibInfo {
            metric: 1,
            protocol: 4,
            kind: RouteKind::Blackhole,
            scope: 0,
            hops: SmallVec::new(),
            source: None,
            has_extras: false,
        });
        let route = |number: &u8| KernelRoute {
            prefix: prefix(*number),
            tos: 0,
            info: info.clone(),
        };
        numbers.iter().map(route).collect()
    }

    fn heard(numbers: &[u8]) -> Heard {
        Heard {
            prefixes: numbers.iter().copied().map(prefix).collect(),
            ..Heard::default()
        }
    }

    fn seen(joined: &Joined) -> Vec<Prefix> {
        let mut prefixes: Vec<_> = joined.routes.iter().map(|route| route.prefix).collect();
        prefixes.sort_unstable();
        prefixes
    }

    #[test]
    fn what_a_dump_lacks_stays_unless_it_was_touched_since_it_was_seen() {
        let mut joined = Joined::default();
        joined.add(dump(&[1, 2, 3, 4, 5]), &heard(&[]), &heard(&[2]));
        joined.add(dump(&[1]), &heard(&[3]), &heard(&[4]));
        assert_eq!(seen(&joined), [1, 5].map(prefix));
        joined.add_known(dump(&[1, 6, 7]).into_iter(), &heard(&[7]));
        assert_eq!(seen(&joined), [1, 5, 6].map(prefix));
    }

    #[test]
    fn what_was_known_counts_for_nothing_where_not_all_was_heard() {
        let mut joined = Joined::from(dump(&[1]));
        let lost = Heard {
            is_lost: true,
            ..Heard::default()
        };
        joined.add_known(dump(&[2]).into_iter(), &lost);
        assert_eq!(seen(&joined), [prefix(1)]);
    }

    #[test]
    fn dumps_are_quiet_when_they_bring_nothing_but_what_came_meanwhile() {
        let mut joined = Joined::default();
        for (name, numbers, touched, quiet) in [
            ("all is new", &[1, 2][..], &[][..], 0),
            ("nothing is", &[1], &[], 1),
            ("that came", &[1, 3], &[3], 2),
            ("it was hidden", &[4], &[], 0),
            ("nothing is again", &[2, 4], &[], 1),
        ] {
            joined.add(dump(numbers), &heard(&[]), &heard(touched));
            assert_eq!(joined.quiet, quiet, "{name}");
        }
    }
}
