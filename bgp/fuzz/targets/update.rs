//! The body of an UPDATE in every kind of session, and the same routes as we pass them on.
//!
//! The first octet is the session: 1 two-octet AS numbers, 2 external, 4 and 8 path identifiers with
//! IPv4 and IPv6 prefixes.

#![no_main]

use bgp::types::Family;
use bgp::wire::frame::{Frame, MessageKind};
use bgp::wire::update::UpdateContext;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/wire/checks.rs"]
mod checks;

fuzz_target!(|input: &[u8]| {
    let Some((session, body)) = input.split_first() else {
        return;
    };
    let has_path_ids = |family: &Family| match family {
        Family::Ipv4 => session & 4 != 0,
        Family::Ipv6 => session & 8 != 0,
    };
    let context = UpdateContext {
        four_octet_as: session & 1 == 0,
        ebgp: session & 2 != 0,
        add_path: Family::ALL.into_iter().filter(has_path_ids).collect(),
    };
    let frame = Frame {
        kind: MessageKind::Update,
        body: Bytes::copy_from_slice(body),
    };
    checks::decode(&frame, &context);
    checks::pass_on(&frame, &context);
});
