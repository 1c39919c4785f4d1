//! What system tests share: labs and what they say, guest kernels, skipping with a reason.
//!
//! Namespaces, captures, pings and waiting are those of `agent::lab`.

pub mod counters;
pub mod crossing;
pub mod fleet;
pub mod gate;
pub mod guest;
pub mod leftovers;
pub mod monitor;
pub mod node;
pub mod product;
pub mod report;
pub mod routers;
pub mod script;
pub mod site;
pub mod sockets;
pub mod speaker;
pub mod spine;
pub mod traffic;
pub mod watch;
pub mod wiretap;
