//! One pass: the kernel is read, compared with `Desired`, and the differences are written.
//!
//! Order: nftables, forwarding, tunnel devices, workload links, neighbours, routes; then what is to
//! go, in reverse, tunnel devices apart (`tunnel_pass`). One failed item is reported and never stops
//! the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use bgp::types::{Family, Prefix};
use nix::errno::Errno;
use tracing::debug;

use super::ApplyReport;
use super::desired::{Desired, LearnedChange, Route, RouteState, TunnelDriver, WorkloadLink};
use super::engine::{Engine, InPlace};
use super::link::{self, LinkChange, LinkState};
use super::neigh::{self, NeighbourKey};
use super::netlink::NetlinkError;
use super::{conntrack, nft, ownership, parameters, tunnel_pass};
use crate::names::{HOST_VETH_MAC, IPIP_DEVICE, WORKLOAD_GATEWAY, WORKLOAD_GATEWAY_V6, mac_text};

/// The kernel now and then ignores a new MAC, so it is read back.
const MAC_ATTEMPTS: u32 = 3;
/// On every workload's link. The kernel makes it too, in its own time.
const GATEWAY_V6: (IpAddr, u8) = (IpAddr::V6(WORKLOAD_GATEWAY_V6), 64);

impl Engine {
    /// Brings `desired` about, and repairs learned routes if something happened to them.
    pub fn apply(&mut self, desired: &Desired) -> ApplyReport {
        let mut report = ApplyReport::default();
        let is_resync = std::mem::take(&mut self.is_resync_due);
        if let Err(error) = self.observe_links() {
            self.is_resync_due = true;
            report.fail("links", error);
            return report;
        }
        if is_resync {
            self.in_place.checked.clear();
            self.nft.forget();
            self.firewall.forget();
        }
        for index in self.board.take_stale_parameters() {
            self.in_place
                .checked
                .retain(|(checked, _)| *checked != index);
        }
        self.apply_tables(desired, &mut report);
        self.apply_forwarding(desired, &mut report);
        self.apply_tunnels(desired, &mut report);
        let mut link_errors = self.apply_links(desired, &mut report);
        self.apply_workload_mtu(desired, &mut report);
        if let Err(error) = self.apply_neighbours(desired, &mut report) {
            report.fail("neighbours", error);
        }
        if let Err(error) = self.apply_forwarding_entries(desired, &mut report) {
            report.fail("forwarding entries", error);
        }
        if let Err(error) = self.apply_routes(desired, is_resync, &mut report) {
            self.is_resync_due = true;
            report.fail("routes", error);
        }
        for (name, workload) in &desired.workloads {
            let state = match link_errors.remove(name) {
                Some(error) => Err(error),
                None => self.workload_state(workload),
            };
            report.workload_states.insert(name.clone(), state);
        }
        self.report_routes(&mut report);
        report
    }

    /// Takes over and writes changes of learned routes.
    pub fn apply_learned(&mut self, changes: Vec<LearnedChange>) -> ApplyReport {
        let mut report = ApplyReport::default();
        if self.board.take_stale_links()
            && let Err(error) = self.observe_links()
        {
            report.fail("links", error);
        }
        if let Err(error) = self
            .table
            .apply_learned(&mut self.netlink, &self.links, changes)
        {
            self.is_resync_due = true;
            report.fail("routes", error);
        }
        self.report_routes(&mut report);
        report
    }

    /// Removes the learned routes that were found at start and not named since.
    pub fn settle_learned(&mut self) -> ApplyReport {
        let mut report = ApplyReport::default();
        if let Err(error) = self.table.settle(&mut self.netlink, &self.links) {
            self.is_resync_due = true;
            report.fail("routes", error);
        }
        self.report_routes(&mut report);
        report
    }

    /// Removes every route, veth and tunnel device of ours, and last our table in nftables.
    pub fn uninstall(&mut self) -> ApplyReport {
        let mut report = ApplyReport::default();
        if let Err(error) = self.table.remove_all(&mut self.netlink) {
            report.fail("routes", error);
        }
        if let Err(error) = self.observe_links() {
            report.fail("links", error);
        }
        let ours: Vec<String> = self
            .links
            .by_name
            .iter()
            .filter(|(name, link)| is_removable(name, link))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ours {
            if let Err(error) = link::remove(&mut self.netlink, &name) {
                report.fail(format!("link {name}"), error);
            }
        }
        self.firewall.uninstall(&mut report);
        self.nft.uninstall(&self.board, &mut report);
        self.in_place = InPlace::default();
        report
    }

    pub(super) fn observe_links(&mut self) -> Result<(), NetlinkError> {
        let mut links = link::observe(&mut self.netlink)?;
        links.succeed(&self.links);
        self.links = links;
        Ok(())
    }

    /// Before anything that lets packets in: a workload's link, the tunnel device.
    fn apply_tables(&mut self, desired: &Desired, report: &mut ApplyReport) {
        let ends = self.links.by_name.iter().filter_map(|(name, link)| {
            let ends = link.tunnel.filter(|_| name != IPIP_DEVICE)?;
            (!ends.remote.is_unspecified()).then_some(ends.remote)
        });
        let foreign_peers: Vec<Ipv4Addr> = ends.collect();
        // A device that waits for its end still takes packets.
        let links = &self.links;
        self.guarded_tunnels
            .retain(|driver, _| links.get(driver.device()).is_some());
        self.guarded_tunnels.extend(desired.tunnels.clone());
        let contents = nft::contents::Contents {
            workloads: &desired.workloads,
            answers_for_gateway: desired
                .routes
                .contains_key(&Prefix::host(WORKLOAD_GATEWAY.into())),
            tunnels: &self.guarded_tunnels,
            foreign_peers: &foreign_peers,
        };
        let wanted = nft::contents::wanted(&contents);
        self.nft.apply(&wanted, &self.board, report);
        if self.board.take_stale_firewalls() {
            self.firewall.note_change();
        }
        self.firewall.apply(!desired.workloads.is_empty(), report);
    }

    fn apply_forwarding(&mut self, desired: &Desired, report: &mut ApplyReport) {
        if desired.workloads.is_empty() && desired.tunnels.is_empty() && desired.routes.is_empty() {
            return;
        }
        let rehearsal = self.netlink.rehearsal();
        let mut note = |family, path: &str, before: Result<Option<String>, String>| {
            let was_in_place = self.in_place.forwarded_families.contains(&family);
            match before {
                Ok(before) => {
                    if let Some(before) = before.filter(|_| was_in_place) {
                        report.repaired("sysctl", path, instead(&before, "1"));
                    }
                    self.in_place.forwarded_families.insert(family);
                }
                Err(error) => report.fail(format!("sysctl {path}"), error),
            }
        };
        note(
            Family::Ipv4,
            parameters::IPV4_FORWARDING,
            parameters::ensure_ipv4_forwarding(rehearsal),
        );
        if desired.speaks_ipv6() {
            note(
                Family::Ipv6,
                parameters::IPV6_FORWARDING,
                parameters::ensure_ipv6_forwarding(rehearsal),
            );
        }
    }

    /// Returns what keeps each workload's link from working.
    fn apply_links(
        &mut self,
        desired: &Desired,
        report: &mut ApplyReport,
    ) -> BTreeMap<String, String> {
        let mut errors = BTreeMap::new();
        let mut started = Vec::new();
        let mut failures = Vec::new();
        for (name, workload) in &desired.workloads {
            let Some(link) = self.links.get(name).cloned() else {
                let reason = format!("interface {name} does not exist");
                let told = format!("{reason}: not made yet, renamed or deleted");
                report.findings.push((format!("workload {name}"), told));
                errors.insert(name.clone(), reason);
                continue;
            };
            match self.apply_link(name, &link, workload.speaks_ipv6(), report) {
                Ok(obstacle) => {
                    if !link.is_up {
                        started.push(name.clone());
                    }
                    failures.extend(obstacle.map(|obstacle| (name, obstacle)));
                }
                Err(error) => failures.push((name, error)),
            }
        }
        for (name, error) in failures {
            report.fail(format!("link {name}"), &error);
            errors.insert(name.clone(), error);
        }
        if !started.is_empty()
            && let Err(error) = self.wait_until_running(&started)
        {
            report.fail("links", error);
        }
        errors
    }

    /// Returns what keeps the link from IPv6, if it is to have it and that alone does not work.
    fn apply_link(
        &mut self,
        name: &str,
        link: &LinkState,
        speaks_ipv6: bool,
        report: &mut ApplyReport,
    ) -> Result<Option<String>, String> {
        let mut key = (link.index, speaks_ipv6);
        // It keeps nothing of IPv4 from working.
        let mut obstacle = None;
        if speaks_ipv6 && !self.in_place.checked.contains(&key) {
            obstacle = parameters::check_ipv6(name).err();
            key.1 = obstacle.is_none();
        }
        let (_, has_ipv6) = key;
        let was_in_place = self.in_place.links.contains(&key);
        let mut repaired = |kind: &str, object: &str, found: &str| {
            if was_in_place {
                report.repaired(kind, object, found);
            }
        };
        if link.mac != Some(HOST_VETH_MAC) {
            self.set_mac(name, link.index)?;
            let found = link.mac.map_or("none".to_owned(), mac_text);
            let found = instead(&found, &mac_text(HOST_VETH_MAC));
            repaired("link", name, &format!("MAC {found}"));
        }
        // Before the link is up: from its first packet on the host answers and forwards.
        if !self.in_place.checked.contains(&key) {
            let rehearsal = self.netlink.rehearsal();
            for (path, before, value) in
                parameters::ensure_workload_link(rehearsal, name, has_ipv6)?
            {
                let found = instead(&before, &value);
                debug!(iface = name, path, found, "parameter set");
                repaired("sysctl", &path, &found);
            }
        }
        if !link.is_up {
            let up = LinkChange {
                is_up: Some(true),
                ..LinkChange::default()
            };
            link::change(&mut self.netlink, link.index, up)
                .map_err(|error| format!("failed to set the link up: {error}"))?;
            repaired("link", name, "down");
        }
        if has_ipv6 && !link.addresses.contains(&GATEWAY_V6) {
            let (address, length) = GATEWAY_V6;
            link::add_address(&mut self.netlink, link.index, address, length)
                .map_err(|error| format!("failed to add {address}: {error}"))?;
            repaired("address", &format!("{address} dev {name}"), "missing");
        }
        self.in_place.links.insert(key);
        self.in_place.checked.insert(key);
        Ok(obstacle)
    }

    /// A link that was just set up drops packets until the kernel has started its queue, which it
    /// does in the background. Whoever waits for the pass may then send at once.
    fn wait_until_running(&mut self, names: &[String]) -> Result<(), NetlinkError> {
        let deadline = Instant::now() + link::START_TIME;
        let mut waiting: Vec<&String> = names.iter().collect();
        while Instant::now() < deadline {
            let mut stopped = Vec::new();
            for name in waiting {
                let link = self.look_again(name)?;
                if link.is_some_and(|link| !link.is_running) {
                    stopped.push(name);
                }
            }
            if stopped.is_empty() {
                return self.observe_links();
            }
            waiting = stopped;
            std::thread::sleep(link::START_POLL);
        }
        debug!(?waiting, "links do not start, their other end may be down");
        self.observe_links()
    }

    /// One link as it is now: there may be hundreds of others. In a rehearsal as it would be.
    fn look_again(&mut self, name: &str) -> Result<Option<LinkState>, NetlinkError> {
        if self.netlink.rehearsal().is_on() {
            self.observe_links()?;
            return Ok(self.links.get(name).cloned());
        }
        link::find(&mut self.netlink, name)
    }

    fn set_mac(&mut self, name: &str, index: u32) -> Result<(), String> {
        let change = LinkChange {
            mac: Some(HOST_VETH_MAC),
            ..LinkChange::default()
        };
        for _ in 0..MAC_ATTEMPTS {
            link::change(&mut self.netlink, index, change)
                .map_err(|error| format!("failed to set the MAC: {error}"))?;
            let link = self
                .look_again(name)
                .map_err(|error| format!("failed to read the link: {error}"))?;
            if link.is_some_and(|link| link.mac == Some(HOST_VETH_MAC)) {
                return Ok(());
            }
        }
        Err("the kernel does not keep the MAC".into())
    }

    fn apply_neighbours(
        &mut self,
        desired: &Desired,
        report: &mut ApplyReport,
    ) -> Result<(), NetlinkError> {
        let wanted = self.wanted_neighbours(desired);
        self.board
            .set_own_neighbours(wanted.keys().copied().collect());
        let held = neigh::observe(&mut self.netlink)?;
        let mut requests = Vec::new();
        let mut keys: Vec<NeighbourKey> = Vec::new();
        for key in held
            .keys()
            .filter(|key| !wanted.contains_key(key) && self.is_managed(key.0, desired))
        {
            requests.push(neigh::remove(*key));
            keys.push(*key);
        }
        for (key, mac) in wanted
            .iter()
            .filter(|(key, mac)| held.get(key) != Some(mac))
        {
            requests.push(neigh::put(*key, *mac));
            keys.push(*key);
        }
        for (key, answer) in keys.into_iter().zip(self.netlink.batch(&requests)?) {
            let (index, address) = key;
            let name = self.links.name_of(index).unwrap_or("?");
            match answer {
                Ok(())
                    if self.in_place.neighbours.contains_key(&key)
                        && self.in_place.neighbours.get(&key) == wanted.get(&key) =>
                {
                    let object = format!("{address} dev {name}");
                    let found = difference(held.get(&key), wanted.get(&key));
                    report.repaired("neighbour", &object, found);
                }
                Ok(()) => {}
                Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::ENODEV) => {}
                Err(refusal) => report.fail(format!("neighbour {address} dev {name}"), refusal),
            }
        }
        self.in_place.neighbours = wanted;
        Ok(())
    }

    /// Those whose device is there and up: a device that goes down forgets its neighbours.
    fn wanted_neighbours(&self, desired: &Desired) -> BTreeMap<NeighbourKey, [u8; 6]> {
        let mut wanted = BTreeMap::new();
        let index_of = |name: &str| {
            self.links
                .get(name)
                .filter(|link| link.is_up)
                .map(|link| link.index)
        };
        for (name, workload) in &desired.workloads {
            if let (Some(index), Some(mac)) = (index_of(name), workload.mac) {
                let addresses = workload.addresses.iter();
                wanted.extend(addresses.map(|address| ((index, *address), mac)));
            }
        }
        for (driver, tunnel) in &desired.tunnels {
            if let Some(index) = index_of(driver.device()) {
                let neighbours = tunnel.neighbours.iter();
                wanted.extend(neighbours.map(|(address, mac)| ((index, *address), *mac)));
            }
        }
        wanted
    }

    /// Whether the neighbours of the link are ours to remove.
    fn is_managed(&self, index: u32, desired: &Desired) -> bool {
        self.links.name_of(index).is_some_and(|name| {
            let mut tunnels = desired.tunnels.keys();
            tunnels.any(|driver| driver.device() == name) || desired.workloads.contains_key(name)
        })
    }

    fn apply_routes(
        &mut self,
        desired: &Desired,
        is_resync: bool,
        report: &mut ApplyReport,
    ) -> Result<(), NetlinkError> {
        let local = local_routes(desired);
        // A route goes with its interface: it is compared as last seen, and as it is now.
        self.note_moved(&local, false);
        let mut stale = self.board.take_stale_families();
        if is_resync {
            stale.extend(Family::ALL);
        }
        self.refresh_table(&stale)?;
        self.table.refresh_local(&mut self.netlink, &stale)?;
        stale.append(&mut self.unchecked_families);
        self.note_moved(&local, !self.has_passed);
        match conntrack::forget(self.netlink.rehearsal(), &self.moved_addresses) {
            Ok(entries) => {
                if entries > 0 {
                    debug!(entries, "connections of moved addresses forgotten");
                }
                self.moved_addresses.clear();
                self.has_passed = true;
            }
            Err(error) => report.fail("conntrack", error),
        }
        self.table
            .apply_local(&mut self.netlink, &self.links, local, &stale)
    }

    fn note_moved(&mut self, local: &BTreeMap<Prefix, Arc<Route>>, are_new_moved: bool) {
        let moved = self
            .table
            .moved_addresses(local, &self.links, are_new_moved);
        self.moved_addresses.extend(moved);
    }

    fn workload_state(&self, workload: &WorkloadLink) -> Result<(), String> {
        for address in &workload.addresses {
            match self.table.state(&Prefix::host(*address)) {
                Some((_, RouteState::Installed | RouteState::Shadowed { .. })) => {}
                Some((_, RouteState::Pending { reason } | RouteState::Failed { reason })) => {
                    return Err(format!("route {address}: {reason}"));
                }
                None => return Err(format!("route {address} was not written")),
            }
        }
        Ok(())
    }

    fn report_routes(&mut self, report: &mut ApplyReport) {
        report.failed.extend(self.table.failures());
        let (repairs, found) = self.table.take_repairs();
        let others = repairs.saturating_sub(found.len() as u64);
        for (prefix, found) in found {
            report.repaired("route", &prefix.to_string(), found);
        }
        if others > 0 {
            *report.repairs.entry("route".into()).or_default() += others;
        }
        report.log_others();
    }
}

/// A link that has a name of ours could still be somebody else's of another kind.
fn is_removable(name: &str, link: &LinkState) -> bool {
    match TunnelDriver::ALL
        .iter()
        .find(|driver| driver.device() == name)
    {
        Some(driver) => tunnel_pass::is_own(*driver, link),
        None => ownership::is_workload_device(name) && link.kind == "veth",
    }
}

fn local_routes(desired: &Desired) -> BTreeMap<Prefix, Arc<Route>> {
    let routes = desired.routes.iter();
    let mut routes: BTreeMap<_, _> = routes
        .map(|(prefix, route)| (*prefix, Arc::new(route.clone())))
        .collect();
    for (name, workload) in &desired.workloads {
        let device = name.clone();
        let route = Arc::new(Route::Link { device });
        for address in &workload.addresses {
            routes.insert(Prefix::host(*address), route.clone());
        }
    }
    routes
}

fn instead(found: &str, wanted: &str) -> String {
    format!("{found} instead of {wanted}")
}

/// What was found in place of a neighbour.
fn difference(found: Option<&[u8; 6]>, wanted: Option<&[u8; 6]>) -> String {
    match (found, wanted) {
        (None, _) => "missing".to_owned(),
        (Some(found), None) => mac_text(*found),
        (Some(found), Some(wanted)) => instead(&mac_text(*found), &mac_text(*wanted)),
    }
}
