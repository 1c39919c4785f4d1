//! What the kernel should hold: the value that `resolve` computes and the drivers bring about.
//!
//! A function of the present only. Interfaces go by name: an index can change under a name, so it
//! is looked up when something is written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use bgp::types::{Family, Prefix};
use smallvec::SmallVec;

use crate::carrier::Encapsulation;
use crate::names::{CARRIER_DEVICE, IPIP_DEVICE, UDP_DEVICE, VXLAN_DEVICE};

/// Everything of ours in the kernel except learned routes, which flow as changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Desired {
    /// By host interface name.
    pub workloads: BTreeMap<String, WorkloadLink>,
    /// Blackholes and other routes of protocol `caracal` that no workload link implies.
    pub routes: BTreeMap<Prefix, Route>,
    /// At most one device of each kind of tunnel is in use, but two while one takes over from another.
    pub tunnels: BTreeMap<TunnelDriver, Tunnel>,
    /// Of both ends of the workloads' links that CNI made; `None`: as it is.
    pub workload_mtu: Option<u32>,
    /// The other ends of those links, by host interface name.
    pub workload_ends: BTreeMap<String, WorkloadEnd>,
}

impl Desired {
    /// Whether anything of it takes the host to forward IPv6.
    pub fn speaks_ipv6(&self) -> bool {
        self.workloads.values().any(WorkloadLink::speaks_ipv6)
            || self
                .routes
                .keys()
                .any(|prefix| prefix.family() == Family::Ipv6)
            || self
                .tunnels
                .values()
                .any(|tunnel| tunnel.address6.is_some())
    }
}

/// The workload's end of its link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkloadEnd {
    /// A path to its network namespace, as the runtime gave it.
    pub netns: PathBuf,
    /// The interface's name in there.
    pub interface: String,
    pub mac: [u8; 6],
}

/// The host side of a workload: sysctls, MAC and link-up, neighbours, one host route per address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkloadLink {
    pub addresses: Vec<IpAddr>,
    /// The workload's own MAC, for the permanent neighbour. `None`: not known (a veth served without CNI),
    /// the kernel resolves it by ARP or neighbour discovery.
    pub mac: Option<[u8; 6]>,
}

impl WorkloadLink {
    pub fn speaks_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// A tunnel device of this node, and everything of ours on it but routes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// This node's address: the outer source.
    pub local: Ipv4Addr,
    /// First host address of the node's first IPv4 podCIDR, held as /32.
    pub address: Ipv4Addr,
    /// Of its first IPv6 podCIDR, held as /128, where the tunnel carries IPv6.
    pub address6: Option<Ipv6Addr>,
    /// Of inner packets: the NIC's less what the tunnel adds, unless overridden.
    pub mtu: u32,
    /// Of the device; `None` where it has none.
    pub mac: Option<[u8; 6]>,
    /// Addresses of the other nodes: outer destinations that are allowed.
    pub remotes: Vec<Ipv4Addr>,
    /// Permanent neighbours: what the routes name as gateway.
    pub neighbours: BTreeMap<IpAddr, [u8; 6]>,
    /// Forwarding entries of VXLAN: the outer destination of a neighbour's MAC.
    pub forwarding: BTreeMap<[u8; 6], Ipv4Addr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TunnelDriver {
    /// IPIP by the kernel.
    Kernel,
    /// IPIP by the carrier process.
    Userspace,
    /// VXLAN by the kernel.
    Vxlan,
    /// UDP by a carrier process.
    Udp,
}

impl TunnelDriver {
    pub const ALL: [TunnelDriver; 4] = [
        TunnelDriver::Kernel,
        TunnelDriver::Userspace,
        TunnelDriver::Vxlan,
        TunnelDriver::Udp,
    ];

    pub fn device(self) -> &'static str {
        match self {
            TunnelDriver::Kernel => IPIP_DEVICE,
            TunnelDriver::Userspace => CARRIER_DEVICE,
            TunnelDriver::Vxlan => VXLAN_DEVICE,
            TunnelDriver::Udp => UDP_DEVICE,
        }
    }

    /// `rtnl_link_ops` of the device, as `ip -d link` shows them.
    pub fn link_kind(self) -> &'static str {
        match self {
            TunnelDriver::Kernel => "ipip",
            TunnelDriver::Userspace | TunnelDriver::Udp => "tun",
            TunnelDriver::Vxlan => "vxlan",
        }
    }

    /// Octets in front of an inner packet, the outer IPv4 header included.
    pub fn overhead(self) -> u32 {
        match self {
            TunnelDriver::Kernel | TunnelDriver::Userspace => 20,
            // UDP, VXLAN (RFC 7348 §5) and Ethernet headers.
            TunnelDriver::Vxlan => 20 + 8 + 8 + 14,
            TunnelDriver::Udp => 20 + 8,
        }
    }

    /// Whether the other driver takes what this one sends, and on the same host takes it as well: two
    /// of them at once receive every packet twice.
    pub fn is_same_on_wire(self, other: TunnelDriver) -> bool {
        let is_ipip = |driver| matches!(driver, TunnelDriver::Kernel | TunnelDriver::Userspace);
        self != other && is_ipip(self) && is_ipip(other)
    }

    /// The process of ours that moves the packets, if one does.
    pub fn carrier(self) -> Option<Encapsulation> {
        match self {
            TunnelDriver::Userspace => Some(Encapsulation::Ipip),
            TunnelDriver::Udp => Some(Encapsulation::Udp),
            TunnelDriver::Kernel | TunnelDriver::Vxlan => None,
        }
    }
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

/// An order in which no two neighbours follow each other. Told neighbours one by one, the kernel makes
/// the same node of its trie larger or smaller each time: 100,000 routes in order go in 0.4 s, apart in
/// 0.1 s.
pub fn apart(prefix: &Prefix) -> (u128, u8) {
    match prefix {
        Prefix::V4 { bits, length } => (bits.reverse_bits().into(), *length),
        Prefix::V6 { bits, length } => (u128::from_be_bytes(*bits).reverse_bits(), *length),
    }
}

/// One change to the learned routes (protocol `caracal-bgp`). `None` removes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedChange {
    pub prefix: Prefix,
    /// Shared by the many prefixes that lead the same way.
    pub route: Option<Arc<Route>>,
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

#[cfg(test)]
mod tests {
    use super::TunnelDriver;

    #[test]
    fn the_two_drivers_of_ipip_alone_are_the_same_on_the_wire() {
        for one in TunnelDriver::ALL {
            for other in TunnelDriver::ALL {
                let both = [one, other];
                let expected = both == [TunnelDriver::Kernel, TunnelDriver::Userspace]
                    || both == [TunnelDriver::Userspace, TunnelDriver::Kernel];
                assert_eq!(one.is_same_on_wire(other), expected, "{both:?}");
            }
        }
    }
}
