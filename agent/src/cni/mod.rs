//! CNI: what the runtime asks.
//!
//! The runtime starts `caracal-cni`, which passes the call and the workload's network namespace to
//! the agent's socket (`server`). The agent does the work (`verbs`): address, veth, attachment on
//! disk, host side. `protocol` has the types of the CNI specification and of the call between the
//! two programs.

pub mod attachment;
pub mod attachments;
pub mod host_side;
pub mod install;
pub mod links;
pub mod locks;
pub mod plugin;
pub mod protocol;
pub mod result;
pub mod server;
pub mod verbs;

#[cfg(test)]
mod tests;
