//! What the loop shows of itself: status, endpoints, routes with the kernel's side.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bgp::speaker::RouteSelection;
use bgp::speaker::status::{KernelStatus, RouteStatus, WhyStatus};
use bgp::types::Prefix;
use smallvec::SmallVec;
use tokio::task::spawn_blocking;

use super::Reconciler;
use crate::api::schema::{
    EndpointStatus, FailedItem, Finding, Repair, RouteQuery, SCHEMA_VERSION, Status, StoreError,
    StoreStatus, TunnelStatus,
};
use crate::carrier::supervise::CarrierStatus;
use crate::dataplane::desired::{Route, RouteState, TunnelDriver};
use crate::host_daemons;
use crate::model::Snapshot;
use crate::names::{INTERFACE_PREFIX, mac_text};
use crate::resolve::routes::{Resolution, Resolved};
use crate::resolve::tunnel::TunnelPlan;

impl Reconciler {
    pub(super) async fn show_status(&self) -> Status {
        let mut errors: Vec<StoreError> = self
            .store_update
            .as_ref()
            .map(|update| update.errors.clone())
            .unwrap_or_default();
        errors.extend(self.peering_errors.iter().cloned());
        let snapshot = self.snapshot();
        let has_node = snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.node(&self.settings.node).is_some());
        if let Some(snapshot) = snapshot.filter(|_| !has_node) {
            errors.push(StoreError {
                file: String::new(),
                object: format!("Node/{}", self.settings.node),
                field: "metadata.name".to_owned(),
                reason: format!(
                    "no Node of the store has the name given as `--node`; nothing is written until \
                     one has; {}",
                    names_of_nodes(&snapshot)
                ),
            });
        }
        errors.sort();
        errors.dedup();
        let tunnels = self.show_tunnels();
        Status {
            schema_version: SCHEMA_VERSION,
            node: self.settings.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.is_synced && self.has_passed && has_node,
            store: StoreStatus {
                synced: self.is_synced,
                errors,
            },
            tunnel: tunnels.first().cloned(),
            tunnels,
            failed: self.show_failed().await,
            findings: self.show_findings().await,
            repairs: self.repairs.clone(),
            last_repairs: self.show_last_repairs(),
            draining: self.routing.is_draining(),
        }
    }

    fn show_tunnels(&self) -> Vec<TunnelStatus> {
        let show = |plan: &TunnelPlan| {
            let Some((driver, wanted)) = &plan.tunnel else {
                return TunnelStatus {
                    kind: plan.kind.to_string().to_lowercase(),
                    driver: "none".to_owned(),
                    device: String::new(),
                    mtu: 0,
                    reason: plan.reason.clone(),
                    carrier: None,
                };
            };
            let shown = match driver {
                TunnelDriver::Kernel | TunnelDriver::Vxlan => "kernel",
                TunnelDriver::Userspace | TunnelDriver::Udp => "userspace",
            };
            TunnelStatus {
                kind: plan.kind.to_string().to_lowercase(),
                driver: shown.to_owned(),
                device: driver.device().to_owned(),
                mtu: wanted.mtu,
                reason: format!("{}{}", plan.reason, self.show_carrier(*driver)),
                carrier: match self.dataplane.carrier_status(*driver) {
                    Some(CarrierStatus::Running { counters, .. }) => Some(counters),
                    Some(CarrierStatus::Starting | CarrierStatus::Failed { .. }) | None => None,
                },
            }
        };
        self.tunnels.iter().map(show).collect()
    }

    fn show_carrier(&self, driver: TunnelDriver) -> String {
        match self.dataplane.carrier_status(driver) {
            Some(CarrierStatus::Running {
                pid, is_adopted, ..
            }) => {
                format!(
                    "; carrier {pid}{}",
                    if is_adopted { ", adopted" } else { "" }
                )
            }
            Some(CarrierStatus::Starting) => "; the carrier is starting".to_owned(),
            Some(CarrierStatus::Failed { reason }) => {
                format!("; the carrier does not run: {reason}")
            }
            None => String::new(),
        }
    }

    async fn show_findings(&self) -> Vec<Finding> {
        // Files, and looked at when asked for: their daemons tell nobody.
        let links = self.host.links.iter();
        let ours = links.filter(|(name, _)| name.starts_with(INTERFACE_PREFIX));
        let ours = ours
            .map(|(name, link)| (link.index, name.clone()))
            .collect();
        let look = move || host_daemons::findings(Path::new("/"), &ours);
        let of_daemons = spawn_blocking(look).await;
        let of_daemons = of_daemons.unwrap_or_default().into_iter();
        let of_daemons = of_daemons.map(|(daemon, reason)| (daemon.to_owned(), reason));
        self.findings_of_pass()
            .chain(of_daemons.map(finding))
            .collect()
    }

    /// What the last pass found to be in the way.
    pub(super) fn findings_of_pass(&self) -> impl Iterator<Item = Finding> {
        let without_driver = self.tunnels.iter().filter(|plan| plan.tunnel.is_none());
        let without_driver = without_driver.map(|plan| {
            let kind = plan.kind.to_string().to_lowercase();
            (format!("tunnel {kind}"), plan.reason.clone())
        });
        let of_dataplane = self.report.findings.iter().cloned();
        let found = of_dataplane.chain(without_driver).chain(self.missing_nic());
        found.map(finding)
    }

    /// An interface that is configured and not there.
    fn missing_nic(&self) -> Option<(String, String)> {
        let nic = self.settings.nic.as_ref()?;
        let is_missing = !self.host.links.is_empty() && !self.host.links.contains_key(nic);
        is_missing.then(|| {
            let reason =
                format!("the interface {nic} does not exist; name the one towards the other nodes");
            ("nic".to_owned(), reason)
        })
    }

    fn show_last_repairs(&self) -> Vec<Repair> {
        let repairs = self.last_repairs.iter();
        repairs
            .map(|repair| Repair {
                kind: repair.kind.clone(),
                object: repair.object.clone(),
                found: repair.found.clone(),
            })
            .collect()
    }

    async fn show_failed(&self) -> Vec<FailedItem> {
        let mut failed: Vec<FailedItem> = self.endpoints.failed.clone();
        failed.extend(self.failed.iter().map(|(object, error)| FailedItem {
            object: object.clone(),
            error: error.clone(),
            attempts: self.attempts.get(object).copied().unwrap_or_default(),
        }));
        if let Some(speaker) = self.routing.speaker() {
            failed.extend(
                speaker
                    .problems()
                    .await
                    .into_iter()
                    .map(|error| FailedItem {
                        object: "bgp".to_owned(),
                        error,
                        attempts: 0,
                    }),
            );
        }
        failed
    }

    pub(super) fn show_endpoints(&self) -> Vec<EndpointStatus> {
        let by_iface: BTreeMap<&str, &crate::cni::attachment::Attachment> = self
            .attachments
            .values()
            .map(|one| (one.host_interface.as_str(), one))
            .collect();
        let mut shown: Vec<EndpointStatus> = self
            .endpoints
            .links
            .iter()
            .map(|(iface, link)| {
                let attachment = by_iface.get(iface.as_str());
                let (state, error) = match self.report.workload_states.get(iface) {
                    Some(Ok(())) => ("ready", None),
                    Some(Err(reason)) => ("failed", Some(reason.clone())),
                    None => ("pending", None),
                };
                EndpointStatus {
                    workload: attachment.map_or_else(|| iface.clone(), |one| workload_name(one)),
                    container_id: attachment.map(|one| one.container_id.clone()),
                    iface: iface.clone(),
                    addresses: link.addresses.clone(),
                    mac: link.mac.map(mac_text),
                    state: state.to_owned(),
                    error,
                }
            })
            .collect();
        let is_shown = |iface: &str| self.endpoints.links.contains_key(iface);
        for (iface, attachment) in by_iface.iter().filter(|(iface, _)| !is_shown(iface)) {
            let why = self
                .endpoints
                .failed
                .iter()
                .find(|item| item.object.contains(iface));
            shown.push(EndpointStatus {
                workload: workload_name(attachment),
                container_id: Some(attachment.container_id.clone()),
                iface: (*iface).to_owned(),
                addresses: attachment.addresses.clone(),
                mac: Some(mac_text(attachment.mac)),
                state: if why.is_some() { "failed" } else { "pending" }.to_owned(),
                error: why.map(|item| item.error.clone()),
            });
        }
        shown.sort_by(|a, b| a.workload.cmp(&b.workload));
        shown
    }

    pub(super) async fn show_routes(&mut self, query: RouteQuery) -> Vec<RouteStatus> {
        let Some(speaker) = self.routing.speaker() else {
            return Vec::new();
        };
        let selection = RouteSelection {
            prefix: query.prefix,
            received: query.received,
            advertised: query.advertised,
        };
        let mut routes = speaker.routes(selection).await;
        if query.advertised.is_none() {
            self.show_kernels(&mut routes).await;
        }
        routes
    }

    pub(super) async fn show_why(&mut self, prefix: Prefix) -> WhyStatus {
        let Some(speaker) = self.routing.speaker() else {
            return WhyStatus::default();
        };
        let mut known = speaker.why(prefix).await;
        self.show_kernels(&mut known.paths).await;
        known
    }

    /// Fills in the kernel's side of all that the table has, which come in the order of their
    /// prefixes.
    async fn show_kernels(&mut self, routes: &mut [RouteStatus]) {
        let prefixes = routes.iter().filter(|route| is_used(route));
        let prefixes = prefixes.map(|route| route.prefix).collect();
        let mut states = self.dataplane.route_states(prefixes).await.into_iter();
        for paths in routes.chunk_by_mut(|one, next| one.prefix == next.prefix) {
            let resolved = self.decision(paths);
            for route in paths.iter_mut() {
                if is_used(route) {
                    show_kernel(route, states.next().flatten(), resolved.as_deref());
                } else {
                    let reason = route.rejected_reason.clone();
                    let reason = reason.unwrap_or_else(|| "not the best path".to_owned());
                    route.kernel = Some(kernel("none", None, Some(reason)));
                }
            }
        }
    }

    /// What is decided about the paths of one prefix that are in use; `None` for a route of our own.
    fn decision(&mut self, paths: &[RouteStatus]) -> Option<Arc<Resolved>> {
        let used = paths.iter().filter(|route| is_used(route));
        let best_first = used.clone().filter(|route| route.best);
        let others = used.filter(|route| !route.best);
        let learned = best_first
            .chain(others)
            .filter(|route| route.peer.is_some());
        let next_hops: SmallVec<_> = learned.map(|route| route.next_hop).collect();
        let prefix = paths.first()?.prefix;
        let basis = self.basis.as_mut().filter(|_| !next_hops.is_empty())?;
        Some(basis.decide(prefix, next_hops))
    }
}

fn is_used(route: &RouteStatus) -> bool {
    route.best || route.multipath
}

/// Fills in the kernel's side of one path: of several, each has its own hop.
fn show_kernel(
    route: &mut RouteStatus,
    state: Option<(Option<Arc<Route>>, RouteState)>,
    resolved: Option<&Resolved>,
) {
    let mut paths = resolved.iter().flat_map(|resolved| &resolved.paths);
    let own = paths.find(|(next_hop, _)| *next_hop == route.next_hop);
    route.multipath &= resolved.is_some_and(Resolved::is_multipath);
    let wanted = state.as_ref().and_then(|(wanted, _)| wanted.as_deref());
    let (hop, why) = match own.map(|(_, resolution)| resolution) {
        Some(Resolution::Program { hop, reason, .. }) => {
            ((Some(hop.gateway), Some(hop.device.clone())), Some(reason))
        }
        Some(Resolution::Skip { reason }) => {
            route.multipath = false;
            route.kernel = Some(kernel("none", None, Some(reason.clone())));
            return;
        }
        // Not told to us: a route of our own.
        None => (first_hop(wanted), None),
    };
    let why = why.cloned();
    route.kernel = Some(match state {
        Some((Some(_), state)) => match state {
            RouteState::Installed => kernel("installed", Some(hop), why),
            RouteState::Shadowed { reason } => kernel("installed", Some(hop), Some(reason)),
            RouteState::Pending { reason } => kernel("pending", Some(hop), Some(reason)),
            RouteState::Failed { reason } => kernel("failed", Some(hop), Some(reason)),
        },
        Some((None, _)) | None => kernel("none", None, why),
    });
}

type ViaDevice = (Option<IpAddr>, Option<String>);

fn first_hop(route: Option<&Route>) -> ViaDevice {
    match route {
        Some(Route::Via { hops, .. }) => match hops.iter().next() {
            Some(hop) => (Some(hop.gateway), Some(hop.device.clone())),
            None => (None, None),
        },
        Some(Route::Link { device }) => (None, Some(device.clone())),
        Some(Route::Blackhole) | None => (None, None),
    }
}

fn kernel(state: &str, hop: Option<ViaDevice>, reason: Option<String>) -> KernelStatus {
    let (via, dev) = hop.unwrap_or_default();
    KernelStatus {
        state: state.to_owned(),
        onlink: via.map(|_| true),
        via,
        dev,
        reason,
    }
}

pub(super) fn finding((object, reason): (String, String)) -> Finding {
    Finding { object, reason }
}

/// For people who look for a slip in a name; of a large store the first ones.
fn names_of_nodes(snapshot: &Snapshot) -> String {
    const SHOWN: usize = 5;
    let mut names: Vec<&str> = snapshot.nodes().map(|node| node.name.as_str()).collect();
    if names.is_empty() {
        return "it has none".to_owned();
    }
    let more = if names.len() > SHOWN { ", …" } else { "" };
    names.truncate(SHOWN);
    format!("it has {}{more}", names.join(", "))
}

fn workload_name(attachment: &crate::cni::attachment::Attachment) -> String {
    if attachment.name.is_empty() {
        attachment.container_id.clone()
    } else {
        format!("{}/{}", attachment.namespace, attachment.name)
    }
}
