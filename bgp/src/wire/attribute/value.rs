//! One path attribute: its octets to a value, or the fault that RFC 7606 §7 makes of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thin_vec::ThinVec;

use super::{Aggregator, NextHop, Origin, flag};
use crate::types::{Asn, Family};
use crate::wire::as_path::{AsPath, BadAsPath};
use crate::wire::community::LargeCommunity;
use crate::wire::error::ProtocolError;
use crate::wire::nlri::Nlri;
use crate::wire::notification::{self, Notification, update};
use crate::wire::reader::Reader;
use crate::wire::update::{AttributeError, UpdateContext};

/// An attribute as it is in its block.
#[derive(Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub(super) flags: u8,
    /// 0 where not even the code is there.
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    /// From flags to value.
    octets: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Takes the next attribute of a block.
    ///
    /// # Errors
    /// A fault if the block ends before the attribute does (RFC 7606 §4).
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Attribute<'a>, Fault<'a>> {
        let octets = reader.rest();
        let mut attribute = Attribute {
            flags: 0,
            code: 0,
            value: &[],
            octets,
        };
        let Some((flags, code, length)) = header(reader) else {
            return Err(attribute.withdraw(
                update::MALFORMED_ATTRIBUTE_LIST,
                "octets are left over after the last attribute",
            ));
        };
        (attribute.flags, attribute.code) = (flags, code);
        let Some(value) = reader.take(length) else {
            return Err(attribute.withdraw(
                update::MALFORMED_ATTRIBUTE_LIST,
                "the attribute overruns the block",
            ));
        };
        attribute.value = value;
        let taken = octets.len() - reader.rest().len();
        attribute.octets = octets.get(..taken).unwrap_or(octets);
        Ok(attribute)
    }

    pub(super) fn withdraw(&self, subcode: u8, reason: &'static str) -> Fault<'a> {
        Fault {
            error: AttributeError {
                code: self.code,
                treat_as_withdraw: true,
                reason,
            },
            subcode,
            octets: self.octets,
        }
    }

    pub(super) fn discard(&self, reason: &'static str) -> Fault<'a> {
        Fault {
            error: AttributeError {
                code: self.code,
                treat_as_withdraw: false,
                reason,
            },
            subcode: update::OPTIONAL_ATTRIBUTE,
            octets: self.octets,
        }
    }

    fn reset(&self, subcode: u8, reason: impl Into<String>) -> ProtocolError {
        ProtocolError::new(
            Notification::with_data(notification::code::UPDATE, subcode, self.octets),
            reason,
        )
    }

    pub(super) fn octets_of<const N: usize>(&self) -> Result<[u8; N], Fault<'a>> {
        self.value
            .try_into()
            .map_err(|_| self.withdraw(update::ATTRIBUTE_LENGTH, "the length is wrong"))
    }

    pub(super) fn number(&self) -> Result<u32, Fault<'a>> {
        self.octets_of().map(u32::from_be_bytes)
    }

    /// One or more items of `N` octets.
    pub(super) fn list<const N: usize, T>(
        &self,
        item: impl Fn([u8; N]) -> T,
    ) -> Result<ThinVec<T>, Fault<'a>> {
        let (items, rest) = self.value.as_chunks::<N>();
        if items.is_empty() || !rest.is_empty() {
            return Err(self.withdraw(
                update::ATTRIBUTE_LENGTH,
                "the length is not a multiple of an item's, or zero",
            ));
        }
        Ok(items.iter().map(|octets| item(*octets)).collect())
    }
}

/// MP_REACH_NLRI.
#[derive(Clone, Copy, Debug)]
pub(in crate::wire) enum MpReach<'a> {
    Ours {
        next_hop: NextHop,
        nlri: Nlri<'a>,
    },
    /// Prefixes of a family that is not ours, which are ignored.
    Foreign,
}

/// A malformed attribute, and how a session reset because of it would be explained.
#[derive(Clone, Debug)]
pub(in crate::wire) struct Fault<'a> {
    pub(in crate::wire) error: AttributeError,
    subcode: u8,
    /// The attribute from flags to value (RFC 4271 §6.3).
    octets: &'a [u8],
}

impl Fault<'_> {
    /// The fault as the end of the session.
    pub(in crate::wire) fn into_reset(self, why: &str) -> ProtocolError {
        ProtocolError::new(
            Notification::with_data(notification::code::UPDATE, self.subcode, self.octets),
            format!(
                "attribute {}: {}, {why}",
                self.error.code, self.error.reason
            ),
        )
    }
}

fn header(reader: &mut Reader<'_>) -> Option<(u8, u8, usize)> {
    let (flags, code) = (reader.u8()?, reader.u8()?);
    let length = if flags & flag::EXTENDED_LENGTH != 0 {
        usize::from(reader.u16()?)
    } else {
        usize::from(reader.u8()?)
    };
    Some((flags, code, length))
}

pub(super) fn origin<'a>(attribute: &Attribute<'a>) -> Result<Origin, Fault<'a>> {
    match attribute.octets_of()? {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        _ => Err(attribute.withdraw(update::INVALID_ORIGIN, "ORIGIN has an undefined value")),
    }
}

pub(super) fn as_path<'a>(
    attribute: &Attribute<'a>,
    context: &UpdateContext,
) -> Result<AsPath, Fault<'a>> {
    let withdraw = |reason| attribute.withdraw(update::MALFORMED_AS_PATH, reason);
    let path = AsPath::decode(attribute.value, context.four_octet_as)
        .map_err(|cause| withdraw(bad_as_path(cause)))?;
    // RFC 5065 §5: confederation segments never come from outside a confederation.
    if context.ebgp && path.segments.iter().any(|s| s.kind.is_confed()) {
        return Err(withdraw("an external peer sent a confederation segment"));
    }
    Ok(path)
}

fn bad_as_path(cause: BadAsPath) -> &'static str {
    match cause {
        BadAsPath::UnknownSegmentType => "a segment of the AS path has an unknown type",
        BadAsPath::EmptySegment => "a segment of the AS path is empty",
        BadAsPath::SegmentOverrun => "a segment of the AS path overruns the attribute",
        BadAsPath::StrayOctet => "an octet is left over after the AS path",
        BadAsPath::AsZero => "the AS path holds AS 0",
    }
}

/// RFC 6793 §6: a malformed AS4_PATH is discarded; confederation segments in it are skipped.
pub(super) fn as4_path<'a>(attribute: &Attribute<'a>) -> Result<AsPath, Fault<'a>> {
    let path = AsPath::decode(attribute.value, true)
        .map_err(|cause| attribute.discard(bad_as_path(cause)))?;
    if path.is_empty() {
        return Err(attribute.discard("AS4_PATH is empty"));
    }
    Ok(path.without_confed())
}

/// RFC 7606 §7.7, RFC 7607 §2, RFC 6793 §6: malformed ones are discarded.
pub(super) fn aggregator<'a>(
    attribute: &Attribute<'a>,
    four_octet_as: bool,
) -> Result<Aggregator, Fault<'a>> {
    let mut reader = Reader::new(attribute.value);
    let asn = if four_octet_as {
        reader.u32()
    } else {
        reader.u16().map(u32::from)
    };
    let address = reader.array::<4>().map(Ipv4Addr::from);
    match (asn, address) {
        (Some(0), _) => Err(attribute.discard("the aggregator is AS 0")),
        (Some(asn), Some(address)) if reader.is_empty() => Ok(Aggregator {
            asn: Asn(asn),
            address,
        }),
        _ => Err(attribute.discard("the length is wrong")),
    }
}

/// RFC 8092 §5: redundant values are removed, the first stays.
pub(super) fn large_communities<'a>(
    attribute: &Attribute<'a>,
) -> Result<ThinVec<LargeCommunity>, Fault<'a>> {
    let all = attribute.list(|octets: [u8; 12]| {
        let (parts, _) = octets.as_chunks::<4>();
        let mut community = [0; 3];
        for (to, from) in community.iter_mut().zip(parts) {
            *to = u32::from_be_bytes(*from);
        }
        LargeCommunity(community)
    })?;
    let mut seen = BTreeSet::new();
    Ok(all
        .into_iter()
        .filter(|community| seen.insert(*community))
        .collect())
}

pub(super) fn mp_reach<'a>(
    attribute: &Attribute<'a>,
    context: &UpdateContext,
) -> Result<MpReach<'a>, ProtocolError> {
    let cut = || attribute.reset(update::OPTIONAL_ATTRIBUTE, "MP_REACH_NLRI is cut short");
    let mut reader = Reader::new(attribute.value);
    let afi = reader.u16().ok_or_else(cut)?;
    let safi = reader.u8().ok_or_else(cut)?;
    let next_hop_len = reader.u8().ok_or_else(cut)?;
    let next_hop_octets = reader.take(usize::from(next_hop_len)).ok_or_else(cut)?;
    // RFC 4760 §3: a reserved octet, once a count of link addresses, is ignored.
    reader.u8().ok_or_else(cut)?;
    let Some(family) = Family::from_afi_safi(afi, safi) else {
        return Ok(MpReach::Foreign);
    };
    // RFC 7606 §7.11.
    let next_hop = next_hop(family, next_hop_octets).ok_or_else(|| {
        attribute.reset(
            update::OPTIONAL_ATTRIBUTE,
            format!("a next hop of {next_hop_len} octets does not go with {family} prefixes"),
        )
    })?;
    let nlri = mp_nlri(attribute, family, context, reader)?;
    Ok(MpReach::Ours { next_hop, nlri })
}

pub(super) fn mp_unreach<'a>(
    attribute: &Attribute<'a>,
    context: &UpdateContext,
) -> Result<Option<Nlri<'a>>, ProtocolError> {
    let cut = || attribute.reset(update::OPTIONAL_ATTRIBUTE, "MP_UNREACH_NLRI is cut short");
    let mut reader = Reader::new(attribute.value);
    let afi = reader.u16().ok_or_else(cut)?;
    let safi = reader.u8().ok_or_else(cut)?;
    match Family::from_afi_safi(afi, safi) {
        Some(family) => mp_nlri(attribute, family, context, reader).map(Some),
        None => Ok(None),
    }
}

/// RFC 7606 §5.3: one bad prefix makes the whole run unreadable.
fn mp_nlri<'a>(
    attribute: &Attribute<'a>,
    family: Family,
    context: &UpdateContext,
    reader: Reader<'a>,
) -> Result<Nlri<'a>, ProtocolError> {
    Nlri::parse(family, context.add_path.contains(family), reader.rest())
        .map_err(|cause| attribute.reset(update::INVALID_NETWORK_FIELD, cause.to_string()))
}

/// RFC 4760 §3, RFC 2545 §3, RFC 8950 §3: 4 octets for IPv4 prefixes, 16 or 32 for both families.
fn next_hop(family: Family, octets: &[u8]) -> Option<NextHop> {
    let mut reader = Reader::new(octets);
    match (family, octets.len()) {
        (Family::Ipv4, 4) => Some(IpAddr::V4(reader.array::<4>()?.into()).into()),
        (_, 16) => Some(IpAddr::V6(reader.array::<16>()?.into()).into()),
        (_, 32) => {
            let address = Ipv6Addr::from(reader.array::<16>()?);
            let second = Ipv6Addr::from(reader.array::<16>()?);
            Some(NextHop {
                address: IpAddr::V6(address),
                // Anything but a link-local address in second place has no meaning.
                link_local: second.is_unicast_link_local().then_some(second),
            })
        }
        _ => None,
    }
}
