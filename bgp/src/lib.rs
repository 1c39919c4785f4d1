//! A BGP-4 speaker as a library (RFC 4271 and what data centres expect on top of it).
//!
//! `wire`, `fsm`, `rib` and `policy` are pure: values in, values out, time as an argument.
//! `speaker` puts them on tokio. Nothing here knows of Kubernetes, netlink, files or a command line.

pub mod fsm;
pub mod policy;
pub mod rib;
pub mod speaker;
pub mod types;
pub mod wire;
