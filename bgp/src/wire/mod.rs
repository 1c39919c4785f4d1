//! The wire format: bytes to values and back. Pure; every length is checked before it is used.
//!
//! `frame` cuts a byte stream into messages, each other module is one kind of message or one part
//! of it. A decoder never panics, never loops without progress, and allocates nothing per route.

pub mod as_path;
pub mod attribute;
pub mod capability;
pub mod community;
pub mod error;
pub mod frame;
pub mod nlri;
pub mod notification;
pub mod open;
mod reader;
pub mod refresh;
mod role;
pub mod update;
pub mod zetta;

pub use error::ProtocolError;
pub use notification::Notification;
