//! What a workload needs on its host: a veth's end with its MAC and parameters, a neighbour, a route.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

use super::routes::{NLM_F_CREATE, NLM_F_EXCL, host_route};
use super::{message, open, write_all};

// linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const NLM_F_REPLACE: u16 = 0x100;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const AF_INET: u8 = 2;

const HOST_MAC: [u8; 6] = [0xee; 6];

/// A workload by its number.
#[derive(Clone, Copy, Debug)]
pub struct Workload(pub u32);

impl Workload {
    /// 10.200.4.0 and up: not what the agent gives to attachments first.
    pub fn address(self) -> [u8; 4] {
        let [_, _, high, low] = (0x0400 + self.0).to_be_bytes();
        [10, 200, high, low]
    }

    /// Of the host's end.
    pub fn interface(self) -> String {
        format!("carabench{:05}", self.0)
    }

    /// Of the workload's end.
    pub fn mac(self) -> [u8; 6] {
        let [a, b, c, d] = self.0.to_be_bytes();
        [2, 0, a, b, c, d]
    }
}

/// The number by which a monitor counts a /32 of 10.200.0.0/16.
pub fn number(length: u8, [a, b, c, d]: [u8; 4]) -> Option<u32> {
    let is_one = (length, a, b) == (32, 10, 200);
    is_one.then(|| u32::from_be_bytes([0, 0, c, d]))
}

/// Lets the host forward. Links that are made later do so from the start.
pub fn forward() -> Result<()> {
    Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
}

/// Makes the host's side of existing, running veths.
pub fn write_all_host_sides(workloads: u32) -> Result<()> {
    let socket = open(0)?;
    let all = (0..workloads).map(Workload);
    let indexed: Vec<(Workload, u32)> = all
        .map(|one| Ok((one, if_nametoindex(one.interface().as_str())?)))
        .collect::<Result<_>>()?;
    let macs = indexed.iter().map(|(_, index)| set_mac(*index));
    write_all(&socket, macs)?;
    for (one, _) in &indexed {
        write_parameters(&one.interface())?;
    }
    let neighbours = indexed
        .iter()
        .map(|(one, index)| neighbour(one.address(), *index, Some(one.mac())));
    write_all(&socket, neighbours)?;
    let routes = indexed.iter();
    write_all(
        &socket,
        routes.map(|(one, index)| host_route(one.address(), *index, true)),
    )
}

/// Removes their routes and neighbours.
pub fn remove_all_host_sides(workloads: u32) -> Result<()> {
    let socket = open(0)?;
    let mut requests = Vec::new();
    for one in (0..workloads).map(Workload) {
        let index = if_nametoindex(one.interface().as_str())?;
        requests.push(host_route(one.address(), index, false));
        requests.push(neighbour(one.address(), index, None));
    }
    write_all(&socket, requests)
}

/// Makes a veth whose other end, `eth0`, is in `namespace`, and the host's side of it.
pub fn attach(one: Workload, namespace: BorrowedFd<'_>) -> Result<()> {
    let socket = open(0)?;
    let mut peer = vec![0; 16];
    message::put(IFLA_IFNAME, b"eth0\0", &mut peer);
    message::put(IFLA_ADDRESS, &one.mac(), &mut peer);
    let descriptor = namespace.as_fd().as_raw_fd();
    message::put(IFLA_NET_NS_FD, &descriptor.to_ne_bytes(), &mut peer);
    let mut data = Vec::new();
    message::put(VETH_INFO_PEER, &peer, &mut data);
    let mut info = Vec::new();
    message::put(IFLA_INFO_KIND, b"veth", &mut info);
    message::put(IFLA_INFO_DATA, &data, &mut info);
    let mut body = link_header(0, 0);
    let name = one.interface() + "\0";
    message::put(IFLA_IFNAME, name.as_bytes(), &mut body);
    message::put(IFLA_ADDRESS, &HOST_MAC, &mut body);
    message::put(IFLA_LINKINFO, &info, &mut body);
    let made = message::request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body);
    write_all(&socket, [made])?;
    write_parameters(&one.interface())?;
    let index = if_nametoindex(one.interface().as_str())?;
    let rest = [
        message::request(RTM_NEWLINK, 0, &link_header(index, IFF_UP)),
        neighbour(one.address(), index, Some(one.mac())),
        host_route(one.address(), index, true),
    ];
    write_all(&socket, rest)
}

/// Removes the veth, and with it all that stands on it.
pub fn detach(one: Workload) -> Result<()> {
    let index = if_nametoindex(one.interface().as_str())?;
    let gone = message::request(RTM_DELLINK, 0, &link_header(index, 0));
    write_all(&open(0)?, [gone])
}

fn link_header(index: u32, up: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(up.to_ne_bytes());
    header.extend(up.to_ne_bytes());
    header
}

fn set_mac(index: u32) -> Vec<u8> {
    let mut body = link_header(index, 0);
    message::put(IFLA_ADDRESS, &HOST_MAC, &mut body);
    message::request(RTM_NEWLINK, 0, &body)
}

/// `None`: removed.
fn neighbour(address: [u8; 4], index: u32, mac: Option<[u8; 6]>) -> Vec<u8> {
    let mut body = vec![AF_INET, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(NUD_PERMANENT.to_ne_bytes());
    body.extend([0; 2]);
    message::put(NDA_DST, &address, &mut body);
    match mac {
        Some(mac) => {
            message::put(NDA_LLADDR, &mac, &mut body);
            message::request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &body)
        }
        None => message::request(RTM_DELNEIGH, 0, &body),
    }
}

fn write_parameters(interface: &str) -> Result<()> {
    for (path, value) in [
        (format!("ipv4/conf/{interface}/proxy_arp"), "1"),
        (format!("ipv4/neigh/{interface}/proxy_delay"), "0"),
        (format!("ipv6/conf/{interface}/accept_ra"), "0"),
    ] {
        let file = format!("/proc/sys/net/{path}");
        fs::write(&file, value).with_context(|| file)?;
    }
    Ok(())
}
