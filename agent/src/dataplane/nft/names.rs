//! The names in nftables that others see: our table, its chains and its sets.
//!
//! Chains of one hook are named by it; those that are jumped to, by what they decide.

/// Everything in `inet caracal` is ours, and nothing outside of it.
pub const TABLE: &str = "caracal";

/// Before connection tracking and routing: what must not come in.
pub const PREROUTING: &str = "prerouting";
/// Packets of workloads: with their own source only, and never to look like a tunnel's.
pub const FROM_WORKLOAD: &str = "from-workload";
/// Tunnelled packets from elsewhere than a node.
pub const TUNNEL_GUARD: &str = "tunnel-guard";
/// What this host itself sends.
pub const HOST_OUTPUT: &str = "host-output";
/// Source addresses of what leaves. `masquerade` would be a word of the language, not a name.
pub const POSTROUTING: &str = "postrouting";

/// Host interface and address of every workload.
pub const WORKLOAD_SOURCES_V4: &str = "workload-sources4";
pub const WORKLOAD_SOURCES_V6: &str = "workload-sources6";
/// Addresses of the other nodes, from which tunnelled packets are taken.
pub const TUNNEL_PEERS: &str = "tunnel-peers4";
