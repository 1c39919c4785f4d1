//! What is accepted from a peer and what is said to it. Pure.
//!
//! A route meets the peer's filters first, in order; the first rule that matches decides
//! ([`matcher`]). What no rule decided falls to the default of the peer's kind
//! ([`propagate`]), which for eBGP is closed in the spirit of RFC 8212.

pub mod matcher;
pub mod propagate;
pub mod reflect;
pub mod role;

pub use matcher::{Action, Filter, PrefixMatch, Rule};
pub use propagate::{ExportDefault, ImportDefault, Rejection};
