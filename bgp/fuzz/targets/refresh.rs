//! The body of a ROUTE-REFRESH, and what we make of it on the wire.

#![no_main]

use bgp::wire::frame::MessageKind;
use libfuzzer_sys::fuzz_target;

#[path = "../body.rs"]
mod body;

fuzz_target!(|octets: &[u8]| body::check(MessageKind::RouteRefresh, octets));
