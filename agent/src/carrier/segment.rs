//! TCP and UDP packets larger than the link, as the kernel hands them over (TSO, USO), and their
//! segments.
//!
//! Pure. The kernel gives one large packet with its headers once, and takes one; the wire carries
//! segments, each with headers and checksums of its own.

use super::packet::{
    Ipv4, OUTER_HEADER, TCP_CHECKSUM_AT, Transport, UDP_CHECKSUM_AT, UDP_HEADER, fold, sum_of,
    sum_onto,
};

/// Octets of a TCP header without options.
const TCP_HEADER: usize = 20;
const FIN_PSH: u8 = 0x09;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
const PACKET_MAX: usize = 65_535;

/// Cuts a large packet into segments, in order.
pub struct Segmenter<'a> {
    packet: &'a [u8],
    transport: Transport,
    ip_header: usize,
    /// IPv4 and transport headers.
    headers: usize,
    segment_length: usize,
    /// Octets of payload done.
    done: usize,
}

impl<'a> Segmenter<'a> {
    /// `None` if it is neither TCP nor UDP, or no segment would carry data.
    pub fn new(packet: &Ipv4<'a>, segment_length: usize) -> Option<Segmenter<'a>> {
        let ip_header = packet.header_length();
        let (transport, headers) = headers_of(packet)?;
        (segment_length > 0 && packet.len() > headers).then_some(Segmenter {
            packet: packet.bytes(),
            transport,
            ip_header,
            headers,
            segment_length,
            done: 0,
        })
    }

    /// Appends the next segment to `target`; `false` if there is none left.
    pub fn append_next(&mut self, target: &mut Vec<u8>) -> bool {
        let payload = &self.packet[self.headers..];
        let rest = &payload[self.done..];
        if rest.is_empty() {
            return false;
        }
        let data = &rest[..rest.len().min(self.segment_length)];
        let is_last = data.len() == rest.len();
        let number = self.done / self.segment_length;
        let start = target.len();
        target.extend_from_slice(&self.packet[..self.headers]);
        target.extend_from_slice(data);
        let segment = &mut target[start..];
        let (ip, rest) = segment.split_at_mut(self.ip_header);
        let length = self.headers + data.len();
        ip[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        // As the kernel's segmentation does: one identification after the other.
        let identification = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(number as u16);
        ip[4..6].copy_from_slice(&identification.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = !sum_of(ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        match self.transport {
            Transport::Tcp => self.finish_tcp(rest, is_last),
            Transport::Udp => set_udp_length(rest),
        }
        finish_checksum(self.transport, ip, rest);
        self.done += data.len();
        true
    }

    fn finish_tcp(&self, tcp: &mut [u8], is_last: bool) {
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let sequence = sequence.wrapping_add(self.done as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if !is_last {
            tcp[13] &= !FIN_PSH;
        }
        if self.done > 0 {
            // RFC 3168 §6.1.2: it is said once.
            tcp[13] &= !CWR;
        }
    }
}

/// Several segments of a TCP connection, or UDP datagrams from one socket to another, that follow
/// each other, on their way to become one packet.
#[derive(Clone, Copy, Debug)]
pub struct Joint {
    transport: Transport,
    /// IPv4 and transport headers of each.
    headers: usize,
    /// Payload of each but the last.
    segment_length: usize,
    /// Octets of the whole so far.
    length: usize,
    has_push: bool,
    /// A segment that is shorter, or pushed, was the last.
    is_complete: bool,
    /// The first one's checksum has been looked at, and is right.
    is_verified: bool,
}

impl Joint {
    /// `None` if nothing can be joined to this packet: it is passed on as it is.
    pub fn begin(first: &[u8]) -> Option<Joint> {
        let packet = Ipv4::parse(first)?;
        let (transport, headers) = joinable_headers(&packet)?;
        let is_first = match transport {
            Transport::Tcp => packet.bytes()[OUTER_HEADER + 13] == ACK,
            Transport::Udp => true,
        };
        (is_first && packet.len() > headers).then_some(Joint {
            transport,
            headers,
            segment_length: packet.len() - headers,
            length: packet.len(),
            has_push: false,
            is_complete: false,
            is_verified: false,
        })
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// IPv4 and transport headers of each segment: where the payload of a further one begins.
    pub fn headers(&self) -> usize {
        self.headers
    }

    /// Takes `next` in if it is the continuation of what began with `first`. A segment whose checksum
    /// is wrong is never taken in: the whole gets a new one, which would hide that.
    pub fn extend(&mut self, first: &[u8], next: &[u8]) -> bool {
        let Some(packet) = Ipv4::parse(next) else {
            return false;
        };
        let next = packet.bytes();
        if self.is_complete
            || joinable_headers(&packet) != Some((self.transport, self.headers))
            || !self.is_alike(first, next)
        {
            return false;
        }
        let data = next.len() - self.headers;
        if data == 0 || data > self.segment_length || self.length + data > PACKET_MAX {
            return false;
        }
        if !self.is_verified {
            if !is_checksum_right(self.transport, first) {
                self.is_complete = true;
                return false;
            }
            self.is_verified = true;
        }
        if !is_checksum_right(self.transport, next) {
            return false;
        }
        self.has_push = self.transport == Transport::Tcp && next[OUTER_HEADER + 13] & PSH != 0;
        self.is_complete = self.has_push || data < self.segment_length;
        self.length += data;
        true
    }

    /// Whether everything but lengths, identification, sequence number, PSH and checksums agrees, and
    /// the sequence number is the next.
    fn is_alike(&self, first: &[u8], next: &[u8]) -> bool {
        let (ip, next_ip) = (&first[..OUTER_HEADER], &next[..OUTER_HEADER]);
        let (own, next) = (
            &first[OUTER_HEADER..self.headers],
            &next[OUTER_HEADER..self.headers],
        );
        let is_same_way = ip[..2] == next_ip[..2]
            && ip[6..10] == next_ip[6..10]
            && ip[12..] == next_ip[12..]
            && own[..4] == next[..4];
        is_same_way
            && match self.transport {
                Transport::Udp => true,
                Transport::Tcp => self.follows(own, next),
            }
    }

    /// Of two TCP headers with the same ports.
    fn follows(&self, first: &[u8], next: &[u8]) -> bool {
        let done = (self.length - self.headers) as u32;
        let sequence = |tcp: &[u8]| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        sequence(next) == sequence(first).wrapping_add(done)
            && first[8..13] == next[8..13]
            && matches!(next[13] & !PSH, ACK)
            && first[14..16] == next[14..16]
            && first[18..] == next[18..]
    }

    /// Makes the headers of `first` those of the whole. Its checksum field then holds the pseudo
    /// header's sum: the rest is the kernel's. Returns the payload of each segment.
    pub fn finish(&self, first: &mut [u8]) -> usize {
        let (ip, rest) = first.split_at_mut(OUTER_HEADER);
        ip[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
        ip[10..12].fill(0);
        let checksum = !sum_of(ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let length = self.length - OUTER_HEADER;
        match self.transport {
            Transport::Tcp if self.has_push => rest[13] |= PSH,
            Transport::Tcp => {}
            Transport::Udp => rest[4..6].copy_from_slice(&(length as u16).to_be_bytes()),
        }
        let pseudo = pseudo_sum(ip, length);
        let at = checksum_at(self.transport);
        rest[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        self.segment_length
    }
}

/// The transport, and the length of the IPv4 and its headers.
fn headers_of(packet: &Ipv4<'_>) -> Option<(Transport, usize)> {
    let (transport, rest) = packet.transport()?;
    let length = match transport {
        Transport::Tcp => usize::from(rest.get(12)? >> 4) * 4,
        Transport::Udp => UDP_HEADER,
    };
    let least = match transport {
        Transport::Tcp => TCP_HEADER,
        Transport::Udp => UDP_HEADER,
    };
    let headers = packet.header_length() + length;
    (length >= least && headers <= packet.len()).then_some((transport, headers))
}

/// As `headers_of`, of a packet that may be joined: without IP options, unfragmentable (the
/// identification of what may be fragmented must be kept), TCP without urgent data, UDP with a
/// checksum and nothing behind it.
fn joinable_headers(packet: &Ipv4<'_>) -> Option<(Transport, usize)> {
    let (transport, headers) = headers_of(packet)?;
    let bytes = packet.bytes();
    let is_plain = packet.header_length() == OUTER_HEADER && bytes[6..8] == [0x40, 0];
    let rest = &bytes[packet.header_length()..];
    let is_joinable = match transport {
        Transport::Tcp => rest[18..20] == [0, 0],
        Transport::Udp => {
            let length = usize::from(u16::from_be_bytes([rest[4], rest[5]]));
            length == rest.len() && rest[6..8] != [0, 0]
        }
    };
    (is_plain && is_joinable).then_some((transport, headers))
}

fn checksum_at(transport: Transport) -> usize {
    match transport {
        Transport::Tcp => TCP_CHECKSUM_AT,
        Transport::Udp => UDP_CHECKSUM_AT,
    }
}

fn set_udp_length(udp: &mut [u8]) {
    let length = udp.len() as u16;
    udp[4..6].copy_from_slice(&length.to_be_bytes());
}

/// Writes the checksum of what follows the IPv4 header `ip`.
fn finish_checksum(transport: Transport, ip: &[u8], rest: &mut [u8]) {
    let at = checksum_at(transport);
    rest[at..at + 2].fill(0);
    let checksum = match (transport, !sum_onto(pseudo_sum(ip, rest.len()), rest)) {
        // RFC 768: 0 means that there is none.
        (Transport::Udp, 0) => u16::MAX,
        (_, checksum) => checksum,
    };
    rest[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The sum over the pseudo header of TCP or UDP (RFC 9293 §3.1), folded, not complemented.
fn pseudo_sum(ip: &[u8], length: usize) -> u16 {
    let addresses = u32::from(sum_of(&ip[12..20]));
    fold(addresses + u32::from(ip[9]) + length as u32)
}

/// Right, or unfinished: the kernel of a sender on the same machine leaves it to hardware.
fn is_checksum_right(transport: Transport, packet: &[u8]) -> bool {
    let (ip, rest) = packet.split_at(OUTER_HEADER);
    let pseudo = pseudo_sum(ip, rest.len());
    let at = checksum_at(transport);
    let field = u16::from_be_bytes([rest[at], rest[at + 1]]);
    field == pseudo || sum_onto(pseudo, rest) == u16::MAX
}

#[cfg(test)]
mod tests;
