//! What system tests share: labs and what they say, guest kernels, skipping with a reason.
//!
//! Namespaces, captures, pings and waiting are those of `agent::lab`.

pub mod crossing;
pub mod fleet;
pub mod guest;
pub mod leftovers;
pub mod monitor;
pub mod product;
pub mod report;
pub mod routers;
pub mod site;
pub mod speaker;
