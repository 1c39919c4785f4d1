//! Best path selection (RFC 4271 §9.1.2.2, RFC 4456 §9, RFC 9494 §4.3) as elimination, step by step,
//! and which paths are as good as the best (multipath).
//!
//! Elimination, not pairwise comparison, because MED makes the latter depend on the order of
//! arrival. We keep no age: the oldest route is not preferred, so that equal input gives equal
//! output on every speaker.

use std::cmp::Ordering;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::types::{Asn, LocalPref, Med, RouterId};
use crate::wire::attribute::PathAttributes;
use crate::wire::community::Community;

/// The steps in their order. `Display` is `decidingStep`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Our own route wins over any learned one.
    Local,
    /// A route that is stale for long is the last resort (RFC 9494 §4.3).
    LongLivedStale,
    LocalPref,
    AsPathLength,
    Origin,
    Med,
    EbgpOverIbgp,
    IgpCost,
    RouterId,
    ClusterListLength,
    PeerAddress,
    /// Several paths of one peer (RFC 7911).
    PathId,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Local => "1 own route",
            Step::LongLivedStale => "2 not stale for long",
            Step::LocalPref => "3 highest LOCAL_PREF",
            Step::AsPathLength => "4 shortest AS_PATH",
            Step::Origin => "5 lowest ORIGIN",
            Step::Med => "6 lowest MED",
            Step::EbgpOverIbgp => "7 eBGP over iBGP",
            Step::IgpCost => "8 lowest cost to next hop",
            Step::RouterId => "9 lowest router id",
            Step::ClusterListLength => "10 shortest CLUSTER_LIST",
            Step::PeerAddress => "11 lowest peer address",
            Step::PathId => "12 lowest path identifier",
        })
    }
}

/// What of the decision is a matter of taste. MED is always deterministic: routes of one neighbouring
/// AS are compared among themselves, and the order of arrival does not count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Options {
    /// MEDs of different neighbouring ASes are compared, too (RFC 4271 §9.1.2.2 (c) leaves that to
    /// the operator).
    pub always_compare_med: bool,
    /// Most equal paths in use at once, the best included: 1 to 64.
    pub max_ebgp_paths: u8,
    pub max_ibgp_paths: u8,
    /// Equal paths need the same AS_PATH length only, not the same neighbouring AS.
    pub multipath_across_as: bool,
}

impl Options {
    pub fn has_multipath(&self) -> bool {
        self.max_ebgp_paths > 1 || self.max_ibgp_paths > 1
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            always_compare_med: false,
            max_ebgp_paths: 1,
            max_ibgp_paths: 1,
            multipath_across_as: false,
        }
    }
}

/// One eligible path and what the decision needs to know of its peer.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub attributes: &'a PathAttributes,
    /// As it came, else ours.
    pub local_pref: LocalPref,
    pub is_local: bool,
    pub is_ebgp: bool,
    /// Cost of reaching the next hop; lower wins.
    pub igp_cost: u32,
    /// The peer's BGP identifier.
    pub router_id: RouterId,
    pub address: IpAddr,
    /// As the peer numbered the path; 0 without ADD-PATH.
    pub path_id: u32,
}

impl Candidate<'_> {
    fn is_long_lived_stale(&self) -> bool {
        let communities = &self.attributes.communities;
        !communities.is_empty() && communities.contains(&Community::LLGR_STALE)
    }

    /// RFC 4271 §9.1.2.2 (c): a route without MED has the lowest possible one.
    fn med(&self) -> Med {
        self.attributes.med.unwrap_or(Med(0))
    }

    fn neighbour_as(&self) -> Option<Asn> {
        self.attributes.as_path.first_as()
    }

    /// RFC 4456 §9: ORIGINATOR_ID stands for the peer's identifier.
    fn identifier(&self) -> RouterId {
        self.attributes.originator_id.unwrap_or(self.router_id)
    }
}

/// The winner, and where each other candidate fell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Index into the candidates.
    pub best: usize,
    /// By candidate; `None` for the winner.
    pub eliminated_at: SmallVec<[Option<Step>; 4]>,
}

impl Verdict {
    /// The step that decided about candidate `index`: where it fell, or for the winner where the
    /// last rival did. `None` where there was no rival.
    pub fn deciding_step(&self, index: usize) -> Option<Step> {
        match self.eliminated_at.get(index) {
            Some(Some(step)) => Some(*step),
            _ => self.eliminated_at.iter().flatten().max().copied(),
        }
    }
}

/// Selects the best of `candidates`; `None` if there are none.
pub fn decide(candidates: &[Candidate<'_>], options: &Options) -> Option<Verdict> {
    let mut round = Round {
        candidates,
        left: (0..candidates.len()).collect(),
        eliminated_at: SmallVec::from_elem(None, candidates.len()),
    };
    round.keep_best(Step::Local, |a, b| b.is_local.cmp(&a.is_local));
    round.keep_best(Step::LongLivedStale, |a, b| {
        a.is_long_lived_stale().cmp(&b.is_long_lived_stale())
    });
    round.keep_best(Step::LocalPref, |a, b| b.local_pref.cmp(&a.local_pref));
    // (a) an AS_SET counts as one AS.
    round.keep_best(Step::AsPathLength, |a, b| {
        a.attributes
            .as_path
            .length()
            .cmp(&b.attributes.as_path.length())
    });
    round.keep_best(Step::Origin, |a, b| {
        a.attributes.origin.cmp(&b.attributes.origin)
    });
    round.eliminate_by_med(options);
    round.keep_best(Step::EbgpOverIbgp, |a, b| b.is_ebgp.cmp(&a.is_ebgp));
    round.keep_best(Step::IgpCost, |a, b| a.igp_cost.cmp(&b.igp_cost));
    round.keep_best(Step::RouterId, |a, b| a.identifier().cmp(&b.identifier()));
    round.keep_best(Step::ClusterListLength, |a, b| {
        a.attributes
            .cluster_list
            .len()
            .cmp(&b.attributes.cluster_list.len())
    });
    round.keep_best(Step::PeerAddress, |a, b| a.address.cmp(&b.address));
    round.keep_best(Step::PathId, |a, b| a.path_id.cmp(&b.path_id));
    let best = *round.left.first()?;
    Some(Verdict {
        best,
        eliminated_at: round.eliminated_at,
    })
}

/// The paths in use together: the best first, then those that are as good up to the cost of the next
/// hop, by next hop, each next hop once, as many as the options allow. Routes of our own are used
/// alone. Empty without candidates.
pub fn multipath(candidates: &[Candidate<'_>], options: &Options) -> SmallVec<[usize; 4]> {
    let Some(verdict) = decide(candidates, options) else {
        return SmallVec::new();
    };
    let best = &candidates[verdict.best];
    let limit = match best.is_ebgp {
        true => options.max_ebgp_paths,
        false => options.max_ibgp_paths,
    };
    let mut used = SmallVec::from_slice(&[verdict.best]);
    if best.is_local || limit <= 1 {
        return used;
    }
    let is_equal = |index: usize| {
        let candidate = &candidates[index];
        // The steps from the router id on only make the choice unique.
        verdict.eliminated_at[index].is_some_and(|step| step >= Step::RouterId)
            && (options.multipath_across_as || candidate.neighbour_as() == best.neighbour_as())
    };
    let next_hop = |index: usize| candidates[index].attributes.next_hop.address;
    let mut equal: Vec<usize> = (0..candidates.len())
        .filter(|index| is_equal(*index) && next_hop(*index) != next_hop(verdict.best))
        .collect();
    // Of several paths by one next hop the one that the decision would take.
    equal.sort_by_key(|index| {
        (
            next_hop(*index),
            verdict.eliminated_at[*index].map(std::cmp::Reverse),
            candidates[*index].identifier(),
            candidates[*index].address,
        )
    });
    equal.dedup_by_key(|index| next_hop(*index));
    equal.truncate(usize::from(limit) - 1);
    used.extend(equal);
    used
}

struct Round<'a> {
    candidates: &'a [Candidate<'a>],
    left: SmallVec<[usize; 4]>,
    eliminated_at: SmallVec<[Option<Step>; 4]>,
}

impl<'a> Round<'a> {
    /// Keeps those that `compare` puts first.
    fn keep_best(
        &mut self,
        step: Step,
        compare: impl Fn(&Candidate<'a>, &Candidate<'a>) -> Ordering,
    ) {
        if self.left.len() < 2 {
            return;
        }
        let Some(best) = self
            .left
            .iter()
            .copied()
            .min_by(|a, b| compare(&self.candidates[*a], &self.candidates[*b]))
        else {
            return;
        };
        let candidates = self.candidates;
        self.drop_where(step, |index| {
            compare(&candidates[best], &candidates[index]) == Ordering::Less
        });
    }

    /// (c): among routes of one neighbouring AS, or of all, only those with the lowest MED stay.
    fn eliminate_by_med(&mut self, options: &Options) {
        if self.left.len() < 2 {
            return;
        }
        let candidates = self.candidates;
        let rivalry = |index: usize| {
            let neighbour = candidates[index].neighbour_as();
            neighbour.filter(|_| !options.always_compare_med)
        };
        // Sorted, not each against each: how many paths there are is up to the peers.
        let mut lowest: SmallVec<[(Option<Asn>, Med); 4]> = self
            .left
            .iter()
            .map(|index| (rivalry(*index), candidates[*index].med()))
            .collect();
        lowest.sort_unstable();
        lowest.dedup_by_key(|(rivalry, _)| *rivalry);
        self.drop_where(Step::Med, |index| {
            let found = lowest.binary_search_by_key(&rivalry(index), |(rivalry, _)| *rivalry);
            found.is_ok_and(|found| lowest[found].1 < candidates[index].med())
        });
    }

    fn drop_where(&mut self, step: Step, loses: impl Fn(usize) -> bool) {
        let eliminated_at = &mut self.eliminated_at;
        self.left.retain(|index| {
            let keeps = !loses(*index);
            if !keeps {
                eliminated_at[*index] = Some(step);
            }
            keeps
        });
    }
}

#[cfg(test)]
mod tests;
