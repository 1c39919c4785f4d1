//! The kernel's routes as its netlink says them. Not the product's code: a fault of the product must
//! not hide in the tool that measures it.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

use crate::load::plan::Plan;

// linux/rtnetlink.h, linux/netlink.h
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const TABLE_MAIN: u8 = 254;
const HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;

/// Routes in one system call.
const BATCH: usize = 64;
const RECEIVE_BUFFER: usize = 256 << 20;

fn word(octets: &[u8], at: usize) -> Option<u16> {
    octets
        .get(at..at + 2)?
        .try_into()
        .ok()
        .map(u16::from_ne_bytes)
}

fn length(octets: &[u8]) -> Option<usize> {
    let length = u32::from_ne_bytes(octets.get(..4)?.try_into().ok()?) as usize;
    (HEADER..=octets.len()).contains(&length).then_some(length)
}

/// The messages of one datagram: kind, and what follows the header.
fn messages(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = length(octets)?;
        let message = octets.get(..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((word(message, 4)?, message.get(HEADER..)?))
    })
}

fn open(groups: u32) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Follows which of the plan's routes are there.
pub struct RouteMonitor {
    socket: OwnedFd,
    has: Vec<bool>,
    count: u32,
    buffer: Vec<u8>,
}

impl RouteMonitor {
    /// Of the first `routes` of the plan; hears every change from now on.
    pub fn start(routes: u32) -> Result<RouteMonitor> {
        let socket = open(RTMGRP_IPV4_ROUTE)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        Ok(RouteMonitor {
            socket,
            has: vec![false; routes as usize],
            count: 0,
            buffer: vec![0; 64 << 10],
        })
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Takes what has been said.
    pub fn read(&mut self) -> Result<()> {
        loop {
            let read = recv(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_DONTWAIT,
            );
            let read = match read {
                Ok(read) => read,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error).context("changes of routes were lost"),
            };
            for (kind, body) in messages(&self.buffer[..read]) {
                let Some(index) = index_of(body) else {
                    continue;
                };
                let Some(has) = self.has.get_mut(index as usize) else {
                    continue;
                };
                let is_there = match kind {
                    RTM_NEWROUTE => true,
                    RTM_DELROUTE => false,
                    _ => continue,
                };
                self.count += u32::from(is_there && !*has);
                self.count -= u32::from(!is_there && *has);
                *has = is_there;
            }
        }
    }
}

/// The plan's number of a route of table main.
fn index_of(body: &[u8]) -> Option<u32> {
    let (destination_length, table) = (*body.get(1)?, *body.get(4)?);
    if (destination_length, table) != (24, TABLE_MAIN) {
        return None;
    }
    let mut attributes = body.get(ROUTE_HEADER..)?;
    loop {
        let (length, kind) = (usize::from(word(attributes, 0)?), word(attributes, 2)?);
        if kind == RTA_DST {
            let prefix = attributes.get(4..7)?.first_chunk::<3>()?;
            return Plan::number(*prefix);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// Adds the plan's routes, or removes them, as fast as the kernel takes them.
pub fn write_raw(routes: Range<u32>, gateway: Ipv4Addr, is_new: bool) -> Result<()> {
    let socket = open(0)?;
    let all: Vec<u32> = routes.collect();
    let mut answers = vec![0; 64 << 10];
    for batch in all.chunks(BATCH) {
        let mut out = Vec::with_capacity(BATCH * 64);
        for route in batch {
            put_route(Plan::prefix(*route), gateway, is_new, &mut out);
        }
        let sent = send(socket.as_raw_fd(), &out, MsgFlags::empty())?;
        ensure!(sent == out.len(), "sent {sent} of {} octets", out.len());
        let mut acknowledged = 0;
        while acknowledged < batch.len() {
            let read = recv(socket.as_raw_fd(), &mut answers, MsgFlags::empty())?;
            for (kind, body) in messages(&answers[..read]) {
                let error = body.get(..4).and_then(<[u8]>::first_chunk::<4>);
                match error.map(|error| i32::from_ne_bytes(*error)) {
                    Some(0) if kind == NLMSG_ERROR => acknowledged += 1,
                    error => bail!(
                        "the kernel said {:?}",
                        error.map(|error| Errno::from_raw(-error))
                    ),
                }
            }
        }
    }
    Ok(())
}

fn put_route(prefix: [u8; 3], gateway: Ipv4Addr, is_new: bool, out: &mut Vec<u8>) {
    let (kind, flags) = match is_new {
        true => (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),
        false => (RTM_DELROUTE, 0),
    };
    let length = HEADER + ROUTE_HEADER + 2 * 8;
    out.extend(u32::try_from(length).expect("short").to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    out.extend([0; 8]);
    // AF_INET, /24, RTPROT_STATIC, universe, unicast.
    out.extend([2, 24, 0, 0, TABLE_MAIN, 4, 0, 1, 0, 0, 0, 0]);
    let [a, b, c] = prefix;
    for (kind, value) in [(RTA_DST, [a, b, c, 0]), (RTA_GATEWAY, gateway.octets())] {
        out.extend(8u16.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value);
    }
}
