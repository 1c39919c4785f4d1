//! What a speaker shows of itself: the items of `peers` and `routes` in JSON.
//!
//! These types are for users, apart from those that logic uses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::{Asn, Prefix};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    pub name: String,
    /// mesh | rack | peer | range
    pub source: String,
    pub peer: IpAddr,
    pub port: u16,
    pub local: Option<IpAddr>,
    pub peer_asn: Option<Asn>,
    pub local_asn: Asn,
    /// ibgp | ebgp
    #[serde(rename = "type")]
    pub kind: String,
    pub client: bool,
    /// idle | connect | active | openSent | openConfirm | established
    pub state: String,
    /// RFC 3339: when `state` was entered.
    pub since: String,
    pub router_id: Option<String>,
    pub hold_time_seconds: Option<u16>,
    pub keepalive_seconds: Option<u64>,
    pub families: Vec<String>,
    pub capabilities: Vec<String>,
    pub received: FamilyCounts,
    pub accepted: FamilyCounts,
    pub advertised: FamilyCounts,
    /// How often an established session ended.
    pub flaps: u64,
    pub last_error: Option<LastErrorStatus>,
    /// Why the last attempt to connect came to nothing.
    pub last_connect_error: Option<ConnectErrorStatus>,
    /// Faults in UPDATEs that did not end the session (RFC 7606 §2).
    #[serde(default)]
    pub update_errors: UpdateErrorCounts,
    /// The last UPDATE with such a fault.
    pub last_malformed: Option<MalformedStatus>,
    /// Most prefixes per family.
    pub max_prefixes: Option<u32>,
    /// Families with several paths a prefix (RFC 7911) on this session.
    #[serde(default)]
    pub add_paths: AddPathsStatus,
    /// provider | rs | rsClient | customer | peer: ours (RFC 9234).
    pub role: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddPathsStatus {
    pub send: Vec<String>,
    pub receive: Vec<String>,
}

/// How many attributes were malformed, by what was done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateErrorCounts {
    pub treat_as_withdraw: u64,
    pub attribute_discard: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MalformedStatus {
    /// The body of the UPDATE, at most its first 4096 octets.
    pub data_hex: String,
    /// What its first fault is.
    pub reason: String,
    /// RFC 3339.
    pub at: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectErrorStatus {
    pub reason: String,
    /// RFC 3339.
    pub at: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FamilyCounts {
    pub ipv4: u64,
    pub ipv6: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastErrorStatus {
    pub code: u8,
    pub subcode: u8,
    pub data_hex: String,
    /// sent | received
    pub direction: String,
    pub reason: String,
    /// RFC 3339.
    pub at: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    pub prefix: Prefix,
    /// `None` for routes of our own.
    pub peer: Option<IpAddr>,
    /// Path identifier on sessions with ADD-PATH (RFC 7911): as received, or as said.
    pub path_id: Option<u32>,
    pub next_hop: IpAddr,
    pub as_path: String,
    /// igp | egp | incomplete
    pub origin: String,
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
    pub communities: Vec<String>,
    pub large_communities: Vec<String>,
    /// OTC (RFC 9234): the AS that said the route goes to customers only.
    pub only_to_customer: Option<Asn>,
    pub originator_id: Option<String>,
    pub cluster_list: Vec<String>,
    pub best: bool,
    pub multipath: bool,
    pub stale: bool,
    pub rejected_reason: Option<String>,
    /// The decision step at which the best route beat this one, or this one beat the runner-up.
    pub deciding_step: Option<String>,
    /// Absent on a reflector, which has no kernel routes.
    pub kernel: Option<KernelStatus>,
}

/// One prefix with all that is known of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyStatus {
    /// The best first.
    pub paths: Vec<RouteStatus>,
    /// In the order of their addresses.
    pub peers: Vec<TellingStatus>,
}

/// What becomes of a path towards one peer. A peer has one of these, or with ADD-PATH one for each
/// usable path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TellingStatus {
    pub peer: IpAddr,
    pub port: u16,
    pub name: String,
    /// Whose path it is; `None` for our own, and where there is none to tell.
    pub from: Option<IpAddr>,
    pub advertised: bool,
    /// As the peer hears it.
    pub next_hop: Option<IpAddr>,
    /// Path identifier as the peer hears it (RFC 7911).
    pub path_id: Option<u32>,
    /// Why it is not advertised.
    pub reason: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelStatus {
    /// installed | pending | failed | none
    pub state: String,
    pub via: Option<IpAddr>,
    pub dev: Option<String>,
    pub onlink: Option<bool>,
    pub reason: Option<String>,
}
