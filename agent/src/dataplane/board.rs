//! What changed in the kernel by hands other than ours, as flags.
//!
//! In: reports of `monitor` and `nft::watch`. Out: one set of flags for the dataplane's thread (what
//! to read again) and one for the reconcile loop (a reason for a pass). Flags carry no news, only
//! the kind of it: whoever sees one reads the kernel. So nothing grows, and lost notifications are
//! one more flag.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bgp::types::Family;
use tokio::sync::Notify;

use super::neigh::NeighbourKey;

/// Of our last nft processes: what they did is told before they have ended, and read soon after.
const OWN_PROCESSES: usize = 16;

/// What kinds of things changed since last asked, by hands other than ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelChange {
    /// Links that are not ours: `HostView` differs.
    pub links: bool,
    pub addresses: bool,
    /// Foreign routes.
    pub routes: bool,
    /// Something of ours: a workload's veth appeared or went, a route, a neighbour, a parameter or
    /// our table in nftables was changed.
    pub own: bool,
    /// Notifications were lost: anything may have changed.
    pub overrun: bool,
}

impl KernelChange {
    fn is_any(self) -> bool {
        self != KernelChange::default()
    }

    fn merge(&mut self, other: KernelChange) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.routes |= other.routes;
        self.own |= other.own;
        self.overrun |= other.overrun;
    }
}

/// Shared by the monitor, the dataplane's thread and the reconcile loop.
#[derive(Default)]
pub struct Board {
    state: Mutex<BoardState>,
    woken: Notify,
}

#[derive(Default)]
struct BoardState {
    change: KernelChange,
    /// The routes of these families must be read again as a whole.
    stale_families: BTreeSet<Family>,
    /// Links and addresses must be read again.
    are_links_stale: bool,
    /// The parameters of these links of ours must be read again.
    stale_parameters: BTreeSet<u32>,
    /// Of the others on our links nobody is told.
    own_neighbours: HashSet<NeighbourKey>,
    /// Sockets whose changes are our own doing.
    own_ports: HashSet<u32>,
    /// Our table in nftables must be read again.
    are_tables_stale: bool,
    /// A host firewall may forward other things than before.
    are_firewalls_stale: bool,
    /// The newest last. A netlink socket is named after the process that opened it.
    own_processes: VecDeque<u32>,
}

impl Board {
    fn with<T>(&self, work: impl FnOnce(&mut BoardState) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes made through the netlink socket `port` are not reported.
    pub fn add_own_port(&self, port: u32) {
        self.with(|state| state.own_ports.insert(port));
    }

    /// The families whose routes changed other than by us since the last call.
    pub fn take_stale_families(&self) -> BTreeSet<Family> {
        self.with(|state| std::mem::take(&mut state.stale_families))
    }

    pub fn mark_stale(&self, families: &BTreeSet<Family>) {
        self.with(|state| state.stale_families.extend(families));
    }

    /// Whether links or addresses changed since the last call, by us or others.
    pub fn take_stale_links(&self) -> bool {
        self.with(|state| std::mem::take(&mut state.are_links_stale))
    }

    /// Links of ours whose parameters changed to other than we set since the last call.
    pub fn take_stale_parameters(&self) -> BTreeSet<u32> {
        self.with(|state| std::mem::take(&mut state.stale_parameters))
    }

    pub fn mark_parameters_stale(&self, index: u32) {
        self.with(|state| state.stale_parameters.insert(index));
    }

    pub fn is_own_neighbour(&self, key: &NeighbourKey) -> bool {
        self.with(|state| state.own_neighbours.contains(key))
    }

    /// The neighbours that are ours from now on.
    pub fn set_own_neighbours(&self, neighbours: HashSet<NeighbourKey>) {
        self.with(|state| state.own_neighbours = neighbours);
    }

    /// Changes of nftables made by the process are not reported.
    pub fn add_own_process(&self, process: u32) {
        self.with(|state| {
            if state.own_processes.len() >= OWN_PROCESSES {
                state.own_processes.pop_front();
            }
            state.own_processes.push_back(process);
        });
    }

    pub fn is_own_port(&self, port: u32) -> bool {
        self.with(|state| state.own_ports.contains(&port))
    }

    pub fn is_own_process(&self, process: u32) -> bool {
        self.with(|state| state.own_processes.contains(&process))
    }

    /// Whether our table in nftables was changed by others since the last call.
    pub fn take_stale_tables(&self) -> bool {
        self.with(|state| std::mem::take(&mut state.are_tables_stale))
    }

    /// Others changed our table in nftables.
    pub fn report_tables(&self) {
        self.with(|state| {
            state.are_tables_stale = true;
            state.change.own = true;
        });
        self.woken.notify_one();
    }

    /// Whether a host firewall was changed since the last call.
    pub fn take_stale_firewalls(&self) -> bool {
        self.with(|state| std::mem::take(&mut state.are_firewalls_stale))
    }

    /// Others changed a chain that forwarded packets pass.
    pub fn report_firewalls(&self) {
        self.with(|state| {
            state.are_firewalls_stale = true;
            state.change.own = true;
        });
        self.woken.notify_one();
    }

    /// The routes of the families in `stale` must be read again.
    pub fn report(&self, change: KernelChange, stale: &[Family]) {
        self.with(|state| {
            state.stale_families.extend(stale);
            state.are_links_stale |= change.links | change.addresses | change.own | change.overrun;
            state.change.merge(change);
        });
        if change.is_any() {
            self.woken.notify_one();
        }
    }
}

/// The reconcile loop's end. For one consumer.
#[derive(Clone)]
pub struct Changes {
    board: Arc<Board>,
}

impl Changes {
    pub fn new(board: Arc<Board>) -> Changes {
        Changes { board }
    }

    /// Waits until something changed and returns all that did since the last call. Safe to cancel.
    pub async fn changed(&mut self) -> KernelChange {
        loop {
            let change = self.board.with(|state| std::mem::take(&mut state.change));
            if change.is_any() {
                return change;
            }
            self.board.woken.notified().await;
        }
    }
}
