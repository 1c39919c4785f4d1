//! The speaker on tokio: sockets and tasks around the pure parts.

pub mod config;
pub mod status;
