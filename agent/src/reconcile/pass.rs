//! One pass: resolve from what is known now, apply the difference, and what is owed after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::basis::{Basis, drivers};
use super::{Owed, Preparing, REMEMBERED_REPAIRS, RETRY, Reconciler};
use crate::carrier::supervise::CarrierStatus;
use crate::config::TunnelDriverChoice;
use crate::dataplane::ApplyReport;
use crate::dataplane::desired::{Desired, LearnedChange, TunnelDriver, WorkloadEnd};
use crate::dataplane::host::HostView;
use crate::datastore::passwords;
use crate::model::{Node, Snapshot};
use crate::requests::NodeNetwork;
use crate::resolve::endpoints::resolve_endpoints;
use crate::resolve::gateway::gateway_route;
use crate::resolve::peering;
use crate::resolve::routes::blackholes;
use crate::resolve::tunnel::{DriverSetting, TunnelPlan, TunnelSettings, resolve_tunnels};

/// How long a tunnel stands before routes lead into it, where they lead elsewhere already: the other
/// nodes make theirs meanwhile.
const PREPARATION: Duration = Duration::from_secs(2);
/// How long routes wait for a carrier of ours that does not run, before that.
const CARRIER_PATIENCE: Duration = Duration::from_secs(7);
const CARRIER_POLL: Duration = Duration::from_millis(100);
/// So many objects that fail at the same time have a line each in the log.
const LOGGED_FAILURES: usize = 31;

impl Reconciler {
    /// Resolves everything from what is known now and applies the difference.
    pub(super) async fn pass(&mut self, owed: Vec<Owed>) {
        // What this pass finds about learned routes comes after what was found before.
        self.finish_learning().await;
        let outcome = self.try_pass().await;
        for Owed { iface, reply } in owed {
            let answer = match (&outcome, iface) {
                (_, None) => Ok(()),
                (Err(reason), Some(_)) => Err(reason.clone()),
                (Ok(()), Some(iface)) => self.workload_outcome(&iface),
            };
            let _ = reply.send(answer);
        }
    }

    fn workload_outcome(&self, iface: &str) -> Result<(), String> {
        if let Some(state) = self.report.workload_states.get(iface) {
            return state.clone();
        }
        let why = self
            .endpoints
            .failed
            .iter()
            .find(|item| item.object.contains(iface));
        Err(why.map_or_else(
            || format!("{iface} was not programmed"),
            |item| item.error.clone(),
        ))
    }

    /// # Errors
    /// Why nothing was done.
    pub(super) async fn try_pass(&mut self) -> Result<(), String> {
        let Some(snapshot) = self.snapshot() else {
            return self.not_ready("the store has not been read yet");
        };
        let Some(node) = snapshot.node(&self.settings.node) else {
            let reason = format!("the store has no Node {}", self.settings.node);
            if self.node_state.borrow().as_ref().err() != Some(&reason) {
                warn!(reason, "nothing is written to the kernel");
            }
            return self.not_ready(&reason);
        };
        if self.is_host_stale {
            match self.dataplane.observe_host().await {
                Ok(host) => {
                    self.host = Arc::new(host);
                    self.is_host_stale = false;
                }
                Err(error) => {
                    let reason = format!("{:#}", anyhow::Error::from(error));
                    error!(error = reason, "failed to read the kernel");
                    self.schedule_retry();
                    return Err(reason);
                }
            }
        }
        let host = self.host.clone();
        let plans = resolve_tunnels(&snapshot, node, &host, &self.tunnel_settings(node));
        self.prepare_tunnels(&plans);
        self.endpoints = resolve_endpoints(&snapshot, node, self.attachments.values());
        let mut routes = blackholes(node);
        if !self.endpoints.links.is_empty() {
            routes.extend(gateway_route(&host));
        }
        let desired = Desired {
            workloads: self.endpoints.links.clone(),
            routes,
            tunnels: plans
                .iter()
                .filter_map(|plan| plan.tunnel.clone())
                .collect(),
            workload_mtu: self.workload_mtu(node, &plans),
            workload_ends: self.workload_ends(),
        };
        self.next_pass = None;
        self.report = self.dataplane.apply(&desired).await;
        if let Some(rest) = self.report.again_in {
            self.schedule_pass(rest);
        }
        let report = self.report.clone();
        self.note(&report);
        self.tell_node_state(&snapshot, node, &plans);
        self.tunnels = plans.clone();
        if self.is_prepared() {
            self.preparing = None;
            self.resolve_learned_again(&snapshot, node, host, plans)
                .await;
        }
        if self.settings.dry_run {
            // A second speaker with this router id would end the sessions of the one that runs.
            return Ok(());
        }
        // Files change without the store.
        let passwords = passwords::read(&snapshot);
        if !self
            .peered_with
            .as_ref()
            .is_some_and(|(known, with)| Arc::ptr_eq(known, &snapshot) && *with == passwords)
        {
            let (config, errors) = peering::speaker_config(&snapshot, &passwords, node);
            for error in errors
                .iter()
                .filter(|error| !self.peering_errors.contains(error))
            {
                warn!(%error, "peers are not as the store asks");
            }
            self.peering_errors = errors;
            self.routing.configure(config).await;
            self.peered_with = Some((snapshot.clone(), passwords));
        }
        if !self.has_passed {
            info!(node = self.settings.node, "first pass done");
        }
        self.has_passed = true;
        Ok(())
    }

    /// A tunnel that takes over from another way of the same routes is made first, and used when the
    /// other nodes have had the time to make theirs: until then packets sent into it would be lost.
    fn prepare_tunnels(&mut self, plans: &[TunnelPlan]) {
        let Some(basis) = &self.basis else {
            return;
        };
        let mut new = drivers(plans)
            .filter(|driver| !basis.has_tunnel(*driver))
            .peekable();
        if new.peek().is_none() {
            self.preparing = None;
            return;
        }
        let is_made = |driver: TunnelDriver| self.host.links.contains_key(driver.device());
        if self.preparing.is_none() && !new.all(is_made) {
            self.preparing = Some(Preparing {
                begun: Instant::now(),
                until: None,
            });
        }
    }

    /// Whether routes may lead into the tunnels now. The others' time is counted from when ours stand,
    /// with their carriers, since they will hardly have been faster: where all are slow, all wait.
    fn is_prepared(&mut self) -> bool {
        let now = Instant::now();
        let is_running = |driver: TunnelDriver| {
            let status = self.dataplane.carrier_status(driver);
            driver.carrier().is_none() || matches!(status, Some(CarrierStatus::Running { .. }))
        };
        let Some(preparing) = &mut self.preparing else {
            return true;
        };
        if now < preparing.begun + CARRIER_PATIENCE && !drivers(&self.tunnels).all(is_running) {
            preparing.until = None;
            self.schedule_pass(CARRIER_POLL);
            return false;
        }
        let rest = preparing.until.get_or_insert(now + PREPARATION);
        let rest = rest.saturating_duration_since(now);
        if !rest.is_zero() {
            self.schedule_pass(rest);
        }
        rest.is_zero()
    }

    /// Learned routes can be many: only what the change concerns is decided anew.
    async fn resolve_learned_again(
        &mut self,
        snapshot: &Arc<Snapshot>,
        node: &Node,
        host: Arc<HostView>,
        tunnels: Vec<TunnelPlan>,
    ) {
        let workloads = self.workload_addresses();
        if let Some(basis) = &mut self.basis
            && basis.resolves_with(snapshot, &host, &tunnels)
        {
            let moved = basis.follow(host, workloads);
            if !moved.is_empty() {
                self.routing.hear_again(Some(moved)).await;
            }
            return;
        }
        let basis = Basis::new(snapshot.clone(), node.clone(), host, tunnels, workloads);
        let resolver = self.basis.insert(basis).resolver();
        self.routing.weigh_next_hops_again(resolver).await;
        self.routing.hear_again(None).await;
    }

    fn not_ready(&mut self, reason: &str) -> Result<(), String> {
        drop(self.node_state.send_replace(Err(reason.to_owned())));
        Err(reason.to_owned())
    }

    /// Returns while they are still being written, so that what comes next is decided meanwhile; what
    /// comes after that waits.
    pub(super) async fn apply_learned(&mut self, changes: Vec<LearnedChange>) {
        if changes.is_empty() {
            return;
        }
        self.finish_learning().await;
        self.learning = Some(self.dataplane.begin_learned(changes).await);
    }

    async fn finish_learning(&mut self) {
        if let Some(learning) = &mut self.learning {
            let report = learning.written().await;
            self.note_learned(report).await;
        }
    }

    /// Takes what the changes under way came to.
    pub(super) async fn note_learned(&mut self, report: ApplyReport) {
        self.learning = None;
        let report = self.dataplane.after_learned(report).await;
        self.note_more(&report);
        if let Some(rest) = report.again_in {
            self.schedule_pass(rest);
        }
    }

    fn schedule_pass(&mut self, rest: Duration) {
        let at = Instant::now() + rest;
        self.next_pass = Some(self.next_pass.map_or(at, |known| known.min(at)));
    }

    /// Takes what a whole pass came to: failures for `status`, repairs, the next attempt.
    fn note(&mut self, report: &ApplyReport) {
        self.failed.clear();
        let failed: BTreeSet<&String> = report.failed.iter().map(|(object, _)| object).collect();
        self.attempts.retain(|object, _| failed.contains(object));
        self.retry = self.retry.filter(|_| !report.failed.is_empty());
        self.note_more(report);
    }

    /// Adds what an application of learned routes came to. What it did not fail may still be
    /// failing: only a pass clears.
    pub(super) fn note_more(&mut self, report: &ApplyReport) {
        for (kind, count) in &report.repairs {
            *self.repairs.entry(kind.clone()).or_default() += count;
        }
        self.last_repairs.extend(report.drifts.iter().cloned());
        let excess = self.last_repairs.len().saturating_sub(REMEMBERED_REPAIRS);
        self.last_repairs.drain(..excess);
        let known = self.attempts.len();
        for (object, reason) in &report.failed {
            let attempts = self.attempts.entry(object.clone()).or_default();
            *attempts += 1;
            if *attempts == 1 && self.attempts.len() <= LOGGED_FAILURES {
                warn!(object, error = reason, "not applied, will be retried");
            }
            self.failed.insert(object.clone(), reason.clone());
        }
        let objects = self.attempts.len();
        // They may come one by one: told again when they are twice as many.
        if objects > LOGGED_FAILURES && objects.ilog2() > known.max(LOGGED_FAILURES).ilog2() {
            warn!(
                objects,
                "not applied, will be retried; `caracal status` names them"
            );
        }
        if !report.failed.is_empty() {
            self.schedule_retry();
        }
    }

    fn schedule_retry(&mut self) {
        let wait = self
            .retry
            .map_or(RETRY.0, |(_, wait)| (wait * 2).min(RETRY.1));
        self.retry = Some((Instant::now() + wait, wait));
    }

    fn tell_node_state(&self, snapshot: &Snapshot, node: &Node, plans: &[TunnelPlan]) {
        let state = if node.pod_cidrs.is_empty() {
            Err(format!("Node {} has no podCIDRs", node.name))
        } else {
            let mtu = self.workload_mtu(node, plans);
            let declared = snapshot
                .workloads()
                .filter(|workload| workload.node == node.name);
            Ok(NodeNetwork {
                pod_cidrs: node.pod_cidrs.clone(),
                mtu: mtu.unwrap_or(0),
                reserved: declared
                    .flat_map(|workload| workload.addresses.iter().copied())
                    .collect(),
            })
        };
        self.node_state.send_if_modified(|known| {
            let differs = *known != state;
            if differs {
                *known = state;
            }
            differs
        });
    }

    /// What passes by every tunnel, and by the NIC.
    fn workload_mtu(&self, node: &Node, plans: &[TunnelPlan]) -> Option<u32> {
        let nic_mtu = || {
            let devices = node
                .addresses()
                .filter_map(|address| self.host.addresses.get(&address));
            let links = devices.filter_map(|device| self.host.links.get(device));
            links.map(|link| link.mtu).min()
        };
        let tunnels = plans.iter().filter_map(|plan| plan.tunnel.as_ref());
        let smallest = tunnels.map(|(_, tunnel)| tunnel.mtu).min();
        smallest.or_else(nic_mtu)
    }

    fn workload_ends(&self) -> BTreeMap<String, WorkloadEnd> {
        let attached = self.attachments.values();
        let served = attached.filter(|one| self.endpoints.links.contains_key(&one.host_interface));
        served
            .map(|one| {
                let end = WorkloadEnd {
                    netns: one.netns.clone().into(),
                    interface: one.container_interface.clone(),
                    mac: one.mac,
                };
                (one.host_interface.clone(), end)
            })
            .collect()
    }

    fn kernel_blocked(&self, node: &Node) -> Option<String> {
        let device = self.host.foreign_ipip.get(&node.ipv4?)?;
        Some(format!(
            "the foreign device {device} has the same local address"
        ))
    }

    fn tunnel_settings(&self, node: &Node) -> TunnelSettings {
        TunnelSettings {
            driver: match self.settings.tunnel_driver {
                TunnelDriverChoice::Auto => DriverSetting::Auto,
                TunnelDriverChoice::Kernel => DriverSetting::Kernel,
                TunnelDriverChoice::Userspace => DriverSetting::Userspace,
            },
            mtu: self.settings.mtu,
            nic: self.settings.nic.clone(),
            kernel_blocked: self.kernel_blocked(node),
        }
    }

    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.store_update
            .as_ref()
            .filter(|update| update.synced)
            .map(|update| update.snapshot.clone())
    }

    fn workload_addresses(&self) -> BTreeSet<IpAddr> {
        self.endpoints
            .links
            .values()
            .flat_map(|link| link.addresses.iter().copied())
            .collect()
    }
}
