//! A workload attached to this node: what is remembered of a CNI ADD.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Kept on disk from ADD to DEL. Keyed by (container_id, container_interface).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    pub container_id: String,
    /// CNI_IFNAME: the interface's name inside the workload.
    pub container_interface: String,
    /// CNI_NETNS as given, for display.
    pub netns: String,
    /// From K8S_POD_NAMESPACE / K8S_POD_NAME; empty where the runtime gave none.
    pub namespace: String,
    pub name: String,
    pub host_interface: String,
    pub addresses: Vec<IpAddr>,
    /// Of the workload's interface.
    pub mac: [u8; 6],
}
