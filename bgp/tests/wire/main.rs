//! The wire format as a peer sees it: octets laid out by hand after the RFCs, what we make of them,
//! and what other implementations make of ours.

mod header;
mod meaning;
mod message;
mod notification;
mod open;
mod oracle;
mod refresh;
mod roundtrip;
mod update;
mod update_encoding;
mod update_errors;
mod vectors;
