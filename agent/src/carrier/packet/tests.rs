use proptest::prelude::*;

use super::*;

const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 100);

/// From 172.17.8.2 to 172.17.10.2, DF set, header checksum right.
fn ipv4(protocol: u8, tos: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("short enough");
    let mut packet = vec![0x45, tos, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend([172, 17, 8, 2, 172, 17, 10, 2]);
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    let checksum = !sum_of(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// A TCP packet with `data` bytes of data, CWR as given, and the checksum field as given.
fn tcp(data: usize, has_cwr: bool, checksum: u16) -> Vec<u8> {
    let mut segment = vec![0; 20 + data];
    segment[12] = 5 << 4;
    segment[13] = if has_cwr { 0x90 } else { 0x10 };
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    ipv4(PROTOCOL_TCP, 0, &segment)
}

fn pseudo_sum(packet: &[u8]) -> u16 {
    Ipv4::parse(packet).expect("sane").pseudo_sum()
}

#[test]
fn checksum_follows_rfc_1071() {
    // The example of RFC 1071 §3.
    assert_eq!(
        sum_of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
        0xddf2
    );
    assert_eq!(sum_of(&[0x01]), 0x0100, "an odd octet is padded with zero");
}

#[test]
fn only_sane_ipv4_is_taken() {
    let good = ipv4(PROTOCOL_UDP, 0, &[0; 8]);
    for (name, bytes, length) in [
        ("good", good.clone(), Some(28)),
        (
            "padded, as Ethernet does",
            [good.clone(), vec![0; 18]].concat(),
            Some(28),
        ),
        ("cut short", good[..27].to_vec(), None),
        ("shorter than a header", good[..19].to_vec(), None),
        ("empty", vec![], None),
        ("version 6", with(good.clone(), 0, &[0x65]), None),
        ("header length 16", with(good.clone(), 0, &[0x44]), None),
        (
            "header longer than the packet",
            with(good.clone(), 0, &[0x4f]),
            None,
        ),
        (
            "total length below the header's",
            with(good, 2, &[0, 19]),
            None,
        ),
    ] {
        assert_eq!(
            Ipv4::parse(&bytes).map(|packet| packet.len()),
            length,
            "{name}"
        );
    }
}

#[test]
fn frame_names_its_node() {
    let frame = |mac: [u8; 6], ethertype: [u8; 2]| {
        let mut frame = vec![0; VNET_HEADER];
        frame.extend(mac);
        frame.extend([2; 6]);
        frame.extend(ethertype);
        frame.extend(ipv4(PROTOCOL_UDP, 0, &[]));
        frame
    };
    for (name, bytes, node) in [
        ("a node's MAC", frame(mac_of(NODE), [8, 0]), Some(NODE)),
        ("broadcast", frame([0xff; 6], [8, 0]), None),
        (
            "another vendor's MAC",
            frame([2, 1, 192, 168, 1, 100], [8, 0]),
            None,
        ),
        ("ARP", frame(mac_of(NODE), [8, 6]), None),
        ("IPv6", frame(mac_of(NODE), [0x86, 0xdd]), None),
        (
            "no packet in it",
            frame(mac_of(NODE), [8, 0])[..TAP_HEADER].to_vec(),
            None,
        ),
    ] {
        assert_eq!(parse_frame(&bytes).map(|(node, _)| node), node, "{name}");
    }
}

#[test]
fn outer_tos_is_the_inner_one_but_for_ce() {
    for (name, inner, outer) in [
        ("plain", 0x00, 0x00),
        ("DSCP EF", 0xb8, 0xb8),
        ("ECT(0)", 0x02, 0x02),
        ("ECT(1)", 0x01, 0x01),
        ("CE becomes ECT(0)", 0x03, 0x02),
        ("CE with DSCP", 0xbb, 0xba),
    ] {
        assert_eq!(outer_tos(inner), outer, "{name}");
    }
}

#[test]
fn congestion_on_the_way_reaches_the_inner_packet() {
    // RFC 6040 §4.2, figure 4, the column of an outer CE and one other.
    for (name, outer, inner, expected) in [
        ("no mark outside", 0x02, 0x02, Some(0x02)),
        ("CE outside, not ECN inside", 0x03, 0x00, None),
        ("CE outside, ECT(0) inside", 0x03, 0x02, Some(0x03)),
        ("CE outside, ECT(1) inside", 0x03, 0xb9, Some(0xbb)),
        ("CE on both", 0x03, 0x03, Some(0x03)),
    ] {
        let mut packet = ipv4(PROTOCOL_UDP, inner, &[0; 8]);
        let is_kept = decapsulate_ecn(outer, &mut packet);
        assert_eq!(is_kept.then_some(packet[1]), expected, "{name}");
        assert_eq!(sum_of(&packet[..20]), 0xffff, "{name}: header checksum");
    }
}

#[test]
fn unfinished_checksums_are_marked_and_finished_ones_left() {
    let needs_csum = |offset: u8| {
        let mut vnet = [0; VNET_HEADER];
        vnet[0] = VNET_NEEDS_CSUM;
        vnet[6..8].copy_from_slice(&34_u16.to_ne_bytes());
        vnet[8..10].copy_from_slice(&u16::from(offset).to_ne_bytes());
        vnet
    };
    let none = [0; VNET_HEADER];
    let udp = ipv4(PROTOCOL_UDP, 0, &[0; 12]);
    let unfinished_udp = with(udp.clone(), 26, &pseudo_sum(&udp).to_be_bytes());
    let unfinished_tcp = tcp(100, false, pseudo_sum(&tcp(100, false, 0)));
    for (name, packet, expected) in [
        ("finished TCP", tcp(100, false, 0x1234), none),
        ("unfinished TCP", unfinished_tcp, needs_csum(16)),
        ("finished UDP", with(udp, 26, &[0x12, 0x34]), none),
        ("unfinished UDP", unfinished_udp.clone(), needs_csum(6)),
        (
            "first fragment",
            with(unfinished_udp.clone(), 6, &[0x20, 0]),
            none,
        ),
        ("later fragment", with(unfinished_udp, 6, &[0x00, 9]), none),
        (
            "ICMP",
            ipv4(PROTOCOL_ICMP, 0, &[8, 0, 0, 0, 0, 0, 0, 0]),
            none,
        ),
        (
            "TCP without its header",
            ipv4(PROTOCOL_TCP, 0, &[0; 9]),
            none,
        ),
    ] {
        let mut packet = packet;
        assert_eq!(offload(&mut packet, || 1480), expected, "{name}");
    }
}

#[test]
fn joined_segments_are_to_be_cut_to_the_senders_size() {
    for (name, has_cwr, kind) in [("plain", false, 1), ("with CWR", true, 0x81)] {
        let mut packet = tcp(5000, has_cwr, 0x1234);
        let sum = pseudo_sum(&packet);
        let vnet = offload(&mut packet, || 1480);
        assert_eq!(vnet[..2], [VNET_NEEDS_CSUM, kind], "{name}");
        assert_eq!(
            vnet[2..4],
            54_u16.to_ne_bytes(),
            "{name}: Ethernet, IPv4 and TCP headers"
        );
        assert_eq!(vnet[4..6], 1440_u16.to_ne_bytes(), "{name}: segment");
        assert_eq!(
            packet[36..38],
            sum.to_be_bytes(),
            "{name}: checksum prepared"
        );
    }
    let mut fits = tcp(5000, false, 0x1234);
    assert_eq!(
        offload(&mut fits, || 9000),
        [0; VNET_HEADER],
        "a jumbo path sends such packets"
    );
    let mut short = tcp(1000, false, 0x1234);
    offload(&mut short, || {
        panic!("the MTU of short packets is not asked for")
    });
}

#[test]
fn too_big_is_answered_where_rfc_1122_allows() {
    let udp = ipv4(PROTOCOL_UDP, 0, &[7; 1400]);
    for (name, original, is_answered) in [
        ("UDP", udp.clone(), true),
        ("echo request", ipv4(PROTOCOL_ICMP, 0, &[8; 1400]), true),
        ("ICMP error", ipv4(PROTOCOL_ICMP, 0, &[3; 1400]), false),
        ("later fragment", with(udp.clone(), 6, &[0x40, 9]), false),
        ("from nobody", with(udp.clone(), 12, &[0; 4]), false),
        (
            "from a group",
            with(udp.clone(), 12, &[224, 0, 0, 1]),
            false,
        ),
    ] {
        let original = Ipv4::parse(&original).expect("sane");
        let mut target = vec![0; 2000];
        let length = write_fragmentation_needed(&mut target, &original, 1380);
        assert_eq!(length.is_some(), is_answered, "{name}");
    }
    let original = Ipv4::parse(&udp).expect("sane");
    let mut target = vec![0; 2000];
    let length = write_fragmentation_needed(&mut target, &original, 1380).expect("answered");
    let answer = Ipv4::parse(&target[..length]).expect("sane");
    assert_eq!(length, 576);
    assert_eq!(
        (answer.source(), answer.destination()),
        (original.destination(), original.source())
    );
    assert_eq!(sum_of(&target[..20]), 0xffff, "header checksum");
    assert_eq!(sum_of(&target[20..length]), 0xffff, "ICMP checksum");
    assert_eq!(target[20..22], [3, 4]);
    assert_eq!(target[26..28], 1380_u16.to_be_bytes());
    assert_eq!(target[28..length], udp[..548]);
}

proptest! {
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..20, value: u8) {
        let mut target = vec![0; 1000];
        let mut mutated = tcp(100, false, 7);
        mutated[at] = value;
        for packet in [bytes, mutated] {
            parse_frame(&packet);
            if let Some(packet) = Ipv4::parse(&packet) {
                write_fragmentation_needed(&mut target, &packet, 1380);
            }
            decapsulate_ecn(value, &mut packet.clone());
            offload(&mut packet.clone(), || usize::from(value));
        }
    }
}
