//! What the socket says in JSON, besides the speaker's peers and routes. Also what the CLI reads.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use bgp::speaker::status::WhyStatus;
use bgp::types::Prefix;
use serde::{Deserialize, Serialize};

use crate::carrier::counters::CounterValues;

pub const SCHEMA_VERSION: u32 = 1;

/// `{"schemaVersion": 1, "items": [...]}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Items<T> {
    pub schema_version: u32,
    pub items: Vec<T>,
}

impl<T> Items<T> {
    pub fn new(items: Vec<T>) -> Items<T> {
        Items {
            schema_version: SCHEMA_VERSION,
            items,
        }
    }
}

/// The body of every answer that is not a success.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub schema_version: u32,
    pub node: String,
    pub version: String,
    /// Store synced and first kernel pass done.
    pub ready: bool,
    pub store: StoreStatus,
    /// The first of `tunnels`; absent where no pool asks for one, and on a reflector.
    pub tunnel: Option<TunnelStatus>,
    /// One for each kind that a pool asks for.
    #[serde(default)]
    pub tunnels: Vec<TunnelStatus>,
    pub failed: Vec<FailedItem>,
    /// What others on this machine do that keeps packets from flowing.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Kind of object -> how many drifted ones were repaired since start.
    pub repairs: BTreeMap<String, u64>,
    /// The newest twenty of them, the newest last.
    #[serde(default)]
    pub last_repairs: Vec<Repair>,
    /// About to go: every route is said with 65535:0 (RFC 8326).
    #[serde(default)]
    pub draining: bool,
}

/// `drain`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// What is asked for, or what came of it: the resources may ask for draining, too.
    pub draining: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    pub synced: bool,
    pub errors: Vec<StoreError>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreError {
    /// File name within the store's directory.
    pub file: String,
    /// `KIND/NAME` as far as it could be read.
    pub object: String,
    pub field: String,
    pub reason: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelStatus {
    /// `ipip`, `vxlan` or `udp`.
    #[serde(default)]
    pub kind: String,
    /// kernel | userspace
    pub driver: String,
    pub device: String,
    pub mtu: u32,
    /// Why this driver, or why none works.
    pub reason: String,
    /// What the carrier moved and did not, at most two seconds ago; none where the kernel is the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<CounterValues>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedItem {
    pub object: String,
    pub error: String,
    pub attempts: u32,
}

/// `check`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub object: String,
    pub reason: String,
}

/// Something of ours that others had changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// As in `repairs`.
    pub kind: String,
    pub object: String,
    /// What differed: `missing`, `mtu 1300 instead of 1450`.
    pub found: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// `namespace/name`, or the container id.
    pub workload: String,
    pub container_id: Option<String>,
    pub iface: String,
    pub addresses: Vec<IpAddr>,
    pub mac: Option<String>,
    /// ready | pending | failed
    pub state: String,
    pub error: Option<String>,
}

/// `routes [PREFIX] [--received PEER | --advertised PEER]`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteQuery {
    pub prefix: Option<Prefix>,
    pub received: Option<IpAddr>,
    pub advertised: Option<IpAddr>,
}

/// `why PREFIX`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    pub schema_version: u32,
    pub prefix: Prefix,
    #[serde(flatten)]
    pub known: WhyStatus,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WhyQuery {
    pub prefix: Prefix,
}

/// `FILE: KIND/NAME: FIELD: REASON`, as `caracal-reflector --check` prints it.
impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StoreError {
            file,
            object,
            field,
            reason,
        } = self;
        // An object that is missing is in no file.
        if !file.is_empty() {
            write!(f, "{file}: ")?;
        }
        write!(f, "{object}: {field}: {reason}")
    }
}
