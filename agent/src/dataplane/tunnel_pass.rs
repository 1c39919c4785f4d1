//! The tunnels' part of a pass: devices and forwarding entries before the routes, and the end of a
//! device after the last route has left it.
//!
//! A device that is not wanted any more stays while routes of ours use it, and some time longer:
//! other nodes change over at their own pace, and send through it meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tracing::info;

use super::ApplyReport;
use super::desired::{Desired, Tunnel, TunnelDriver};
use super::engine::Engine;
use super::link::{self, LinkState};
use super::neigh::{self, ForwardingEntry};
use super::netlink::NetlinkError;
use super::tunnel;
use crate::names::mac_text;

/// What is to be done about a tunnel device that is not wanted any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwanted {
    /// There is none, or none of ours.
    Absent,
    /// Routes use it.
    Used,
    /// It may go after this time.
    Idle { rest: Duration },
}

impl Engine {
    pub(super) fn apply_tunnels(&mut self, desired: &Desired, report: &mut ApplyReport) {
        self.wanted_tunnels = desired.tunnels.keys().copied().collect();
        for (driver, wanted) in &desired.tunnels {
            self.idle_tunnels.remove(driver);
            self.apply_tunnel(*driver, wanted, report);
        }
        let wanted = &self.wanted_tunnels;
        self.in_place
            .tunnels
            .retain(|driver, _| wanted.contains(driver));
    }

    fn apply_tunnel(&mut self, driver: TunnelDriver, wanted: &Tunnel, report: &mut ApplyReport) {
        let device = driver.device();
        match tunnel::ensure(&mut self.netlink, &self.links, driver, wanted) {
            Ok(differences) => {
                let identity = without_others(wanted);
                let before = self.in_place.tunnels.insert(driver, identity.clone());
                if !differences.is_empty() {
                    if before == Some(identity) {
                        report.repaired("tunnel", device, differences.join(", "));
                    }
                    info!(device, mtu = wanted.mtu, address = %wanted.address, "tunnel device configured");
                    if let Err(error) = self.observe_links() {
                        report.fail("links", error);
                    }
                }
            }
            Err(error) => report.fail(format!("tunnel {device}"), error),
        }
    }

    /// Brings the forwarding entries of VXLAN about.
    pub(super) fn apply_forwarding_entries(
        &mut self,
        desired: &Desired,
        report: &mut ApplyReport,
    ) -> Result<(), NetlinkError> {
        let driver = TunnelDriver::Vxlan;
        let Some(wanted) = desired.tunnels.get(&driver) else {
            self.in_place.forwarding.clear();
            return Ok(());
        };
        let Some(index) = self.links.get(driver.device()).map(|link| link.index) else {
            return Ok(());
        };
        let held = neigh::observe_forwarding(&mut self.netlink, index)?;
        let is_right = |(mac, node): &ForwardingEntry| wanted.forwarding.get(mac) == Some(node);
        let mut requests = Vec::new();
        let mut entries: Vec<ForwardingEntry> = Vec::new();
        for entry in held.iter().filter(|entry| !is_right(entry)) {
            requests.push(neigh::remove_forwarding(index, *entry));
            entries.push(*entry);
        }
        let missing = wanted.forwarding.iter().map(|(mac, node)| (*mac, *node));
        for entry in missing.filter(|entry| !held.contains(entry)) {
            requests.push(neigh::put_forwarding(index, entry));
            entries.push(entry);
        }
        let before = std::mem::replace(&mut self.in_place.forwarding, wanted.forwarding.clone());
        for ((mac, node), answer) in entries.into_iter().zip(self.netlink.batch(&requests)?) {
            let object = format!("{} behind {node}", mac_text(mac));
            match answer {
                Ok(())
                    if before.contains_key(&mac)
                        && before.get(&mac) == wanted.forwarding.get(&mac) =>
                {
                    let found = held
                        .iter()
                        .find(|(held, other)| *held == mac && *other != node);
                    let found = found.map_or("missing".to_owned(), |(_, other)| {
                        format!("behind {other} instead")
                    });
                    report.repaired("forwarding", &object, found);
                }
                Ok(()) => {}
                Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::ENODEV) => {}
                Err(refusal) => report.fail(format!("forwarding {object}"), refusal),
            }
        }
        Ok(())
    }

    /// The tunnel devices that are not wanted, as they are now; `linger` is how long one stays after
    /// its last route.
    pub fn unwanted_tunnels(&mut self, linger: Duration) -> BTreeMap<TunnelDriver, Unwanted> {
        let now = Instant::now();
        let mut unwanted = BTreeMap::new();
        for driver in TunnelDriver::ALL {
            if self.wanted_tunnels.contains(&driver) {
                continue;
            }
            let device = self.links.get(driver.device());
            let state = match device
                .filter(|link| is_own(driver, link))
                .map(|link| link.index)
            {
                None => Unwanted::Absent,
                Some(index) if self.table.uses(index) => Unwanted::Used,
                Some(_) => {
                    let since = *self.idle_tunnels.entry(driver).or_insert(now);
                    let mut wanted = self.wanted_tunnels.iter();
                    // The other takes what comes, and both would take it twice.
                    let is_replaced = wanted.any(|other| other.is_same_on_wire(driver));
                    let linger = if is_replaced { Duration::ZERO } else { linger };
                    let rest = linger.saturating_sub(now.duration_since(since));
                    Unwanted::Idle { rest }
                }
            };
            if !matches!(state, Unwanted::Idle { .. }) {
                self.idle_tunnels.remove(&driver);
            }
            unwanted.insert(driver, state);
        }
        unwanted
    }

    pub fn remove_tunnel(&mut self, driver: TunnelDriver) -> ApplyReport {
        let mut report = ApplyReport::default();
        let device = driver.device();
        match link::remove(&mut self.netlink, device) {
            Ok(()) => info!(device, "tunnel device removed"),
            Err(error) => report.fail(format!("tunnel {device}"), error),
        }
        self.idle_tunnels.remove(&driver);
        if let Err(error) = self.observe_links() {
            report.fail("links", error);
        }
        report
    }
}

/// A link that has the device's name could still be somebody else's of another kind.
pub fn is_own(driver: TunnelDriver, link: &LinkState) -> bool {
    link.kind == driver.link_kind()
}

/// What the other nodes are is not the device's business.
fn without_others(tunnel: &Tunnel) -> Tunnel {
    Tunnel {
        remotes: Vec::new(),
        neighbours: BTreeMap::new(),
        forwarding: BTreeMap::new(),
        ..tunnel.clone()
    }
}
