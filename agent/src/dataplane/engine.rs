//! The dataplane's own thread: everything that blocks on the kernel.
//!
//! In: jobs, one after the other. Out: their results. The thread stays in the network namespace in
//! which it was started, which is what /proc/sys/net shows it. What a pass does is in `pass`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::types::Family;
use tokio::sync::{mpsc, oneshot};

use super::board::Board;
use super::desired::{Tunnel, TunnelDriver};
use super::diff::{KernelHop, KernelRoute, RouteKind};
use super::firewall::HostFirewall;
use super::host::{HostRoute, HostView, Link};
use super::link::{self, Links};
use super::neigh::NeighbourKey;
use super::netlink::{Netlink, NetlinkError};
use super::nft::Nft;
use super::rehearsal::{Difference, Seen};
use super::table::Table;
use super::{DataplaneError, DataplaneOptions};
use super::{ownership, tunnel};

/// Senders of further jobs wait.
const QUEUED_JOBS: usize = 4;

/// While hundreds of links come up, no dump is whole. A pass is tried again; who cannot begin ends.
const COMES_TO_REST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// A handle to the thread, which ends after its last job when the handle is dropped.
pub struct EngineThread {
    jobs: mpsc::Sender<Job>,
}

impl EngineThread {
    /// Starts the thread in the caller's network namespace and waits until it has read the kernel.
    /// Returns the links it found.
    ///
    /// # Errors
    /// If the kernel cannot be read or the system has no thread left.
    pub async fn start(
        board: Arc<Board>,
        options: &DataplaneOptions,
    ) -> Result<(EngineThread, Links), DataplaneError> {
        let options = options.clone();
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUED_JOBS);
        let (opened, open) = oneshot::channel();
        let work = move || match open_when_still(&board, &options) {
            Ok(mut engine) => {
                let _ = opened.send(Ok(engine.links.clone()));
                while let Some(job) = queue.blocking_recv() {
                    job(&mut engine);
                }
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name("dataplane".into())
            .spawn(work)
            .map_err(DataplaneError::Thread)?;
        let links = open.await.map_err(|_| DataplaneError::Gone)??;
        Ok((EngineThread { jobs }, links))
    }

    /// Runs `work` on the thread, to its end even if the caller stops waiting. `None` if the thread
    /// is gone.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        self.begin(work).await.await.ok()
    }

    /// Returns as soon as `work` has a place in the queue. The answer is an error if the thread is
    /// gone.
    pub async fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            let _ = reply.send(work(engine));
        });
        // A job that is not taken drops its end of the answer.
        let _ = self.jobs.send(job).await;
        answer
    }
}

/// What a pass found or brought in place, to tell drift from first-time creation.
#[derive(Default)]
pub struct InPlace {
    pub neighbours: BTreeMap<NeighbourKey, [u8; 6]>,
    /// Interface indexes of workloads whose link and parameters were right, and whether those of
    /// IPv6 belong to them.
    pub links: HashSet<(u32, bool)>,
    /// Of those, the ones whose parameters are not read again before the kernel tells that one of
    /// them changed, or the next resync: of some it does not tell.
    pub checked: HashSet<(u32, bool)>,
    /// Without what stands on them for other nodes.
    pub tunnels: BTreeMap<TunnelDriver, Tunnel>,
    /// Forwarding entries of VXLAN.
    pub forwarding: BTreeMap<[u8; 6], Ipv4Addr>,
    /// What the host was found or made to forward.
    pub forwarded_families: BTreeSet<Family>,
}

/// Everything known of the kernel, and the socket to change it.
pub struct Engine {
    pub(super) netlink: Netlink,
    pub(super) board: Arc<Board>,
    pub(super) table: Table,
    pub(super) links: Links,
    pub(super) in_place: InPlace,
    pub(super) nft: Nft,
    /// Those that are wanted, and those whose device is still there, as they were wanted last.
    pub(super) guarded_tunnels: BTreeMap<TunnelDriver, Tunnel>,
    pub(super) firewall: HostFirewall,
    pub(super) is_resync_due: bool,
    /// Connections of these addresses are to be forgotten before their routes are written.
    pub(super) moved_addresses: BTreeSet<IpAddr>,
    pub(super) has_passed: bool,
    /// Their routes were read anew, and not yet compared with what is wanted.
    pub(super) unchecked_families: BTreeSet<Family>,
    /// As of the last pass.
    pub(super) wanted_tunnels: BTreeSet<TunnelDriver>,
    /// Devices that are neither wanted nor used, and since when that is known.
    pub(super) idle_tunnels: BTreeMap<TunnelDriver, Instant>,
    has_kernel_ipip: bool,
}

impl Engine {
    /// Reads the kernel for the first time.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(board: Arc<Board>, options: DataplaneOptions) -> Result<Engine, NetlinkError> {
        let rehearsal = options.rehearsal;
        let mut netlink = Netlink::open_for(rehearsal.clone())?;
        board.add_own_port(netlink.port());
        let table = Table::open(&mut netlink, options.uses_next_hop_objects)?;
        let links = link::observe(&mut netlink)?;
        Ok(Engine {
            netlink,
            board,
            table,
            links,
            in_place: InPlace::default(),
            nft: Nft::new(options.nft_program.clone(), rehearsal.clone()),
            firewall: HostFirewall::new(
                options.nft_program,
                options.opens_host_firewall,
                rehearsal.clone(),
            ),
            guarded_tunnels: BTreeMap::new(),
            is_resync_due: true,
            moved_addresses: BTreeSet::new(),
            has_passed: false,
            unchecked_families: Family::ALL.into(),
            wanted_tunnels: BTreeSet::new(),
            idle_tunnels: BTreeMap::new(),
            has_kernel_ipip: tunnel::has_kernel_ipip(&rehearsal),
        })
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Marks notifications about our own changes.
    pub fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// Kernel objects written through netlink, and transactions of nftables, since open.
    pub fn writes(&self) -> u64 {
        self.netlink.writes() + self.nft.transactions()
    }

    /// What would have been written since open, in a rehearsal.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn rehearsed(&mut self) -> Result<Vec<Difference>, NetlinkError> {
        let seen = Seen::read(&mut self.netlink)?;
        let wanted = seen.after(self.netlink.held_back());
        let mut found = self.netlink.rehearsal().noted();
        found.extend(seen.differences(&wanted));
        Ok(found)
    }

    /// The next pass reads everything again.
    pub fn request_resync(&mut self) {
        self.is_resync_due = true;
    }

    /// Reads links, addresses and, if they changed, foreign routes.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub fn observe_host(&mut self) -> Result<HostView, NetlinkError> {
        self.observe_links()?;
        let stale = self.board.take_stale_families();
        self.refresh_table(&stale)?;
        self.unchecked_families.extend(stale);
        Ok(self.host_view())
    }

    /// Reads the routes of these families; after an error they are still marked stale.
    pub(super) fn refresh_table(
        &mut self,
        families: &BTreeSet<Family>,
    ) -> Result<(), NetlinkError> {
        let refreshed = self.table.refresh(&mut self.netlink, families);
        refreshed.inspect_err(|_| self.board.mark_stale(families))
    }

    fn host_view(&self) -> HostView {
        let mut view = HostView {
            has_kernel_ipip: self.has_kernel_ipip,
            foreign_vxlan: tunnel::foreign_vxlan(&self.links).map(str::to_owned),
            ..HostView::default()
        };
        for (name, link) in &self.links.by_name {
            let summary = Link {
                index: link.index,
                mtu: link.mtu,
                is_up: link.is_up,
                is_running: link.is_running,
                is_point_to_point: link.is_noarp || link.is_point_to_point,
            };
            view.links.insert(name.clone(), summary);
            // The gateway of IPv6, the same on each: next hops are never resolved by it, and it would
            // make hosts differ by which workloads they have.
            if ownership::is_workload_device(name) {
                continue;
            }
            for (address, _) in &link.addresses {
                view.addresses.insert(*address, name.clone());
            }
            if let Some(ends) = link.tunnel
                && ends.remote.is_unspecified()
                && !ownership::is_own_device(name)
            {
                view.foreign_ipip.insert(ends.local, name.clone());
            }
        }
        view.routes = self
            .table
            .foreign()
            .filter_map(|route| self.host_route(route))
            .collect();
        view.routes
            .sort_by_key(|route| (route.prefix, route.metric));
        view
    }

    /// `None` for routes over our devices, such as those the kernel adds for their addresses.
    fn host_route(&self, route: &KernelRoute) -> Option<HostRoute> {
        // What goes several ways has no single one.
        let only = match route.info.hops.as_slice() {
            [only] => only.clone(),
            _ => KernelHop::default(),
        };
        let device = only.device.and_then(|index| self.links.name_of(index));
        if device.is_some_and(ownership::is_own_device) {
            return None;
        }
        Some(HostRoute {
            prefix: route.prefix,
            metric: route.info.metric,
            is_unicast: route.info.kind == RouteKind::Unicast,
            gateway: only.gateway,
            device: device.map(str::to_owned),
        })
    }
}

fn open_when_still(board: &Arc<Board>, options: &DataplaneOptions) -> Result<Engine, NetlinkError> {
    let deadline = Instant::now() + COMES_TO_REST;
    loop {
        match Engine::open(Arc::clone(board), options.clone()) {
            Err(NetlinkError::Interrupted { .. }) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}
