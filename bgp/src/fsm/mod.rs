//! The session state machine of one peer (RFC 4271 §8). Pure: time and jitter are arguments.
//!
//! The driver feeds [`Input`]s and expired timers in, and carries out the [`Action`]s that
//! [`Session::poll_action`] yields, in order, until it yields `None`.

pub mod collision;
pub mod restart;
pub mod session;
pub mod timer;
