//! The NOTIFICATIONs of the state machine whose data needs thought.

use super::event::State;
use crate::types::Family;
use crate::wire::notification::{code, fsm, open};
use crate::wire::{Notification, ProtocolError};

/// A message type as it stands in the header (RFC 4271 §4.1, RFC 2918 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MessageType {
    Open = 1,
    Update = 2,
    Keepalive = 4,
    RouteRefresh = 5,
}

/// RFC 5492 §3 and §5: no family in common. The data lists the capabilities we would have needed.
pub(super) fn unsupported_capability(families: &[Family]) -> Notification {
    let multiprotocol = |family: &Family| {
        let [high, low] = family.afi().to_be_bytes();
        [1, 4, high, low, 0, 1]
    };
    let data: Vec<u8> = families.iter().flat_map(multiprotocol).collect();
    Notification::with_data(code::OPEN, open::UNSUPPORTED_CAPABILITY, data)
}

/// RFC 6608 §3: a message that has no place in this state. The data is its type.
pub(super) fn unexpected_message(state: State, message: MessageType) -> ProtocolError {
    let subcode = match state {
        State::OpenSent => fsm::OPEN_SENT,
        State::OpenConfirm => fsm::OPEN_CONFIRM,
        State::Established => fsm::ESTABLISHED,
        // No message can arrive without a connection, and every connection is in one of the above.
        State::Idle | State::Connect | State::Active => 0,
    };
    ProtocolError::new(
        Notification::with_data(code::FSM, subcode, [message as u8]),
        format!("unexpected {message:?} message in state {state:?}"),
    )
}
