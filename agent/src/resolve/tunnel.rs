//! The tunnel devices of this node: which are needed, by which driver, with which numbers, and what
//! stands on them for the other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::{Family, Prefix};

use crate::carrier;
use crate::dataplane::desired::{Tunnel, TunnelDriver};
use crate::dataplane::host::HostView;
use crate::model::pool::TunnelKind;
use crate::model::{IpPool, Node, Snapshot};
use crate::names::{VXLAN_DEVICE, VXLAN_PORT, VXLAN_VNI, vtep_mac};

/// Where the NIC's MTU cannot be learned.
const ETHERNET_MTU: u32 = 1500;
/// The least an IPv4 link must carry (RFC 791 §3.2).
const SMALLEST_MTU: u32 = 68;

/// `tunnelDriver` in the agent's configuration: who does IPIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DriverSetting {
    #[default]
    Auto,
    Kernel,
    Userspace,
}

/// What the agent's configuration and the dataplane say about tunnels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TunnelSettings {
    pub driver: DriverSetting,
    /// MTU of the tunnel devices; `None`: that of the NIC less what each tunnel adds.
    pub mtu: Option<u32>,
    /// The NIC; `None`: the device that has the node's address.
    pub nic: Option<String>,
    /// Why the kernel's ipip cannot be used although it is there, e.g. a foreign device with the
    /// same parameters.
    pub kernel_blocked: Option<String>,
}

/// A kind of tunnel that some pool asks for: the device, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TunnelPlan {
    pub kind: TunnelKind,
    pub tunnel: Option<(TunnelDriver, Tunnel)>,
    /// Why this driver, or why none works.
    pub reason: String,
}

/// First host address of the node's first IPv4 podCIDR: the tunnels' own, never a workload's.
pub fn tunnel_address(node: &Node) -> Option<Ipv4Addr> {
    node.pod_cidrs.iter().find_map(|cidr| match cidr {
        Prefix::V4 { bits, .. } => bits.checked_add(1).map(Ipv4Addr::from),
        Prefix::V6 { .. } => None,
    })
}

/// The same of its first IPv6 podCIDR.
pub fn tunnel_address6(node: &Node) -> Option<Ipv6Addr> {
    node.pod_cidrs.iter().find_map(|cidr| match cidr {
        Prefix::V4 { .. } => None,
        Prefix::V6 { bits, .. } => {
            let first = u128::from_be_bytes(*bits).checked_add(1);
            first.map(Ipv6Addr::from)
        }
    })
}

/// The gateway that stands for `node` on the device of this kind, to prefixes of this family.
pub fn gateway(kind: TunnelKind, node: &Node, family: Family) -> Option<IpAddr> {
    match (kind, family) {
        (TunnelKind::Ipip | TunnelKind::Udp, _) => node.ipv4.map(IpAddr::V4),
        (TunnelKind::Vxlan, Family::Ipv4) => tunnel_address(node).map(IpAddr::V4),
        (TunnelKind::Vxlan, Family::Ipv6) => tunnel_address6(node).map(IpAddr::V6),
    }
}

/// One plan for each kind of tunnel that a pool asks for.
pub fn resolve_tunnels(
    snapshot: &Snapshot,
    node: &Node,
    host: &HostView,
    settings: &TunnelSettings,
) -> Vec<TunnelPlan> {
    let plans = TunnelKind::ALL.into_iter().filter_map(|kind| {
        let mut pools = snapshot.pools();
        let pool = pools.find(|pool| pool.tunnel_kind() == Some(kind))?;
        let plan = resolve_kind(kind, pool, snapshot, node, host, settings);
        Some(match plan {
            Ok((driver, tunnel, reason)) => TunnelPlan {
                kind,
                tunnel: Some((driver, tunnel)),
                reason,
            },
            Err(reason) => TunnelPlan {
                kind,
                tunnel: None,
                reason,
            },
        })
    });
    plans.collect()
}

fn resolve_kind(
    kind: TunnelKind,
    pool: &IpPool,
    snapshot: &Snapshot,
    node: &Node,
    host: &HostView,
    settings: &TunnelSettings,
) -> Result<(TunnelDriver, Tunnel, String), String> {
    let lacks = |what| {
        format!(
            "IPPool {} needs a tunnel, but Node {} has no {what}",
            pool.name, node.name
        )
    };
    let local = node.ipv4.ok_or_else(|| lacks("ipv4Address"))?;
    let address = tunnel_address(node).ok_or_else(|| lacks("IPv4 podCIDR"))?;
    let (driver, reason) = choose_driver(kind, host, settings)?;
    let (mtu, mtu_reason) = tunnel_mtu(driver, local, host, settings);
    let others: Vec<&Node> = snapshot
        .nodes()
        .filter(|other| other.name != node.name)
        .collect();
    let remotes: BTreeSet<Ipv4Addr> = others.iter().filter_map(|other| other.ipv4).collect();
    let mut tunnel = Tunnel {
        local,
        address,
        address6: None,
        mtu,
        mac: None,
        neighbours: BTreeMap::new(),
        forwarding: BTreeMap::new(),
        remotes: Vec::new(),
    };
    match driver {
        TunnelDriver::Kernel => {}
        TunnelDriver::Userspace | TunnelDriver::Udp => {
            tunnel.mac = Some(carrier::mac_of(local));
            tunnel.neighbours = remotes
                .iter()
                .map(|remote| (IpAddr::V4(*remote), carrier::mac_of(*remote)))
                .collect();
        }
        TunnelDriver::Vxlan => {
            let carries_ipv6 = snapshot
                .pools()
                .any(|pool| pool.tunnel_kind() == Some(kind) && pool.cidr.family() == Family::Ipv6);
            tunnel.mac = Some(vtep_mac(node.name.as_str()));
            tunnel.address6 = tunnel_address6(node).filter(|_| carries_ipv6);
            add_vteps(&mut tunnel, &others);
        }
    }
    tunnel.remotes = remotes.into_iter().collect();
    Ok((driver, tunnel, format!("{reason}; {mtu_reason}")))
}

/// Of two nodes that claim one tunnel address the first by name has it, as with every conflict.
fn add_vteps(tunnel: &mut Tunnel, others: &[&Node]) {
    for other in others {
        let Some(node) = other.ipv4 else { continue };
        let mac = vtep_mac(other.name.as_str());
        tunnel.forwarding.entry(mac).or_insert(node);
        let address6 = tunnel_address6(other).filter(|_| tunnel.address6.is_some());
        let addresses = tunnel_address(other).map(IpAddr::V4);
        for address in addresses.into_iter().chain(address6.map(IpAddr::V6)) {
            tunnel.neighbours.entry(address).or_insert(mac);
        }
    }
}

fn choose_driver(
    kind: TunnelKind,
    host: &HostView,
    settings: &TunnelSettings,
) -> Result<(TunnelDriver, String), String> {
    match kind {
        TunnelKind::Ipip => choose_ipip_driver(host, settings),
        TunnelKind::Udp => Ok((TunnelDriver::Udp, "the carrier speaks UDP".to_owned())),
        TunnelKind::Vxlan => match &host.foreign_vxlan {
            None => Ok((TunnelDriver::Vxlan, "the kernel speaks VXLAN".to_owned())),
            Some(foreign) => Err(format!(
                "the foreign device {foreign} has the parameters of {VXLAN_DEVICE} (VNI \
                 {VXLAN_VNI}, port {VXLAN_PORT})"
            )),
        },
    }
}

fn choose_ipip_driver(
    host: &HostView,
    settings: &TunnelSettings,
) -> Result<(TunnelDriver, String), String> {
    let obstacle = match (&settings.kernel_blocked, host.has_kernel_ipip) {
        (_, false) => Some("this kernel has no ipip"),
        (Some(reason), true) => Some(reason.as_str()),
        (None, true) => None,
    };
    match (settings.driver, obstacle) {
        (DriverSetting::Userspace, _) => Ok((
            TunnelDriver::Userspace,
            "tunnelDriver is userspace".to_owned(),
        )),
        (DriverSetting::Kernel, None) => {
            Ok((TunnelDriver::Kernel, "tunnelDriver is kernel".to_owned()))
        }
        (DriverSetting::Kernel, Some(obstacle)) => Err(format!(
            "tunnelDriver is kernel, but {obstacle}; set it to auto or userspace"
        )),
        (DriverSetting::Auto, None) => {
            Ok((TunnelDriver::Kernel, "auto: the kernel has ipip".to_owned()))
        }
        (DriverSetting::Auto, Some(obstacle)) => {
            Ok((TunnelDriver::Userspace, format!("auto: {obstacle}")))
        }
    }
}

fn tunnel_mtu(
    driver: TunnelDriver,
    local: Ipv4Addr,
    host: &HostView,
    settings: &TunnelSettings,
) -> (u32, String) {
    if let Some(mtu) = settings.mtu {
        return (mtu, format!("mtu {mtu} is configured"));
    }
    let nic = settings
        .nic
        .as_ref()
        .or_else(|| host.addresses.get(&IpAddr::V4(local)));
    match nic.and_then(|nic| host.links.get(nic).map(|link| (nic, link.mtu))) {
        Some((nic, nic_mtu)) => {
            let mtu = nic_mtu.saturating_sub(driver.overhead()).max(SMALLEST_MTU);
            (mtu, format!("mtu follows {nic}"))
        }
        None => {
            let mtu = ETHERNET_MTU - driver.overhead();
            let what = match &settings.nic {
                Some(nic) => format!("device {nic} does not exist"),
                None => format!("no device has the node's address {local}"),
            };
            (mtu, format!("mtu {mtu} because {what}"))
        }
    }
}

#[cfg(test)]
mod tests;
