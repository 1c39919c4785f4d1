//! Routes: written and read as fast as the kernel goes.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};
use nix::sys::socket::{MsgFlags, recv, send};

use super::{message, open, write_all};
use crate::load::plan::Nlri;

// linux/rtnetlink.h, linux/netlink.h
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const NLMSG_DONE: u16 = 3;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const ROUTE_HEADER: usize = 12;

/// Length and address of a route of table main.
pub fn destination(body: &[u8]) -> Option<(u8, [u8; 4])> {
    let (length, table) = (*body.get(1)?, *body.get(4)?);
    let attributes = body.get(ROUTE_HEADER..)?;
    let address = message::attribute(attributes, RTA_DST)?;
    (table == TABLE_MAIN).then_some((length, *address.first_chunk()?))
}

/// Adds routes, or removes them.
pub fn write_routes(
    routes: impl IntoIterator<Item = Nlri>,
    gateway: Ipv4Addr,
    is_new: bool,
) -> Result<()> {
    let socket = open(0)?;
    let all = routes.into_iter().map(|route| {
        let mut body = header(route.length, SCOPE_UNIVERSE);
        message::put(RTA_DST, &route.address, &mut body);
        message::put(RTA_GATEWAY, &gateway.octets(), &mut body);
        change(is_new, &body)
    });
    write_all(&socket, all)
}

/// A route to one address over a link.
pub fn host_route(address: [u8; 4], link: u32, is_new: bool) -> Vec<u8> {
    let mut body = header(32, SCOPE_LINK);
    message::put(RTA_DST, &address, &mut body);
    message::put(RTA_OIF, &link.to_ne_bytes(), &mut body);
    change(is_new, &body)
}

fn header(length: u8, scope: u8) -> Vec<u8> {
    let mut header = vec![AF_INET, length, 0, 0];
    header.extend([TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
    header.extend([0; 4]);
    header
}

fn change(is_new: bool, body: &[u8]) -> Vec<u8> {
    match is_new {
        true => message::request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body),
        false => message::request(RTM_DELROUTE, 0, body),
    }
}

/// Reads all IPv4 routes and returns how many of table main there are.
pub fn dump_routes() -> Result<u32> {
    let socket = open(0)?;
    let mut body = vec![0; ROUTE_HEADER];
    body[0] = AF_INET;
    let request = message::request(RTM_GETROUTE, NLM_F_DUMP, &body);
    let sent = send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    ensure!(sent == request.len(), "the request was cut short");
    let mut buffer = vec![0; 64 << 10];
    let mut count = 0;
    loop {
        let read = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, body) in message::each(&buffer[..read]) {
            match kind {
                NLMSG_DONE => return Ok(count),
                RTM_NEWROUTE => count += u32::from(destination(body).is_some()),
                other => anyhow::bail!("the kernel answered with message {other}"),
            }
        }
    }
}
