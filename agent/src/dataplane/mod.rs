//! The only part that changes the kernel.
//!
//! In: `Desired`, changes of learned routes. Out: a kernel that holds them, a report of what could
//! not be done, the host's state for next-hop resolution, and a signal when something changed.
//! Only objects that `ownership` calls ours are written. Nothing is undone on drop: stopping the
//! agent leaves forwarding as it is.
//!
//! `desired`, `host`, `diff` and `ownership` are pure; `netlink` speaks to the kernel; one module
//! per kind of object turns values into messages; `table` and `pass` decide what to write, on the
//! thread of `engine`; `veth` stands apart, for CNI calls.

mod attribute;
mod board;
mod conntrack;
mod deletions;
pub mod desired;
pub mod diff;
mod engine;
mod firewall;
pub mod host;
mod link;
mod modules;
mod monitor;
mod neigh;
mod netconf;
mod netlink;
pub mod netns;
mod next_hop;
pub mod nft;
pub mod ownership;
mod parameters;
mod pass;
pub mod rehearsal;
mod route;
mod sysctl;
mod table;
mod tunnel;
mod tunnel_pass;
mod veth;
mod workload_mtu;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bgp::types::Prefix;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use self::board::Board;
pub use self::board::{Changes, KernelChange};
use self::desired::{Desired, LearnedChange, Route, RouteState, TunnelDriver};
use self::engine::{Engine, EngineThread};
use self::host::HostView;
pub use self::netlink::NetlinkError;
use self::rehearsal::{Difference, Rehearsal};
use self::tunnel_pass::Unwanted;
pub use self::veth::{
    AttachError, AttachedWorkload, WorkloadSpec, attach_workload, detach_workload,
    wait_until_running,
};
use crate::carrier::Encapsulation;
use crate::carrier::supervise::{
    self, CarrierStatus, Found, SuperviseError, Supervisor, SupervisorOptions,
};

#[derive(Clone, Debug)]
pub struct DataplaneOptions {
    /// Where the carrier's socket, lock and log are.
    pub run_dir: PathBuf,
    /// The carrier's program and its first arguments; `None`: this program with `carrier`.
    pub carrier_program: Option<(PathBuf, Vec<String>)>,
    /// How long a tunnel device stays after the last route has left it.
    pub tunnel_linger: Duration,
    /// A path, or `nft` to be looked for.
    pub nft_program: PathBuf,
    /// Whether host firewalls that stop workloads are opened for them, or only reported.
    pub opens_host_firewall: bool,
    /// Hops that many learned routes share are next-hop objects.
    pub uses_next_hop_objects: bool,
    /// Begun: nothing is written, and `rehearsed` tells what would be.
    pub rehearsal: Rehearsal,
}

/// Longer than nodes differ in when they hear of a changed pool.
const TUNNEL_LINGER: Duration = Duration::from_secs(10);

impl DataplaneOptions {
    pub fn new(run_dir: PathBuf) -> DataplaneOptions {
        DataplaneOptions {
            run_dir,
            carrier_program: None,
            tunnel_linger: TUNNEL_LINGER,
            nft_program: "nft".into(),
            opens_host_firewall: false,
            uses_next_hop_objects: true,
            rehearsal: Rehearsal::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    #[error("failed to read the kernel's state")]
    Netlink(#[from] NetlinkError),
    #[error("failed to watch the kernel")]
    Monitor(#[source] std::io::Error),
    #[error("failed to start the dataplane's thread")]
    Thread(#[source] std::io::Error),
    #[error("the dataplane's thread is gone")]
    Gone,
}

/// What a pass did and could not do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ApplyReport {
    /// Object and reason: everything that is not as wanted now, apart from what merely waits.
    pub failed: Vec<(String, String)>,
    /// Kind of object (`route`, `neighbour`, `link`, `address`, `sysctl`, `tunnel`, `nft`) -> how
    /// many that had been right this pass found changed and put right.
    pub repairs: BTreeMap<String, u64>,
    /// What differed, of those repairs: the first hundred.
    pub drifts: Vec<Drift>,
    /// Object and what about it keeps packets from flowing although all is as wanted. Empty after
    /// `apply_learned`.
    pub findings: Vec<(String, String)>,
    /// By host interface: packets flow, or why not. Empty after `apply_learned`.
    pub workload_states: BTreeMap<String, Result<(), String>>,
    /// Something waits for its time: apply again then.
    pub again_in: Option<Duration>,
}

/// How an object of ours was found that had been right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drift {
    /// As in `ApplyReport::repairs`.
    pub kind: String,
    pub object: String,
    /// `missing`, `down`, `mtu 1300 instead of 1450`.
    pub found: String,
}

const REPORTED_DRIFTS: usize = 100;
/// Repairs of one kind and pass that have a line each in the log.
const LOGGED_REPAIRS: u64 = 10;

impl ApplyReport {
    fn fail(&mut self, object: impl Into<String>, error: impl fmt::Display) {
        self.failed.push((object.into(), error.to_string()));
    }

    fn call_again(&mut self, rest: Duration) {
        self.again_in = Some(self.again_in.map_or(rest, |other| other.min(rest)));
    }

    fn repaired(&mut self, kind: &str, object: &str, found: impl fmt::Display) {
        let found = found.to_string();
        let count = self.repairs.entry(kind.to_owned()).or_default();
        *count += 1;
        if *count <= LOGGED_REPAIRS {
            info!(kind, object, found, "repaired");
        }
        if self.drifts.len() < REPORTED_DRIFTS {
            self.drifts.push(Drift {
                kind: kind.to_owned(),
                object: object.to_owned(),
                found,
            });
        }
    }

    /// Says in the log how many repairs it does not name. For the end of a pass.
    fn log_others(&self) {
        for (kind, count) in &self.repairs {
            let others = count.saturating_sub(LOGGED_REPAIRS);
            if others > 0 {
                info!(kind, others, "more repaired");
            }
        }
    }
}

/// The kernel of this network namespace. One per process and namespace.
pub struct Dataplane {
    options: DataplaneOptions,
    /// Whether there are tunnel devices that wait for their end.
    has_unwanted: bool,
    /// Of the userspace tunnels that are there.
    supervisors: BTreeMap<TunnelDriver, Supervisor>,
    engine: EngineThread,
    changes: Changes,
    monitor: AbortHandle,
    /// `None`: changes of nftables are found by the resync only.
    nft_watch: Option<AbortHandle>,
    has_learned_at_start: bool,
}

impl Dataplane {
    /// Reads the kernel and starts watching it, in the calling thread's network namespace. Writes
    /// nothing.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub async fn open(options: DataplaneOptions) -> Result<Dataplane, DataplaneError> {
        let board = Arc::new(Board::default());
        // Subscribed before the first reading, so that nothing falls in between.
        let socket = monitor::subscribe().map_err(DataplaneError::Monitor)?;
        let nft_watch = nft::watch::subscribe()
            .inspect_err(|error| debug!(%error, "nftables is not watched"))
            .ok()
            .map(|socket| tokio::spawn(nft::watch::run(socket, Arc::clone(&board))));
        let (engine, links) = EngineThread::start(Arc::clone(&board), &options).await?;
        let about = |engine: &mut Engine| (engine.table().has_learned(), engine.port());
        let (has_learned_at_start, port) = engine.run(about).await.ok_or(DataplaneError::Gone)?;
        if let Err(error) = monitor::ignore_own_routes(&socket, port) {
            debug!(%error, "own route changes are not filtered by the kernel");
        }
        let monitor = tokio::spawn(monitor::run(socket, Arc::clone(&board), links));
        Ok(Dataplane {
            options,
            supervisors: BTreeMap::new(),
            has_unwanted: false,
            engine,
            changes: Changes::new(board),
            monitor: monitor.abort_handle(),
            nft_watch: nft_watch.map(|task| task.abort_handle()),
            has_learned_at_start,
        })
    }

    /// Reads links, addresses and foreign routes.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub async fn observe_host(&mut self) -> Result<HostView, DataplaneError> {
        let view = self
            .engine
            .run(Engine::observe_host)
            .await
            .ok_or(DataplaneError::Gone)?;
        Ok(view?)
    }

    /// Brings `desired` about: reads, compares, writes only differences. Also repairs and retries
    /// learned routes. After `request_resync` everything is read again.
    ///
    /// A tunnel device that is not wanted any more stays until no route of ours has used it for
    /// `DataplaneOptions::tunnel_linger`.
    pub async fn apply(&mut self, desired: &Desired) -> ApplyReport {
        let wanted = desired.clone();
        let mut report = self.run(move |engine| engine.apply(&wanted)).await;
        self.release_tunnels(&mut report).await;
        for (driver, tunnel) in &desired.tunnels {
            let Some(encapsulation) = driver.carrier() else {
                continue;
            };
            match self.supervisor_options(encapsulation, tunnel.local) {
                Ok(options) if self.options.rehearsal.is_on() => {
                    self.rehearse_carrier(options).await;
                }
                Ok(options) => self.supervise_carrier(*driver, options, &mut report),
                Err(error) => report.fail("carrier", error),
            }
        }
        report
    }

    /// Writes changes of learned routes, in batches. They are remembered: a later `apply` repairs
    /// them. A route that the kernel has already is not written.
    pub async fn apply_learned(&mut self, changes: Vec<LearnedChange>) -> ApplyReport {
        let report = self.begin_learned(changes).await.written().await;
        self.after_learned(report).await
    }

    /// As `apply_learned`, but returns while they are written. Whatever is asked later comes after
    /// them. What `Learning::written` says is owed to `after_learned`.
    pub async fn begin_learned(&self, changes: Vec<LearnedChange>) -> Learning {
        let work = move |engine: &mut Engine| engine.apply_learned(changes);
        Learning(self.engine.begin(work).await)
    }

    /// Ends what `begin_learned` began.
    pub async fn after_learned(&mut self, mut report: ApplyReport) -> ApplyReport {
        if self.has_unwanted {
            self.release_tunnels(&mut report).await;
        }
        report
    }

    /// The speaker has converged (End-of-RIB from its peers, or its bounded wait is over): learned
    /// routes found at start that it has not named are removed now. Call once.
    pub async fn settle_learned(&mut self) -> ApplyReport {
        self.run(Engine::settle_learned).await
    }

    /// Whether the kernel held learned routes when we started: forwarding was preserved (RFC 4724,
    /// the F bit).
    pub fn learned_present_at_start(&self) -> bool {
        self.has_learned_at_start
    }

    /// The next `apply` reads everything again, parameters included. For the resync timer.
    pub async fn request_resync(&mut self) {
        self.run(|engine| {
            engine.request_resync();
            ApplyReport::default()
        })
        .await;
    }

    /// What became of the route for `prefix`; see `route_states`.
    pub async fn route_state(&self, prefix: Prefix) -> Option<(Option<Arc<Route>>, RouteState)> {
        self.route_states(vec![prefix]).await.pop().flatten()
    }

    /// One answer per prefix: the wanted route and its state. A route of ours that is still in the
    /// kernel but not wanted has no `Route`; `None`: neither wanted nor there.
    pub async fn route_states(
        &self,
        prefixes: Vec<Prefix>,
    ) -> Vec<Option<(Option<Arc<Route>>, RouteState)>> {
        let ask = move |engine: &mut Engine| {
            prefixes
                .iter()
                .map(|prefix| engine.table().state(prefix))
                .collect()
        };
        self.engine.run(ask).await.unwrap_or_default()
    }

    /// Signals changes made by others. All clones share one set of flags: use one.
    pub fn changes(&self) -> Changes {
        self.changes.clone()
    }

    /// How many kernel objects were written through netlink since open, and transactions of
    /// nftables.
    pub async fn writes(&self) -> u64 {
        self.engine
            .run(|engine| engine.writes())
            .await
            .unwrap_or_default()
    }

    /// What would have been written since open. Only of a rehearsal.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub async fn rehearsed(&self) -> Result<Vec<Difference>, DataplaneError> {
        let told = self.engine.run(Engine::rehearsed).await;
        Ok(told.ok_or(DataplaneError::Gone)??)
    }

    /// How many learned routes the kernel holds, wanted or not.
    pub async fn learned_routes(&self) -> usize {
        let ask = |engine: &mut Engine| engine.table().learned_count();
        self.engine.run(ask).await.unwrap_or_default()
    }

    /// Routes of ours that foreign ones of lower metric take the packets of, with the reason.
    pub async fn shadowed(&self) -> Vec<(String, String)> {
        let ask = |engine: &mut Engine| engine.table().shadowed();
        self.engine.run(ask).await.unwrap_or_default()
    }

    /// `None` unless the driver is a carrier whose tunnel is wanted, or was a moment ago.
    pub fn carrier_status(&self, driver: TunnelDriver) -> Option<CarrierStatus> {
        let supervisor = self.supervisors.get(&driver)?;
        Some(supervisor.status().borrow().clone())
    }

    /// Removes everything of ours: the carriers, routes, veths, tunnel devices, our table in nftables.
    pub async fn uninstall(mut self) -> ApplyReport {
        let mut errors = Vec::new();
        for driver in TunnelDriver::ALL {
            errors.extend(self.stop_carrier(driver).await.err());
        }
        let mut report = self.run(Engine::uninstall).await;
        for error in errors {
            report.fail("carrier", error);
        }
        report
    }

    /// Removes the tunnel devices whose time has come.
    async fn release_tunnels(&mut self, report: &mut ApplyReport) {
        let linger = self.options.tunnel_linger;
        let states = self
            .engine
            .run(move |engine| engine.unwanted_tunnels(linger))
            .await
            .unwrap_or_default();
        self.has_unwanted = false;
        for (driver, state) in states {
            let is_there = match state {
                Unwanted::Used => {
                    self.has_unwanted = true;
                    continue;
                }
                Unwanted::Idle { rest } if !rest.is_zero() => {
                    self.has_unwanted = true;
                    report.call_again(rest);
                    continue;
                }
                Unwanted::Idle { .. } => true,
                Unwanted::Absent => false,
            };
            // Before its device goes: it would make it anew.
            if let Err(error) = self.stop_carrier(driver).await {
                report.fail("carrier", error);
            }
            if is_there {
                let removed = self.run(move |engine| engine.remove_tunnel(driver)).await;
                report.failed.extend(removed.failed);
            }
        }
    }

    /// Also one that an earlier agent started.
    async fn stop_carrier(&mut self, driver: TunnelDriver) -> Result<(), SuperviseError> {
        let Some(encapsulation) = driver.carrier() else {
            return Ok(());
        };
        if self.options.rehearsal.is_on() {
            if supervise::is_there(&self.options.run_dir, encapsulation).await {
                self.options.rehearsal.takes(|| Difference {
                    object: carrier_object(encapsulation),
                    present: Some("it runs".to_owned()),
                    wanted: None,
                });
            }
            return Ok(());
        }
        match self.supervisors.remove(&driver) {
            Some(supervisor) => supervisor.stop().await,
            None => supervise::stop(&self.options.run_dir, encapsulation).await,
        }
    }

    fn supervise_carrier(
        &mut self,
        driver: TunnelDriver,
        options: SupervisorOptions,
        report: &mut ApplyReport,
    ) {
        let supervisor = self.supervisors.get(&driver);
        if supervisor.is_none_or(|supervisor| supervisor.options().local != options.local) {
            self.supervisors.insert(driver, Supervisor::start(options));
        }
        if let Some(CarrierStatus::Failed { reason }) = self.carrier_status(driver) {
            report.fail(format!("carrier of {}", driver.device()), reason);
        }
    }

    async fn rehearse_carrier(&self, options: SupervisorOptions) {
        let object = carrier_object(options.encapsulation);
        let present = match supervise::look(&options).await {
            Found::Right => return,
            Found::None => None,
            Found::Other(what) => Some(what),
        };
        let wanted = Some(format!("one with local {}", options.local));
        self.options.rehearsal.takes(|| Difference {
            object,
            present,
            wanted,
        });
    }

    fn supervisor_options(
        &self,
        encapsulation: Encapsulation,
        local: Ipv4Addr,
    ) -> std::io::Result<SupervisorOptions> {
        let run_dir = self.options.run_dir.clone();
        let Some((program, arguments)) = self.options.carrier_program.clone() else {
            return SupervisorOptions::new(run_dir, encapsulation, local);
        };
        Ok(SupervisorOptions {
            run_dir,
            encapsulation,
            local,
            program,
            arguments,
        })
    }

    async fn run(
        &self,
        work: impl FnOnce(&mut Engine) -> ApplyReport + Send + 'static,
    ) -> ApplyReport {
        self.engine.run(work).await.unwrap_or_else(gone)
    }
}

/// Changes of learned routes that are being written.
pub struct Learning(oneshot::Receiver<ApplyReport>);

impl Learning {
    /// Waits for their end. Safe to cancel; once it has answered it is not to be asked again.
    pub async fn written(&mut self) -> ApplyReport {
        (&mut self.0).await.unwrap_or_else(|_| gone())
    }
}

fn gone() -> ApplyReport {
    warn!("the dataplane's thread is gone");
    let mut report = ApplyReport::default();
    report.fail("dataplane", DataplaneError::Gone);
    report
}

fn carrier_object(encapsulation: Encapsulation) -> String {
    format!("carrier of {}", encapsulation.device())
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.monitor.abort();
        if let Some(watch) = &self.nft_watch {
            watch.abort();
        }
    }
}
