//! Path attributes (RFC 4271 §4.3, §5): the values a route carries.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::as_path::AsPath;
use super::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::types::{Asn, ClusterId, LocalPref, Med, RouterId};

/// ORIGIN; the lower value wins (RFC 4271 §9.1.2.2 b).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Origin {
    #[default]
    Igp,
    Egp,
    Incomplete,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        })
    }
}

/// Where packets for a route go: NEXT_HOP, or the next hop of MP_REACH_NLRI (RFC 4760 §3, RFC 2545 §3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NextHop {
    pub address: IpAddr,
    /// The second address of a 32-octet IPv6 next hop.
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> NextHop {
        NextHop {
            address,
            link_local: None,
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Aggregator {
    pub asn: Asn,
    pub address: Ipv4Addr,
}

/// An attribute we do not know: optional transitive, passed on byte-exact with Partial set.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UnknownAttribute {
    pub flags: u8,
    pub code: u8,
    pub value: Vec<u8>,
}

/// All attributes of a route. Equal attributes mean the routes can share one UPDATE.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PathAttributes {
    pub origin: Origin,
    pub as_path: AsPath,
    pub next_hop: NextHop,
    pub med: Option<Med>,
    pub local_pref: Option<LocalPref>,
    pub atomic_aggregate: bool,
    pub aggregator: Option<Aggregator>,
    /// In wire order.
    pub communities: Vec<Community>,
    pub extended_communities: Vec<ExtendedCommunity>,
    pub large_communities: Vec<LargeCommunity>,
    pub originator_id: Option<RouterId>,
    pub cluster_list: Vec<ClusterId>,
    /// OTC (RFC 9234 §5).
    pub only_to_customer: Option<Asn>,
    /// Sorted by code.
    pub unknown: Vec<UnknownAttribute>,
}

impl PathAttributes {
    /// What a route of our own begins with: origin IGP, empty path, nothing else.
    pub fn originated(next_hop: IpAddr) -> PathAttributes {
        PathAttributes {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop: next_hop.into(),
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            extended_communities: Vec::new(),
            large_communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            only_to_customer: None,
            unknown: Vec::new(),
        }
    }
}
