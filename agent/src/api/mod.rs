//! The agent's socket and HTTP endpoints.

pub mod schema;
