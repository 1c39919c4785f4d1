//! OPEN (RFC 4271 §4.2, RFC 9072 for long optional parameters).

use super::capability::Capability;
use crate::types::{Asn, HoldTime, RouterId};

/// An OPEN message whose fields passed the checks of RFC 4271 §6.2 that need no configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// The 4-octet capability's number where present, else My Autonomous System.
    pub asn: Asn,
    pub hold_time: HoldTime,
    pub router_id: RouterId,
    /// In the order received, duplicates included.
    pub capabilities: Vec<Capability>,
}
