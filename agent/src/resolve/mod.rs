//! From what we know to what the kernel and the speaker should hold. Pure.
//!
//! | in | out |
//! |---|---|
//! | [`Snapshot`](crate::model::Snapshot), own [`Node`](crate::model::Node), settings, `HostView` | [`tunnel`]: the tunnel device |
//! | the same and the attached workloads | [`endpoints`]: the host sides of workloads |
//! | a prefix and its BGP next hop | [`routes`]: the kernel route, and why that one |
//! | the store's objects | [`peering`], [`advertise`]: the speaker's configuration |
//!
//! Nothing here looks at what was computed before.

pub mod advertise;
pub mod endpoints;
pub mod gateway;
pub mod longest_match;
pub mod peering;
pub mod routes;
pub mod tunnel;
