use bgp::types::Family;
use bgp::wire::Notification;
use bgp::wire::notification::{cease, code, fsm, header};

use crate::message::{frame, message};

#[test]
fn shutdown_with_a_message_is_decoded() {
    // RFC 9003 §2: length, then UTF-8.
    let text = "maintenance, see ticket 42";
    let body = [&[6, 2, 26][..], text.as_bytes()].concat();
    let received = Notification::decode(&frame(&message(3, &body)).body).expect("well-formed");
    assert_eq!((received.code, received.subcode), (code::CEASE, 2));
    assert_eq!(received.shutdown_message().as_deref(), Some(text));
    assert_eq!(received.to_string(), "6/2");
    assert_eq!(
        received.describe(),
        "Cease / Administrative Shutdown: \"maintenance, see ticket 42\""
    );
    assert_eq!(received.encode(), message(3, &body));
    let ours = Notification::cease_with_message(cease::ADMINISTRATIVE_SHUTDOWN, text);
    assert_eq!(ours, received);
}

#[test]
fn a_shutdown_message_can_harm_nobody() {
    for (name, data, text) in [
        ("none", &[][..], None),
        ("empty", &[0], None),
        ("length beyond the data", &[200, b'h', b'i'], Some("hi")),
        ("more data than length", &[2, b'h', b'i', b'!'], Some("hi")),
        ("bad UTF-8", &[2, 0xFF, b'i'], Some("\u{FFFD}i")),
        (
            "escape sequence",
            &[3, 0x1B, b'[', b'm'],
            Some("\u{FFFD}[m"),
        ),
        ("line break", &[3, b'a', b'\n', b'b'], Some("a\u{FFFD}b")),
    ] {
        let received = Notification::with_data(6, 4, data);
        assert_eq!(received.shutdown_message().as_deref(), text, "{name}");
    }
    assert_eq!(
        Notification::with_data(6, 3, [2, b'h', b'i']).shutdown_message(),
        None
    );
}

#[test]
fn long_texts_are_cut_between_characters() {
    let ours = Notification::cease_with_message(2, &"ä".repeat(200));
    assert_eq!(ours.data.len(), 1 + 254);
    assert_eq!(ours.shutdown_message(), Some("ä".repeat(127)));
}

#[test]
fn every_code_has_a_name() {
    for (code, subcode, text) in [
        (1, 2, "Message Header Error / Bad Message Length"),
        (2, 6, "OPEN Message Error / Unacceptable Hold Time"),
        (2, 5, "OPEN Message Error / subcode 5"),
        (3, 11, "UPDATE Message Error / Malformed AS_PATH"),
        (4, 0, "Hold Timer Expired"),
        (
            5,
            2,
            "Finite State Machine Error / Unexpected Message in OpenConfirm",
        ),
        (6, 7, "Cease / Connection Collision Resolution"),
        (6, 99, "Cease / subcode 99"),
        (7, 1, "ROUTE-REFRESH Message Error / Invalid Message Length"),
        (8, 0, "Send Hold Timer Expired"),
        (200, 1, "code 200 / subcode 1"),
    ] {
        assert_eq!(Notification::new(code, subcode).describe(), text);
    }
}

#[test]
fn constructors_say_what_their_rfcs_ask_for() {
    for (name, notification, code, subcode, data) in [
        (
            "hold timer",
            Notification::hold_timer_expired(),
            4,
            0,
            &[][..],
        ),
        (
            "send hold timer",
            Notification::send_hold_timer_expired(),
            8,
            0,
            &[],
        ),
        ("fsm", Notification::fsm_error(fsm::OPEN_CONFIRM), 5, 2, &[]),
        (
            "cease",
            Notification::cease(cease::PEER_DECONFIGURED),
            6,
            3,
            &[],
        ),
        (
            "maximum prefixes, RFC 4486 §4",
            Notification::maximum_prefixes(Family::Ipv6, 1000),
            6,
            1,
            &[0, 2, 1, 0, 0, 3, 0xE8],
        ),
        (
            "hard reset, RFC 8538 §3.1",
            Notification::hard_reset(&Notification::with_data(6, 2, [1, b'x'])),
            6,
            9,
            &[6, 2, 1, b'x'],
        ),
    ] {
        assert_eq!(
            notification,
            Notification::with_data(code, subcode, data),
            "{name}"
        );
    }
}

#[test]
fn a_hard_reset_says_what_is_inside() {
    let reset = Notification::with_data(6, 9, [6, 3]);
    assert!(reset.is_hard_reset());
    assert_eq!(reset.hard_reset_reason(), Some(Notification::new(6, 3)));
    assert_eq!(
        reset.describe(),
        "Cease / Hard Reset (Cease / Peer De-configured)"
    );
    assert_eq!(Notification::new(6, 9).hard_reset_reason(), None);
    assert_eq!(Notification::new(6, 9).describe(), "Cease / Hard Reset");
}

#[test]
fn too_short_a_body_is_an_error_and_too_much_data_is_cut() {
    for body in [&[][..], &[6]] {
        let error = Notification::decode(body).expect_err("too short");
        assert_eq!(error.notification.subcode, header::BAD_LENGTH);
    }
    let large = Notification::with_data(3, 1, vec![7; 70_000]);
    assert_eq!(large.encode().len(), 4096);
}

#[test]
fn a_hard_reset_passes_on_the_words_inside_and_looks_no_deeper() {
    let shutdown = Notification::cease_with_message(2, "gone fishing");
    let reset = Notification::hard_reset(&shutdown);
    assert_eq!(
        reset.describe(),
        "Cease / Hard Reset (Cease / Administrative Shutdown: \"gone fishing\")"
    );
    assert_eq!(
        Notification::hard_reset(&reset).describe(),
        "Cease / Hard Reset (Cease / Hard Reset)"
    );
}
