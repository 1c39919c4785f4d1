use super::*;

const SEGMENT: usize = 100;

/// An IPv4 packet with DF and a TCP segment with a timestamp option; checksums are made here, in the
/// plainest way.
fn packet(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + 32 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend([172, 17, 1, 2, 172, 17, 2, 2]);
    packet.extend([0x1b, 0x58, 0x1b, 0x59]);
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 7, 8 << 4, flags, 1, 2, 0, 0, 0, 0]);
    packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet.extend(payload);
    set_checksums(&mut packet);
    packet
}

fn set_checksums(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = plain_sum(&packet[..20]);
    packet[10..12].copy_from_slice(&(!header).to_be_bytes());
    let at = if packet[9] == 17 { 26 } else { 36 };
    packet[at..at + 2].fill(0);
    let sum = plain_transport_sum(packet);
    packet[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
}

/// An IPv4 packet with DF and a UDP datagram.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let mut packet = packet(0, 0, payload);
    packet[9] = 17;
    packet.drain(28..52);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    set_checksums(&mut packet);
    packet
}

fn plain_transport_sum(packet: &[u8]) -> u16 {
    let length = (packet.len() - 20) as u16;
    let mut covered = packet[12..20].to_vec();
    covered.extend([0, packet[9]]);
    covered.extend(length.to_be_bytes());
    covered.extend(&packet[20..]);
    plain_sum(&covered)
}

/// RFC 1071 §4.1, word by word.
fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

fn segments(large: &[u8], length: usize) -> Vec<Vec<u8>> {
    let packet = Ipv4::parse(large).expect("sane");
    let mut segmenter = Segmenter::new(&packet, length).expect("TCP or UDP");
    let mut segments = Vec::new();
    loop {
        // What is there already stays in front.
        let mut target = vec![1, 2, 3];
        if !segmenter.append_next(&mut target) {
            return segments;
        }
        segments.push(target.split_off(3));
    }
}

#[test]
fn sums_agree_with_the_plain_way_for_every_length() {
    let bytes = payload(300);
    for length in 0..bytes.len() {
        let (head, rest) = bytes[..length].split_at(length / 4 * 2);
        assert_eq!(
            sum_of(&bytes[..length]),
            plain_sum(&bytes[..length]),
            "{length}"
        );
        assert_eq!(
            sum_onto(sum_of(head), rest),
            plain_sum(&bytes[..length]),
            "{length}"
        );
    }
    assert_eq!(sum_of(&[0xff; 9000]), 0xffff);
}

#[test]
fn segments_carry_the_payload_in_order_with_headers_of_their_own() {
    let data = payload(250);
    let segments = segments(&packet(u32::MAX - 50, 0x99, &data), SEGMENT);
    let flags = [0x90, 0x10, 0x19];
    assert_eq!(segments.len(), flags.len());
    for (index, (segment, flags)) in segments.iter().zip(flags).enumerate() {
        let start = index * SEGMENT;
        let expected = &data[start..data.len().min(start + SEGMENT)];
        let mut whole = packet((u32::MAX - 50).wrapping_add(start as u32), flags, expected);
        let identification = 0x1234 + index as u16;
        whole[4..6].copy_from_slice(&identification.to_be_bytes());
        set_checksums(&mut whole);
        assert_eq!(*segment, whole, "segment {index}");
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let tcp = packet(1, ACK, &payload(10));
    let mut icmp = tcp.clone();
    icmp[9] = 1;
    let mut fragment = tcp.clone();
    fragment[7] = 1;
    let mut long_header = tcp.clone();
    long_header[32] = 15 << 4;
    let mut short_header = tcp.clone();
    short_header[32] = 4 << 4;
    for (name, bytes, length) in [
        ("ICMP", icmp, 10),
        ("a later fragment", fragment, 10),
        ("header beyond the packet", long_header, 10),
        ("header too short", short_header, 10),
        ("no payload", packet(1, ACK, &[]), 10),
        ("segments of nothing", tcp.clone(), 0),
        ("no TCP header at all", tcp[..24].to_vec(), 10),
        (
            "no UDP header at all",
            datagram(&payload(10))[..24].to_vec(),
            10,
        ),
        ("no datagram's payload", datagram(&[]), 10),
    ] {
        let mut bytes = bytes;
        let length_field = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&length_field);
        let packet = Ipv4::parse(&bytes).expect("sane");
        assert!(Segmenter::new(&packet, length).is_none(), "{name}");
        assert!(
            Joint::begin(&bytes).is_none() || name == "segments of nothing",
            "{name}"
        );
    }
}

/// Joins `packets` as far as they go; returns how many, and the first with its new headers.
fn join(packets: &[Vec<u8>]) -> (usize, Vec<u8>) {
    let mut first = packets[0].clone();
    let Some(mut joint) = Joint::begin(&first) else {
        return (1, first);
    };
    let mut count = 1;
    for next in &packets[1..] {
        if !joint.extend(&first, next) {
            break;
        }
        count += 1;
    }
    joint.finish(&mut first);
    (count, first)
}

#[test]
fn joined_segments_are_the_packet_they_were_cut_from() {
    for (name, last_flags, length) in [
        ("pushed", 0x18, 250),
        ("not pushed", 0x10, 250),
        ("all of one length", 0x10, 300),
        ("as large as a packet can be", 0x18, 65_535 - 52),
    ] {
        let data = payload(length);
        let whole = packet(5, last_flags, &data);
        let cut = segments(&whole, if length > 300 { 1448 } else { SEGMENT });
        let (count, mut first) = join(&cut);
        assert_eq!(count, cut.len(), "{name}");
        for segment in &cut[1..] {
            first.extend(&segment[52..]);
        }
        assert_eq!(
            u16::from_be_bytes([first[36], first[37]]),
            pseudo_sum(&first, first.len() - 20),
            "{name}: the kernel finishes the checksum"
        );
        first[36..38].copy_from_slice(&whole[36..38]);
        assert_eq!(first, whole, "{name}");
    }
}

#[test]
fn only_the_continuation_is_joined() {
    let data = payload(SEGMENT);
    let first = packet(1000, ACK, &data);
    let next = || packet(1000 + SEGMENT as u32, ACK, &data);
    let changed = |at: usize, value: u8| {
        let mut packet = next();
        packet[at] = value;
        set_checksums(&mut packet);
        packet
    };
    let mut damaged = next();
    damaged[80] ^= 1;
    let mut damaged_first = first.clone();
    damaged_first[80] ^= 1;
    let mut unfinished = next();
    let sum = pseudo_sum(&unfinished, unfinished.len() - 20);
    unfinished[36..38].copy_from_slice(&sum.to_be_bytes());
    let two = |next: Vec<u8>| vec![first.clone(), next];
    let after_short = vec![
        first.clone(),
        packet(1000 + SEGMENT as u32, ACK, &data[..50]),
        packet(1050 + SEGMENT as u32, ACK, &data),
    ];
    let after_push = vec![
        first.clone(),
        packet(1000 + SEGMENT as u32, 0x18, &data),
        packet(1000 + 2 * SEGMENT as u32, ACK, &data),
    ];
    for (name, packets, expected) in [
        ("it", two(next()), 2),
        ("its checksum left to hardware", two(unfinished), 2),
        ("the same again", two(first.clone()), 1),
        ("a gap", two(packet(1001 + SEGMENT as u32, ACK, &data)), 1),
        ("another source", two(changed(15, 9)), 1),
        ("another port", two(changed(21, 9)), 1),
        ("another acknowledgement", two(changed(31, 9)), 1),
        ("another window", two(changed(34, 9)), 1),
        ("another timestamp", two(changed(47, 9)), 1),
        ("another TTL", two(changed(8, 9)), 1),
        ("another congestion mark", two(changed(1, 3)), 1),
        ("may be fragmented", two(changed(6, 0)), 1),
        ("FIN", two(changed(33, 0x11)), 1),
        ("ECE", two(changed(33, 0x50)), 1),
        ("larger", two(packet(1100, ACK, &payload(SEGMENT + 1))), 1),
        ("no payload", two(packet(1100, ACK, &[])), 1),
        ("damaged", two(damaged), 1),
        ("the first damaged", vec![damaged_first, next()], 1),
        ("after a shorter one", after_short, 2),
        ("after a pushed one", after_push, 2),
        ("nothing sane", two(vec![0; 60]), 1),
        (
            "after a pushed first",
            vec![packet(1000, 0x18, &data), next()],
            1,
        ),
        ("after a SYN", vec![packet(1000, 0x02, &data), next()], 1),
    ] {
        assert_eq!(join(&packets).0, expected, "{name}");
    }
}

#[test]
fn datagrams_are_cut_and_joined_as_they_were_sent() {
    let data = payload(250);
    let cut = segments(&datagram(&data), SEGMENT);
    for (index, (segment, part)) in cut.iter().zip(data.chunks(SEGMENT)).enumerate() {
        let mut whole = datagram(part);
        whole[5] += index as u8;
        set_checksums(&mut whole);
        assert_eq!(*segment, whole, "datagram {index}");
    }
    let (count, first) = join(&cut);
    assert_eq!((cut.len(), count), (3, 3));
    assert_eq!(first[2..4], 278_u16.to_be_bytes(), "of the whole");
    assert_eq!(
        first[24..26],
        258_u16.to_be_bytes(),
        "of the whole without IPv4 header"
    );
    let sum = u16::from_be_bytes([first[26], first[27]]);
    assert_eq!(sum, pseudo_sum(&first, 258), "the kernel finishes it");
}

#[test]
fn only_datagrams_between_the_same_sockets_are_joined() {
    let data = payload(SEGMENT);
    let first = datagram(&data);
    let changed = |at: usize, value: u8| {
        let mut packet = first.clone();
        packet[at] = value;
        set_checksums(&mut packet);
        packet
    };
    let without_checksum = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        packet[26..28].fill(0);
        packet
    };
    let mut damaged = first.clone();
    damaged[80] ^= 1;
    let two = |next: Vec<u8>| vec![first.clone(), next];
    let short = datagram(&data[..50]);
    for (name, packets, expected) in [
        ("another of its length", two(first.clone()), 2),
        ("a shorter one", two(short.clone()), 2),
        (
            "after a shorter one",
            vec![first.clone(), short, first.clone()],
            2,
        ),
        ("a longer one", two(datagram(&payload(SEGMENT + 1))), 1),
        ("an empty one", two(datagram(&[])), 1),
        ("another source", two(changed(15, 9)), 1),
        ("another port", two(changed(23, 9)), 1),
        ("another congestion mark", two(changed(1, 3)), 1),
        ("may be fragmented", two(changed(6, 0)), 1),
        ("less than IPv4 says", two(changed(25, 50)), 1),
        ("damaged", two(damaged), 1),
        ("without checksum", two(without_checksum(&first)), 1),
        (
            "the first without",
            vec![without_checksum(&first), first.clone()],
            1,
        ),
        ("a segment of TCP", two(packet(1, ACK, &data)), 1),
    ] {
        assert_eq!(join(&packets).0, expected, "{name}");
    }
}

#[test]
fn a_packet_does_not_grow_beyond_what_ip_can_say() {
    let data = payload(1448);
    let packets: Vec<Vec<u8>> = (0..50)
        .map(|index| packet(index * 1448, ACK, &data))
        .collect();
    let (count, first) = join(&packets);
    assert_eq!(count, 45, "52 + 45 * 1448 fits in 65535, one more does not");
    assert_eq!(u16::from_be_bytes([first[2], first[3]]), 65_212);
}

proptest::proptest! {
    /// Peers send what they like: whatever it is, it is cut and joined or it is not, and the lengths
    /// add up.
    #[test]
    fn any_packets_are_cut_and_joined_without_harm(
        spoilt in proptest::collection::vec((0_usize..160, 0_u8..=255), 0..6),
        shorter in 0_usize..160,
        length in 0_usize..200,
        is_tcp: bool,
    ) {
        let mut whole = if is_tcp { packet(7, ACK, &payload(108)) } else { datagram(&payload(132)) };
        whole.truncate(160 - shorter);
        for (at, value) in spoilt {
            if let Some(byte) = whole.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(packet) = Ipv4::parse(&whole)
            && let Some(mut segmenter) = Segmenter::new(&packet, length)
        {
            let mut cut = Vec::new();
            let mut count = 0;
            while segmenter.append_next(&mut cut) {
                count += 1;
            }
            let (_, headers) = headers_of(&packet).expect("cut");
            proptest::prop_assert_eq!(cut.len(), packet.len() + (count - 1) * headers);
        }
        let next = if is_tcp { packet(7 + 108, ACK, &payload(108)) } else { datagram(&payload(132)) };
        for (first, second) in [(&whole, &next), (&next, &whole)] {
            if let Some(mut joint) = Joint::begin(first) {
                let length = Ipv4::parse(first).expect("begun").len();
                let mut first = first[..length].to_vec();
                joint.extend(&first.clone(), second);
                joint.finish(&mut first);
            }
        }
    }
}
