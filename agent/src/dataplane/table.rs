//! Our routes in table main: what is wanted, what the kernel last said, and the writes between.
//!
//! Local routes (protocol 202) are given whole at each pass; learned ones (203) come as changes and
//! are remembered, so that a pass after lost notifications repairs them too. Both use one key per
//! prefix, and a local route wins over a learned one.

mod learned;
mod resolved;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp::types::{Family, Prefix};
use hashbrown::{HashMap, HashSet};
use tracing::{debug, info};

use self::learned::LearnedRoutes;
use self::resolved::ResolvedRoutes;
use super::deletions::Deletions;
use super::desired::{LearnedChange, Route, RouteState};
use super::diff::{self, FibInfo, KernelRoute, Step};
use super::link::Links;
use super::netlink::{Netlink, NetlinkError};
use super::next_hop::NextHops;
use super::route::{self, FibInfos, RouteWrite, Write};
use crate::names::{PROTOCOL_LEARNED, PROTOCOL_LOCAL};
use crate::prefix_map::PrefixMap;

/// Failed routes named in a report; the others are counted.
const REPORTED_FAILURES: usize = 100;

#[derive(Default)]
pub struct Table {
    local: BTreeMap<Prefix, Arc<Route>>,
    learned: LearnedRoutes,
    /// Learned routes found at start of which the speaker has not spoken. Kept until it converged.
    unclaimed: HashSet<Prefix>,
    /// Local routes at our key as the kernel last said.
    held_local: HashMap<Prefix, Arc<FibInfo>>,
    /// Ours by protocol, with another TOS or metric: always removed.
    strays: Vec<KernelRoute>,
    foreign: HashMap<Prefix, Vec<KernelRoute>>,
    /// Of wanted routes that are not simply installed.
    states: HashMap<Prefix, RouteState>,
    /// Routes of ours that somebody else changed or removed, not repaired yet.
    drifted: HashSet<Prefix>,
    /// Repaired since last asked, and how the first of those were found.
    repairs: u64,
    found: Vec<(Prefix, String)>,
    infos: FibInfos,
    next_hops: NextHops,
    /// `None`: dumps of IPv6 are taken as they are.
    deletions: Option<Deletions>,
}

/// Of one prefix.
struct Both<'a> {
    /// With its protocol.
    wanted: Option<(u8, &'a Arc<Route>)>,
    /// At our key, as the kernel last said.
    held: Option<&'a Arc<FibInfo>>,
}

impl Table {
    /// Reads the whole table and takes the learned routes in it as unclaimed.
    ///
    /// # Errors
    /// As `route::observe`.
    pub fn open(netlink: &mut Netlink, uses_next_hops: bool) -> Result<Table, NetlinkError> {
        let mut table = Table {
            next_hops: NextHops::new(uses_next_hops),
            deletions: Deletions::subscribe(netlink.port())
                .inspect_err(|error| debug!(%error, "deleted routes are not heard of"))
                .ok(),
            ..Table::default()
        };
        table.refresh(netlink, &Family::ALL.into())?;
        table.unclaimed = table.learned.iter().map(|(prefix, _)| prefix).collect();
        Ok(table)
    }

    /// Whether the kernel has routes of protocol 203, wanted or not.
    pub fn has_learned(&self) -> bool {
        self.learned.held().next().is_some()
    }

    /// How many of them it has.
    pub fn learned_count(&self) -> usize {
        self.learned.held().count()
    }

    /// Whether a route of ours in the kernel leaves by the link `index`.
    pub fn uses(&self, index: u32) -> bool {
        let mut held = self.held_keys();
        held.any(|(_, info)| info.hops.iter().any(|hop| hop.device == Some(index)))
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
            if *family == Family::Ipv4 {
                self.next_hops.observe(netlink)?;
            }
            let routes = self
                .read(netlink, *family, None)
                .inspect_err(|_| self.next_hops.spare_all())?;
            self.strays.retain(|stray| stray.prefix.family() != *family);
            self.foreign.retain(|prefix, _| prefix.family() != *family);
            let mut local = Vec::new();
            let mut learned = PrefixMap::default();
            for route in routes {
                if !route.is_ours() {
                    self.foreign.entry(route.prefix).or_default().push(route);
                } else if !route.has_our_key() {
                    self.strays.push(route);
                } else if route.info.protocol == PROTOCOL_LOCAL {
                    local.push(route);
                } else {
                    learned.insert(route.prefix, route.info);
                }
            }
            self.take_local(*family, local);
            let drifted = &mut self.drifted;
            self.learned.take(*family, learned, |prefix| {
                drifted.insert(prefix);
            });
        }
        self.infos.prune();
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
            let routes = self.read(netlink, *family, Some(PROTOCOL_LOCAL))?;
            self.strays.retain(|stray| {
                stray.prefix.family() != *family || stray.info.protocol != PROTOCOL_LOCAL
            });
            let (local, strays) = routes.into_iter().partition(KernelRoute::has_our_key);
            self.strays.extend::<Vec<_>>(strays);
            self.take_local(*family, local);
        }
        Ok(())
    }

    /// Reads the routes of a family, or only those of one protocol.
    fn read(
        &mut self,
        netlink: &mut Netlink,
        family: Family,
        protocol: Option<u8>,
    ) -> Result<Vec<KernelRoute>, NetlinkError> {
        let (infos, next_hops) = (&mut self.infos, &mut self.next_hops);
        let deletions = self.deletions.as_mut();
        let reading = route::observe(netlink, family, protocol, infos, next_hops, deletions)?;
        let known = || {
            let ours = self.held_keys().map(|(prefix, info)| KernelRoute {
                prefix,
                tos: 0,
                info: info.clone(),
            });
            let others = self.strays.iter().chain(self.foreign()).cloned();
            ours.chain(others).filter(move |route| {
                let is_asked = |asked| route.info.protocol == asked;
                route.prefix.family() == family && protocol.is_none_or(is_asked)
            })
        };
        Ok(reading.routes(known))
    }

    /// Routes of ours at our key, as the kernel last said.
    fn held_keys(&self) -> impl Iterator<Item = (Prefix, &Arc<FibInfo>)> {
        let local = self.held_local.iter();
        let local = local.map(|(prefix, info)| (*prefix, info));
        local.chain(self.learned.held())
    }

    /// Takes what was read of the local routes of a family.
    fn take_local(&mut self, family: Family, routes: Vec<KernelRoute>) {
        let before: Vec<_> = self
            .held_local
            .extract_if(|prefix, _| prefix.family() == family)
            .collect();
        let routes = routes.into_iter().map(|route| (route.prefix, route.info));
        self.held_local.extend(routes);
        let held = &self.held_local;
        let is_other = |(prefix, info): &(Prefix, Arc<FibInfo>)| held.get(prefix) != Some(info);
        let drifted = before.into_iter().filter(is_other);
        self.drifted.extend(drifted.map(|(prefix, _)| prefix));
    }

    /// Addresses of workloads whose route leads, by what was last read, elsewhere than `local` says,
    /// or that have one no longer. With `are_new_moved` also those that had none.
    pub fn moved_addresses(
        &self,
        local: &BTreeMap<Prefix, Arc<Route>>,
        links: &Links,
        are_new_moved: bool,
    ) -> Vec<IpAddr> {
        let device_of = |prefix: &Prefix| match local.get(prefix).map(|route| &**route) {
            Some(Route::Link { device }) => links.get(device).map(|link| link.index),
            Some(Route::Blackhole | Route::Via { .. }) | None => None,
        };
        let is_workload = |prefix: &&Prefix| **prefix == Prefix::host(prefix.network());
        let held = self.held_local.iter().filter(|(prefix, info)| {
            let device = info.hops.first().and_then(|hop| hop.device);
            device.is_some() && device != device_of(prefix)
        });
        let new = local
            .keys()
            .filter(|prefix| are_new_moved && !self.held_local.contains_key(*prefix));
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
        local: BTreeMap<Prefix, Arc<Route>>,
        refreshed: &BTreeSet<Family>,
    ) -> Result<(), NetlinkError> {
        let mut prefixes: Vec<Prefix> = local.keys().copied().collect();
        prefixes.extend(self.local.keys());
        prefixes.extend(self.held_local.keys());
        prefixes.extend(self.states.keys());
        prefixes.extend(&self.drifted);
        for family in refreshed {
            prefixes.extend(self.learned.prefixes(*family));
        }
        self.local = local;
        self.remove_strays(netlink)?;
        self.converge(netlink, links, prefixes)?;
        self.next_hops.remove_unused(netlink)
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
            // Else told again; or gone again before it was told, which says nothing about one that
            // was there at the start.
            if self.learned.want(prefix, route) {
                self.unclaimed.remove(&prefix);
                prefixes.push(prefix);
            }
        }
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
        let mut writes: Vec<_> = self
            .held_keys()
            .map(|(prefix, info)| RouteWrite::ours(Write::Remove, prefix, info.clone()))
            .collect();
        let strays = self.strays.iter().cloned();
        writes.extend(strays.map(|stray| RouteWrite::new(Write::Remove, stray)));
        let refused = netlink
            .batch(&writes)?
            .into_iter()
            .filter_map(Result::err)
            .find(|refusal| !write::is_gone(refusal));
        self.next_hops.remove_all(netlink)?;
        *self = Table {
            foreign: std::mem::take(&mut self.foreign),
            ..Table::default()
        };
        refused.map_or(Ok(()), |refusal| Err(NetlinkError::Refused(refusal)))
    }

    /// The wanted route for `prefix` and its state; a route of ours that is in the kernel but not
    /// wanted (yet) has no `Route`. `None`: neither wanted nor there.
    pub fn state(&self, prefix: &Prefix) -> Option<(Option<Arc<Route>>, RouteState)> {
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

    /// Routes in the kernel that foreign ones of lower metric take the packets of, with the reason.
    pub fn shadowed(&self) -> Vec<(String, String)> {
        let mut shadowed: Vec<_> = self
            .states
            .iter()
            .filter_map(|(prefix, state)| match state {
                RouteState::Shadowed { reason } => Some((*prefix, reason)),
                RouteState::Installed | RouteState::Pending { .. } | RouteState::Failed { .. } => {
                    None
                }
            })
            .collect();
        shadowed.sort_unstable();
        let named = shadowed.into_iter();
        named
            .map(|(prefix, reason)| (format!("route {prefix}"), reason.clone()))
            .collect()
    }

    /// Repairs since the last call: how many, and how the first of them were found.
    pub fn take_repairs(&mut self) -> (u64, Vec<(Prefix, String)>) {
        let found = std::mem::take(&mut self.found);
        (std::mem::take(&mut self.repairs), found)
    }

    fn wanted(&self, prefix: &Prefix) -> Option<(u8, &Arc<Route>)> {
        let local = self.local.get(prefix).map(|route| (PROTOCOL_LOCAL, route));
        local.or_else(|| {
            let learned = self.learned.get(prefix)?;
            Some((PROTOCOL_LEARNED, learned.wanted.as_ref()?))
        })
    }

    fn held(&self, prefix: &Prefix) -> Option<&Arc<FibInfo>> {
        self.both(prefix).held
    }

    fn both(&self, prefix: &Prefix) -> Both<'_> {
        let learned = self.learned.get(prefix);
        let local = self.local.get(prefix).map(|route| (PROTOCOL_LOCAL, route));
        let wanted = learned.and_then(|one| Some((PROTOCOL_LEARNED, one.wanted.as_ref()?)));
        let held = learned.and_then(|one| one.held.as_ref());
        Both {
            wanted: local.or(wanted),
            held: self.held_local.get(prefix).or(held),
        }
    }

    /// Notes what the kernel has for a prefix at our key now.
    fn hold(&mut self, prefix: Prefix, info: Option<Arc<FibInfo>>) {
        let (local, learned) = match info {
            Some(info) if info.protocol == PROTOCOL_LOCAL => (Some(info), None),
            info => (None, info),
        };
        match local {
            Some(info) => self.held_local.insert(prefix, info),
            None => self.held_local.remove(&prefix),
        };
        self.learned.hold(prefix, learned);
    }

    fn foreign_for(&self, prefix: &Prefix) -> &[KernelRoute] {
        self.foreign.get(prefix).map_or(&[], Vec::as_slice)
    }

    fn step(&self, prefix: &Prefix, links: &Links, resolved: &mut ResolvedRoutes) -> Step {
        let Both { wanted, held } = self.both(prefix);
        let wanted = wanted.map(|(protocol, route)| {
            let writable = resolved.get(prefix.family(), route, protocol, links);
            writable.map(|writable| writable.info)
        });
        if wanted.is_none() && self.unclaimed.contains(prefix) {
            return Step::Keep;
        }
        diff::step(wanted, held, self.foreign_for(prefix), links)
    }
}
