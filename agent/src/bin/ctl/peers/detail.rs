//! `caracal peers PEER`: all about one peer, a line each.

use bgp::speaker::status::{FamilyCounts, PeerStatus};

use super::last_error;

/// A malformed message is cut here; `-o json` has more of it.
const SHOWN_HEX: usize = 128;

pub(super) fn text(peer: &PeerStatus) -> String {
    let mut lines = vec![
        ("peer", format!("{} port {}", peer.peer, peer.port)),
        ("name", format!("{} ({})", peer.name, peer.source)),
        ("state", format!("{} since {}", peer.state, peer.since)),
        ("flaps", peer.flaps.to_string()),
        ("local address", or_none(peer.local)),
        ("AS", as_numbers(peer)),
        ("router id", or_none(peer.router_id.as_ref())),
        ("families", words(&peer.families)),
        ("timers", timers(peer)),
        ("capabilities", words(&peer.capabilities)),
        ("several paths", add_paths(peer)),
        ("role", or_none(peer.role.as_ref())),
        ("received", counts(peer.received)),
        ("accepted", counts(peer.accepted)),
        ("advertised", counts(peer.advertised)),
        ("maximum", or_none(peer.max_prefixes)),
        (
            "malformed",
            format!(
                "{} treated as withdraw, {} attributes discarded",
                peer.update_errors.treat_as_withdraw, peer.update_errors.attribute_discard
            ),
        ),
    ];
    if let Some(malformed) = &peer.last_malformed {
        lines.push((
            "last malformed",
            format!(
                "{} at {}: {}",
                malformed.reason,
                malformed.at,
                cut(&malformed.data_hex)
            ),
        ));
    }
    if let Some(error) = &peer.last_error {
        lines.push(("last error", last_error(error)));
    }
    if let Some(error) = &peer.last_connect_error {
        lines.push((
            "cannot connect",
            format!("{} at {}", error.reason, error.at),
        ));
    }
    let line = |(name, value): (&str, String)| format!("{name:<15} {value}\n");
    lines.into_iter().map(line).collect()
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| String::from("none"), |value| value.to_string())
}

fn words(all: &[String]) -> String {
    match all {
        [] => String::from("none"),
        all => all.join(", "),
    }
}

fn as_numbers(peer: &PeerStatus) -> String {
    let theirs = or_none(peer.peer_asn);
    let client = if peer.client { ", client" } else { "" };
    format!("{theirs}, ours {} ({}{client})", peer.local_asn, peer.kind)
}

fn timers(peer: &PeerStatus) -> String {
    match (peer.hold_time_seconds, peer.keepalive_seconds) {
        (Some(hold), Some(keepalive)) => format!("hold {hold} s, keepalive {keepalive} s"),
        (Some(_), None) | (None, _) => String::from("none"),
    }
}

fn add_paths(peer: &PeerStatus) -> String {
    let (send, receive) = (&peer.add_paths.send, &peer.add_paths.receive);
    format!("send {}; receive {}", words(send), words(receive))
}

fn counts(counts: FamilyCounts) -> String {
    format!("{} ipv4, {} ipv6", counts.ipv4, counts.ipv6)
}

fn cut(hex: &str) -> String {
    match hex.get(..SHOWN_HEX) {
        Some(start) if start.len() < hex.len() => format!("{start}…"),
        Some(_) | None => hex.to_owned(),
    }
}
