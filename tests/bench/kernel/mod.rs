//! The kernel as its netlink says it. Not the product's code: a fault of the product must not hide in
//! the tool that measures it.

mod message;
mod monitor;
mod routes;
pub mod workload;

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

pub use self::monitor::RouteMonitor;
pub use self::routes::{dump_routes, write_routes};

const NLMSG_ERROR: u16 = 2;

/// Messages in one system call.
const BATCH: usize = 64;

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

/// Sends what asks for acknowledgements, so many messages a system call, and reads them all.
fn write_all(socket: &OwnedFd, all: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
    let mut all = all.into_iter().peekable();
    let mut answers = vec![0; 64 << 10];
    while all.peek().is_some() {
        let batch: Vec<Vec<u8>> = all.by_ref().take(BATCH).collect();
        let out = batch.concat();
        let sent = send(socket.as_raw_fd(), &out, MsgFlags::empty())?;
        ensure!(sent == out.len(), "sent {sent} of {} octets", out.len());
        let mut acknowledged = 0;
        while acknowledged < batch.len() {
            let read = recv(socket.as_raw_fd(), &mut answers, MsgFlags::empty())?;
            for (kind, body) in message::each(&answers[..read]) {
                let error = body.first_chunk().map(|error| i32::from_ne_bytes(*error));
                match error {
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
