use bgp::wire::frame::{HEADER_LEN, MAX_EXTENDED_LEN, MAX_LEN, MessageKind, keepalive, next_frame};
use bytes::BytesMut;

use crate::message::message;

fn header(length: u16, kind: u8) -> Vec<u8> {
    let mut bytes = message(kind, &[]);
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn header_matrix() {
    let bad_marker = [&[0xFF; 15][..], &[0xFE, 0, 19, 4]].concat();
    for (name, bytes, max_len, code, subcode, data) in [
        ("marker", bad_marker, MAX_LEN, 1, 1, vec![]),
        ("length 0", header(0, 2), MAX_LEN, 1, 2, vec![0, 0]),
        ("length 18", header(18, 4), MAX_LEN, 1, 2, vec![0, 18]),
        ("length 4097", header(4097, 2), MAX_LEN, 1, 2, vec![0x10, 1]),
        (
            "length 65535",
            header(65535, 2),
            MAX_LEN,
            1,
            2,
            vec![255, 255],
        ),
        (
            "extended OPEN",
            header(4097, 1),
            MAX_EXTENDED_LEN,
            1,
            2,
            vec![0x10, 1],
        ),
        ("short OPEN", header(28, 1), MAX_LEN, 1, 2, vec![0, 28]),
        ("short UPDATE", header(22, 2), MAX_LEN, 1, 2, vec![0, 22]),
        (
            "short NOTIFICATION",
            header(20, 3),
            MAX_LEN,
            1,
            2,
            vec![0, 20],
        ),
        ("long KEEPALIVE", header(20, 4), MAX_LEN, 1, 2, vec![0, 20]),
        ("type 0", header(19, 0), MAX_LEN, 1, 3, vec![0]),
        ("type 6", header(19, 6), MAX_LEN, 1, 3, vec![6]),
        ("type 255", header(4096, 255), MAX_LEN, 1, 3, vec![255]),
    ] {
        let error = next_frame(&mut BytesMut::from(&bytes[..]), max_len).expect_err(name);
        let notification = error.notification;
        assert_eq!(
            (notification.code, notification.subcode),
            (code, subcode),
            "{name}"
        );
        assert_eq!(notification.data, data, "{name}");
    }
}

#[test]
fn lengths_at_the_edges_are_accepted() {
    for (name, length, kind, max_len) in [
        ("OPEN of 29", 29, 1, MAX_LEN),
        (
            "OPEN of 4096 in an extended session",
            4096,
            1,
            MAX_EXTENDED_LEN,
        ),
        ("UPDATE of 23", 23, 2, MAX_LEN),
        ("UPDATE of 4096", 4096, 2, MAX_LEN),
        ("UPDATE of 65535", 65535, 2, MAX_EXTENDED_LEN),
        ("NOTIFICATION of 21", 21, 3, MAX_LEN),
        (
            "ROUTE-REFRESH of 19, answered by its own code",
            19,
            5,
            MAX_LEN,
        ),
    ] {
        let mut bytes = header(length, kind);
        bytes.resize(usize::from(length), 0);
        let mut buffer = BytesMut::from(&bytes[..]);
        let frame = next_frame(&mut buffer, max_len).expect(name).expect(name);
        assert_eq!(frame.body.len(), usize::from(length) - HEADER_LEN, "{name}");
    }
}

#[test]
fn messages_are_cut_wherever_the_stream_pauses() {
    let stream = [
        &message(4, &[])[..],
        &message(2, &[0; 4]),
        &message(5, &[0, 1, 0, 1]),
    ]
    .concat();
    let mut buffer = BytesMut::new();
    let mut kinds = Vec::new();
    for octet in &stream {
        buffer.extend_from_slice(&[*octet]);
        while let Some(frame) = next_frame(&mut buffer, MAX_LEN).expect("well-formed") {
            kinds.push(frame.kind);
        }
    }
    assert_eq!(
        kinds,
        [
            MessageKind::Keepalive,
            MessageKind::Update,
            MessageKind::RouteRefresh
        ]
    );
    assert!(buffer.is_empty());
}

#[test]
fn three_messages_in_one_segment_are_three_frames() {
    let mut buffer = BytesMut::from(&message(4, &[]).repeat(3)[..]);
    for _ in 0..3 {
        let frame = next_frame(&mut buffer, MAX_LEN).expect("well-formed");
        assert_eq!(frame.expect("whole").kind, MessageKind::Keepalive);
    }
    assert_eq!(next_frame(&mut buffer, MAX_LEN), Ok(None));
}

#[test]
fn a_bad_header_does_not_wait_for_its_body() {
    let bytes = header(65535, 2);
    assert!(next_frame(&mut BytesMut::from(&bytes[..]), MAX_LEN).is_err());
    assert_eq!(
        next_frame(&mut BytesMut::from(&bytes[..18]), MAX_LEN),
        Ok(None)
    );
}

#[test]
fn our_keepalive_is_nineteen_octets() {
    // RFC 4271 §4.4: the header alone.
    let expected = [&[0xFF; 16][..], &[0, 19, 4]].concat();
    assert_eq!(keepalive(), expected);
}
