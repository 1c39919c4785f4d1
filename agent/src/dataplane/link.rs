//! Links and their addresses: reads them, and changes the properties of those that are ours.

mod replay;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::netlink::{Netlink, NetlinkError};

/// How long a link may take to start once it is up; usually less than a millisecond.
pub const START_TIME: Duration = Duration::from_millis(200);
pub const START_POLL: Duration = Duration::from_micros(500);

/// A link as the kernel describes it, with its addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkState {
    pub index: u32,
    pub mtu: u32,
    /// `txqueuelen`, in packets.
    pub queue_length: u32,
    /// IFF_UP, which decides whether routes can leave by it. Says nothing of the carrier.
    pub is_up: bool,
    /// IFF_RUNNING: the queue takes packets. Follows a veth's coming up by a moment.
    pub is_running: bool,
    pub is_noarp: bool,
    pub is_point_to_point: bool,
    pub mac: Option<[u8; 6]>,
    /// `veth`, `ipip`, `tun`; empty for hardware.
    pub kind: String,
    /// Of an ipip device.
    pub tunnel: Option<TunnelEnds>,
    /// Of a VXLAN device.
    pub vxlan: Option<VxlanEnds>,
    /// With prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelEnds {
    pub local: Ipv4Addr,
    /// Unspecified: any.
    pub remote: Ipv4Addr,
    /// The parameters that we set; see `tunnel`.
    pub ttl: u8,
    pub tos: u8,
    pub is_pmtu_discovering: bool,
}

/// The parameters that we set and look after; see `tunnel`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VxlanEnds {
    pub vni: u32,
    pub port: u16,
    pub local: Option<Ipv4Addr>,
    pub is_learning: bool,
}

/// All links of this network namespace at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Links {
    pub by_name: BTreeMap<String, LinkState>,
    names: HashMap<u32, String>,
    addresses: HashSet<IpAddr>,
    /// Names that links had before, as long as no other link has taken them.
    former: HashMap<String, u32>,
}

impl Links {
    pub fn get(&self, name: &str) -> Option<&LinkState> {
        self.by_name.get(name)
    }

    /// As `get`, or the link that had the name before it was renamed. Learned routes are wanted by the
    /// old name until they are decided anew, and stand by the index all the time.
    pub fn get_or_renamed(&self, name: &str) -> Option<&LinkState> {
        let renamed = || self.by_name.get(self.names.get(self.former.get(name)?)?);
        self.by_name.get(name).or_else(renamed)
    }

    /// Remembers which names the links of `before` had.
    pub fn succeed(&mut self, before: &Links) {
        let former = before.former.iter().map(|(name, index)| (name, *index));
        let links = before.by_name.iter();
        let known = links.map(|(name, link)| (name, link.index));
        for (name, index) in former.chain(known) {
            if !self.by_name.contains_key(name) && self.names.contains_key(&index) {
                self.former.insert(name.clone(), index);
            }
        }
    }

    pub fn name_of(&self, index: u32) -> Option<&str> {
        self.names.get(&index).map(String::as_str)
    }

    pub fn insert(&mut self, name: String, link: LinkState) {
        self.names.insert(link.index, name.clone());
        self.addresses
            .extend(link.addresses.iter().map(|(address, _)| *address));
        self.by_name.insert(name, link);
    }

    fn insert_address(&mut self, index: u32, address: IpAddr, length: u8) {
        if let Some(link) = self
            .names
            .get(&index)
            .and_then(|name| self.by_name.get_mut(name))
        {
            link.addresses.push((address, length));
            self.addresses.insert(address);
        }
    }

    /// Whether some link has the address: as a route's source the kernel refuses others.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
}

/// Reads all links and addresses. In a rehearsal they are as they would be by now.
///
/// # Errors
/// As `Netlink::dump`.
pub fn observe(netlink: &mut Netlink) -> Result<Links, NetlinkError> {
    let mut links = observe_kernel(netlink)?;
    links.replay(netlink.held_back());
    Ok(links)
}

/// The same as they are, rehearsal or not.
///
/// # Errors
/// As `Netlink::dump`.
pub fn observe_kernel(netlink: &mut Netlink) -> Result<Links, NetlinkError> {
    let mut request = LinkMessage::default();
    // Counters are half of the answer and nobody reads them here.
    request
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    // A message is large, and little of it is kept.
    let described =
        netlink.dump_as(
            "links",
            RouteNetlinkMessage::GetLink(request),
            |object| match object {
                RouteNetlinkMessage::NewLink(message) => decode(message),
                _ => None,
            },
        )?;
    let mut links = Links::default();
    for (name, link) in described {
        links.insert(name, link);
    }
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let addresses = netlink.dump_as("addresses", request, |object| match object {
        RouteNetlinkMessage::NewAddress(message) => decode_address(message),
        _ => None,
    })?;
    for (index, address, length) in addresses {
        links.insert_address(index, address, length);
    }
    Ok(links)
}

/// Reads the link `name`, without its addresses. The cost does not grow with the number of links.
///
/// # Errors
/// As `Netlink::get`.
pub fn find(netlink: &mut Netlink, name: &str) -> Result<Option<LinkState>, NetlinkError> {
    let mut request = LinkMessage::default();
    request.attributes.extend([
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
    ]);
    match netlink.get(RouteNetlinkMessage::GetLink(request)) {
        Ok(Some(RouteNetlinkMessage::NewLink(message))) => {
            Ok(decode(message).map(|(_, link)| link))
        }
        Ok(_) => Ok(None),
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What to change of an existing link; `None` leaves a property alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkChange {
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    pub queue_length: Option<u32>,
    pub is_up: Option<bool>,
    pub is_noarp: Option<bool>,
}

/// Changes the link `index`.
///
/// # Errors
/// As `Netlink::request`.
pub fn change(netlink: &mut Netlink, index: u32, change: LinkChange) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    for (wanted, flag) in [
        (change.is_up, LinkFlags::Up),
        (change.is_noarp, LinkFlags::Noarp),
    ] {
        if let Some(is_set) = wanted {
            message.header.change_mask |= flag;
            message.header.flags.set(flag, is_set);
        }
    }
    message
        .attributes
        .extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    message
        .attributes
        .extend(change.mtu.map(LinkAttribute::Mtu));
    let queue_length = change.queue_length.map(LinkAttribute::TxQueueLen);
    message.attributes.extend(queue_length);
    netlink.request(RouteNetlinkMessage::SetLink(message), 0)
}

/// Removes the link `name`. A link that is gone already counts as removed.
///
/// # Errors
/// As `Netlink::request`.
pub fn remove(netlink: &mut Netlink, name: &str) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    match netlink.request(RouteNetlinkMessage::DelLink(message), 0) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        result => result,
    }
}

/// Adds an address. One that stands alone (/32 or /128) brings no route and no broadcast with it.
///
/// # Errors
/// As `Netlink::request`. An address that is there already counts as added.
pub fn add_address(
    netlink: &mut Netlink,
    index: u32,
    address: IpAddr,
    length: u8,
) -> Result<(), NetlinkError> {
    let mut message = address_message(index, address, length);
    if address.is_ipv6() {
        // Until it is found to be unique no route may have it as its source; nobody else has it.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    match netlink.request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    ) {
        Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
        result => result,
    }
}

/// Removes an address. One that is gone already counts as removed.
///
/// # Errors
/// As `Netlink::request`.
pub fn remove_address(
    netlink: &mut Netlink,
    index: u32,
    address: IpAddr,
    length: u8,
) -> Result<(), NetlinkError> {
    let message = address_message(index, address, length);
    match netlink.request(RouteNetlinkMessage::DelAddress(message), 0) {
        Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL) => Ok(()),
        result => result,
    }
}

fn address_message(index: u32, address: IpAddr, length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = length;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

pub fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn decode(message: LinkMessage) -> Option<(String, LinkState)> {
    let flags = message.header.flags;
    let mut link = LinkState {
        index: message.header.index,
        is_up: flags.contains(LinkFlags::Up),
        is_running: flags.contains(LinkFlags::Running),
        is_noarp: flags.contains(LinkFlags::Noarp),
        is_point_to_point: flags.contains(LinkFlags::Pointopoint),
        ..LinkState::default()
    };
    let mut name = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::TxQueueLen(length) => link.queue_length = length,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
            LinkAttribute::LinkInfo(infos) => decode_info(infos, &mut link),
            _ => {}
        }
    }
    Some((name?, link))
}

fn decode_info(infos: Vec<LinkInfo>, link: &mut LinkState) {
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => link.kind = kind.to_string(),
            LinkInfo::Data(InfoData::IpTunnel(parameters)) if link.kind == kind_ipip() => {
                link.tunnel = Some(decode_tunnel(&parameters));
            }
            LinkInfo::Data(InfoData::Vxlan(parameters)) => {
                link.vxlan = Some(decode_vxlan(&parameters));
            }
            _ => {}
        }
    }
}

fn decode_vxlan(parameters: &[InfoVxlan]) -> VxlanEnds {
    let mut ends = VxlanEnds {
        vni: 0,
        port: 0,
        local: None,
        is_learning: false,
    };
    for parameter in parameters {
        match parameter {
            InfoVxlan::Id(vni) => ends.vni = *vni,
            InfoVxlan::Port(port) => ends.port = *port,
            InfoVxlan::Local(local) => ends.local = Some(*local),
            InfoVxlan::Learning(is_learning) => ends.is_learning = *is_learning,
            _ => {}
        }
    }
    ends
}

fn kind_ipip() -> String {
    InfoKind::IpIp.to_string()
}

fn decode_tunnel(parameters: &[InfoIpTunnel]) -> TunnelEnds {
    let mut ends = TunnelEnds {
        local: Ipv4Addr::UNSPECIFIED,
        remote: Ipv4Addr::UNSPECIFIED,
        ttl: 0,
        tos: 0,
        is_pmtu_discovering: false,
    };
    for parameter in parameters {
        match parameter {
            InfoIpTunnel::Local(IpAddr::V4(address)) => ends.local = *address,
            InfoIpTunnel::Remote(IpAddr::V4(address)) => ends.remote = *address,
            InfoIpTunnel::Ttl(ttl) => ends.ttl = *ttl,
            InfoIpTunnel::Tos(tos) => ends.tos = *tos,
            InfoIpTunnel::PMtuDisc(is_on) => ends.is_pmtu_discovering = *is_on,
            _ => {}
        }
    }
    ends
}

/// Interface index, address, prefix length.
fn decode_address(message: AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    // On point-to-point links ADDRESS is the other end and LOCAL ours; IPv6 has ADDRESS alone.
    let address = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    Some((message.header.index, address, message.header.prefix_len))
}
