//! The decision about the paths of one prefix: what of them is eligible, best, and as good.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::decision::{self, Candidate, Options, Step};
use super::next_hop::{NextHops, Reach};
use super::path::Path;
use super::peer::Peer;
use crate::types::{LocalPref, RouterId};

/// What the decision knows besides the paths.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    pub peers: &'a [Option<Peer>],
    pub next_hops: &'a NextHops,
    pub options: &'a Options,
    /// Of routes that came without one.
    pub local_pref: LocalPref,
}

/// Indices of paths.
pub type Indices = SmallVec<[usize; 4]>;

impl Selection<'_> {
    /// Index of the best eligible path.
    pub fn best(&self, paths: &[Path]) -> Option<usize> {
        let eligible = eligible(paths);
        if let [only] = eligible[..] {
            return Some(only);
        }
        let candidates = self.candidates(paths, &eligible);
        decision::decide(&candidates, self.options).map(|verdict| eligible[verdict.best])
    }

    /// Indices of the paths in use together, the best first.
    pub fn multipath(&self, paths: &[Path]) -> Indices {
        let eligible = eligible(paths);
        let candidates = self.candidates(paths, &eligible);
        decision::multipath(&candidates, self.options)
            .into_iter()
            .map(|index| eligible[index])
            .collect()
    }

    /// The step that decided about each path; `None` for those that are not eligible, and where
    /// there was no rival.
    pub fn deciding_steps(&self, paths: &[Path]) -> Vec<Option<Step>> {
        let eligible = eligible(paths);
        let candidates = self.candidates(paths, &eligible);
        let verdict = decision::decide(&candidates, self.options);
        let mut steps = vec![None; paths.len()];
        for (candidate, path) in eligible.iter().enumerate() {
            steps[*path] = verdict
                .as_ref()
                .and_then(|verdict| verdict.deciding_step(candidate));
        }
        steps
    }

    fn candidates<'p>(&self, paths: &'p [Path], indices: &[usize]) -> SmallVec<[Candidate<'p>; 4]> {
        indices
            .iter()
            .map(|index| self.candidate(&paths[*index]))
            .collect()
    }

    /// A path as the decision sees it.
    fn candidate<'p>(&self, path: &'p Path) -> Candidate<'p> {
        let peer = self
            .peers
            .get(path.source.0 as usize)
            .and_then(Option::as_ref);
        Candidate {
            attributes: &path.attributes,
            // RFC 4271 §9.1.1: of routes from external peers it is ours to say.
            local_pref: path.attributes.local_pref.unwrap_or(self.local_pref),
            is_local: path.source.is_own(),
            is_ebgp: peer.is_some_and(|peer| peer.setup.ebgp),
            igp_cost: match self.next_hops.reach(path.attributes.next_hop.address) {
                Reach::Cost(cost) if !path.source.is_own() => cost,
                Reach::Cost(_) | Reach::Unresolvable => 0,
            },
            router_id: peer.map_or(RouterId([0, 0, 0, 0].into()), |peer| peer.setup.router_id),
            address: peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.setup.address),
            path_id: path.path_id,
        }
    }
}

fn eligible(paths: &[Path]) -> Indices {
    (0..paths.len())
        .filter(|index| paths[*index].is_eligible())
        .collect()
}
