//! NOTIFICATION (RFC 4271 §4.5): codes, subcodes, their names, and what their data says.
//!
//! Bytes in, a [`Notification`] out, and back. Which NOTIFICATION answers which event is decided by
//! the decoders and by the session.

use std::fmt;

use bytes::{BufMut, Bytes};

use super::error::ProtocolError;
use super::frame::{self, HEADER_LEN, MAX_LEN, MessageKind};
use super::reader::printable;
use crate::types::Family;

/// Error codes (IANA "BGP Error (Notification) Codes").
pub mod code {
    pub const HEADER: u8 = 1;
    pub const OPEN: u8 = 2;
    pub const UPDATE: u8 = 3;
    pub const HOLD_TIMER_EXPIRED: u8 = 4;
    pub const FSM: u8 = 5;
    pub const CEASE: u8 = 6;
    /// RFC 7313 §5.
    pub const ROUTE_REFRESH: u8 = 7;
    /// RFC 9687.
    pub const SEND_HOLD_TIMER_EXPIRED: u8 = 8;
}

/// Subcodes of a message header error (RFC 4271 §6.1).
pub mod header {
    pub const NOT_SYNCHRONIZED: u8 = 1;
    pub const BAD_LENGTH: u8 = 2;
    pub const BAD_TYPE: u8 = 3;
}

/// Subcodes of an OPEN message error (RFC 4271 §6.2, RFC 5492, RFC 9234).
pub mod open {
    pub const UNSPECIFIC: u8 = 0;
    pub const UNSUPPORTED_VERSION: u8 = 1;
    pub const BAD_PEER_AS: u8 = 2;
    pub const BAD_BGP_IDENTIFIER: u8 = 3;
    pub const UNSUPPORTED_OPTIONAL_PARAMETER: u8 = 4;
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    pub const ROLE_MISMATCH: u8 = 11;
}

/// Subcodes of an UPDATE message error (RFC 4271 §6.3).
pub mod update {
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    pub const UNRECOGNIZED_WELL_KNOWN: u8 = 2;
    pub const MISSING_WELL_KNOWN: u8 = 3;
    pub const ATTRIBUTE_FLAGS: u8 = 4;
    pub const ATTRIBUTE_LENGTH: u8 = 5;
    pub const INVALID_ORIGIN: u8 = 6;
    pub const INVALID_NEXT_HOP: u8 = 8;
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    pub const INVALID_NETWORK_FIELD: u8 = 10;
    pub const MALFORMED_AS_PATH: u8 = 11;
}

/// Subcodes of a finite state machine error: the state the unexpected message came in (RFC 6608).
pub mod fsm {
    pub const OPEN_SENT: u8 = 1;
    pub const OPEN_CONFIRM: u8 = 2;
    pub const ESTABLISHED: u8 = 3;
}

/// Subcodes of a Cease (RFC 4486, RFC 8538, RFC 9384).
pub mod cease {
    pub const MAXIMUM_PREFIXES: u8 = 1;
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    pub const PEER_DECONFIGURED: u8 = 3;
    pub const ADMINISTRATIVE_RESET: u8 = 4;
    pub const CONNECTION_REJECTED: u8 = 5;
    pub const OTHER_CONFIGURATION_CHANGE: u8 = 6;
    pub const COLLISION_RESOLUTION: u8 = 7;
    pub const OUT_OF_RESOURCES: u8 = 8;
    pub const HARD_RESET: u8 = 9;
    pub const BFD_DOWN: u8 = 10;
}

/// Subcodes of a ROUTE-REFRESH message error (RFC 7313 §5).
pub mod refresh {
    pub const INVALID_LENGTH: u8 = 1;
}

/// A NOTIFICATION as it is on the wire. `data` is what the code asks for, at most what fits the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    pub code: u8,
    pub subcode: u8,
    pub data: Vec<u8>,
}

impl Notification {
    pub fn new(code: u8, subcode: u8) -> Notification {
        Notification::with_data(code, subcode, Vec::new())
    }

    pub fn with_data(code: u8, subcode: u8, data: impl Into<Vec<u8>>) -> Notification {
        Notification {
            code,
            subcode,
            data: data.into(),
        }
    }

    /// A Cease with a subcode of [`cease`] and no data.
    pub fn cease(subcode: u8) -> Notification {
        Notification::new(code::CEASE, subcode)
    }

    /// Administrative Shutdown or Administrative Reset with a word for the peer's operator.
    /// The text is cut to 255 octets at a character boundary; an empty one adds no data.
    pub fn cease_with_message(subcode: u8, message: &str) -> Notification {
        let end = (0..=message.len().min(255)).rfind(|end| message.is_char_boundary(*end));
        let text = end.and_then(|end| message.get(..end)).unwrap_or_default();
        let mut data = Vec::new();
        // RFC 9003 §2: one octet of length, then UTF-8.
        if let (Ok(length), false) = (u8::try_from(text.len()), text.is_empty()) {
            data.push(length);
            data.extend_from_slice(text.as_bytes());
        }
        Notification::with_data(code::CEASE, subcode, data)
    }

    /// Cease / Maximum Number of Prefixes Reached, saying which limit (RFC 4486 §4).
    pub fn maximum_prefixes(family: Family, limit: u32) -> Notification {
        let mut data = Vec::with_capacity(7);
        data.put_u16(family.afi());
        data.put_u8(frame::SAFI_UNICAST);
        data.put_u32(limit);
        Notification::with_data(code::CEASE, cease::MAXIMUM_PREFIXES, data)
    }

    /// Cease / Hard Reset around `inner`: the peer must not keep our routes (RFC 8538 §3.1).
    pub fn hard_reset(inner: &Notification) -> Notification {
        let mut data = vec![inner.code, inner.subcode];
        data.extend_from_slice(&inner.data);
        Notification::with_data(code::CEASE, cease::HARD_RESET, data)
    }

    pub fn hold_timer_expired() -> Notification {
        Notification::new(code::HOLD_TIMER_EXPIRED, 0)
    }

    pub fn send_hold_timer_expired() -> Notification {
        Notification::new(code::SEND_HOLD_TIMER_EXPIRED, 0)
    }

    /// A message that does not belong into a state, which is one of [`fsm`].
    pub fn fsm_error(state: u8) -> Notification {
        Notification::new(code::FSM, state)
    }

    pub fn is_hard_reset(&self) -> bool {
        (self.code, self.subcode) == (code::CEASE, cease::HARD_RESET)
    }

    /// What a Hard Reset carries inside, if it carries anything.
    pub fn hard_reset_reason(&self) -> Option<Notification> {
        match self.data.as_slice() {
            [code, subcode, data @ ..] if self.is_hard_reset() => {
                Some(Notification::with_data(*code, *subcode, data))
            }
            _ => None,
        }
    }

    /// The operator's words in an Administrative Shutdown or Reset (RFC 9003): at most 255 octets,
    /// bad UTF-8 and control characters replaced. `None` if there are none.
    pub fn shutdown_message(&self) -> Option<String> {
        let carries_text = self.code == code::CEASE
            && [cease::ADMINISTRATIVE_SHUTDOWN, cease::ADMINISTRATIVE_RESET]
                .contains(&self.subcode);
        let (length, text) = self.data.split_first().filter(|_| carries_text)?;
        // A length beyond the data is the sender's mistake; what is there is still worth reading.
        let text = text.get(..usize::from(*length)).unwrap_or(text);
        let text = text.get(..255).unwrap_or(text);
        (!text.is_empty()).then(|| printable(text))
    }

    /// Names of code and subcode for people: `Cease / Administrative Shutdown`, followed by
    /// `: "text"` where the sender added a message, or by the same of what a Hard Reset carries, in
    /// parentheses.
    pub fn describe(&self) -> String {
        match self.hard_reset_reason() {
            // One level: a peer can nest them as deep as a message is long.
            Some(inner) => format!("{} ({})", self.name(), inner.describe_itself()),
            None => self.describe_itself(),
        }
    }

    /// # Errors
    /// 1/2 if the two octets of code and subcode are not there. It can be logged, but a NOTIFICATION
    /// is never answered by another one (RFC 4271 §6.4).
    pub fn decode(body: &[u8]) -> Result<Notification, ProtocolError> {
        match body {
            [code, subcode, data @ ..] => Ok(Notification::with_data(*code, *subcode, data)),
            _ => Err(frame::bad_length(HEADER_LEN + body.len())),
        }
    }

    /// The whole message. Data that does not fit 4096 octets is cut.
    pub fn encode(&self) -> Bytes {
        let room = MAX_LEN - HEADER_LEN - 2;
        let data = self.data.get(..room).unwrap_or(&self.data);
        let mut message = frame::begin(MessageKind::Notification, 2 + data.len());
        message.put_u8(self.code);
        message.put_u8(self.subcode);
        message.put_slice(data);
        frame::finish(message)
    }

    fn describe_itself(&self) -> String {
        let name = self.name();
        match self.shutdown_message() {
            Some(message) => format!("{name}: \"{message}\""),
            None => name,
        }
    }

    fn name(&self) -> String {
        let code = match code_name(self.code) {
            Some(name) => name.to_owned(),
            None => format!("code {}", self.code),
        };
        match (subcode_name(self.code, self.subcode), self.subcode) {
            (Some(name), _) => format!("{code} / {name}"),
            (None, 0) => code,
            (None, subcode) => format!("{code} / subcode {subcode}"),
        }
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.code, self.subcode)
    }
}

fn code_name(code: u8) -> Option<&'static str> {
    Some(match code {
        code::HEADER => "Message Header Error",
        code::OPEN => "OPEN Message Error",
        code::UPDATE => "UPDATE Message Error",
        code::HOLD_TIMER_EXPIRED => "Hold Timer Expired",
        code::FSM => "Finite State Machine Error",
        code::CEASE => "Cease",
        code::ROUTE_REFRESH => "ROUTE-REFRESH Message Error",
        code::SEND_HOLD_TIMER_EXPIRED => "Send Hold Timer Expired",
        _ => return None,
    })
}

fn subcode_name(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (code::HEADER, header::NOT_SYNCHRONIZED) => "Connection Not Synchronized",
        (code::HEADER, header::BAD_LENGTH) => "Bad Message Length",
        (code::HEADER, header::BAD_TYPE) => "Bad Message Type",
        (code::OPEN, open::UNSUPPORTED_VERSION) => "Unsupported Version Number",
        (code::OPEN, open::BAD_PEER_AS) => "Bad Peer AS",
        (code::OPEN, open::BAD_BGP_IDENTIFIER) => "Bad BGP Identifier",
        (code::OPEN, open::UNSUPPORTED_OPTIONAL_PARAMETER) => "Unsupported Optional Parameter",
        (code::OPEN, open::UNACCEPTABLE_HOLD_TIME) => "Unacceptable Hold Time",
        (code::OPEN, open::UNSUPPORTED_CAPABILITY) => "Unsupported Capability",
        (code::OPEN, open::ROLE_MISMATCH) => "Role Mismatch",
        (code::UPDATE, update::MALFORMED_ATTRIBUTE_LIST) => "Malformed Attribute List",
        (code::UPDATE, update::UNRECOGNIZED_WELL_KNOWN) => "Unrecognized Well-known Attribute",
        (code::UPDATE, update::MISSING_WELL_KNOWN) => "Missing Well-known Attribute",
        (code::UPDATE, update::ATTRIBUTE_FLAGS) => "Attribute Flags Error",
        (code::UPDATE, update::ATTRIBUTE_LENGTH) => "Attribute Length Error",
        (code::UPDATE, update::INVALID_ORIGIN) => "Invalid ORIGIN Attribute",
        (code::UPDATE, update::INVALID_NEXT_HOP) => "Invalid NEXT_HOP Attribute",
        (code::UPDATE, update::OPTIONAL_ATTRIBUTE) => "Optional Attribute Error",
        (code::UPDATE, update::INVALID_NETWORK_FIELD) => "Invalid Network Field",
        (code::UPDATE, update::MALFORMED_AS_PATH) => "Malformed AS_PATH",
        (code::FSM, fsm::OPEN_SENT) => "Unexpected Message in OpenSent",
        (code::FSM, fsm::OPEN_CONFIRM) => "Unexpected Message in OpenConfirm",
        (code::FSM, fsm::ESTABLISHED) => "Unexpected Message in Established",
        (code::CEASE, cease::MAXIMUM_PREFIXES) => "Maximum Number of Prefixes Reached",
        (code::CEASE, cease::ADMINISTRATIVE_SHUTDOWN) => "Administrative Shutdown",
        (code::CEASE, cease::PEER_DECONFIGURED) => "Peer De-configured",
        (code::CEASE, cease::ADMINISTRATIVE_RESET) => "Administrative Reset",
        (code::CEASE, cease::CONNECTION_REJECTED) => "Connection Rejected",
        (code::CEASE, cease::OTHER_CONFIGURATION_CHANGE) => "Other Configuration Change",
        (code::CEASE, cease::COLLISION_RESOLUTION) => "Connection Collision Resolution",
        (code::CEASE, cease::OUT_OF_RESOURCES) => "Out of Resources",
        (code::CEASE, cease::HARD_RESET) => "Hard Reset",
        (code::CEASE, cease::BFD_DOWN) => "BFD Down",
        (code::ROUTE_REFRESH, refresh::INVALID_LENGTH) => "Invalid Message Length",
        _ => return None,
    })
}
