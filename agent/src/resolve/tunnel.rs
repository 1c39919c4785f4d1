//! The tunnel device of this node: whether it is needed, by which driver, with which numbers.

use std::net::{IpAddr, Ipv4Addr};

use bgp::types::Prefix;

use crate::dataplane::desired::{Tunnel, TunnelDriver};
use crate::dataplane::host::HostView;
use crate::model::{Node, Snapshot};
use crate::names::{CARRIER_DEVICE, IPIP_DEVICE};

/// What IPIP adds to a packet: an IPv4 header.
const IPIP_OVERHEAD: u32 = 20;
/// Where the NIC's MTU cannot be learned.
const ETHERNET_MTU: u32 = 1500;
/// The least an IPv4 link must carry (RFC 791 §3.2).
const SMALLEST_MTU: u32 = 68;

/// `tunnelDriver` in the agent's configuration.
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
    /// MTU of the tunnel device; `None`: that of the NIC minus 20.
    pub mtu: Option<u32>,
    /// The NIC; `None`: the device that has the node's address.
    pub nic: Option<String>,
    /// Why the kernel's ipip cannot be used although it is there, e.g. a foreign device with the
    /// same parameters.
    pub kernel_blocked: Option<String>,
}

/// The tunnel, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TunnelPlan {
    pub tunnel: Option<Tunnel>,
    /// Whether some pool asks for a tunnel: with `tunnel` absent, that is a failure.
    pub is_needed: bool,
    /// Why this driver, why none is needed, or why none works.
    pub reason: String,
}

/// The device that a driver makes.
pub fn device(driver: TunnelDriver) -> &'static str {
    match driver {
        TunnelDriver::Kernel => IPIP_DEVICE,
        TunnelDriver::Userspace => CARRIER_DEVICE,
    }
}

/// First host address of the node's first IPv4 podCIDR: the tunnel's own, never a workload's.
pub fn tunnel_address(node: &Node) -> Option<Ipv4Addr> {
    node.pod_cidrs.iter().find_map(|cidr| match cidr {
        Prefix::V4 { bits, .. } => bits.checked_add(1).map(Ipv4Addr::from),
        Prefix::V6 { .. } => None,
    })
}

pub fn resolve_tunnel(
    snapshot: &Snapshot,
    node: &Node,
    host: &HostView,
    settings: &TunnelSettings,
) -> TunnelPlan {
    let Some(pool) = snapshot.pools().find(|pool| pool.uses_ipip()) else {
        return TunnelPlan {
            tunnel: None,
            is_needed: false,
            reason: "no IPPool asks for a tunnel".to_owned(),
        };
    };
    let none = |reason: String| TunnelPlan {
        tunnel: None,
        is_needed: true,
        reason,
    };
    let Some(local) = node.ipv4 else {
        return none(format!(
            "IPPool {} needs a tunnel, but Node {} has no ipv4Address",
            pool.name, node.name
        ));
    };
    let Some(address) = tunnel_address(node) else {
        return none(format!(
            "IPPool {} needs a tunnel, but Node {} has no IPv4 podCIDR",
            pool.name, node.name
        ));
    };
    let (driver, reason) = match choose_driver(host, settings) {
        Ok(choice) => choice,
        Err(reason) => return none(reason),
    };
    let (mtu, mtu_reason) = tunnel_mtu(local, host, settings);
    TunnelPlan {
        tunnel: Some(Tunnel {
            driver,
            local,
            address,
            mtu,
            remotes: remotes(snapshot, node),
        }),
        is_needed: true,
        reason: format!("{reason}; {mtu_reason}"),
    }
}

fn choose_driver(
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

fn tunnel_mtu(local: Ipv4Addr, host: &HostView, settings: &TunnelSettings) -> (u32, String) {
    if let Some(mtu) = settings.mtu {
        return (mtu, format!("mtu {mtu} is configured"));
    }
    let nic = settings
        .nic
        .as_ref()
        .or_else(|| host.addresses.get(&IpAddr::V4(local)));
    match nic.and_then(|nic| host.links.get(nic).map(|link| (nic, link.mtu))) {
        Some((nic, nic_mtu)) => {
            let mtu = nic_mtu.saturating_sub(IPIP_OVERHEAD).max(SMALLEST_MTU);
            (mtu, format!("mtu follows {nic}"))
        }
        None => {
            let mtu = ETHERNET_MTU - IPIP_OVERHEAD;
            let what = match &settings.nic {
                Some(nic) => format!("device {nic} does not exist"),
                None => format!("no device has the node's address {local}"),
            };
            (mtu, format!("mtu {mtu} because {what}"))
        }
    }
}

fn remotes(snapshot: &Snapshot, node: &Node) -> Vec<Ipv4Addr> {
    let mut remotes: Vec<Ipv4Addr> = snapshot
        .nodes()
        .filter(|other| other.name != node.name)
        .filter_map(|other| other.ipv4)
        .collect();
    remotes.sort();
    remotes
}

#[cfg(test)]
mod tests;
