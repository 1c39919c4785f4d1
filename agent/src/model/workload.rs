//! WorkloadEndpoint: an existing veth of the own node to be served without CNI, or a workload
//! elsewhere that selectors can mean.

use std::net::IpAddr;

use bgp::types::Prefix;
use serde_json::Value;

use super::fields::Fields;
use super::names::{Labels, NodeName};
use super::object::Metadata;
use super::values;
use crate::names::INTERFACE_PREFIX;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WorkloadEndpoint {
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
    pub node: NodeName,
    /// The host side of its veth. `None`: nothing is programmed for it.
    pub interface: Option<String>,
    /// At least one, none twice.
    pub addresses: Vec<IpAddr>,
    pub mac: Option<[u8; 6]>,
    pub ports: Vec<Port>,
}

/// A port that policies name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Port {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

pub(super) fn read(metadata: Metadata, spec: &mut Fields<'_, '_>) -> Option<WorkloadEndpoint> {
    let node = spec.required("node", "write the name of its node", |value| {
        values::text(value)?
            .parse::<NodeName>()
            .map_err(|error| error.to_string())
    });
    let interface = spec.optional("interfaceName", interface_name);
    let mac = spec.optional("mac", mac);
    let addresses = spec.list("addresses", workload_address);
    match &addresses {
        None if spec.has("addresses") => {}
        Some(_) if spec.is_nonempty_list("addresses") => {}
        None | Some(_) => spec.reject(
            "addresses",
            "missing; write at least one, e.g. [172.17.8.9/32]",
        ),
    }
    let addresses = addresses.unwrap_or_default();
    for (index, address) in addresses.iter().enumerate() {
        if addresses.iter().take(index).any(|other| other == address) {
            spec.reject(
                &format!("addresses[{index}]"),
                format!("{address} is listed twice; remove one"),
            );
        }
    }
    let ports = spec.mappings("ports", read_port);
    Some(WorkloadEndpoint {
        namespace: metadata.namespace,
        name: metadata.name,
        labels: metadata.labels,
        node: node?,
        interface,
        addresses,
        mac,
        ports,
    })
}

fn read_port(port: &mut Fields<'_, '_>) -> Option<Port> {
    let name = port.required("name", "write the name policies use", values::text);
    let number = port.required("port", "write the port's number", values::port);
    let protocol = port.optional("protocol", |value| {
        values::choice(
            value,
            &[
                ("TCP", Protocol::Tcp),
                ("UDP", Protocol::Udp),
                ("SCTP", Protocol::Sctp),
            ],
        )
    });
    Some(Port {
        name: name?,
        port: number?,
        protocol: protocol.unwrap_or(Protocol::Tcp),
    })
}

/// Only names that begin like our veths: the agent takes the interface over, so a slip here must
/// not hand it a NIC.
fn interface_name(value: &Value) -> Result<String, String> {
    let name = values::text(value)?;
    let is_ours = name.starts_with(INTERFACE_PREFIX) && !name.starts_with("caracal-");
    let fits = name.len() <= 15
        && name
            .chars()
            .all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
    if is_ours && fits {
        Ok(name)
    } else {
        Err(format!(
            "{}; rename the veth to `{INTERFACE_PREFIX}` and up to 11 characters",
            values::expected("a workload's veth", value)
        ))
    }
}

fn mac(value: &Value) -> Result<[u8; 6], String> {
    let wrong = || values::expected("a MAC address such as 02:00:00:00:00:01", value);
    let text = value.as_str().ok_or_else(wrong)?;
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts
            .next()
            .filter(|part| part.len() == 2)
            .ok_or_else(wrong)?;
        *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    match (parts.next(), octets[0] & 1) {
        (None, 0) => Ok(octets),
        (Some(_), _) | (None, _) => Err(wrong()),
    }
}

/// `172.17.8.9/32`, or the bare address.
fn workload_address(value: &Value) -> Result<IpAddr, String> {
    let address = values::host_address(value)?;
    let text = value.as_str().unwrap_or_default();
    let prefix: Option<Prefix> = text.parse().ok();
    if !text.contains('/') || prefix.is_some_and(|prefix| prefix.is_host()) {
        Ok(address)
    } else {
        Err(format!(
            "a workload has single addresses; write {}",
            Prefix::host(address)
        ))
    }
}
