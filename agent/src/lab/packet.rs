//! The few packets the lab makes and recognises: ICMP echo, bare or inside IP protocol 4. Pure.
//!
//! In: octets that begin with an IPv4 header. Out: what they say, or `None` for everything else.
//! Fragments are not put together; an echo of the lab is far smaller than any MTU.

use std::net::Ipv4Addr;

const PROTOCOL_ICMP: u8 = 1;
/// RFC 2003: IPv4 in IPv4.
const PROTOCOL_IPIP: u8 = 4;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// An ICMP echo request or reply (RFC 792).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Echo {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub is_request: bool,
    pub identifier: u16,
    pub sequence: u16,
}

/// How an echo travelled on the wire it was seen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carriage {
    Bare,
    /// Inside IP protocol 4, between these outer addresses.
    Tunnelled {
        source: Ipv4Addr,
        destination: Ipv4Addr,
    },
}

/// Reads an echo, bare or in one level of IPIP.
pub fn parse(packet: &[u8]) -> Option<(Carriage, Echo)> {
    let outer = Header::parse(packet)?;
    match outer.protocol {
        PROTOCOL_ICMP => Some((Carriage::Bare, echo(&outer)?)),
        PROTOCOL_IPIP => {
            let carriage = Carriage::Tunnelled {
                source: outer.source,
                destination: outer.destination,
            };
            Some((carriage, echo(&Header::parse(outer.payload)?)?))
        }
        _ => None,
    }
}

/// An ICMP echo request without IP header, as a raw socket wants it.
pub fn echo_request(identifier: u16, sequence: u16) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(*b"caracal lab echo");
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

struct Header<'a> {
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: &'a [u8],
}

impl Header<'_> {
    fn parse(packet: &[u8]) -> Option<Header<'_>> {
        let first = *packet.first()?;
        let length = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || length < 20 {
            return None;
        }
        let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?);
        if fragment & 0x1fff != 0 {
            return None; // not a first fragment: the payload does not begin with a header
        }
        Some(Header {
            protocol: *packet.get(9)?,
            source: address(packet.get(12..16)?)?,
            destination: address(packet.get(16..20)?)?,
            payload: packet.get(length..)?,
        })
    }
}

fn address(octets: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?))
}

fn echo(header: &Header<'_>) -> Option<Echo> {
    if header.protocol != PROTOCOL_ICMP {
        return None;
    }
    let is_request = match *header.payload.first()? {
        ECHO_REQUEST => true,
        ECHO_REPLY => false,
        _ => return None,
    };
    let word = |at: usize| -> Option<u16> {
        let octets = header.payload.get(at..at + 2)?;
        Some(u16::from_be_bytes(octets.try_into().ok()?))
    };
    Some(Echo {
        source: header.source,
        destination: header.destination,
        is_request,
        identifier: word(4)?,
        sequence: word(6)?,
    })
}

/// RFC 1071, over an even number of octets.
fn checksum(message: &[u8]) -> u16 {
    let mut sum: u32 = message
        .chunks_exact(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the carries were folded in")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of an echo request from 10.1.0.1 to 10.1.0.2, sent by ping of iputils 20221126
    /// through the ipip device of Linux 6.1.176 from 192.0.2.1 to 192.0.2.2, captured on the veth.
    const TUNNELLED: [u8; 48] = [
        0x45, 0x00, 0x00, 0x68, 0x96, 0x94, 0x40, 0x00, 0x40, 0x04, 0x1f, 0xfa, 0xc0, 0x00, 0x02,
        0x01, 0xc0, 0x00, 0x02, 0x02, 0x45, 0x00, 0x00, 0x54, 0x3a, 0x8b, 0x40, 0x00, 0x40, 0x01,
        0xec, 0x19, 0x0a, 0x01, 0x00, 0x01, 0x0a, 0x01, 0x00, 0x02, 0x08, 0x00, 0xfe, 0xae, 0x02,
        0xdb, 0x00, 0x01,
    ];
    const OUTER_HEADER: usize = 20;

    #[test]
    fn bare_echo_is_read() {
        let (carriage, echo) = parse(&TUNNELLED[OUTER_HEADER..]).expect("an echo request");
        assert_eq!(carriage, Carriage::Bare);
        assert_eq!(
            echo,
            Echo {
                source: Ipv4Addr::new(10, 1, 0, 1),
                destination: Ipv4Addr::new(10, 1, 0, 2),
                is_request: true,
                identifier: 0x02db,
                sequence: 1,
            }
        );
    }

    #[test]
    fn echo_in_ipip_is_read_with_its_outer_addresses() {
        let (carriage, echo) = parse(&TUNNELLED).expect("an echo request in IPIP");
        assert_eq!(
            carriage,
            Carriage::Tunnelled {
                source: Ipv4Addr::new(192, 0, 2, 1),
                destination: Ipv4Addr::new(192, 0, 2, 2),
            }
        );
        assert_eq!(echo.identifier, 0x02db);
    }

    #[test]
    fn shortened_and_changed_packets_end_in_none_or_an_echo() {
        for packet in [&TUNNELLED[..], &TUNNELLED[OUTER_HEADER..]] {
            for length in 0..packet.len() {
                assert_eq!(parse(&packet[..length]), None, "{length} octets");
            }
            for at in 0..packet.len() {
                for bit in 0..8 {
                    let mut changed = packet.to_vec();
                    changed[at] ^= 1 << bit;
                    let _ = parse(&changed); // must return
                }
            }
        }
    }

    #[test]
    fn checksum_of_a_request_makes_its_sum_zero() {
        assert_eq!(checksum(&echo_request(0xbeef, 7)), 0);
    }
}
