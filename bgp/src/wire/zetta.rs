//! The only place that names zettabgp: text of our own configuration, and values we validated, as
//! its types, for parsing and display.
//!
//! Octets from a peer never get here: its decoders panic or loop on some of them.

use zettabgp::message::attributes::aspath::{BgpASitem, BgpASpath};
use zettabgp::message::attributes::community::BgpCommunity;
use zettabgp::message::attributes::extcommunity::BgpExtCommunity;

use super::as_path::{AsPath, Segment, SegmentKind};
use super::community::{Community, ExtendedCommunity};
use crate::types::Asn;

/// `asn:value` or a plain number.
pub(super) fn parse_community(text: &str) -> Option<Community> {
    let community: BgpCommunity = text.parse().ok()?;
    Some(Community(community.value))
}

pub(super) fn parse_extended_community(text: &str) -> Option<ExtendedCommunity> {
    let community: BgpExtCommunity = text.parse().ok()?;
    let [a, b] = community.a.to_be_bytes();
    let [c, d, e, g] = community.b.to_be_bytes();
    let octets = [community.ctype, community.subtype, a, b, c, d, e, g];
    Some(ExtendedCommunity(octets))
}

pub(super) fn extended_community_text(community: ExtendedCommunity) -> String {
    BgpExtCommunity::from(u64::from_be_bytes(community.0)).to_string()
}

/// AS numbers apart by blanks or commas, sets in braces. AS 0 belongs into no path (RFC 7607 §2).
pub(super) fn parse_as_path(text: &str) -> Option<AsPath> {
    let path: BgpASpath = text.parse().ok()?;
    let mut segments = Vec::new();
    for item in path.value {
        let (kind, asns): (_, Vec<Asn>) = match item {
            BgpASitem::Seq(sequence) => (
                SegmentKind::Sequence,
                sequence.value.iter().map(|asn| Asn(asn.value)).collect(),
            ),
            BgpASitem::Set(set) => (
                SegmentKind::Set,
                set.value.iter().map(|asn| Asn(asn.value)).collect(),
            ),
        };
        let is_empty_set = kind == SegmentKind::Set && asns.is_empty();
        if is_empty_set || asns.contains(&Asn(0)) {
            return None;
        }
        segments.extend(asns.chunks(AsPath::SEGMENT_MAX).map(|asns| Segment {
            kind,
            asns: asns.to_vec(),
        }));
    }
    Some(AsPath { segments })
}
