//! Framing: the 19-octet header (RFC 4271 §4.1) and where one message ends.
//!
//! Takes bytes as they come from a connection and cuts them into messages without copying. A header
//! is judged as soon as it is complete, so that a bad one never makes us wait for its body.
//! What a body says is left to the modules named after the messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::ProtocolError;
use super::notification::{Notification, code, header};

/// Marker, length and type.
pub const HEADER_LEN: usize = 19;
/// The longest message unless both sides sent the extended message capability.
pub const MAX_LEN: usize = 4096;
/// The longest message with that capability (RFC 8654 §4).
pub const MAX_EXTENDED_LEN: usize = 65535;

/// The SAFI of all our families.
pub(crate) const SAFI_UNICAST: u8 = 1;

const MARKER: [u8; 16] = [0xFF; 16];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MessageKind {
    Open,
    Update,
    Notification,
    Keepalive,
    RouteRefresh,
}

impl MessageKind {
    fn from_octet(octet: u8) -> Option<MessageKind> {
        match octet {
            1 => Some(MessageKind::Open),
            2 => Some(MessageKind::Update),
            3 => Some(MessageKind::Notification),
            4 => Some(MessageKind::Keepalive),
            5 => Some(MessageKind::RouteRefresh),
            _ => None,
        }
    }

    fn octet(self) -> u8 {
        match self {
            MessageKind::Open => 1,
            MessageKind::Update => 2,
            MessageKind::Notification => 3,
            MessageKind::Keepalive => 4,
            MessageKind::RouteRefresh => 5,
        }
    }

    /// Shortest and longest message of this kind, header included, within a session's `max_len`.
    fn length_range(self, max_len: usize) -> std::ops::RangeInclusive<usize> {
        match self {
            // RFC 8654 §4: OPEN and KEEPALIVE are never extended.
            MessageKind::Open => 29..=max_len.min(MAX_LEN),
            MessageKind::Update => 23..=max_len,
            MessageKind::Notification => 21..=max_len,
            MessageKind::Keepalive => HEADER_LEN..=HEADER_LEN,
            // Too short a body has an error code of its own, 7/1 (RFC 7313 §5).
            MessageKind::RouteRefresh => HEADER_LEN..=max_len,
        }
    }
}

/// One message without its header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: MessageKind,
    pub body: Bytes,
}

/// Takes the next whole message from the front of `buffer`; `None` if it has not all arrived.
///
/// `max_len` is [`MAX_LEN`], or [`MAX_EXTENDED_LEN`] where that was negotiated. A buffer of that
/// many octets always yields a message or an error.
///
/// # Errors
/// 1/1, 1/2 or 1/3 (RFC 4271 §6.1), as soon as the header is there. The buffer is then left alone:
/// the stream has no next message.
pub fn next_frame(buffer: &mut BytesMut, max_len: usize) -> Result<Option<Frame>, ProtocolError> {
    let Some((marker, rest)) = buffer.split_first_chunk::<16>() else {
        return Ok(None);
    };
    let [high, low, kind, ..] = *rest else {
        return Ok(None);
    };
    if *marker != MARKER {
        return Err(ProtocolError::new(
            Notification::new(code::HEADER, header::NOT_SYNCHRONIZED),
            "the marker is not all ones",
        ));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(HEADER_LEN..=max_len).contains(&length) {
        return Err(bad_length(length));
    }
    let Some(kind) = MessageKind::from_octet(kind) else {
        return Err(ProtocolError::new(
            Notification::with_data(code::HEADER, header::BAD_TYPE, [kind]),
            format!("message type {kind} is unknown"),
        ));
    };
    if !kind.length_range(max_len).contains(&length) {
        return Err(bad_length(length));
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let mut body = buffer.split_to(length);
    body.advance(HEADER_LEN);
    Ok(Some(Frame {
        kind,
        body: body.freeze(),
    }))
}

/// A whole KEEPALIVE.
pub fn keepalive() -> Bytes {
    finish(begin(MessageKind::Keepalive, 0))
}

/// 1/2 with the length as data, in the two octets it had (RFC 4271 §6.1).
pub(super) fn bad_length(length: usize) -> ProtocolError {
    let octets = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    ProtocolError::new(
        Notification::with_data(code::HEADER, header::BAD_LENGTH, octets),
        format!("a message of this type cannot have {length} octets"),
    )
}

/// A message with its header, whose length is set by [`finish`], and room for the body.
pub(super) fn begin(kind: MessageKind, body_len: usize) -> BytesMut {
    let mut message = BytesMut::with_capacity(HEADER_LEN + body_len);
    begin_in(&mut message, kind);
    message
}

/// Sets the length, which encoders keep within what was negotiated.
pub(super) fn finish(mut message: BytesMut) -> Bytes {
    finish_in(&mut message, 0);
    message.freeze()
}

/// Puts the header of one more message behind what `out` holds. Returns where it begins.
pub(super) fn begin_in(out: &mut BytesMut, kind: MessageKind) -> usize {
    let start = out.len();
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind.octet());
    start
}

/// Sets the length of the message that begins at `start` and ends where `out` does.
pub(super) fn finish_in(out: &mut BytesMut, start: usize) {
    let length = out.len().saturating_sub(start);
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    if let Some(octets) = out.get_mut(start + 16..start + 18) {
        octets.copy_from_slice(&length.to_be_bytes());
    }
}

/// The length of the message at the front of `octets`, which we encoded; at least a header's, so
/// that who goes from one to the next gets on.
pub(crate) fn length_at(octets: &[u8]) -> usize {
    let length = octets.get(16..18).and_then(<[u8]>::first_chunk::<2>);
    let length = length.map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
    length.max(HEADER_LEN)
}

/// How many messages that we encoded `octets` are.
pub(crate) fn messages_in(mut octets: &[u8]) -> usize {
    let mut count = 0;
    while !octets.is_empty() {
        octets = octets.get(length_at(octets)..).unwrap_or_default();
        count += 1;
    }
    count
}

/// Messages that we encoded one behind the other, each by itself.
pub(super) fn split(mut octets: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !octets.is_empty() {
        let length = length_at(&octets).min(octets.len());
        messages.push(octets.split_to(length));
    }
    messages
}
