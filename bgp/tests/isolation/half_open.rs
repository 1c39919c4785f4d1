//! SYNs whose sender never answers: half-open connections that only the kernel knows.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::scene::{SPEAKER, address};

/// Packets go out as they are written here; needs root.
pub struct SynSender {
    socket: Socket,
}

impl SynSender {
    pub fn new() -> SynSender {
        // With "raw" as the protocol the IP header is ours, too.
        let raw = Some(Protocol::from(255));
        let socket = Socket::new(Domain::IPV4, Type::RAW, raw).expect("a raw socket");
        SynSender { socket }
    }

    /// One SYN from there to the speaker's port.
    pub fn send(&self, from: Ipv4Addr, port: u16) {
        let packet = syn(from, port);
        let to = SocketAddr::from((address(SPEAKER), 0));
        self.socket.send_to(&packet, &to.into()).expect("sent");
    }
}

/// RFC 791 and RFC 9293 headers without options.
fn syn(from: Ipv4Addr, port: u16) -> Vec<u8> {
    let addresses = [from.octets(), address(SPEAKER).octets()].concat();
    let mut tcp = Vec::new();
    for word in [port, 179, 0, 1, 0, 0, 0x5002, 0xffff, 0, 0] {
        tcp.extend(u16::to_be_bytes(word));
    }
    let pseudo = [&addresses[..], &[0, 6, 0, 20], &tcp].concat();
    tcp[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    // The kernel fills in identification and checksum.
    let ip = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    [&ip[..], &addresses, &tcp].concat()
}

/// RFC 1071, of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
