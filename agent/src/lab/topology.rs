//! Which machines the lab has, how they are wired, and what must be true when it works. Pure.
//!
//! The addresses are those of the classic example: two racks, each a subnet, and a plain router
//! between them that knows no pod route.
//!
//! ```text
//!        rack a  192.168.100.0/24                       rack b  192.168.200.0/24
//!   .100 a1  172.17.8.0/24                         .101 b1  172.17.10.0/24
//!   .101 a2  172.17.9.0/24     .1 router .1        .102 b2  172.17.11.0/24  (no default route)
//!   .2   reflector-a AS 64512 ------+------        .2   reflector-b AS 64513
//!   .3   frr AS 64520 (--frr)
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use bgp::types::Prefix;
use serde::{Deserialize, Serialize};

use crate::dataplane::ownership::is_tunnel_device;

/// Which lab.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scenario {
    /// A reflector per rack, eBGP between them.
    #[default]
    Racks,
    /// No reflectors, one AS, every node peers with every other.
    Mesh,
    /// No tunnel: FRR is the router in the middle and learns the pod routes.
    Routed,
    /// FRR as a router in rack a that announces a prefix of its own, admitted by a BGPFilter.
    Frr,
    /// The same without the filter: the prefix is refused.
    FrrUnfiltered,
}

impl Scenario {
    pub fn has_reflectors(self) -> bool {
        match self {
            Scenario::Mesh => false,
            Scenario::Racks | Scenario::Routed | Scenario::Frr | Scenario::FrrUnfiltered => true,
        }
    }

    /// FRR stands in rack a as a router of its own.
    pub fn has_lab_router(self) -> bool {
        match self {
            Scenario::Frr | Scenario::FrrUnfiltered => true,
            Scenario::Racks | Scenario::Mesh | Scenario::Routed => false,
        }
    }

    pub fn needs_frr(self) -> bool {
        self.has_lab_router() || self == Scenario::Routed
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scenario::Racks => "two racks, a reflector in each",
            Scenario::Mesh => "two racks, full mesh, no reflectors",
            Scenario::Routed => "two racks, FRR between them routes the pods, no tunnel",
            Scenario::Frr => "two racks, FRR as a lab router in rack a, its prefix admitted",
            Scenario::FrrUnfiltered => "two racks, FRR as a lab router in rack a, no filter",
        })
    }
}

/// `tunnelDriver` of an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Driver {
    Kernel,
    Userspace,
}

impl Driver {
    /// As the agent's option spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Driver::Kernel => "kernel",
            Driver::Userspace => "userspace",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    pub scenario: Scenario,
    /// By node name; the others choose by themselves.
    pub drivers: BTreeMap<String, Driver>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rack {
    pub name: &'static str,
    pub asn: u32,
    /// The first three octets of the subnet.
    network: [u8; 3],
}

impl Rack {
    pub const A: Rack = Rack {
        name: "a",
        asn: 64512,
        network: [192, 168, 100],
    };
    pub const B: Rack = Rack {
        name: "b",
        asn: 64513,
        network: [192, 168, 200],
    };
    pub const ALL: [Rack; 2] = [Rack::A, Rack::B];

    pub fn host(&self, last: u8) -> Ipv4Addr {
        let [first, second, third] = self.network;
        Ipv4Addr::new(first, second, third, last)
    }

    pub fn subnet(&self) -> String {
        format!("{}/24", self.host(0))
    }

    pub fn router(&self) -> Ipv4Addr {
        self.host(1)
    }

    pub fn reflector(&self) -> Ipv4Addr {
        self.host(2)
    }

    /// The reflector's name in the lab.
    pub fn reflector_name(&self) -> String {
        format!("reflector-{}", self.name)
    }

    pub fn other(&self) -> Rack {
        if self.name == Rack::A.name {
            Rack::B
        } else {
            Rack::A
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    pub name: &'static str,
    pub rack: Rack,
    pub address: Ipv4Addr,
    /// Third octet of its 172.17.x.0/24.
    pod_octet: u8,
    /// A node without one reaches the other rack by an explicit route.
    pub has_default_route: bool,
}

impl Node {
    pub fn pod_cidr(&self) -> String {
        format!("172.17.{}.0/24", self.pod_octet)
    }

    /// First host address of the podCIDR: on the tunnel device, and the source of tunnelled packets.
    pub fn tunnel_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 17, self.pod_octet, 1)
    }
}

pub const NODES: [Node; 4] = [
    Node {
        name: "a1",
        rack: Rack::A,
        address: Ipv4Addr::new(192, 168, 100, 100),
        pod_octet: 8,
        has_default_route: true,
    },
    Node {
        name: "a2",
        rack: Rack::A,
        address: Ipv4Addr::new(192, 168, 100, 101),
        pod_octet: 9,
        has_default_route: true,
    },
    Node {
        name: "b1",
        rack: Rack::B,
        address: Ipv4Addr::new(192, 168, 200, 101),
        pod_octet: 10,
        has_default_route: true,
    },
    Node {
        name: "b2",
        rack: Rack::B,
        address: Ipv4Addr::new(192, 168, 200, 102),
        pod_octet: 11,
        has_default_route: false,
    },
];

pub const POOL: &str = "172.17.0.0/16";
pub const ROUTER: &str = "router";
/// FRR's AS where it is the router in the middle.
pub const ROUTED_ASN: u32 = 64530;
pub const LAB_ROUTER: &str = "frr";
pub const LAB_ROUTER_ASN: u32 = 64520;
/// What the lab router announces (TEST-NET-3).
pub const LAB_PREFIX: &str = "203.0.113.0/24";
/// An address of the lab router in it.
pub const LAB_PREFIX_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

pub fn lab_router_address() -> Ipv4Addr {
    Rack::A.host(3)
}

pub fn node(name: &str) -> Option<&'static Node> {
    NODES.iter().find(|node| node.name == name)
}

/// How packets between two nodes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Path {
    /// Within one node; on no wire.
    Local,
    /// Bare, as the workloads sent them.
    Direct,
    /// As IP protocol 4 between the two nodes.
    Tunnel,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Local => "local",
            Path::Direct => "direct",
            Path::Tunnel => "tunnel",
        })
    }
}

pub fn path(scenario: Scenario, from: &Node, to: &Node) -> Path {
    if from.name == to.name {
        Path::Local
    } else if from.rack == to.rack || scenario == Scenario::Routed {
        Path::Direct
    } else {
        Path::Tunnel
    }
}

/// A learned route as the kernel must hold it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedRoute {
    pub prefix: String,
    pub gateway: Ipv4Addr,
    pub device: RouteDevice,
    pub source: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteDevice {
    Nic,
    /// A tunnel device, of whatever kind.
    Tunnel,
}

impl RouteDevice {
    pub fn admits(self, device: &str) -> bool {
        match self {
            RouteDevice::Nic => device == NIC,
            RouteDevice::Tunnel => is_tunnel_device(device),
        }
    }
}

/// The NIC of every machine in the lab; the router has a second one towards rack b.
pub const NIC: &str = "eth0";
pub const ROUTER_NIC_B: &str = "eth1";

/// Every learned route `node` must have, and no other.
pub fn learned_routes(scenario: Scenario, node: &Node) -> Vec<LearnedRoute> {
    let mut routes: Vec<LearnedRoute> = NODES
        .iter()
        .filter(|remote| remote.name != node.name)
        .map(|remote| {
            let is_tunnelled = path(scenario, node, remote) == Path::Tunnel;
            LearnedRoute {
                prefix: remote.pod_cidr(),
                gateway: if is_tunnelled || remote.rack == node.rack {
                    remote.address
                } else {
                    node.rack.router()
                },
                device: if is_tunnelled {
                    RouteDevice::Tunnel
                } else {
                    RouteDevice::Nic
                },
                source: is_tunnelled.then(|| node.tunnel_address()),
            }
        })
        .collect();
    if scenario == Scenario::Frr {
        routes.push(LearnedRoute {
            prefix: LAB_PREFIX.to_owned(),
            gateway: if node.rack == Rack::A {
                lab_router_address()
            } else {
                node.rack.router()
            },
            device: RouteDevice::Nic,
            source: None,
        });
    }
    routes
}

/// The pod routes FRR must have in its kernel: prefix and gateway.
pub fn frr_routes(scenario: Scenario) -> Vec<(String, Ipv4Addr)> {
    let gateway = |node: &Node| match scenario {
        Scenario::Routed => node.address,
        Scenario::Frr | Scenario::FrrUnfiltered if node.rack == Rack::A => node.address,
        // It stands in rack a: the node in rack b is behind the plain router.
        Scenario::Frr | Scenario::FrrUnfiltered | Scenario::Racks | Scenario::Mesh => {
            Rack::A.router()
        }
    };
    if !scenario.needs_frr() {
        return Vec::new();
    }
    let route = |node: &Node| (node.pod_cidr(), gateway(node));
    NODES.iter().map(route).collect()
}

/// Whether `prefix` is a pod's: what a plain router must not know.
pub fn is_in_pool(prefix: Prefix) -> bool {
    let pool: Prefix = POOL.parse().expect("a constant");
    pool.covers(&prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_rack_is_tunnelled_and_own_rack_is_direct() {
        let a1 = node("a1").expect("a node of the lab");
        let routes = learned_routes(Scenario::Racks, a1);
        let shown: Vec<String> = routes
            .iter()
            .map(|route| {
                format!(
                    "{} via {} {:?} {:?}",
                    route.prefix, route.gateway, route.device, route.source
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "172.17.9.0/24 via 192.168.100.101 Nic None",
                "172.17.10.0/24 via 192.168.200.101 Tunnel Some(172.17.8.1)",
                "172.17.11.0/24 via 192.168.200.102 Tunnel Some(172.17.8.1)",
            ]
        );
    }

    #[test]
    fn lab_routers_prefix_never_enters_the_tunnel() {
        for node in &NODES {
            let routes = learned_routes(Scenario::Frr, node);
            let route = routes.iter().find(|route| route.prefix == LAB_PREFIX);
            let route = route.expect("every node has the lab router's prefix");
            assert_eq!(route.device, RouteDevice::Nic, "{}", node.name);
            let gateway = if node.rack == Rack::A {
                "192.168.100.3"
            } else {
                "192.168.200.1"
            };
            assert_eq!(route.gateway.to_string(), gateway, "{}", node.name);
        }
    }
}
