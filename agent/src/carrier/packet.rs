//! The headers around an inner packet, on both sides of the carrier.
//!
//! Pure: bytes in, bytes or numbers out. Input is never trusted: what is not a sane IPv4 packet is
//! `None`.
//!
//! ```text
//! TAP:  | virtio_net_hdr 10 | Ethernet 14 | inner IPv4 … |
//! wire:                  | outer IPv4 20+ | inner IPv4 … |     (UDP: the kernel keeps the outer headers)
//! ```

use std::net::Ipv4Addr;

use super::tap::VNET_HEADER;

pub const ETHERNET_HEADER: usize = 14;
/// What the TAP puts in front of an inner packet.
pub const TAP_HEADER: usize = VNET_HEADER + ETHERNET_HEADER;
pub const OUTER_HEADER: usize = 20;
pub const UDP_HEADER: usize = 8;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ECN_MASK: u8 = 0b11;
const ECN_ECT0: u8 = 0b10;
const ECN_CE: u8 = 0b11;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const VNET_NEEDS_CSUM: u8 = 1;
const VNET_GSO_TCPV4: u8 = 1;
/// UDP, the whole header in each segment (VIRTIO_NET_HDR_GSO_UDP_L4).
const VNET_GSO_UDP: u8 = 5;
const VNET_GSO_ECN: u8 = 0x80;
/// Where the checksum is in a header.
pub const TCP_CHECKSUM_AT: usize = 16;
pub const UDP_CHECKSUM_AT: usize = 6;
const ICMP_HEADER: usize = 8;
/// No tunnel of ours has a smaller MTU.
const MTU_MIN: usize = 1280;
/// RFC 1812 §4.3.2.3: as much of the original as fits without exceeding 576 bytes.
const ICMP_PACKET_MAX: usize = 576;

/// The MAC that stands for a node: of its neighbour entry, and of our own TAP.
pub fn mac_of(node: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node.octets();
    [0x02, 0x00, a, b, c, d]
}

/// What the kernel left to do about a packet from the TAP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfinished {
    Nothing,
    /// The transport checksum's field, from the start of the packet, holds the pseudo header's sum;
    /// it is to be summed up from `start`.
    Checksum {
        start: usize,
        field: usize,
    },
    /// It is to be cut into TCP segments or UDP datagrams with this much payload.
    Segments {
        length: usize,
    },
}

/// Reads the virtio_net_hdr of a frame from the TAP. `None` for what we never asked for.
pub fn unfinished(frame: &[u8]) -> Option<Unfinished> {
    let vnet = frame.first_chunk::<VNET_HEADER>()?;
    let number = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
    match vnet[1] {
        0 if vnet[0] & VNET_NEEDS_CSUM == 0 => Some(Unfinished::Nothing),
        0 => {
            let start = number(6).checked_sub(ETHERNET_HEADER)?;
            let field = start + number(8);
            Some(Unfinished::Checksum { start, field })
        }
        VNET_GSO_TCPV4 | VNET_GSO_UDP => Some(Unfinished::Segments { length: number(4) }),
        _ => None,
    }
}

/// Finishes the transport checksum of `packet`. `false` if its fields are not within.
pub fn finish_checksum(packet: &mut [u8], start: usize, field: usize) -> bool {
    let is_udp = packet.get(9) == Some(&PROTOCOL_UDP);
    let Some(covered) = packet.get(start..) else {
        return false;
    };
    // RFC 768: of UDP, 0 means that there is none.
    let checksum = match !sum_of(covered) {
        0 if is_udp => u16::MAX,
        checksum => checksum,
    };
    match packet.get_mut(field..).and_then(<[u8]>::first_chunk_mut) {
        Some(target) => {
            *target = checksum.to_be_bytes();
            true
        }
        None => false,
    }
}

/// The virtio_net_hdr of segments joined to one packet with these headers, for the kernel to cut.
pub fn joined_header(
    transport: Transport,
    headers: usize,
    segment_length: usize,
) -> [u8; VNET_HEADER] {
    let (kind, checksum_at) = match transport {
        Transport::Tcp => (VNET_GSO_TCPV4, TCP_CHECKSUM_AT),
        Transport::Udp => (VNET_GSO_UDP, UDP_CHECKSUM_AT),
    };
    let mut vnet = [0; VNET_HEADER];
    vnet[0] = VNET_NEEDS_CSUM;
    vnet[1] = kind;
    vnet[2..4].copy_from_slice(&((ETHERNET_HEADER + headers) as u16).to_ne_bytes());
    vnet[4..6].copy_from_slice(&(segment_length as u16).to_ne_bytes());
    vnet[6..8].copy_from_slice(&((ETHERNET_HEADER + OUTER_HEADER) as u16).to_ne_bytes());
    vnet[8..10].copy_from_slice(&(checksum_at as u16).to_ne_bytes());
    vnet
}

/// The node that a frame read from the TAP is for, and where its IPv4 packet lies in `frame`
/// (which begins with the virtio_net_hdr).
pub fn parse_frame(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4<'_>)> {
    let ethernet = frame.get(VNET_HEADER..)?.first_chunk::<ETHERNET_HEADER>()?;
    let [0x02, 0x00, a, b, c, d] = *ethernet.first_chunk::<6>()? else {
        return None;
    };
    if ethernet[12..] != ETHERTYPE_IPV4 {
        return None;
    }
    Some((
        Ipv4Addr::new(a, b, c, d),
        Ipv4::parse(frame.get(TAP_HEADER..)?)?,
    ))
}

/// Writes the virtio_net_hdr and Ethernet header of a frame from the node `from` to our TAP.
pub fn write_tap_header(
    header: &mut [u8; TAP_HEADER],
    offload: &[u8; VNET_HEADER],
    from: Ipv4Addr,
    local: Ipv4Addr,
) {
    let (vnet, ethernet) = header.split_at_mut(VNET_HEADER);
    vnet.copy_from_slice(offload);
    ethernet[..6].copy_from_slice(&mac_of(local));
    ethernet[6..12].copy_from_slice(&mac_of(from));
    ethernet[12..].copy_from_slice(&ETHERTYPE_IPV4);
}

/// What can be cut and joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Tcp,
    Udp,
}

/// An IPv4 packet whose header is sane: version, header length, and total length within the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    /// Exactly the packet, without padding.
    bytes: &'a [u8],
    header_length: usize,
}

impl<'a> Ipv4<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Ipv4<'a>> {
        let header = bytes.first_chunk::<OUTER_HEADER>()?;
        let header_length = usize::from(header[0] & 0x0f) * 4;
        let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let is_sane =
            header[0] >> 4 == 4 && header_length >= OUTER_HEADER && total_length >= header_length;
        if !is_sane {
            return None;
        }
        Some(Ipv4 {
            bytes: bytes.get(..total_length)?,
            header_length,
        })
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn header_length(&self) -> usize {
        self.header_length
    }

    pub fn tos(&self) -> u8 {
        self.bytes[1]
    }

    pub fn protocol(&self) -> u8 {
        self.bytes[9]
    }

    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(
            self.bytes[12],
            self.bytes[13],
            self.bytes[14],
            self.bytes[15],
        )
    }

    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(
            self.bytes[16],
            self.bytes[17],
            self.bytes[18],
            self.bytes[19],
        )
    }

    /// The DF bit.
    pub fn is_unfragmentable(&self) -> bool {
        self.bytes[6] & 0x40 != 0
    }

    /// Whether it is a fragment other than the first: it has no transport header.
    fn is_later_fragment(&self) -> bool {
        u16::from_be_bytes([self.bytes[6] & 0x1f, self.bytes[7]]) != 0
    }

    fn is_fragment(&self) -> bool {
        self.is_later_fragment() || self.bytes[6] & 0x20 != 0
    }

    fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_length..).unwrap_or_default()
    }

    /// The segment or datagram with its header, if it is TCP or UDP and no fragment.
    pub fn transport(&self) -> Option<(Transport, &'a [u8])> {
        let transport = match self.protocol() {
            PROTOCOL_TCP => Transport::Tcp,
            PROTOCOL_UDP => Transport::Udp,
            _ => return None,
        };
        (!self.is_fragment()).then(|| (transport, self.payload()))
    }

    /// The sum over the pseudo header of TCP or UDP (RFC 9293 §3.1), folded, not complemented.
    fn pseudo_sum(&self) -> u16 {
        let mut sum = u32::from(self.protocol()) + self.payload().len() as u32;
        for pair in self.bytes[12..20].chunks_exact(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        fold(sum)
    }
}

/// The outer TOS for an inner one, as the kernel's `tos inherit`: RFC 3168 §9.1.1, full
/// functionality with an inner CE shown as ECT(0).
pub fn outer_tos(inner_tos: u8) -> u8 {
    match inner_tos & ECN_MASK {
        ECN_CE => inner_tos & !ECN_MASK | ECN_ECT0,
        _ => inner_tos,
    }
}

/// Congestion marked on the way is carried over into the inner header (RFC 6040 §4.2). `false`: the
/// packet must be dropped, since its sender does not understand the mark.
pub fn decapsulate_ecn(outer_tos: u8, inner_header: &mut [u8]) -> bool {
    if outer_tos & ECN_MASK != ECN_CE {
        return true;
    }
    let Some(header) = inner_header.first_chunk_mut::<OUTER_HEADER>() else {
        return false;
    };
    match header[1] & ECN_MASK {
        0 => false,
        ECN_CE => true,
        _ => {
            let before = u16::from_be_bytes([header[0], header[1]]);
            header[1] |= ECN_CE;
            let after = u16::from_be_bytes([header[0], header[1]]);
            // RFC 1624 eqn. 3: HC' = ~(~HC + ~m + m')
            let checksum = u16::from_be_bytes([header[10], header[11]]);
            let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
            header[10..12].copy_from_slice(&(!fold(sum)).to_be_bytes());
            true
        }
    }
}

/// What to tell the kernel about a packet from the wire: that its transport checksum is unfinished,
/// and into which segments it is to be cut.
///
/// A raw socket gets packets as the receive path has them: several TCP segments joined by GRO, and,
/// from a sender on the same machine, a checksum field that holds only the pseudo header's sum. Passed
/// on as they are, the first would be too big for the workload's link and the second be dropped.
///
/// `mtu` gives the largest inner packet that the sender could have sent; it is asked only about
/// packets so long that they may exceed it. The checksum field of a packet to be cut is prepared.
pub fn offload(inner: &mut [u8], mtu: impl FnOnce() -> usize) -> [u8; VNET_HEADER] {
    let none = [0; VNET_HEADER];
    let Some(packet) = Ipv4::parse(inner) else {
        return none;
    };
    let checksum_at = match packet.protocol() {
        PROTOCOL_TCP => TCP_CHECKSUM_AT,
        PROTOCOL_UDP => UDP_CHECKSUM_AT,
        _ => return none,
    };
    let Some(field) = packet
        .payload()
        .get(checksum_at..)
        .and_then(|rest| rest.first_chunk::<2>())
    else {
        return none;
    };
    if packet.is_fragment() {
        return none;
    }
    let pseudo_sum = packet.pseudo_sum();
    let mtu = if packet.len() > MTU_MIN {
        mtu()
    } else {
        MTU_MIN
    };
    let segmentation = (packet.len() > mtu)
        .then(|| tcp_segmentation(&packet, mtu))
        .flatten();
    if segmentation.is_none() && u16::from_be_bytes(*field) != pseudo_sum {
        return none;
    }
    let header_length = packet.header_length();
    let checksum_field = header_length + checksum_at;
    let mut vnet = none;
    vnet[0] = VNET_NEEDS_CSUM;
    vnet[6..8].copy_from_slice(&((ETHERNET_HEADER + header_length) as u16).to_ne_bytes());
    vnet[8..10].copy_from_slice(&(checksum_at as u16).to_ne_bytes());
    if let Some(segmentation) = segmentation {
        vnet[1] = segmentation.kind;
        vnet[2..4].copy_from_slice(&segmentation.header_length.to_ne_bytes());
        vnet[4..6].copy_from_slice(&segmentation.segment_length.to_ne_bytes());
        inner[checksum_field..checksum_field + 2].copy_from_slice(&pseudo_sum.to_be_bytes());
    }
    vnet
}

struct Segmentation {
    kind: u8,
    /// Ethernet, IPv4 and TCP headers.
    header_length: u16,
    segment_length: u16,
}

/// `None` if it is no TCP or the headers leave no room for data.
fn tcp_segmentation(packet: &Ipv4<'_>, mtu: usize) -> Option<Segmentation> {
    if packet.protocol() != PROTOCOL_TCP {
        return None;
    }
    let tcp = packet.payload().first_chunk::<20>()?;
    let headers = packet.header_length() + usize::from(tcp[12] >> 4) * 4;
    let segment_length = mtu.checked_sub(headers).filter(|length| *length > 0)?;
    let has_cwr = tcp[13] & 0x80 != 0;
    Some(Segmentation {
        kind: if has_cwr {
            VNET_GSO_TCPV4 | VNET_GSO_ECN
        } else {
            VNET_GSO_TCPV4
        },
        header_length: u16::try_from(ETHERNET_HEADER + headers).ok()?,
        segment_length: u16::try_from(segment_length).ok()?,
    })
}

/// Writes the ICMP message "fragmentation needed and DF set" (RFC 1191 §4) about `original` to
/// `target` and returns its length. Its source is the original's destination: an address of this
/// host would be refused as martian when it comes in from the TAP.
///
/// `None` where RFC 1122 §3.2.2 forbids an ICMP error: about ICMP errors, later fragments, and
/// packets that do not come from one host.
pub fn write_fragmentation_needed(
    target: &mut [u8],
    original: &Ipv4<'_>,
    mtu: u16,
) -> Option<usize> {
    let source = original.source();
    let is_icmp_error = original.protocol() == PROTOCOL_ICMP
        && original
            .payload()
            .first()
            .is_none_or(|kind| !matches!(kind, 0 | 8 | 13 | 14));
    let is_one_host = !(source.is_unspecified()
        || source.is_multicast()
        || source.is_broadcast()
        || source.is_loopback());
    if is_icmp_error || original.is_later_fragment() || !is_one_host {
        return None;
    }
    let quoted = original
        .len()
        .min(ICMP_PACKET_MAX - OUTER_HEADER - ICMP_HEADER);
    let length = OUTER_HEADER + ICMP_HEADER + quoted;
    let packet = target.get_mut(..length)?;
    let (header, icmp) = packet.split_at_mut(OUTER_HEADER);
    header.fill(0);
    header[0] = 0x45;
    header[1] = 0xc0; // RFC 1812 §4.3.2.5: precedence internetwork control
    header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    header[8] = 64;
    header[9] = PROTOCOL_ICMP;
    header[12..16].copy_from_slice(&original.destination().octets());
    header[16..20].copy_from_slice(&source.octets());
    let checksum = !sum_of(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    icmp[..ICMP_HEADER].copy_from_slice(&[3, 4, 0, 0, 0, 0, 0, 0]);
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    icmp[ICMP_HEADER..].copy_from_slice(&original.bytes()[..quoted]);
    let checksum = !sum_of(icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(length)
}

/// The ones' complement sum of RFC 1071, folded, not complemented.
pub fn sum_of(bytes: &[u8]) -> u16 {
    sum_onto(0, bytes)
}

/// `sum_of` of what gave `before` and then `bytes`; what gave `before` has an even length.
pub fn sum_onto(before: u16, bytes: &[u8]) -> u16 {
    // In words of 8 octets, each added as two halves: RFC 1071 §2 lets the order of octets and the
    // width of words be any, and this is what the compiler makes fastest.
    let mut sum = 0_u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = word
            .first_chunk()
            .map_or(0, |word| u64::from_ne_bytes(*word));
        sum += (word & 0xffff_ffff) + (word >> 32);
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    let word = u64::from_ne_bytes(last);
    sum += (word & 0xffff_ffff) + (word >> 32);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u16::from_be(sum as u16);
    fold(u32::from(before) + u32::from(sum))
}

pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests;
