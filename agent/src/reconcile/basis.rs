//! What decides about learned routes, besides what the speaker says of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use bgp::speaker::LearnedRoute;
use bgp::types::Prefix;
use smallvec::SmallVec;

use crate::dataplane::desired::{LearnedChange, TunnelDriver, apart};
use crate::dataplane::host::HostView;
use crate::dataplane::ownership::is_own_device;
use crate::model::{Node, Snapshot};
use crate::resolve::routes::{NextHopResolver, Resolution, Resolved};
use crate::resolve::tunnel::TunnelPlan;

/// Everything that the kernel route of a learned prefix depends on, besides its next hops.
pub struct Basis {
    snapshot: Arc<Snapshot>,
    host: Arc<HostView>,
    tunnels: Vec<TunnelPlan>,
    workloads: BTreeSet<IpAddr>,
    resolver: NextHopResolver,
}

pub fn drivers(plans: &[TunnelPlan]) -> impl Iterator<Item = TunnelDriver> {
    let tunnels = plans.iter().filter_map(|plan| plan.tunnel.as_ref());
    tunnels.map(|(driver, _)| *driver)
}

impl Basis {
    /// `node`: this one. `workloads`: the addresses of those on it.
    pub fn new(
        snapshot: Arc<Snapshot>,
        node: Node,
        host: Arc<HostView>,
        tunnels: Vec<TunnelPlan>,
        workloads: BTreeSet<IpAddr>,
    ) -> Basis {
        let resolver = NextHopResolver::new(snapshot.clone(), node, host.clone(), tunnels.clone());
        Basis {
            snapshot,
            host,
            tunnels,
            workloads,
            resolver,
        }
    }

    pub fn resolver(&self) -> &NextHopResolver {
        &self.resolver
    }

    /// Whether other nodes can be expected to receive what this driver sends.
    pub fn has_tunnel(&self, driver: TunnelDriver) -> bool {
        drivers(&self.tunnels).any(|known| known == driver || known.is_same_on_wire(driver))
    }

    /// Whether with these every prefix but those of workloads resolves as before. Our own devices
    /// come and go with workloads and resolve nothing.
    pub fn resolves_with(
        &self,
        snapshot: &Arc<Snapshot>,
        host: &Arc<HostView>,
        tunnels: &[TunnelPlan],
    ) -> bool {
        let links = |host: &HostView| -> Vec<_> {
            let foreign = host.links.iter().filter(|(name, _)| !is_own_device(name));
            foreign
                .map(|(name, link)| (name.clone(), link.clone()))
                .collect()
        };
        Arc::ptr_eq(&self.snapshot, snapshot)
            && self.tunnels == tunnels
            && (Arc::ptr_eq(&self.host, host)
                || (self.host.routes == host.routes
                    && self.host.addresses == host.addresses
                    && links(&self.host) == links(host)))
    }

    /// Takes a host with which all [resolves](Basis::resolves_with) as before. Returns the prefixes
    /// of workloads that came or went.
    pub fn follow(&mut self, host: Arc<HostView>, workloads: BTreeSet<IpAddr>) -> Vec<Prefix> {
        let moved = self.workloads.symmetric_difference(&workloads);
        let prefixes = moved.map(|address| Prefix::host(*address)).collect();
        self.host = host;
        self.workloads = workloads;
        prefixes
    }

    /// What the kernel is to have of what the speaker learned, in the order in which it takes it best.
    pub fn changes(&mut self, routes: Vec<LearnedRoute>) -> Vec<LearnedChange> {
        let change = |route: LearnedRoute| {
            let paths = route.best.iter().chain(&route.multipath);
            let next_hops: SmallVec<_> = paths.map(|path| path.next_hop.address).collect();
            LearnedChange {
                prefix: route.prefix,
                route: match next_hops.is_empty() {
                    true => None,
                    false => self.decide(route.prefix, next_hops).route.clone(),
                },
            }
        };
        let mut changes: Vec<_> = routes.into_iter().map(change).collect();
        changes.sort_by_cached_key(|change| apart(&change.prefix));
        changes
    }

    /// About the equal paths to a prefix, the best first.
    pub fn decide(&mut self, prefix: Prefix, next_hops: SmallVec<[IpAddr; 1]>) -> Arc<Resolved> {
        if !prefix.is_host() || !self.workloads.contains(&prefix.network()) {
            return self.resolver.resolve_all(prefix, next_hops);
        }
        // The kernel would have one key for both.
        let reason = format!("{} is a workload on this node", prefix.network());
        let skip = Resolution::Skip { reason };
        let paths = next_hops.into_iter();
        Arc::new(Resolved {
            route: None,
            paths: paths.map(|one| (one, skip.clone())).collect(),
        })
    }
}
