use bgp::types::Family;
use bgp::wire::refresh::{RefreshKind, RouteRefresh};

use crate::message::message;

#[test]
fn requests_and_markers_of_our_families_are_decoded() {
    // AFI, subtype, SAFI: RFC 2918 §3, RFC 7313 §3.2.
    for (body, family, kind) in [
        ([0, 1, 0, 1], Family::Ipv4, RefreshKind::Request),
        ([0, 2, 0, 1], Family::Ipv6, RefreshKind::Request),
        ([0, 1, 1, 1], Family::Ipv4, RefreshKind::Begin),
        ([0, 2, 2, 1], Family::Ipv6, RefreshKind::End),
    ] {
        let refresh = RouteRefresh { family, kind };
        assert_eq!(RouteRefresh::decode(&body), Ok(Some(refresh)));
        assert_eq!(refresh.encode(), message(5, &body));
    }
}

#[test]
fn foreign_families_and_unknown_subtypes_are_ignored() {
    for body in [
        [0, 1, 0, 128],
        [0, 25, 0, 70],
        [0, 1, 3, 1],
        [0, 1, 255, 1],
        [0, 0, 0, 0],
    ] {
        assert_eq!(RouteRefresh::decode(&body), Ok(None), "{body:?}");
    }
}

#[test]
fn a_wrong_length_is_answered_with_the_whole_message() {
    for body in [&[][..], &[0, 1, 0], &[0, 1, 0, 1, 0], &[0, 1, 1, 1, 9, 9]] {
        let error = RouteRefresh::decode(body).expect_err("wrong length");
        let notification = error.notification;
        assert_eq!(
            (notification.code, notification.subcode),
            (7, 1),
            "{body:?}"
        );
        assert_eq!(notification.data, message(5, body), "{body:?}");
    }
}
