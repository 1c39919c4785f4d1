//! Which of the routes that count are there.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::routes::{RTM_DELROUTE, RTM_NEWROUTE, destination};
use super::{message, open};

// linux/rtnetlink.h
const RTMGRP_IPV4_ROUTE: u32 = 0x40;

const RECEIVE_BUFFER: usize = 256 << 20;

/// Follows which of the routes that have a number are there.
pub struct RouteMonitor {
    socket: OwnedFd,
    number: Number,
    has: Vec<bool>,
    count: u32,
    changes: u64,
    buffer: Vec<u8>,
}

/// Of a prefix: its length and address; `None`: it does not count.
type Number = fn(u8, [u8; 4]) -> Option<u32>;

impl RouteMonitor {
    /// Of numbers below `routes`, in table main; hears every change from now on.
    pub fn start(routes: u32, number: Number) -> Result<RouteMonitor> {
        let socket = open(RTMGRP_IPV4_ROUTE)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        Ok(RouteMonitor {
            socket,
            number,
            has: vec![false; routes as usize],
            count: 0,
            changes: 0,
            buffer: vec![0; 64 << 10],
        })
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// How often the kernel said anything of an IPv4 route.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Waits for a change, at most so many milliseconds, and takes all there are.
    pub fn wait(&mut self, milliseconds: u8) -> Result<()> {
        let mut waited = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waited, PollTimeout::from(milliseconds)) {
            Ok(_) | Err(Errno::EINTR) => self.read(),
            Err(error) => Err(error.into()),
        }
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
            for (kind, body) in message::each(&self.buffer[..read]) {
                let is_there = match kind {
                    RTM_NEWROUTE => true,
                    RTM_DELROUTE => false,
                    _ => continue,
                };
                self.changes += 1;
                let number =
                    destination(body).and_then(|(length, prefix)| (self.number)(length, prefix));
                let Some(has) = number.and_then(|number| self.has.get_mut(number as usize)) else {
                    continue;
                };
                self.count += u32::from(is_there && !*has);
                self.count -= u32::from(!is_there && *has);
                *has = is_there;
            }
        }
    }
}
