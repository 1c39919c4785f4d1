//! The loop: one closed enum of inputs, a snapshot, desired state, the dataplane and the speaker.
//!
//! Whatever comes in, what follows is the same: resolve from what is known now, apply the
//! difference. The kernel is not written before the store's first full sync.

mod basis;
mod pace;
mod pass;
mod rehearse;
mod show;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::speaker::counters::Counters;
use bgp::speaker::{Event, Stop};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::api::schema::{Drain, StoreError};
use crate::cni::attachment::Attachment;
use crate::config::Settings;
use crate::dataplane::host::HostView;
use crate::dataplane::{ApplyReport, Changes, Dataplane, Drift, KernelChange, Learning};
use crate::datastore::{FileStore, StoreUpdate};
use crate::drain::DrainMark;
use crate::model::Snapshot;
use crate::model::peer::Passwords;
use crate::requests::{NodeState, Request};
use crate::resolve::endpoints::Endpoints;
use crate::resolve::tunnel::TunnelPlan;
use crate::routing::{Routing, StartState};

use basis::Basis;
use pace::Pace;
pub use rehearse::Rehearsed;

/// Requests worked off together: their workloads share one pass.
const REQUESTS_PER_PASS: usize = 64;
/// First wait before what failed is tried again, doubled up to the second number.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Repairs of which `status` says what differed; older ones are only counted.
const REMEMBERED_REPAIRS: usize = 20;
/// A failure that is merely warned about once; SIGTERM must end the agent within 5 s.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// Everything that can wake the loop.
enum Input {
    Store(StoreUpdate),
    Request(Request),
    Kernel(KernelChange),
    Speaker(Event),
    /// Changes of learned routes are written.
    Learned(ApplyReport),
    /// The resync timer: read everything again.
    Resync,
    /// Something failed and its wait is over, or something is due.
    Retry,
    Stop,
}

/// What is owed to an ADD or DEL once the pass is done.
struct Owed {
    /// `None` for DEL: nothing that could fail.
    iface: Option<String>,
    reply: oneshot::Sender<Result<(), String>>,
}

/// There is a new tunnel, into which no learned route leads yet.
struct Preparing {
    begun: Instant,
    /// When one may; not known before the tunnel stands.
    until: Option<Instant>,
}

pub struct Reconciler {
    settings: Settings,
    store: FileStore,
    dataplane: Dataplane,
    changes: Changes,
    requests: mpsc::Receiver<Request>,
    node_state: watch::Sender<NodeState>,
    routing: Routing,
    drain_mark: DrainMark,
    attachments: BTreeMap<(String, String), Attachment>,
    /// The last update that was synced, and whether the newest is.
    store_update: Option<StoreUpdate>,
    is_synced: bool,
    host: Arc<HostView>,
    is_host_stale: bool,
    /// What learned routes were last resolved with. The speaker starts after the first one is made.
    basis: Option<Basis>,
    /// Changes of learned routes that are being written.
    learning: Option<Learning>,
    endpoints: Endpoints,
    tunnels: Vec<TunnelPlan>,
    preparing: Option<Preparing>,
    /// The snapshot that the speaker was last configured from.
    peered_with: Option<(Arc<Snapshot>, Passwords)>,
    peering_errors: Vec<StoreError>,
    report: ApplyReport,
    /// What is not as wanted, and why: of the last pass, and of learned routes since.
    failed: BTreeMap<String, String>,
    attempts: BTreeMap<String, u32>,
    repairs: BTreeMap<String, u64>,
    /// The newest of them, the oldest first.
    last_repairs: VecDeque<Drift>,
    has_passed: bool,
    retry: Option<(Instant, Duration)>,
    /// When something that waits for its time is due.
    next_pass: Option<Instant>,
    next_resync: Instant,
    pace: Pace,
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
        let drain_mark = DrainMark::new(&settings.state_dir, "agent");
        let is_drained = drain_mark.is_set();
        if is_drained {
            info!("draining, as told before: every route is said to be used last");
        }
        Reconciler {
            drain_mark,
            next_resync: Instant::now() + settings.resync,
            settings,
            store,
            changes: dataplane.changes(),
            dataplane,
            requests,
            node_state,
            routing: Routing::new(start, is_drained),
            attachments: attached.into_iter().map(|one| (key(&one), one)).collect(),
            store_update: None,
            is_synced: false,
            host: Arc::default(),
            is_host_stale: true,
            basis: None,
            learning: None,
            endpoints: Endpoints::default(),
            tunnels: Vec::new(),
            preparing: None,
            peered_with: None,
            peering_errors: Vec::new(),
            report: ApplyReport::default(),
            failed: BTreeMap::new(),
            attempts: BTreeMap::new(),
            repairs: BTreeMap::new(),
            last_repairs: VecDeque::new(),
            has_passed: false,
            retry: None,
            next_pass: None,
            pace: Pace::default(),
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
                    let begun = Instant::now();
                    if change.overrun {
                        self.dataplane.request_resync().await;
                    }
                    self.is_host_stale = true;
                    self.pass(Vec::new()).await;
                    let has_repaired = !self.report.repairs.is_empty();
                    self.pace.note(begun, Instant::now(), has_repaired);
                }
                Input::Speaker(event) => self.take_event(event).await,
                Input::Learned(report) => self.note_learned(report).await,
                Input::Resync => {
                    self.next_resync = Instant::now() + self.settings.resync;
                    self.dataplane.request_resync().await;
                    self.is_host_stale = true;
                    self.pass(Vec::new()).await;
                }
                Input::Retry => {
                    self.next_pass = None;
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
        let next_pass = self.next_pass;
        let not_before = self.pace.not_before();
        tokio::select! {
            biased;
            () = stop => Input::Stop,
            Some(request) = self.requests.recv() => Input::Request(request),
            update = self.store.next() => Input::Store(update),
            change = changed(&mut self.changes, not_before) => Input::Kernel(change),
            event = self.routing.next_event() => Input::Speaker(event),
            report = written(&mut self.learning) => Input::Learned(report),
            () = tokio::time::sleep_until(self.next_resync.into()) => Input::Resync,
            () = sleep_until(retry_at) => Input::Retry,
            () = sleep_until(next_pass) => Input::Retry,
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
            Request::Why { prefix, reply } => {
                let _ = reply.send(self.show_why(prefix).await);
            }
            Request::Counters { reply } => {
                let speaker = self.routing.speaker().cloned();
                tokio::spawn(async move {
                    let counters = match speaker {
                        Some(speaker) => speaker.counters().await,
                        None => Counters::default(),
                    };
                    let _ = reply.send(counters);
                });
            }
            Request::Drain { asked, reply } => {
                let _ = reply.send(self.drain(asked).await);
            }
            Request::Routes { query, reply } => {
                let _ = reply.send(self.show_routes(query).await);
            }
        }
        None
    }

    async fn drain(&mut self, asked: Drain) -> Result<Drain, String> {
        self.drain_mark
            .set(asked.draining)
            .map_err(|error| format!("the state directory does not keep it: {error}"))?;
        let draining = self.routing.drain(asked.draining).await;
        info!(asked = asked.draining, draining, "drain");
        Ok(Drain { draining })
    }

    async fn take_event(&mut self, event: Event) {
        match event {
            Event::Learned(routes) => {
                let Some(basis) = &mut self.basis else {
                    return;
                };
                let changes = basis.changes(routes);
                self.apply_learned(changes).await;
            }
            Event::NextHops(next_hops) => {
                let Some(basis) = &self.basis else {
                    return;
                };
                let resolver = basis.resolver();
                self.routing.answer_next_hops(next_hops, resolver).await;
            }
            Event::Settled => {
                info!("first convergence is over");
                self.routing.set_settled();
                let report = self.dataplane.settle_learned().await;
                self.note_more(&report);
            }
            Event::DynamicPeers(_) => {}
        }
    }
}

fn key(attachment: &Attachment) -> (String, String) {
    (
        attachment.container_id.clone(),
        attachment.container_interface.clone(),
    )
}

async fn changed(changes: &mut Changes, not_before: Option<Instant>) -> KernelChange {
    if not_before.is_some() {
        sleep_until(not_before).await;
    }
    changes.changed().await
}

async fn written(learning: &mut Option<Learning>) -> ApplyReport {
    match learning {
        Some(learning) => learning.written().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
