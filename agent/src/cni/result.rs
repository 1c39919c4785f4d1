//! The result of ADD, in the shape each version of the specification wants.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::attachment::Attachment;
use super::protocol::CniVersion;
use crate::names;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniResult {
    pub cni_version: String,
    pub interfaces: Vec<Interface>,
    pub ips: Vec<Address>,
    pub routes: Vec<Route>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub mac: String,
    /// CNI_NETNS for the workload's side, absent for the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Address {
    /// `4` or `6`; only before 1.0.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// With its length: /32 or /128, as no other address is on the workload's link.
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into `interfaces`.
    pub interface: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Route {
    pub dst: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Index of the workload's side in `interfaces`; the host's comes first.
const WORKLOAD_SIDE: usize = 1;

impl CniResult {
    /// What the runtime is told of an attached workload.
    pub fn describe(attachment: &Attachment, version: CniVersion) -> CniResult {
        let ips = attachment.addresses.iter().map(|address| Address {
            version: ip_version(*address, version),
            address: bgp::types::Prefix::host(*address).to_string(),
            gateway: Some(gateway_of(*address)),
            interface: WORKLOAD_SIDE,
        });
        let routes = attachment.addresses.iter().map(|address| Route {
            dst: String::from(match address {
                IpAddr::V4(_) => "0.0.0.0/0",
                IpAddr::V6(_) => "::/0",
            }),
            gw: Some(gateway_of(*address)),
        });
        CniResult {
            cni_version: version.to_string(),
            interfaces: vec![
                Interface {
                    name: attachment.host_interface.clone(),
                    mac: mac_text(names::HOST_VETH_MAC),
                    sandbox: None,
                },
                Interface {
                    name: attachment.container_interface.clone(),
                    mac: mac_text(attachment.mac),
                    sandbox: Some(attachment.netns.clone()),
                },
            ],
            ips: ips.collect(),
            routes: routes.collect(),
        }
    }
}

/// `ips[].version` was required up to 0.4.0 and is gone since 1.0.0.
fn ip_version(address: IpAddr, version: CniVersion) -> Option<String> {
    match version {
        CniVersion::V0_3_1 | CniVersion::V0_4_0 => {
            Some(String::from(if address.is_ipv4() { "4" } else { "6" }))
        }
        CniVersion::V1_0_0 | CniVersion::V1_1_0 => None,
    }
}

fn gateway_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => names::WORKLOAD_GATEWAY.into(),
        IpAddr::V6(_) => names::WORKLOAD_GATEWAY_V6.into(),
    }
}

pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}
