//! Kernel routes: blackholes for own prefixes, and what becomes of a learned one.
//!
//! A learned prefix comes with its BGP next hop N. Its pool is the longest IPPool that covers it.
//! - (a) N is another node's address, and the pool says Always, or CrossSubnet and N is not
//!   on-link: through the pool's kind of tunnel to N;
//! - (b) N is on-link: to N directly;
//! - (c) else: to the gateway of the kernel's own route to N;
//! - (d) N is local, or nothing of this applies: not programmed.
//!
//! On-link means: the longest match for N in table main, ignoring our own protocols and devices,
//! is a unicast route without gateway on a device that is neither NOARP nor point-to-point. So the
//! kernel decides what is near, not the length of a configured address, and a prefix outside every
//! pool never enters a tunnel.
//!
//! Of several equal paths (multipath) the first that resolves leads. The others join it where they
//! go the way it goes: all through the tunnel or all beside it, for the kernel keeps one source
//! address for the whole route, and only tunnelled packets need one. Paths that end at the same
//! gateway are one.
//!
//! An IPv4 prefix may have an IPv6 next hop (RFC 8950), which (b) and (c) find in the kernel's IPv6
//! routes. IPIP and UDP lead to IPv4 addresses only, so what must travel through them is then (d).
//! VXLAN leads to a node's own tunnel address, of the prefix's family, whatever N is.
//!
//! How far away a next hop is does not depend on the prefix (RFC 4271 §9.1.2.1): 0 where (b) holds,
//! 1 where another router or the tunnel lies between, and not resolvable where the kernel has no
//! way at all. The default route is a way like any other. A link without carrier leads nowhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bgp::speaker::Reach;
use bgp::types::{Family, Prefix};
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::longest_match::LongestMatch;
use super::tunnel::{self, TunnelPlan};
use crate::dataplane::desired::{Hop, Hops, Route};
use crate::dataplane::host::{HostRoute, HostView};
use crate::model::pool::{Encapsulation, TunnelKind, TunnelWhen};
use crate::model::{IpPool, Node, NodeName, Snapshot};

/// Decisions kept to be shared.
const REMEMBERED_CASES: usize = 4096;

/// Which of the rules decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// (a)
    Tunnel,
    /// (b)
    OnLink,
    /// (c)
    Gateway,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Tunnel => "a",
            Rule::OnLink => "b",
            Rule::Gateway => "c",
        })
    }
}

/// What becomes of one path to a learned prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolution {
    Program {
        hop: Hop,
        /// Of packets that this host sends itself; else the device's.
        source: Option<IpAddr>,
        rule: Rule,
        reason: String,
    },
    /// (d)
    Skip { reason: String },
}

/// What becomes of a learned prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    pub route: Option<Arc<Route>>,
    /// By next hop, in the order in which they were given.
    pub paths: SmallVec<[(IpAddr, Resolution); 1]>,
}

impl Resolved {
    /// Whether more than one path is used.
    pub fn is_multipath(&self) -> bool {
        let is_used =
            |(_, resolution): &&(_, Resolution)| matches!(resolution, Resolution::Program { .. });
        self.paths.iter().filter(is_used).nth(1).is_some()
    }
}

/// Packets to own addresses that no workload has end here, instead of following a default route to
/// a router that sends them back.
pub fn blackholes(node: &Node) -> BTreeMap<Prefix, Route> {
    node.pod_cidrs
        .iter()
        .map(|cidr| (*cidr, Route::Blackhole))
        .collect()
}

/// The tables that resolution looks things up in, built once for many prefixes.
#[derive(Debug)]
pub struct NextHopResolver {
    node: Node,
    host: Arc<HostView>,
    tunnels: Vec<TunnelPlan>,
    snapshot: Arc<Snapshot>,
    /// Other nodes' names by their addresses.
    nodes: BTreeMap<IpAddr, NodeName>,
    /// Encapsulation and name.
    pools: LongestMatch<(Encapsulation, String)>,
    /// Positions in the host's list.
    routes: LongestMatch<usize>,
    decided: HashMap<Case, Arc<Resolved>>,
}

/// All that a decision depends on: prefixes of one case have one answer, which they share.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Case {
    family: Family,
    pool: Option<Prefix>,
    next_hops: SmallVec<[IpAddr; 1]>,
}

impl NextHopResolver {
    /// `tunnels`: those that pools ask for on this node.
    pub fn new(
        snapshot: Arc<Snapshot>,
        node: Node,
        host: Arc<HostView>,
        tunnels: Vec<TunnelPlan>,
    ) -> NextHopResolver {
        let addresses = |node: &Node| -> Vec<_> {
            let addresses = node.addresses();
            addresses
                .map(|address| (address, node.name.clone()))
                .collect()
        };
        let pool = |pool: &IpPool| (pool.cidr, (pool.encapsulation, pool.name.clone()));
        let positions = host.routes.iter().enumerate();
        let routes = positions.map(|(position, route)| (route.prefix, position));
        let metric = |position: usize| host.routes.get(position).map(|route| route.metric);
        NextHopResolver {
            nodes: snapshot.nodes().flat_map(addresses).collect(),
            pools: LongestMatch::new(snapshot.pools().map(pool), |_, _| false),
            routes: LongestMatch::new(routes, |new, old| metric(*new) < metric(*old)),
            decided: HashMap::new(),
            node,
            host,
            tunnels,
            snapshot,
        }
    }

    /// Resolves the equal paths to a prefix, the best first.
    pub fn resolve_all(
        &mut self,
        prefix: Prefix,
        next_hops: SmallVec<[IpAddr; 1]>,
    ) -> Arc<Resolved> {
        if self.node.pod_cidrs.contains(&prefix) {
            return Arc::new(self.decide(prefix, &next_hops));
        }
        let case = Case {
            family: prefix.family(),
            pool: self.pools.covering(&prefix).map(|(cidr, _)| cidr),
            next_hops,
        };
        if let Some(resolved) = self.decided.get(&case) {
            return resolved.clone();
        }
        // A peer may name as many next hops as it likes.
        if self.decided.len() >= REMEMBERED_CASES {
            self.decided.clear();
        }
        let resolved = Arc::new(self.decide(prefix, &case.next_hops));
        self.decided.insert(case, resolved.clone());
        resolved
    }

    fn decide(&self, prefix: Prefix, next_hops: &[IpAddr]) -> Resolved {
        let mut lead: Option<Option<IpAddr>> = None;
        let mut hops = SmallVec::<[Hop; 1]>::new();
        let mut paths = SmallVec::new();
        for next_hop in next_hops.iter().copied() {
            let mut resolution = self.resolve(prefix, next_hop);
            if let Resolution::Program { hop, source, .. } = &resolution {
                if *lead.get_or_insert(*source) == *source {
                    hops.push(hop.clone());
                } else {
                    let way = match source {
                        Some(_) => "through the tunnel, other than",
                        None => "not through the tunnel, as",
                    };
                    resolution = skip(format!("next hop {next_hop} is reached {way} the best"));
                }
            }
            paths.push((next_hop, resolution));
        }
        let source = lead.flatten();
        let route = Hops::all(hops).map(|hops| Route::Via { hops, source });
        Resolved {
            route: route.map(Arc::new),
            paths,
        }
    }

    pub fn resolve(&self, prefix: Prefix, next_hop: IpAddr) -> Resolution {
        if self.host.addresses.contains_key(&next_hop) || self.is_own(next_hop) {
            return skip(format!("next hop {next_hop} is local"));
        }
        if self.node.pod_cidrs.contains(&prefix) {
            return skip(format!("{prefix} is an own podCIDR"));
        }
        if prefix.family() == Family::Ipv6 && next_hop.is_ipv4() {
            return skip(format!("next hop {next_hop} is of the other family"));
        }
        let way = self.way_to(next_hop);
        match self.demand(prefix, next_hop, &way) {
            Demand::None => via_kernel(next_hop, way),
            Demand::Tunnel { kind, node, why } => {
                self.via_tunnel(kind, prefix.family(), node, next_hop, why)
            }
        }
    }

    /// How far away a next hop is, for the decision. That of a route of our own is no further than
    /// this host.
    pub fn reach(&self, next_hop: IpAddr) -> Reach {
        if self.host.addresses.contains_key(&next_hop) || self.is_own(next_hop) {
            return Reach::Cost(0);
        }
        match self.way_to(next_hop) {
            // The kernel's route stays, and leads nowhere.
            Way::OnLink { device } | Way::Gateway { device, .. } if !self.is_running(device) => {
                Reach::Unresolvable
            }
            Way::OnLink { .. } => Reach::Cost(0),
            Way::Gateway { .. } => Reach::Cost(1),
            // The outer packet is the host's own, so the kernel takes it along any way it has.
            Way::OfHost(_) if self.has_tunnel() && self.nodes.contains_key(&next_hop) => {
                Reach::Cost(1)
            }
            Way::OfHost(_) | Way::None(_) => Reach::Unresolvable,
        }
    }

    /// The interface by which the kernel's route to a next hop leaves; `None` for own addresses, and
    /// where there is no route or several interfaces.
    pub fn interface(&self, next_hop: IpAddr) -> Option<&str> {
        if self.host.addresses.contains_key(&next_hop) || self.is_own(next_hop) {
            return None;
        }
        let (_, route) = self.route_to(next_hop)?;
        route.device.as_deref().filter(|_| route.is_unicast)
    }

    /// The kernel's own, without ours.
    fn route_to(&self, address: IpAddr) -> Option<(Prefix, &HostRoute)> {
        let (prefix, position) = self.routes.of_address(address)?;
        Some((prefix, self.host.routes.get(*position)?))
    }

    fn has_tunnel(&self) -> bool {
        self.tunnels.iter().any(|plan| plan.tunnel.is_some())
    }

    fn is_running(&self, device: &str) -> bool {
        let link = self.host.links.get(device);
        link.is_some_and(|link| link.is_running)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.node.addresses().any(|own| own == address)
    }

    /// Whether the prefix must travel through a tunnel, and why.
    fn demand(&self, prefix: Prefix, next_hop: IpAddr, way: &Way<'_>) -> Demand<'_> {
        let Some((_, (encapsulation, pool))) = self.pools.covering(&prefix) else {
            return Demand::None;
        };
        let Encapsulation::Tunnel { kind, when } = *encapsulation else {
            return Demand::None;
        };
        let node = self.nodes.get(&next_hop);
        let Some(node) = node.and_then(|name| self.snapshot.node(name.as_str())) else {
            return Demand::None;
        };
        let is_on_link = matches!(way, Way::OnLink { .. });
        let name = &node.name;
        let why = match when {
            TunnelWhen::CrossSubnet if is_on_link => return Demand::None,
            TunnelWhen::CrossSubnet => format!(
                "{next_hop} is node {name}, not on-link, and IPPool {pool} says CrossSubnet"
            ),
            TunnelWhen::Always => {
                format!("{next_hop} is node {name}, and IPPool {pool} says Always")
            }
        };
        Demand::Tunnel { kind, node, why }
    }

    fn via_tunnel(
        &self,
        kind: TunnelKind,
        family: Family,
        node: &Node,
        next_hop: IpAddr,
        why: String,
    ) -> Resolution {
        if next_hop.is_ipv6() && kind != TunnelKind::Vxlan {
            return skip(format!("{why}, but {kind} leads to IPv4 addresses only"));
        }
        let Some(plan) = self.tunnels.iter().find(|plan| plan.kind == kind) else {
            return skip(format!("{why}, but there is no tunnel device"));
        };
        let Some((driver, tunnel)) = &plan.tunnel else {
            return skip(format!("{why}, but {}", plan.reason));
        };
        let source = match family {
            Family::Ipv4 => Some(IpAddr::V4(tunnel.address)),
            Family::Ipv6 => tunnel.address6.map(IpAddr::V6),
        };
        let gateway = tunnel::gateway(kind, node, family).filter(|gateway| match kind {
            TunnelKind::Vxlan => tunnel.neighbours.contains_key(gateway),
            TunnelKind::Ipip | TunnelKind::Udp => true,
        });
        match (gateway, source) {
            (Some(gateway), Some(source)) => Resolution::Program {
                hop: Hop {
                    gateway,
                    device: driver.device().to_owned(),
                },
                source: Some(source),
                rule: Rule::Tunnel,
                reason: why,
            },
            (None, _) => skip(format!(
                "{why}, but node {} has no {family} tunnel address",
                node.name
            )),
            (_, None) => skip(format!(
                "{why}, but this node has no {family} tunnel address"
            )),
        }
    }

    /// How the kernel reaches an address without us.
    fn way_to(&self, next_hop: IpAddr) -> Way<'_> {
        let Some((prefix, route)) = self.route_to(next_hop) else {
            return Way::None(format!("no route to next hop {next_hop}"));
        };
        if !route.is_unicast {
            return Way::None(format!(
                "the kernel's route {prefix} to next hop {next_hop} is not unicast"
            ));
        }
        let Some(device) = route.device.as_deref() else {
            return Way::OfHost(format!(
                "the kernel's route {prefix} to next hop {next_hop} has no single device"
            ));
        };
        let Some(link) = self.host.links.get(device) else {
            return Way::None(format!(
                "device {device} of the route to next hop {next_hop} does not exist"
            ));
        };
        if let Some(gateway) = route.gateway {
            return match Family::of(gateway) == Family::of(next_hop) {
                true => Way::Gateway {
                    prefix,
                    gateway,
                    device,
                },
                false => Way::OfHost(format!(
                    "the gateway {gateway} to next hop {next_hop} is of the other family"
                )),
            };
        }
        if link.is_point_to_point {
            return Way::OfHost(format!(
                "next hop {next_hop} is behind {device}, which is point-to-point or has no ARP"
            ));
        }
        Way::OnLink { device }
    }
}

enum Demand<'a> {
    None,
    Tunnel {
        kind: TunnelKind,
        /// Whose address the next hop is.
        node: &'a Node,
        why: String,
    },
}

enum Way<'a> {
    OnLink {
        device: &'a str,
    },
    Gateway {
        prefix: Prefix,
        gateway: IpAddr,
        device: &'a str,
    },
    /// One that packets of the host itself take, and none that a route of ours could say.
    OfHost(String),
    None(String),
}

fn via_kernel(next_hop: IpAddr, way: Way<'_>) -> Resolution {
    match way {
        Way::OnLink { device } => Resolution::Program {
            hop: Hop {
                gateway: next_hop,
                device: device.to_owned(),
            },
            source: None,
            rule: Rule::OnLink,
            reason: format!("{next_hop} is on-link on {device}"),
        },
        Way::Gateway {
            prefix,
            gateway,
            device,
        } => Resolution::Program {
            hop: Hop {
                gateway,
                device: device.to_owned(),
            },
            source: None,
            rule: Rule::Gateway,
            reason: format!("the kernel's route {prefix} to {next_hop} goes via {gateway}"),
        },
        Way::OfHost(reason) | Way::None(reason) => skip(reason),
    }
}

fn skip(reason: String) -> Resolution {
    Resolution::Skip { reason }
}

#[cfg(test)]
mod tests;
