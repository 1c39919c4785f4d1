//! The body of a NOTIFICATION, and what we make of it on the wire.

#![no_main]

use bgp::types::FamilySet;
use bgp::wire::frame::{Frame, MessageKind};
use bgp::wire::update::UpdateContext;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/wire/checks.rs"]
mod checks;

/// Means nothing to messages of this kind.
const CONTEXT: UpdateContext = UpdateContext {
    four_octet_as: true,
    ebgp: true,
    add_path: FamilySet::EMPTY,
};

fuzz_target!(|body: &[u8]| {
    let frame = Frame {
        kind: MessageKind::Notification,
        body: Bytes::copy_from_slice(body),
    };
    checks::decode(&frame, &CONTEXT);
    checks::pass_on(&frame, &CONTEXT);
});
