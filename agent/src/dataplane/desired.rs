//! What the kernel should hold: the value that `resolve` computes and the drivers bring about.
//!
//! A function of the present only. Interfaces go by name: an index can change under a name, so it
//! is looked up when something is written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bgp::types::Prefix;
use smallvec::SmallVec;

/// Everything of ours in the kernel except learned routes, which flow as changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// By host interface name.
    pub workloads: BTreeMap<String, WorkloadLink>,
    /// Blackholes and other routes of protocol `caracal` that no workload link implies.
    pub routes: BTreeMap<Prefix, Route>,
    /// Permanent neighbours of the tunnel device, one per node (carrier only).
    pub tunnel: Option<Tunnel>,
}

/// The host side of a workload: sysctls, MAC and link-up, neighbours, one host route per address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkloadLink {
    pub addresses: Vec<IpAddr>,
    /// The workload's own MAC, for the permanent neighbour. `None`: not known (a veth served without CNI),
    /// the kernel resolves it by ARP.
    pub mac: Option<[u8; 6]>,
}

/// The tunnel device of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tunnel {
    pub driver: TunnelDriver,
    /// This node's address: the outer source.
    pub local: Ipv4Addr,
    /// First host address of the node's first podCIDR, held as /32.
    pub address: Ipv4Addr,
    /// Of inner packets: the NIC's minus 20, unless overridden.
    pub mtu: u32,
    /// Addresses of the other nodes: outer destinations that are allowed.
    pub remotes: Vec<Ipv4Addr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TunnelDriver {
    /// The kernel's ipip, device `caracal-ipip`.
    Kernel,
    /// The carrier process, device `caracal-tun`.
    Userspace,
}

/// A route of ours in table main with metric 202.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Route {
    Blackhole,
    /// `dev DEVICE scope link`.
    Link {
        device: String,
    },
    /// `via GATEWAY dev DEVICE onlink [src SOURCE]`, or a `nexthop` of that kind for each hop.
    Via {
        hops: Hops,
        /// The kernel knows one for the whole route.
        source: Option<IpAddr>,
    },
}

impl Route {
    pub fn via(hop: Hop, source: Option<IpAddr>) -> Route {
        Route::Via {
            hops: Hops::one(hop),
            source,
        }
    }
}

/// A neighbour and the device it is on. One of the other family carries IPv4 by IPv6 (RFC 8950).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Hop {
    pub gateway: IpAddr,
    pub device: String,
}

/// What packets are spread over, each with the same share: at least one, in order and each once, so
/// that the same hops are the same route however they were found.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Hops(SmallVec<[Hop; 1]>);

impl Hops {
    pub fn one(hop: Hop) -> Hops {
        Hops(SmallVec::from_buf([hop]))
    }

    /// `None` if there are none.
    pub fn all(hops: impl IntoIterator<Item = Hop>) -> Option<Hops> {
        let mut hops: SmallVec<[Hop; 1]> = hops.into_iter().collect();
        hops.sort_unstable();
        hops.dedup();
        (!hops.is_empty()).then_some(Hops(hops))
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Hop> {
        self.0.iter()
    }
}

/// One change to the learned routes (protocol `caracal-bgp`). `None` removes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedChange {
    pub prefix: Prefix,
    pub route: Option<Route>,
}

/// What became of a route in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteState {
    Installed,
    /// In the kernel, but a foreign route of lower metric for the same prefix takes its packets
    /// (`shadowed by …`).
    Shadowed {
        reason: String,
    },
    /// Waits for something, e.g. its device to appear or come up.
    Pending {
        reason: String,
    },
    /// The kernel refused it, or a foreign route holds our key (`blocked by …`).
    Failed {
        reason: String,
    },
}
