//! Packets made by hand, sent past the sender's own IP.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Namespace;
use crate::site::PROTOCOL_IPIP;

/// Sends `inner` in IP protocol 4 from `namespace`, with any outer source.
pub fn send_tunnelled(
    namespace: &Namespace,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    inner: &[u8],
) {
    send(namespace, source, destination, PROTOCOL_IPIP, inner);
}

/// Sends a packet with any source. The kernel fills in the header's checksum.
pub fn send(
    namespace: &Namespace,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: &[u8],
) {
    let length = u16::try_from(20 + payload.len()).expect("short enough");
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    namespace.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).expect("raw");
        socket.set_header_included_v4(true).expect("header is ours");
        let target: SocketAddr = (destination, 0).into();
        socket.send_to(&packet, &target.into()).expect("sends");
    });
}

/// A UDP datagram without checksum.
pub fn datagram(port: u16, text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + text.len()).expect("short enough");
    let ports = [port.to_be_bytes(), port.to_be_bytes()].concat();
    [&ports, &length.to_be_bytes()[..], &[0, 0], text].concat()
}

/// From the workload of node 2 to that of node 1.
pub fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("short enough");
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend([172, 17, 2, 2, 172, 17, 1, 2]);
    let checksum = !sum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// As `packet`, the checksum field holding only the pseudo
/// header's sum plus `error`.
pub fn unfinished(protocol: u8, segment: &[u8], checksum_at: usize, error: u16) -> Vec<u8> {
    let mut packet = packet(protocol, segment);
    let length = u16::try_from(packet.len()).expect("short enough");
    let pseudo = [
        &packet[12..20],
        &[0, protocol],
        &(length - 20).to_be_bytes(),
    ]
    .concat();
    let checksum = sum(&pseudo).wrapping_add(error).to_be_bytes();
    packet[20 + checksum_at..22 + checksum_at].copy_from_slice(&checksum);
    packet
}

fn sum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks_exact(2);
    let mut sum: u32 = pairs
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}
