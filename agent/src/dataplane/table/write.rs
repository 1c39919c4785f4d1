//! Writes what is needed so that the kernel has what is wanted.

use std::collections::BTreeSet;
use std::sync::Arc;

use bgp::types::Prefix;
use hashbrown::HashMap;
use nix::errno::Errno;
use tracing::{debug, info};

use super::Table;
use super::resolved::ResolvedRoutes;
use crate::dataplane::REPORTED_DRIFTS;
use crate::dataplane::desired::{RouteState, apart};
use crate::dataplane::diff::{self, FibInfo, KernelHop, KernelRoute, Step};
use crate::dataplane::link::Links;
use crate::dataplane::netlink::{Netlink, NetlinkError, Refusal};
use crate::dataplane::route::{RouteWrite, Write};
use crate::names::PROTOCOL_LEARNED;

/// Rounds of writing in one pass: the first finds out what changed behind our back, the second
/// acts on a fresh dump, the third is for bad luck. What is left is retried in the next pass.
const ROUNDS: u32 = 3;
/// Routes of one hop, written at once, that are worth a next-hop object. A cluster of fewer nodes
/// has plain routes.
const SHARED: usize = 256;
/// Stray routes that the log names.
const SHOWN: usize = 3;

impl Table {
    /// Writes what is needed so that the kernel has what is wanted for `prefixes`.
    ///
    /// # Errors
    /// Only if the socket fails; a route that cannot be written is a state.
    pub(super) fn converge(
        &mut self,
        netlink: &mut Netlink,
        links: &Links,
        mut prefixes: Vec<Prefix>,
    ) -> Result<(), NetlinkError> {
        let mut resolved = ResolvedRoutes::default();
        for round in 1..=ROUNDS {
            prefixes.sort_unstable_by_key(apart);
            prefixes.dedup();
            let (removals, puts) = self.plan(links, &mut resolved, prefixes);
            let surprises = self.write(netlink, links, &mut resolved, removals, puts)?;
            if surprises.is_empty() {
                break;
            }
            debug!(
                routes = surprises.len(),
                round, "the table changed under way"
            );
            for prefix in &surprises {
                let reason = "another program keeps changing this route".to_owned();
                self.states.insert(*prefix, RouteState::Failed { reason });
            }
            let families: BTreeSet<_> = surprises.iter().map(Prefix::family).collect();
            self.refresh(netlink, &families)?;
            prefixes = surprises;
            prefixes.extend(&self.drifted);
        }
        self.drifted.clear();
        Ok(())
    }

    /// Splits what to write into removals, which go first, and the others.
    fn plan(
        &mut self,
        links: &Links,
        resolved: &mut ResolvedRoutes,
        prefixes: Vec<Prefix>,
    ) -> (Vec<RouteWrite>, Vec<RouteWrite>) {
        let mut removals = Vec::new();
        let mut puts = Vec::new();
        let write = RouteWrite::ours;
        for prefix in prefixes {
            match self.step(&prefix, links, resolved) {
                Step::Keep => self.note_in_place(prefix, links, resolved),
                Step::Remove(info) => removals.push(write(Write::Remove, prefix, info)),
                Step::Blocked(state) => {
                    self.states.insert(prefix, state);
                }
                Step::Wait { state, stale } => {
                    self.states.insert(prefix, state);
                    removals.extend(stale.map(|info| write(Write::Remove, prefix, info)));
                }
                Step::Create(info) => puts.push(write(Write::Create, prefix, info)),
                Step::Replace(info) => puts.push(write(Write::Replace, prefix, info)),
            }
        }
        (removals, puts)
    }

    /// Returns the prefixes for which the kernel turned out to differ from the last dump.
    fn write(
        &mut self,
        netlink: &mut Netlink,
        links: &Links,
        resolved: &mut ResolvedRoutes,
        removals: Vec<RouteWrite>,
        mut puts: Vec<RouteWrite>,
    ) -> Result<Vec<Prefix>, NetlinkError> {
        let answers = netlink.batch(&removals)?;
        for (removal, answer) in removals.iter().zip(answers) {
            let prefix = removal.route.prefix;
            match answer {
                Err(refusal) if !is_gone(&refusal) => self.note_failed(prefix, &refusal),
                Ok(()) | Err(_) => self.note_removed(prefix, links, resolved),
            }
        }
        let mut surprises = Vec::new();
        self.use_next_hops(netlink, &mut puts)?;
        let answers = netlink.batch(&puts)?;
        for (
            RouteWrite {
                route, next_hop, ..
            },
            answer,
        ) in puts.into_iter().zip(answers)
        {
            let KernelRoute { prefix, info, .. } = route;
            match answer {
                Ok(()) => self.note_written(prefix, info, links, resolved),
                // Created while someone holds the key, or replaced while nobody does.
                Err(refusal) if matches!(refusal.errno, Errno::EEXIST | Errno::ENOENT) => {
                    surprises.push(prefix);
                }
                // By a hop of its own it would need more.
                Err(refusal) if is_out_of_room(&refusal) => self.note_failed(prefix, &refusal),
                // The object went, most likely with its device's carrier.
                Err(_) if next_hop.is_some() => surprises.push(prefix),
                Err(refusal) => self.note_failed(prefix, &refusal),
            }
        }
        Ok(surprises)
    }

    /// Lets routes be written by next-hop objects where there is one for their hop, and makes those
    /// that many of them share.
    fn use_next_hops(
        &mut self,
        netlink: &mut Netlink,
        puts: &mut [RouteWrite],
    ) -> Result<(), NetlinkError> {
        for hop in shared_hops(puts) {
            self.next_hops.ensure(netlink, &hop)?;
        }
        for put in puts {
            put.next_hop = only_hop(put).and_then(|hop| self.next_hops.id_of(hop));
        }
        Ok(())
    }

    fn note_in_place(&mut self, prefix: Prefix, links: &Links, resolved: &mut ResolvedRoutes) {
        self.drifted.remove(&prefix);
        let state = match self.wanted(&prefix) {
            Some((protocol, route)) => {
                let writable = resolved.get(prefix.family(), route, protocol, links);
                match writable.ok().and_then(|writable| writable.missing) {
                    // Looked at again in every pass.
                    Some(missing) => RouteState::Pending {
                        reason: format!("not by all of its paths: {missing}"),
                    },
                    None => diff::installed_state(self.foreign_for(&prefix), links),
                }
            }
            None => RouteState::Installed,
        };
        match state {
            RouteState::Installed => self.states.remove(&prefix),
            other => self.states.insert(prefix, other),
        };
    }

    fn note_written(
        &mut self,
        prefix: Prefix,
        info: Arc<FibInfo>,
        links: &Links,
        resolved: &mut ResolvedRoutes,
    ) {
        if self.drifted.contains(&prefix) {
            self.repairs += 1;
            if self.found.len() < REPORTED_DRIFTS {
                let found = self.held(&prefix).map_or("missing".to_owned(), |held| {
                    let (held, wanted) = (held.describe(links), info.describe(links));
                    format!("{held} instead of {wanted}")
                });
                self.found.push((prefix, found));
            }
        }
        self.hold(prefix, Some(info));
        self.note_in_place(prefix, links, resolved);
    }

    fn note_removed(&mut self, prefix: Prefix, links: &Links, resolved: &mut ResolvedRoutes) {
        self.hold(prefix, None);
        if self.wanted(&prefix).is_none() {
            self.note_in_place(prefix, links, resolved);
        }
    }

    fn note_failed(&mut self, prefix: Prefix, refusal: &Refusal) {
        let reason = refusal.to_string();
        let state = match refusal.errno {
            // The link changed since it was read; its notification starts the next pass.
            Errno::ENETDOWN | Errno::ENODEV => RouteState::Pending { reason },
            _ => RouteState::Failed { reason },
        };
        self.states.insert(prefix, state);
    }

    pub(super) fn remove_strays(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        let strays = std::mem::take(&mut self.strays).into_iter();
        let writes: Vec<_> = strays
            .map(|route| RouteWrite::new(Write::Remove, route))
            .collect();
        let answers = netlink.batch(&writes)?;
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        if !writes.is_empty() {
            let first = writes.iter().take(SHOWN).map(|RouteWrite { route, .. }| {
                let metric = route.info.metric;
                format!("{} metric {metric}", route.prefix)
            });
            let first: Vec<_> = first.collect();
            info!(
                routes = writes.len(),
                refused,
                ?first,
                "removed stray routes"
            );
        }
        Ok(())
    }
}

/// Those that are worth a next-hop object.
fn shared_hops(writes: &[RouteWrite]) -> Vec<KernelHop> {
    let mut shares: HashMap<*const FibInfo, (usize, &KernelHop)> = HashMap::new();
    for write in writes {
        if let Some(hop) = only_hop(write) {
            let info = Arc::as_ptr(&write.route.info);
            shares.entry(info).or_insert((0, hop)).0 += 1;
        }
    }
    let shared = shares.values().filter(|(share, _)| *share >= SHARED);
    shared.map(|(_, hop)| KernelHop::clone(hop)).collect()
}

/// The hop of a learned IPv4 route that has just one.
fn only_hop(write: &RouteWrite) -> Option<&KernelHop> {
    let KernelRoute { prefix, info, .. } = &write.route;
    match info.hops.as_slice() {
        [only] if prefix.network().is_ipv4() && info.protocol == PROTOCOL_LEARNED => Some(only),
        _ => None,
    }
}

fn is_out_of_room(refusal: &Refusal) -> bool {
    matches!(
        refusal.errno,
        Errno::ENOMEM | Errno::ENOBUFS | Errno::ENOSPC
    )
}

/// A route to remove that is not there any more.
pub(super) fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal.errno, Errno::ESRCH | Errno::ENOENT)
}
