//! Two connections to one peer: which one stays (RFC 4271 §6.8). Pure.
//!
//! Decided when a valid OPEN arrives on one of them, never at the TCP handshake, so that a silent
//! second connection changes nothing.

use super::event::Direction;
use crate::types::{Asn, RouterId};

/// What collisions are decided by: identifiers, and AS numbers where those are equal.
///
/// The order of the fields is the order of comparison (RFC 6286 §2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Speaker {
    pub router_id: RouterId,
    pub asn: Asn,
}

/// Which of two connections goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivor {
    Existing,
    New,
}

/// Decides between an `existing` connection in OpenSent or OpenConfirm and a `new` one that just
/// received its OPEN: the one that the higher speaker opened stays.
///
/// Of two that the same side opened the new one stays, because a speaker dials again only after
/// it gave up the connection before.
pub fn resolve(local: Speaker, remote: Speaker, existing: Direction, new: Direction) -> Survivor {
    if existing == new {
        return Survivor::New;
    }
    // Equal identifiers within one AS are refused at OPEN (RFC 6286 §2.2), so there is no tie.
    let preferred = if local > remote {
        Direction::Outgoing
    } else {
        Direction::Incoming
    };
    if new == preferred {
        Survivor::New
    } else {
        Survivor::Existing
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn speaker(last_octet: u8, asn: u32) -> Speaker {
        Speaker {
            router_id: RouterId(Ipv4Addr::new(192, 0, 2, last_octet)),
            asn: Asn(asn),
        }
    }

    #[test]
    fn the_connection_of_the_higher_speaker_stays() {
        use Direction::{Incoming, Outgoing};
        use Survivor::{Existing, New};
        let (low, high) = (speaker(1, 64512), speaker(2, 64512));
        for (name, local, remote, existing, new, survivor) in [
            (
                "local higher, new is ours",
                high,
                low,
                Incoming,
                Outgoing,
                New,
            ),
            (
                "local higher, new is theirs",
                high,
                low,
                Outgoing,
                Incoming,
                Existing,
            ),
            (
                "local lower, new is ours",
                low,
                high,
                Incoming,
                Outgoing,
                Existing,
            ),
            (
                "local lower, new is theirs",
                low,
                high,
                Outgoing,
                Incoming,
                New,
            ),
            ("both theirs", high, low, Incoming, Incoming, New),
            ("both ours", low, high, Outgoing, Outgoing, New),
        ] {
            assert_eq!(resolve(local, remote, existing, new), survivor, "{name}");
        }
    }

    #[test]
    fn equal_identifiers_compare_as_numbers() {
        let (low, high) = (speaker(1, 64512), speaker(1, 64513));
        let theirs_after_ours =
            |local, remote| resolve(local, remote, Direction::Outgoing, Direction::Incoming);
        assert_eq!(theirs_after_ours(low, high), Survivor::New);
        assert_eq!(theirs_after_ours(high, low), Survivor::Existing);
    }

    #[test]
    fn both_sides_keep_the_same_connection() {
        let (low, high) = (speaker(1, 64512), speaker(2, 64513));
        // What one side opened is incoming at the other.
        for (existing, new) in [
            (Direction::Outgoing, Direction::Incoming),
            (Direction::Incoming, Direction::Outgoing),
        ] {
            assert_eq!(
                resolve(low, high, existing, new),
                resolve(high, low, new, existing)
            );
        }
    }
}
