//! Addresses of this node's workloads.
//!
//! `allocator` decides (pure), `store` remembers on disk, `record_dir` writes files that survive a
//! crash at any moment. Addresses come from the node's podCIDRs; nothing here asks another node.

pub mod allocator;
pub mod record_dir;
pub mod store;

#[cfg(test)]
mod tests;
