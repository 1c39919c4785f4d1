//! The wire format as a peer sees it: octets laid out by hand after the RFCs, what we make of them,
//! and what other implementations make of ours.

mod add_path;
mod checks;
mod fuzz;
mod header;
mod meaning;
mod memory;
mod message;
mod netgauze;
mod notification;
mod open;
mod oracle;
mod refresh;
mod rfc7606;
mod roundtrip;
mod update;
mod update_encoding;
mod update_errors;
mod vectors;
