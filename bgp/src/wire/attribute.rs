//! Path attributes (RFC 4271 §4.3, §5): the values a route carries.
//!
//! The values are here; `value` reads one attribute, `decode` a whole block, and `encode` writes
//! one. What a session may see of a route is decided before encoding: all that is set here is sent.

mod decode;
mod encode;
mod value;

pub(super) use decode::{AttributeBlock, decode};
pub(super) use encode::{
    MAX_ATTRIBUTE_HEADER_LEN, encode_attributes, mp_reach_head, mp_unreach_head, put_mp_reach,
    put_mp_unreach,
};
pub(super) use value::MpReach;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thin_vec::ThinVec;

use super::as_path::AsPath;
use super::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::types::{Asn, ClusterId, LocalPref, Med, RouterId};

/// Attribute flags (RFC 4271 §4.3).
mod flag {
    pub(super) const OPTIONAL: u8 = 0x80;
    pub(super) const TRANSITIVE: u8 = 0x40;
    pub(super) const PARTIAL: u8 = 0x20;
    pub(super) const EXTENDED_LENGTH: u8 = 0x10;
}

/// Type codes of the attributes we know.
mod code {
    pub(super) const ORIGIN: u8 = 1;
    pub(super) const AS_PATH: u8 = 2;
    pub(super) const NEXT_HOP: u8 = 3;
    pub(super) const MULTI_EXIT_DISC: u8 = 4;
    pub(super) const LOCAL_PREF: u8 = 5;
    pub(super) const ATOMIC_AGGREGATE: u8 = 6;
    pub(super) const AGGREGATOR: u8 = 7;
    pub(super) const COMMUNITIES: u8 = 8;
    pub(super) const ORIGINATOR_ID: u8 = 9;
    pub(super) const CLUSTER_LIST: u8 = 10;
    pub(super) const MP_REACH_NLRI: u8 = 14;
    pub(super) const MP_UNREACH_NLRI: u8 = 15;
    pub(super) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(super) const AS4_PATH: u8 = 17;
    pub(super) const AS4_AGGREGATOR: u8 = 18;
    pub(super) const LARGE_COMMUNITIES: u8 = 32;
    pub(super) const ONLY_TO_CUSTOMER: u8 = 35;
}

/// The flags a known attribute must have; `None` for an unknown code.
fn specified_flags(code: u8) -> Option<u8> {
    Some(match code {
        code::ORIGIN
        | code::AS_PATH
        | code::NEXT_HOP
        | code::LOCAL_PREF
        | code::ATOMIC_AGGREGATE => flag::TRANSITIVE,
        code::MULTI_EXIT_DISC
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH_NLRI
        | code::MP_UNREACH_NLRI => flag::OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::LARGE_COMMUNITIES
        | code::ONLY_TO_CUSTOMER => flag::OPTIONAL | flag::TRANSITIVE,
        _ => return None,
    })
}

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

/// Which of the attributes we know came with Partial set: somewhere on the way a speaker did not
/// know them. Once set it stays set (RFC 4271 §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Partial(u64);

impl Partial {
    fn set(&mut self, code: u8, is_partial: bool) {
        if is_partial {
            self.0 |= Partial::bit(code);
        }
    }

    fn contains(self, code: u8) -> bool {
        self.0 & Partial::bit(code) != 0
    }

    /// All codes we know are below 64.
    fn bit(code: u8) -> u64 {
        1u64.checked_shl(u32::from(code)).unwrap_or(0)
    }
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
    pub communities: ThinVec<Community>,
    pub extended_communities: ThinVec<ExtendedCommunity>,
    pub large_communities: ThinVec<LargeCommunity>,
    pub originator_id: Option<RouterId>,
    pub cluster_list: ThinVec<ClusterId>,
    /// OTC (RFC 9234 §5).
    pub only_to_customer: Option<Asn>,
    /// Sorted by code.
    pub unknown: ThinVec<UnknownAttribute>,
    pub partial: Partial,
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
            communities: ThinVec::new(),
            extended_communities: ThinVec::new(),
            large_communities: ThinVec::new(),
            originator_id: None,
            cluster_list: ThinVec::new(),
            only_to_customer: None,
            unknown: ThinVec::new(),
            partial: Partial::default(),
        }
    }

    /// Adds a community that is not there yet.
    pub fn add_community(&mut self, community: Community) {
        if !self.communities.contains(&community) {
            self.communities.push(community);
        }
    }
}
