//! A stream of messages that arrives in pieces, each decoded as a session would.
//!
//! The first octet says how long the pieces are and whether messages may be extended.

#![no_main]

use bgp::types::FamilySet;
use bgp::wire::frame::{HEADER_LEN, MAX_EXTENDED_LEN, MAX_LEN, next_frame};
use bgp::wire::update::UpdateContext;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/wire/checks.rs"]
mod checks;

const CONTEXT: UpdateContext = UpdateContext {
    four_octet_as: true,
    ebgp: true,
    add_path: FamilySet::EMPTY,
};

fuzz_target!(|input: &[u8]| {
    let Some((first, stream)) = input.split_first() else {
        return;
    };
    let max_len = if first & 0x80 == 0 {
        MAX_LEN
    } else {
        MAX_EXTENDED_LEN
    };
    let piece = usize::from(first & 0x7F) + 1;
    let mut buffer = BytesMut::new();
    let mut taken = 0;
    for octets in stream.chunks(piece) {
        buffer.extend_from_slice(octets);
        loop {
            let before = buffer.len();
            match next_frame(&mut buffer, max_len) {
                Ok(Some(frame)) => {
                    let length = HEADER_LEN + frame.body.len();
                    assert!(length <= max_len);
                    assert_eq!(buffer.len() + length, before, "the message is taken whole");
                    taken += length;
                    checks::decode(&frame, &CONTEXT);
                    checks::pass_on(&frame, &CONTEXT);
                }
                Ok(None) => {
                    assert!(buffer.len() < max_len, "what is waited for fits the buffer");
                    break;
                }
                Err(_) => {
                    assert_eq!(buffer.len(), before, "an error takes nothing");
                    return;
                }
            }
        }
    }
    assert_eq!(taken + buffer.len(), stream.len(), "no octet is lost");
});
