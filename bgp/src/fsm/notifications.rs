//! The NOTIFICATIONs that the state machine itself sends.

use super::event::State;
use crate::types::Family;
use crate::wire::{Notification, ProtocolError};

/// A message type as it stands in the header (RFC 4271 §4.1, RFC 2918 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MessageType {
    Open = 1,
    Update = 2,
    Keepalive = 4,
    RouteRefresh = 5,
}

/// RFC 4271 §6.2: the peer says another AS than it should.
pub(super) fn bad_peer_as() -> Notification {
    Notification {
        code: 2,
        subcode: 2,
        data: Vec::new(),
    }
}

/// RFC 4271 §6.2.
pub(super) fn bad_bgp_identifier() -> Notification {
    Notification {
        code: 2,
        subcode: 3,
        data: Vec::new(),
    }
}

/// RFC 5492 §3 and §5: no family in common. The data lists the capabilities we would have needed.
pub(super) fn unsupported_capability(families: &[Family]) -> Notification {
    let multiprotocol = |family: &Family| {
        let [high, low] = family.afi().to_be_bytes();
        [1, 4, high, low, 0, 1]
    };
    Notification {
        code: 2,
        subcode: 7,
        data: families.iter().flat_map(multiprotocol).collect(),
    }
}

/// RFC 4271 §6.5.
pub(super) fn hold_timer_expired() -> Notification {
    Notification {
        code: 4,
        subcode: 0,
        data: Vec::new(),
    }
}

/// RFC 9687 §3.2. Never written to the stuck connection, but kept as the last error.
pub(super) fn send_hold_timer_expired() -> Notification {
    Notification {
        code: 8,
        subcode: 0,
        data: Vec::new(),
    }
}

/// RFC 4486 §4.
pub(super) fn connection_collision() -> Notification {
    Notification {
        code: 6,
        subcode: 7,
        data: Vec::new(),
    }
}

/// RFC 6608 §3: a message that has no place in this state. The data is its type.
pub(super) fn unexpected_message(state: State, message: MessageType) -> ProtocolError {
    let subcode = match state {
        State::OpenSent => 1,
        State::OpenConfirm => 2,
        State::Established => 3,
        // No message can arrive without a connection, and every connection is in one of the above.
        State::Idle | State::Connect | State::Active => 0,
    };
    ProtocolError {
        notification: Notification {
            code: 5,
            subcode,
            data: vec![message as u8],
        },
        reason: format!("unexpected {message:?} message in state {state:?}"),
    }
}
