//! What is accepted from a peer and what is said to it. Pure.
//!
//! A route meets the peer's filters first, in order; the first rule that matches decides
//! ([`matcher`]), and may change the route ([`action`]). What no rule decided falls to the default
//! of the peer's kind ([`import`], [`propagate`]), which for eBGP is closed in the spirit of RFC 8212.

pub mod action;
pub mod import;
pub mod interface;
pub mod matcher;
pub mod propagate;
pub mod reflect;
pub mod role;
pub mod summary;

pub use action::{Action, CommunityValue, Operation, Priority};
pub use import::ImportDefault;
pub use interface::{BadInterfacePattern, InterfacePattern};
pub use matcher::{Filter, PeerType, PrefixMatch, Rule};
pub use propagate::{ExportDefault, Rejection};
