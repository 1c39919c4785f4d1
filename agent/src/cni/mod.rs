//! CNI: what the runtime asks.

pub mod attachment;
