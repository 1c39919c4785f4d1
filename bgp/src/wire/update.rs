//! UPDATE (RFC 4271 §4.3) with the error handling of RFC 7606.

use super::attribute::PathAttributes;
use super::nlri::Nlri;
use crate::types::Family;

/// What decoding depends on besides the bytes.
#[derive(Clone, Copy, Debug)]
pub struct UpdateContext {
    /// Both sides sent the 4-octet AS capability (RFC 6793).
    pub four_octet_as: bool,
    /// LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are discarded from eBGP peers (RFC 7606 §7.5, 7.9, 7.10).
    pub ebgp: bool,
}

/// A decoded UPDATE: what goes, then what comes. Borrows the message's prefixes.
#[derive(Clone, Debug, Default)]
pub struct Update<'a> {
    /// WITHDRAWN ROUTES, MP_UNREACH_NLRI, and with treat-as-withdraw also what was announced.
    pub withdrawn: Vec<Nlri<'a>>,
    pub announced: Vec<Announcement<'a>>,
    /// The family whose End-of-RIB this message is (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// Attributes that were discarded or caused treat-as-withdraw, for counters and `peers`.
    pub errors: Vec<AttributeError>,
}

/// Prefixes of one family that share attributes and next hop.
#[derive(Clone, Debug)]
pub struct Announcement<'a> {
    pub attributes: PathAttributes,
    pub nlri: Nlri<'a>,
}

/// A malformed attribute that did not end the session (RFC 7606 §2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttributeError {
    pub code: u8,
    /// `false`: the attribute alone was dropped (attribute discard).
    pub treat_as_withdraw: bool,
    pub reason: &'static str,
}
