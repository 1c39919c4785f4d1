//! What passes through a namespace.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

use crate::netns::Namespace;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// With the IP header.
    pub bytes: Vec<u8>,
}

/// Sees every IPv4 packet of the namespace from now on, once per interface it passes.
pub struct Capture {
    socket: OwnedFd,
    seen: Vec<Packet>,
}

impl Capture {
    pub fn start(namespace: &Namespace) -> Capture {
        let socket = namespace.enter(|| {
            socket(
                AddressFamily::Packet,
                SockType::Datagram,
                SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            )
        });
        Capture {
            socket: socket.expect("packet socket"),
            seen: Vec::new(),
        }
    }

    /// All packets so far.
    pub fn packets(&mut self) -> &[Packet] {
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            let bytes = &buffer[..length];
            if length >= 20 && bytes[0] >> 4 == 4 {
                let address = |at: usize| {
                    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
                };
                self.seen.push(Packet {
                    protocol: bytes[9],
                    source: address(12),
                    destination: address(16),
                    bytes: bytes.to_vec(),
                });
            }
        }
        &self.seen
    }
}
