//! What the kernel says about this host, apart from what is ours: the input of next-hop resolution.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bgp::types::Prefix;

/// Links, addresses and foreign routes of table main, as last read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostView {
    pub links: BTreeMap<String, Link>,
    /// Every address of this host with its device, apart from those of workloads' links.
    pub addresses: BTreeMap<IpAddr, String>,
    /// Table main without routes of our protocols and devices.
    pub routes: Vec<HostRoute>,
    /// Whether this kernel can make ipip devices.
    pub has_kernel_ipip: bool,
    /// Foreign ipip devices without remote by their local address: `caracal-ipip` cannot be made
    /// beside one of the same local address.
    pub foreign_ipip: BTreeMap<Ipv4Addr, String>,
    /// A foreign VXLAN device with our VNI and port: `caracal-vxlan` cannot be made beside it.
    pub foreign_vxlan: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    pub index: u32,
    pub mtu: u32,
    pub is_up: bool,
    /// It has a carrier too: what is behind it can be reached.
    pub is_running: bool,
    /// NOARP or point-to-point: nothing behind it is on-link in the sense of next-hop resolution.
    pub is_point_to_point: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostRoute {
    pub prefix: Prefix,
    pub metric: u32,
    /// Unicast routes only; others (blackhole, unreachable) resolve nothing.
    pub is_unicast: bool,
    pub gateway: Option<IpAddr>,
    /// `None` for multipath routes and routes without a device.
    pub device: Option<String>,
}
