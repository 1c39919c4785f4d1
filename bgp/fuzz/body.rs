//! The body of one message of a kind, and what we make of it on the wire.

use bgp::types::FamilySet;
use bgp::wire::frame::{Frame, MessageKind};
use bgp::wire::update::UpdateContext;
use bytes::Bytes;

#[path = "../tests/wire/checks.rs"]
mod checks;

/// Means nothing to messages other than UPDATE.
const CONTEXT: UpdateContext = UpdateContext {
    four_octet_as: true,
    ebgp: true,
    add_path: FamilySet::EMPTY,
};

pub fn check(kind: MessageKind, body: &[u8]) {
    let frame = Frame {
        kind,
        body: Bytes::copy_from_slice(body),
    };
    checks::decode(&frame, &CONTEXT);
    checks::pass_on(&frame, &CONTEXT);
}
