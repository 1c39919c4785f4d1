//! Our routes in table main: what is wanted, what the kernel last said, and the writes between.
//!
//! Local routes (protocol 202) are given whole at each pass; learned ones (203) come as changes and
//! are remembered, so that a pass after lost notifications repairs them too. Both use one key per
//! prefix, and a local route wins over a learned one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use bgp::types::{Family, Prefix};
use nix::errno::Errno;
use tracing::{debug, info};

use super::desired::{LearnedChange, Route, RouteState};
use super::diff::{self, KernelRoute, Step};
use super::link::Links;
use super::netlink::{Netlink, NetlinkError, Refusal};
use super::route;
use crate::names::{PROTOCOL_LEARNED, PROTOCOL_LOCAL};

/// Rounds of writing in one pass: the first finds out what changed behind our back, the second
/// acts on a fresh dump, the third is for bad luck. What is left is retried in the next pass.
const ROUNDS: u32 = 3;
/// Failed routes named in a report; the others are counted.
const REPORTED_FAILURES: usize = 100;

#[derive(Default)]
pub struct Table {
    local: BTreeMap<Prefix, Route>,
    learned: HashMap<Prefix, Route>,
    /// Learned routes found at start of which the speaker has not spoken. Kept until it converged.
    unclaimed: HashSet<Prefix>,
    /// Ours at our key, by protocol, as the kernel last said.
    held_local: HashMap<Prefix, KernelRoute>,
    held_learned: HashMap<Prefix, KernelRoute>,
    /// Ours by protocol, with another TOS or metric: always removed.
    strays: Vec<KernelRoute>,
    foreign: HashMap<Prefix, Vec<KernelRoute>>,
    /// Of wanted routes that are not simply installed.
    states: HashMap<Prefix, RouteState>,
    /// Routes of ours that somebody else changed or removed, not repaired yet.
    drifted: HashSet<Prefix>,
    /// Repaired since last asked.
    repairs: u64,
}

impl Table {
    /// Reads the whole table and takes the learned routes in it as unclaimed.
    ///
    /// # Errors
    /// As `route::observe`.
    pub fn open(netlink: &mut Netlink) -> Result<Table, NetlinkError> {
        let mut table = Table::default();
        table.refresh(netlink, &Family::ALL.into())?;
        table.unclaimed = table.held_learned.keys().copied().collect();
        Ok(table)
    }

    /// Whether the kernel has routes of protocol 203, wanted or not.
    pub fn has_learned(&self) -> bool {
        !self.held_learned.is_empty()
    }

    /// Whether a route of ours in the kernel leaves by the link `index`.
    pub fn uses(&self, index: u32) -> bool {
        let mut held = self.held_local.values().chain(self.held_learned.values());
        held.any(|route| route.hops.iter().any(|hop| hop.device == Some(index)))
    }

    /// Foreign routes as last read.
    pub fn foreign(&self) -> impl Iterator<Item = &KernelRoute> {
        self.foreign.values().flatten()
    }

    /// Reads everything of these families. On an error what was known stays.
    ///
    /// # Errors
    /// As `route::observe`.
    pub fn refresh(
        &mut self,
        netlink: &mut Netlink,
        families: &BTreeSet<Family>,
    ) -> Result<(), NetlinkError> {
        for family in families {
            let routes = route::observe(netlink, *family, None)?;
            let is_other = |prefix: &Prefix| prefix.family() != *family;
            let held_before: Vec<KernelRoute> = {
                let local = self.held_local.extract_if(|prefix, _| !is_other(prefix));
                let learned = self.held_learned.extract_if(|prefix, _| !is_other(prefix));
                local.chain(learned).map(|(_, route)| route).collect()
            };
            self.strays.retain(|stray| is_other(&stray.prefix));
            self.foreign.retain(|prefix, _| is_other(prefix));
            for route in routes {
                if route.is_ours() {
                    self.hold(route);
                } else {
                    self.foreign.entry(route.prefix).or_default().push(route);
                }
            }
            self.note_drift(&held_before);
        }
        Ok(())
    }

    /// Reads only the local routes of the families not in `but`. On an error what was known stays.
    ///
    /// # Errors
    /// As `route::observe`.
    pub fn refresh_local(
        &mut self,
        netlink: &mut Netlink,
        but: &BTreeSet<Family>,
    ) -> Result<(), NetlinkError> {
        for family in Family::ALL.iter().filter(|family| !but.contains(family)) {
            let routes = route::observe(netlink, *family, Some(PROTOCOL_LOCAL))?;
            let is_other = |prefix: &Prefix| prefix.family() != *family;
            let held_before: Vec<KernelRoute> = self
                .held_local
                .extract_if(|prefix, _| !is_other(prefix))
                .map(|(_, route)| route)
                .collect();
            self.strays
                .retain(|stray| is_other(&stray.prefix) || stray.protocol != PROTOCOL_LOCAL);
            routes.into_iter().for_each(|route| self.hold(route));
            self.note_drift(&held_before);
        }
        Ok(())
    }

    /// Files a route of ours that the kernel has.
    fn hold(&mut self, route: KernelRoute) {
        if !route.has_our_key() {
            self.strays.push(route);
        } else if route.protocol == PROTOCOL_LOCAL {
            self.held_local.insert(route.prefix, route);
        } else {
            self.held_learned.insert(route.prefix, route);
        }
    }

    fn note_drift(&mut self, held_before: &[KernelRoute]) {
        for before in held_before {
            if self.held(&before.prefix) != Some(before) {
                self.drifted.insert(before.prefix);
            }
        }
    }

    /// Addresses of workloads whose route leads, by what was last read, elsewhere than `local` says,
    /// or that have one no longer. With `are_new_moved` also those that had none.
    pub fn moved_addresses(
        &self,
        local: &BTreeMap<Prefix, Route>,
        links: &Links,
        are_new_moved: bool,
    ) -> Vec<IpAddr> {
        let device_of = |prefix: &Prefix| match local.get(prefix) {
            Some(Route::Link { device }) => links.get(device).map(|link| link.index),
            Some(Route::Blackhole | Route::Via { .. }) | None => None,
        };
        let is_workload = |prefix: &&Prefix| **prefix == Prefix::host(prefix.network());
        let held = self.held_local.iter().filter(|(prefix, route)| {
            let device = route.hops.first().and_then(|hop| hop.device);
            device.is_some() && device != device_of(prefix)
        });
        let new = local
            .keys()
            .filter(|prefix| are_new_moved && !self.held_local.contains_key(prefix));
        let prefixes = held.map(|(prefix, _)| prefix).chain(new);
        prefixes.filter(is_workload).map(Prefix::network).collect()
    }

    /// Brings the local routes about, repairs what drifted, retries what waited or failed. Learned
    /// routes that are in place are compared for the families that were `refreshed`.
    ///
    /// # Errors
    /// Only if the socket fails; a route that cannot be written is a state.
    pub fn apply_local(
        &mut self,
        netlink: &mut Netlink,
        links: &Links,
        local: BTreeMap<Prefix, Route>,
        refreshed: &BTreeSet<Family>,
    ) -> Result<(), NetlinkError> {
        let mut prefixes: BTreeSet<Prefix> = local.keys().copied().collect();
        prefixes.extend(self.local.keys());
        prefixes.extend(self.held_local.keys());
        prefixes.extend(self.states.keys());
        prefixes.extend(&self.drifted);
        if !refreshed.is_empty() {
            let learned = self.learned.keys().chain(self.held_learned.keys());
            prefixes.extend(learned.filter(|prefix| refreshed.contains(&prefix.family())));
        }
        self.local = local;
        self.remove_strays(netlink)?;
        self.converge(netlink, links, prefixes.into_iter().collect())
    }

    /// Takes over changes of learned routes and writes them.
    ///
    /// # Errors
    /// As `apply_local`.
    pub fn apply_learned(
        &mut self,
        netlink: &mut Netlink,
        links: &Links,
        changes: Vec<LearnedChange>,
    ) -> Result<(), NetlinkError> {
        let mut prefixes = Vec::with_capacity(changes.len());
        for LearnedChange { prefix, route } in changes {
            self.unclaimed.remove(&prefix);
            prefixes.push(prefix);
            match route {
                Some(route) => self.learned.insert(prefix, route),
                None => self.learned.remove(&prefix),
            };
        }
        // One prefix twice in one batch: the last word counts, one write is enough.
        prefixes.sort_unstable();
        prefixes.dedup();
        self.converge(netlink, links, prefixes)
    }

    /// The speaker has converged: learned routes that it did not name are removed.
    ///
    /// # Errors
    /// As `apply_local`.
    pub fn settle(&mut self, netlink: &mut Netlink, links: &Links) -> Result<(), NetlinkError> {
        let unclaimed: Vec<_> = self.unclaimed.drain().collect();
        if !unclaimed.is_empty() {
            info!(
                routes = unclaimed.len(),
                "removing learned routes that nobody announces now"
            );
        }
        self.converge(netlink, links, unclaimed)
    }

    /// Removes every route of ours.
    ///
    /// # Errors
    /// The socket's, or the first refusal after trying all.
    pub fn remove_all(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        self.refresh(netlink, &Family::ALL.into())?;
        let held = self
            .held_local
            .values()
            .chain(self.held_learned.values())
            .chain(&self.strays);
        let requests = held.map(route::remove).collect();
        let refused = netlink
            .batch(requests)?
            .into_iter()
            .filter_map(Result::err)
            .find(|refusal| !is_gone(refusal));
        *self = Table {
            foreign: std::mem::take(&mut self.foreign),
            ..Table::default()
        };
        refused.map_or(Ok(()), |refusal| Err(NetlinkError::Refused(refusal)))
    }

    /// The wanted route for `prefix` and its state; a route of ours that is in the kernel but not
    /// wanted (yet) has no `Route`. `None`: neither wanted nor there.
    pub fn state(&self, prefix: &Prefix) -> Option<(Option<Route>, RouteState)> {
        if let Some((_, route)) = self.wanted(prefix) {
            let state = self
                .states
                .get(prefix)
                .cloned()
                .unwrap_or(RouteState::Installed);
            return Some((Some(route.clone()), state));
        }
        self.held(prefix).map(|_| (None, RouteState::Installed))
    }

    /// Failed routes with their reasons, at most 100 by name.
    pub fn failures(&self) -> Vec<(String, String)> {
        let mut failed: Vec<_> = self
            .states
            .iter()
            .filter_map(|(prefix, state)| match state {
                RouteState::Failed { reason } => Some((*prefix, reason)),
                RouteState::Installed
                | RouteState::Shadowed { .. }
                | RouteState::Pending { .. } => None,
            })
            .collect();
        failed.sort_unstable();
        let rest = failed.len().saturating_sub(REPORTED_FAILURES);
        let mut report: Vec<_> = failed
            .into_iter()
            .take(REPORTED_FAILURES)
            .map(|(prefix, reason)| (format!("route {prefix}"), reason.clone()))
            .collect();
        if rest > 0 {
            report.push(("routes".into(), format!("{rest} more failed")));
        }
        report
    }

    /// Repairs since the last call.
    pub fn take_repairs(&mut self) -> u64 {
        std::mem::take(&mut self.repairs)
    }

    fn wanted(&self, prefix: &Prefix) -> Option<(u8, &Route)> {
        let local = self.local.get(prefix).map(|route| (PROTOCOL_LOCAL, route));
        local.or_else(|| {
            self.learned
                .get(prefix)
                .map(|route| (PROTOCOL_LEARNED, route))
        })
    }

    fn held(&self, prefix: &Prefix) -> Option<&KernelRoute> {
        self.held_local
            .get(prefix)
            .or_else(|| self.held_learned.get(prefix))
    }

    fn foreign_for(&self, prefix: &Prefix) -> &[KernelRoute] {
        self.foreign.get(prefix).map_or(&[], Vec::as_slice)
    }

    fn step(&self, prefix: &Prefix, links: &Links) -> Step {
        let wanted = self.wanted(prefix).map(|(protocol, route)| {
            diff::resolve(*prefix, route, protocol, links).map(|writable| writable.route)
        });
        if wanted.is_none() && self.unclaimed.contains(prefix) {
            return Step::Keep;
        }
        diff::step(wanted, self.held(prefix), self.foreign_for(prefix), links)
    }

    /// Writes what is needed so that the kernel has what is wanted for `prefixes`.
    fn converge(
        &mut self,
        netlink: &mut Netlink,
        links: &Links,
        mut prefixes: Vec<Prefix>,
    ) -> Result<(), NetlinkError> {
        for round in 1..=ROUNDS {
            let (removals, puts) = self.plan(links, prefixes);
            let surprises = self.write(netlink, links, removals, puts)?;
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
            let families = surprises.iter().map(Prefix::family).collect();
            self.refresh(netlink, &families)?;
            prefixes = surprises
                .into_iter()
                .chain(self.drifted.iter().copied())
                .collect();
        }
        self.drifted.clear();
        Ok(())
    }

    /// Splits what to write into removals, which go first, and the others.
    fn plan(&mut self, links: &Links, prefixes: Vec<Prefix>) -> (Vec<KernelRoute>, Vec<Step>) {
        let mut removals = Vec::new();
        let mut puts = Vec::new();
        for prefix in prefixes {
            match self.step(&prefix, links) {
                Step::Keep => self.note_in_place(prefix, links),
                Step::Remove(route) => removals.push(route),
                Step::Blocked(state) => {
                    self.states.insert(prefix, state);
                }
                Step::Wait { state, stale } => {
                    self.states.insert(prefix, state);
                    removals.extend(stale);
                }
                step @ (Step::Create(_) | Step::Replace(_)) => puts.push(step),
            }
        }
        (removals, puts)
    }

    /// Returns the prefixes for which the kernel turned out to differ from the last dump.
    fn write(
        &mut self,
        netlink: &mut Netlink,
        links: &Links,
        removals: Vec<KernelRoute>,
        puts: Vec<Step>,
    ) -> Result<Vec<Prefix>, NetlinkError> {
        let answers = netlink.batch(removals.iter().map(route::remove).collect())?;
        for (route, answer) in removals.iter().zip(answers) {
            match answer {
                Err(refusal) if !is_gone(&refusal) => self.note_failed(route.prefix, &refusal),
                Ok(()) | Err(_) => self.note_removed(route, links),
            }
        }
        let (requests, routes): (Vec<_>, Vec<_>) = puts
            .into_iter()
            .filter_map(|step| match step {
                Step::Create(route) => Some((route::create(&route), route)),
                Step::Replace(route) => Some((route::replace(&route), route)),
                Step::Keep | Step::Remove(_) | Step::Blocked(_) | Step::Wait { .. } => None,
            })
            .unzip();
        let mut surprises = Vec::new();
        for (route, answer) in routes.into_iter().zip(netlink.batch(requests)?) {
            let prefix = route.prefix;
            match answer {
                Ok(()) => self.note_written(route, links),
                // Created while someone holds the key, or replaced while nobody does.
                Err(refusal) if matches!(refusal.errno, Errno::EEXIST | Errno::ENOENT) => {
                    surprises.push(prefix);
                }
                Err(refusal) => self.note_failed(prefix, &refusal),
            }
        }
        Ok(surprises)
    }

    fn note_in_place(&mut self, prefix: Prefix, links: &Links) {
        self.drifted.remove(&prefix);
        let state = match self.wanted(&prefix) {
            Some((protocol, route)) => match missing_hop(&prefix, route, protocol, links) {
                // Looked at again in every pass.
                Some(missing) => RouteState::Pending {
                    reason: format!("not by all of its paths: {missing}"),
                },
                None => diff::installed_state(self.foreign_for(&prefix), links),
            },
            None => RouteState::Installed,
        };
        match state {
            RouteState::Installed => self.states.remove(&prefix),
            other => self.states.insert(prefix, other),
        };
    }

    fn note_written(&mut self, route: KernelRoute, links: &Links) {
        let prefix = route.prefix;
        if self.drifted.contains(&prefix) {
            info!(%prefix, route = route.describe(links), "route repaired");
            self.repairs += 1;
        }
        self.held_local.remove(&prefix);
        self.held_learned.remove(&prefix);
        self.hold(route);
        self.note_in_place(prefix, links);
    }

    fn note_removed(&mut self, route: &KernelRoute, links: &Links) {
        self.held_local.remove(&route.prefix);
        self.held_learned.remove(&route.prefix);
        if self.wanted(&route.prefix).is_none() {
            self.note_in_place(route.prefix, links);
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

    fn remove_strays(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        let strays = std::mem::take(&mut self.strays);
        for (route, answer) in strays
            .iter()
            .zip(netlink.batch(strays.iter().map(route::remove).collect())?)
        {
            info!(prefix = %route.prefix, metric = route.metric, ?answer, "removed stray route");
        }
        Ok(())
    }
}

/// Why not all hops of a route could be written, if there are several.
fn missing_hop(prefix: &Prefix, route: &Route, protocol: u8, links: &Links) -> Option<String> {
    match route {
        Route::Via { hops, .. } if hops.iter().nth(1).is_some() => {
            diff::resolve(*prefix, route, protocol, links).ok()?.missing
        }
        Route::Via { .. } | Route::Link { .. } | Route::Blackhole => None,
    }
}

/// A route to remove that is not there any more.
fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal.errno, Errno::ESRCH | Errno::ENOENT)
}
