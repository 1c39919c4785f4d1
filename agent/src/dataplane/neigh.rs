//! Permanent neighbours on our devices, and the forwarding entries of VXLAN.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::family_of;
use super::netlink::{Netlink, NetlinkError, Request};

/// Interface index and address.
pub type NeighbourKey = (u32, IpAddr);

/// Reads the permanent neighbours of all devices.
///
/// # Errors
/// As `Netlink::dump`.
pub fn observe(netlink: &mut Netlink) -> Result<BTreeMap<NeighbourKey, [u8; 6]>, NetlinkError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let neighbours = netlink.dump_as("neighbours", request, |object| match object {
        RouteNetlinkMessage::NewNeighbour(message)
            if message.header.state == NeighbourState::Permanent =>
        {
            let (address, mac) = decode(&message)?;
            Some(((message.header.ifindex, address), mac))
        }
        _ => None,
    })?;
    Ok(neighbours.into_iter().collect())
}

/// The request that makes `address` a permanent neighbour, whatever the kernel knew of it.
pub fn put(key: NeighbourKey, mac: [u8; 6]) -> Request {
    let mut message = message(key);
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    Request {
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

pub fn remove(key: NeighbourKey) -> Request {
    Request {
        message: RouteNetlinkMessage::DelNeighbour(message(key)),
        flags: 0,
    }
}

/// A forwarding entry of VXLAN: the MAC and the node behind it.
pub type ForwardingEntry = ([u8; 6], Ipv4Addr);

/// Reads the forwarding entries of the VXLAN device `index`.
///
/// # Errors
/// As `Netlink::dump`.
pub fn observe_forwarding(
    netlink: &mut Netlink,
    index: u32,
) -> Result<Vec<ForwardingEntry>, NetlinkError> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Bridge;
    request.header.ifindex = index;
    let request = RouteNetlinkMessage::GetNeighbour(request);
    let mut entries = Vec::new();
    for object in netlink.dump("forwarding entries", request)? {
        if let RouteNetlinkMessage::NewNeighbour(message) = object
            && message.header.family == AddressFamily::Bridge
            && message.header.ifindex == index
        {
            entries.extend(decode_forwarding(&message));
        }
    }
    Ok(entries)
}

/// The request that adds an entry. One MAC may have several destinations: another one is removed
/// first.
pub fn put_forwarding(index: u32, entry: ForwardingEntry) -> Request {
    let mut message = forwarding_message(index, entry);
    message.header.state = NeighbourState::Permanent;
    Request {
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

pub fn remove_forwarding(index: u32, entry: ForwardingEntry) -> Request {
    Request {
        message: RouteNetlinkMessage::DelNeighbour(forwarding_message(index, entry)),
        flags: 0,
    }
}

fn forwarding_message(index: u32, (mac, node): ForwardingEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.extend([
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet(node)),
    ]);
    message
}

/// `None` for entries without a destination and those whose destination is IPv6.
pub fn decode_forwarding(message: &NeighbourMessage) -> Option<ForwardingEntry> {
    let mut node = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                node = Some(*address);
            }
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                node = bytes.as_slice().try_into().ok().map(<[u8; 4]>::into);
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some((mac?, node?))
}

fn message((ifindex, address): NeighbourKey) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(address);
    message.header.ifindex = ifindex;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
    message
}

/// `None` for neighbours without an address or a MAC.
pub fn decode(message: &NeighbourMessage) -> Option<(IpAddr, [u8; 6])> {
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        });
    Some((address_of(message)?, mac?))
}

pub fn address_of(message: &NeighbourMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        })
}
