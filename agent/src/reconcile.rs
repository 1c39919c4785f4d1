//! The loop: one closed enum of inputs, a snapshot, desired state, the dataplane and the speaker.
//!
//! Whatever comes in, what follows is the same: resolve from what is known now, apply the
//! difference. The kernel is not written before the store's first full sync.

mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::speaker::{Event, Stop};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::api::schema::StoreError;
use crate::cni::attachment::Attachment;
use crate::cni::verbs::{NodeNetwork, NodeState};
use crate::config::{Settings, TunnelDriverChoice};
use crate::dataplane::desired::Desired;
use crate::dataplane::host::HostView;
use crate::dataplane::{ApplyReport, Changes, Dataplane, KernelChange};
use crate::datastore::{FileStore, StoreUpdate};
use crate::model::{Node, Snapshot};
use crate::resolve::endpoints::{Endpoints, resolve_endpoints};
use crate::resolve::peering;
use crate::resolve::routes::{NextHopResolver, blackholes};
use crate::resolve::tunnel::{DriverSetting, TunnelPlan, TunnelSettings, resolve_tunnel};
use crate::routing::{Routing, StartState};

/// Requests that may wait for the loop.
pub const REQUEST_QUEUE: usize = 64;
/// Requests worked off together: their workloads share one pass.
const REQUESTS_PER_PASS: usize = 64;
/// First wait before what failed is tried again, doubled up to the second number.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A failure that is merely warned about once; SIGTERM must end the agent within 5 s.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// What others ask of the loop.
#[derive(Debug)]
pub enum Request {
    /// A workload's veth exists and its attachment is on disk. Answered when the host side is
    /// programmed and packets flow, or with the reason why not.
    Attach {
        attachment: Attachment,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Answered when policy, route and neighbour are gone.
    Detach {
        container_id: String,
        container_interface: String,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Status {
        reply: oneshot::Sender<crate::api::schema::Status>,
    },
    Endpoints {
        reply: oneshot::Sender<Vec<crate::api::schema::EndpointStatus>>,
    },
    /// Speaker's routes with the kernel's side filled in.
    Routes {
        query: crate::api::schema::RouteQuery,
        reply: oneshot::Sender<Vec<bgp::speaker::status::RouteStatus>>,
    },
    Peers {
        reply: oneshot::Sender<Vec<bgp::speaker::status::PeerStatus>>,
    },
}

/// A cheap handle to the loop. Requests wait in a bounded queue; a full queue makes the caller wait.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

impl Handle {
    pub fn new(requests: mpsc::Sender<Request>) -> Handle {
        Handle { requests }
    }

    /// Sends a request and waits for its answer; `None` if the loop is gone (shutting down).
    pub async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// Everything that can wake the loop.
enum Input {
    Store(StoreUpdate),
    Request(Request),
    Kernel(KernelChange),
    Speaker(Event),
    /// The resync timer: read everything again.
    Resync,
    /// Something failed and its wait is over.
    Retry,
    Stop,
}

/// What is owed to an ADD or DEL once the pass is done.
struct Owed {
    /// `None` for DEL: nothing that could fail.
    iface: Option<String>,
    reply: oneshot::Sender<Result<(), String>>,
}

pub struct Reconciler {
    settings: Settings,
    store: FileStore,
    dataplane: Dataplane,
    changes: Changes,
    requests: mpsc::Receiver<Request>,
    node_state: watch::Sender<NodeState>,
    routing: Routing,
    attachments: BTreeMap<(String, String), Attachment>,
    /// The last update that was synced, and whether the newest is.
    store_update: Option<StoreUpdate>,
    is_synced: bool,
    host: Arc<HostView>,
    is_host_stale: bool,
    endpoints: Endpoints,
    tunnel: Option<TunnelPlan>,
    peering_errors: Vec<StoreError>,
    report: ApplyReport,
    /// Of the last application: what is not as wanted, and why.
    failed: Vec<(String, String)>,
    attempts: BTreeMap<String, u32>,
    repairs: BTreeMap<String, u64>,
    has_passed: bool,
    retry: Option<(Instant, Duration)>,
    next_resync: Instant,
}

impl Reconciler {
    pub fn new(
        settings: Settings,
        store: FileStore,
        dataplane: Dataplane,
        requests: mpsc::Receiver<Request>,
        node_state: watch::Sender<NodeState>,
        attached: Vec<Attachment>,
    ) -> Reconciler {
        let start = StartState {
            restart_time: settings.graceful_restart,
            has_learned_routes: dataplane.learned_present_at_start(),
        };
        Reconciler {
            next_resync: Instant::now() + settings.resync,
            settings,
            store,
            changes: dataplane.changes(),
            dataplane,
            requests,
            node_state,
            routing: Routing::new(start),
            attachments: attached.into_iter().map(|one| (key(&one), one)).collect(),
            store_update: None,
            is_synced: false,
            host: Arc::default(),
            is_host_stale: true,
            endpoints: Endpoints::default(),
            tunnel: None,
            peering_errors: Vec::new(),
            report: ApplyReport::default(),
            failed: Vec::new(),
            attempts: BTreeMap::new(),
            repairs: BTreeMap::new(),
            has_passed: false,
            retry: None,
        }
    }

    /// Runs until `stop` resolves, then ends the sessions in a way that peers keep our routes.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let input = self.next_input(&mut stop).await;
            match input {
                Input::Stop => break,
                Input::Store(update) => {
                    self.take_store(update);
                    self.pass(Vec::new()).await;
                }
                Input::Request(request) => self.take_requests(request).await,
                Input::Kernel(change) => {
                    debug!(?change, "the kernel changed");
                    if change.overrun {
                        self.dataplane.request_resync().await;
                    }
                    self.is_host_stale = true;
                    self.pass(Vec::new()).await;
                }
                Input::Speaker(event) => self.take_event(event).await,
                Input::Resync => {
                    self.next_resync = Instant::now() + self.settings.resync;
                    self.dataplane.request_resync().await;
                    self.is_host_stale = true;
                    self.pass(Vec::new()).await;
                }
                Input::Retry => {
                    self.is_host_stale = true;
                    self.pass(Vec::new()).await;
                }
            }
        }
        if let Some(speaker) = self.routing.speaker() {
            let stopped = tokio::time::timeout(STOP_DEADLINE, speaker.stop(Stop::Restarting)).await;
            if stopped.is_err() {
                warn!("sessions did not end in time");
            }
        }
    }

    async fn next_input(&mut self, stop: &mut (impl Future<Output = ()> + Unpin)) -> Input {
        let retry_at = self.retry.map(|(at, _)| at);
        tokio::select! {
            biased;
            () = stop => Input::Stop,
            Some(request) = self.requests.recv() => Input::Request(request),
            update = self.store.next() => Input::Store(update),
            change = self.changes.changed() => Input::Kernel(change),
            event = self.routing.next_event() => Input::Speaker(event),
            () = tokio::time::sleep_until(self.next_resync.into()) => Input::Resync,
            () = sleep_until(retry_at) => Input::Retry,
        }
    }

    fn take_store(&mut self, update: StoreUpdate) {
        let before: &[StoreError] = match &self.store_update {
            Some(update) => &update.errors,
            None => &[],
        };
        for error in update.errors.iter().filter(|error| !before.contains(error)) {
            warn!(%error, "object not accepted as it is");
        }
        self.is_synced = update.synced;
        match &mut self.store_update {
            // Keep forwarding by what was known when the directory went away.
            Some(known) if !update.synced => known.errors = update.errors,
            known => *known = Some(update),
        }
    }

    async fn take_requests(&mut self, first: Request) {
        let mut owed = Vec::new();
        let mut request = Some(first);
        for _ in 0..REQUESTS_PER_PASS {
            match request.take() {
                Some(request) => owed.extend(self.take_request(request).await),
                None => break,
            }
            request = self.requests.try_recv().ok();
        }
        if let Some(request) = request {
            owed.extend(self.take_request(request).await);
        }
        if !owed.is_empty() {
            self.pass(owed).await;
        }
    }

    /// Answers at once what needs no pass. A dropped receiver means that nobody waits any more.
    async fn take_request(&mut self, request: Request) -> Option<Owed> {
        match request {
            Request::Attach { attachment, reply } => {
                let iface = Some(attachment.host_interface.clone());
                self.attachments.insert(key(&attachment), attachment);
                return Some(Owed { iface, reply });
            }
            Request::Detach {
                container_id,
                container_interface,
                reply,
            } => {
                self.attachments
                    .remove(&(container_id, container_interface));
                return Some(Owed { iface: None, reply });
            }
            Request::Status { reply } => {
                let _ = reply.send(self.show_status().await);
            }
            Request::Endpoints { reply } => {
                let _ = reply.send(self.show_endpoints());
            }
            Request::Peers { reply } => {
                let speaker = self.routing.speaker().cloned();
                tokio::spawn(async move {
                    let peers = match speaker {
                        Some(speaker) => speaker.peers().await,
                        None => Vec::new(),
                    };
                    let _ = reply.send(peers);
                });
            }
            Request::Routes { query, reply } => {
                let _ = reply.send(self.show_routes(query).await);
            }
        }
        None
    }

    async fn take_event(&mut self, event: Event) {
        match event {
            Event::Learned(routes) => {
                let Some(snapshot) = self.snapshot() else {
                    return;
                };
                let Some(node) = snapshot.node(&self.settings.node) else {
                    return;
                };
                let host = self.host.clone();
                let tunnel = self.tunnel.as_ref().and_then(|plan| plan.tunnel.clone());
                let resolver = NextHopResolver::new(&snapshot, node, &host, tunnel.as_ref());
                let workloads = self.workload_addresses();
                let changes = self.routing.learn(routes, &resolver, &workloads);
                self.apply_learned(changes).await;
            }
            Event::Settled => {
                info!("first convergence is over");
                self.routing.set_settled();
                let report = self.dataplane.settle_learned().await;
                self.note(&report);
            }
            Event::DynamicPeers(_) => {}
        }
    }

    /// Resolves everything from what is known now and applies the difference.
    async fn pass(&mut self, owed: Vec<Owed>) {
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
    async fn try_pass(&mut self) -> Result<(), String> {
        let Some(snapshot) = self.snapshot() else {
            return self.not_ready("the store has not been read yet");
        };
        let Some(node) = snapshot.node(&self.settings.node) else {
            return self.not_ready(&format!("the store has no Node {}", self.settings.node));
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
                    self.schedule_retry(true);
                    return Err(reason);
                }
            }
        }
        let host = self.host.clone();
        let plan = resolve_tunnel(&snapshot, node, &host, &self.tunnel_settings(node));
        self.endpoints = resolve_endpoints(&snapshot, node, self.attachments.values());
        let desired = Desired {
            workloads: self.endpoints.links.clone(),
            routes: blackholes(node),
            tunnel: plan.tunnel.clone(),
        };
        self.report = self.dataplane.apply(&desired).await;
        let report = self.report.clone();
        self.note(&report);
        self.tell_node_state(&snapshot, node, &plan);
        let resolver = NextHopResolver::new(&snapshot, node, &host, plan.tunnel.as_ref());
        let workloads = self.workload_addresses();
        let changes = self.routing.resolve_again(&resolver, &workloads);
        self.tunnel = Some(plan.clone());
        self.apply_learned(changes).await;
        let (config, errors) = peering::speaker_config(&snapshot, node);
        self.peering_errors = errors;
        self.routing.configure(config).await;
        if !self.has_passed {
            info!(node = self.settings.node, "first pass done");
        }
        self.has_passed = true;
        Ok(())
    }

    fn not_ready(&mut self, reason: &str) -> Result<(), String> {
        drop(self.node_state.send_replace(Err(reason.to_owned())));
        Err(reason.to_owned())
    }

    async fn apply_learned(&mut self, changes: Vec<crate::dataplane::desired::LearnedChange>) {
        if changes.is_empty() {
            return;
        }
        let report = self.dataplane.apply_learned(changes).await;
        self.note(&report);
    }

    /// Keeps what failed for `status`, counts repairs, and plans the next attempt.
    fn note(&mut self, report: &ApplyReport) {
        for (kind, count) in &report.repairs {
            *self.repairs.entry(kind.clone()).or_default() += count;
        }
        self.attempts
            .retain(|object, _| report.failed.iter().any(|(failed, _)| failed == object));
        for (object, reason) in &report.failed {
            let attempts = self.attempts.entry(object.clone()).or_default();
            *attempts += 1;
            if *attempts == 1 {
                warn!(object, error = reason, "not applied, will be retried");
            }
        }
        self.failed = report.failed.clone();
        self.schedule_retry(!report.failed.is_empty());
    }

    fn schedule_retry(&mut self, is_needed: bool) {
        self.retry = is_needed.then(|| {
            let wait = self
                .retry
                .map_or(RETRY.0, |(_, wait)| (wait * 2).min(RETRY.1));
            (Instant::now() + wait, wait)
        });
    }

    fn tell_node_state(&self, snapshot: &Snapshot, node: &Node, plan: &TunnelPlan) {
        let state = if node.pod_cidrs.is_empty() {
            Err(format!("Node {} has no podCIDRs", node.name))
        } else {
            let nic_mtu = || {
                let device = self.host.addresses.get(&IpAddr::V4(node.ipv4?))?;
                self.host.links.get(device).map(|link| link.mtu)
            };
            let mtu = plan
                .tunnel
                .as_ref()
                .map(|tunnel| tunnel.mtu)
                .or_else(nic_mtu);
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

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
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

fn key(attachment: &Attachment) -> (String, String) {
    (
        attachment.container_id.clone(),
        attachment.container_interface.clone(),
    )
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
