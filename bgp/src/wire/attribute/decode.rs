//! The path attribute block of an UPDATE, octets to values (RFC 7606).
//!
//! Every attribute is judged by itself: a malformed one becomes a [`Fault`] and the walk goes on,
//! so that the prefixes in MP_REACH_NLRI are found wherever the fault is. What the faults do to the
//! routes is decided in `update`, which knows all prefixes of the message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Aggregator, NextHop, Origin, Partial, PathAttributes, UnknownAttribute, code, flag,
    specified_flags,
};
use crate::types::{Asn, ClusterId, Family, LocalPref, Med, RouterId};
use crate::wire::as_path::{AsPath, BadAsPath};
use crate::wire::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::wire::error::ProtocolError;
use crate::wire::nlri::Nlri;
use crate::wire::notification::{self, Notification, update};
use crate::wire::reader::Reader;
use crate::wire::update::{AttributeError, UpdateContext};

/// What an attribute block holds.
#[derive(Debug, Default)]
pub(in crate::wire) struct AttributeBlock<'a> {
    pub(in crate::wire) mp_reach: Option<MpReach<'a>>,
    pub(in crate::wire) mp_unreach: Option<Nlri<'a>>,
    /// In wire order.
    pub(in crate::wire) faults: Vec<Fault<'a>>,
    /// How many attributes there were, whatever became of them.
    pub(in crate::wire) count: usize,
    origin: Option<Origin>,
    as_path: Option<AsPath>,
    next_hop: Option<Ipv4Addr>,
    med: Option<Med>,
    local_pref: Option<LocalPref>,
    atomic_aggregate: bool,
    aggregator: Option<Aggregator>,
    communities: Vec<Community>,
    originator_id: Option<RouterId>,
    cluster_list: Vec<ClusterId>,
    extended_communities: Vec<ExtendedCommunity>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    large_communities: Vec<LargeCommunity>,
    only_to_customer: Option<Asn>,
    unknown: Vec<UnknownAttribute>,
    partial: Partial,
}

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

/// Reads a whole attribute block.
///
/// # Errors
/// 3/x for what ends the session whatever else the message holds: an unknown well-known attribute,
/// a second or malformed MP_REACH_NLRI or MP_UNREACH_NLRI.
pub(in crate::wire) fn decode<'a>(
    block: &'a [u8],
    context: &UpdateContext,
) -> Result<AttributeBlock<'a>, ProtocolError> {
    let mut decoded = AttributeBlock::default();
    let mut seen = Seen::default();
    let mut reader = Reader::new(block);
    while !reader.is_empty() {
        let start = reader.rest();
        let Some(header) = Header::read(&mut reader) else {
            // RFC 7606 §4: too little is left for an attribute. The total length still tells where
            // the prefixes begin.
            decoded.fault(list_fault(
                0,
                start,
                "octets are left over after the last attribute",
            ));
            break;
        };
        let Some(value) = reader.take(header.length) else {
            if [code::MP_REACH_NLRI, code::MP_UNREACH_NLRI].contains(&header.code) {
                // RFC 7606 §3 (j): prefixes that cannot be read cannot be withdrawn.
                let fault = list_fault(header.code, start, "the attribute overruns the block");
                return Err(fault.into_reset("so its prefixes are unknown"));
            }
            decoded.fault(list_fault(
                header.code,
                start,
                "the attribute overruns the block",
            ));
            break;
        };
        decoded.count += 1;
        let attribute = Attribute {
            flags: header.flags,
            code: header.code,
            value,
            octets: start
                .get(..start.len() - reader.rest().len())
                .unwrap_or(start),
        };
        if seen.insert(attribute.code) {
            decoded.accept(&attribute, context)?;
        } else {
            decoded.refuse_second(&attribute)?;
        }
    }
    decoded.unknown.sort_by_key(|attribute| attribute.code);
    if !context.four_octet_as {
        decoded.restore_four_octet_as();
    }
    Ok(decoded)
}

impl<'a> AttributeBlock<'a> {
    /// The well-known mandatory attribute that is missing for prefixes in MP_REACH_NLRI or, if
    /// `classic`, in the NLRI field, where NEXT_HOP is mandatory too.
    pub(in crate::wire) fn missing_mandatory(&self, classic: bool) -> Option<AttributeError> {
        let (code, reason) = if self.origin.is_none() {
            (code::ORIGIN, "ORIGIN is missing")
        } else if self.as_path.is_none() {
            (code::AS_PATH, "AS_PATH is missing")
        } else if classic && self.next_hop.is_none() {
            (code::NEXT_HOP, "NEXT_HOP is missing")
        } else {
            return None;
        };
        // RFC 7606 §3 (d).
        Some(AttributeError {
            code,
            treat_as_withdraw: true,
            reason,
        })
    }

    /// NEXT_HOP, which goes with the NLRI field only.
    pub(in crate::wire) fn classic_next_hop(&self) -> Option<NextHop> {
        self.next_hop.map(|address| IpAddr::V4(address).into())
    }

    /// The attributes of the message's routes. `None` if a mandatory one is missing.
    pub(in crate::wire) fn into_attributes(self, next_hop: NextHop) -> Option<PathAttributes> {
        Some(PathAttributes {
            origin: self.origin?,
            as_path: self.as_path?,
            next_hop,
            med: self.med,
            local_pref: self.local_pref,
            atomic_aggregate: self.atomic_aggregate,
            aggregator: self.aggregator,
            communities: self.communities,
            extended_communities: self.extended_communities,
            large_communities: self.large_communities,
            originator_id: self.originator_id,
            cluster_list: self.cluster_list,
            only_to_customer: self.only_to_customer,
            unknown: self.unknown,
            partial: self.partial,
        })
    }

    fn fault(&mut self, fault: Fault<'a>) {
        self.faults.push(fault);
    }

    /// Takes the first attribute of its code.
    fn accept(
        &mut self,
        attribute: &Attribute<'a>,
        context: &UpdateContext,
    ) -> Result<(), ProtocolError> {
        let Some(specified) = specified_flags(attribute.code) else {
            return self.accept_unknown(attribute);
        };
        if let Some(reason) = discarded_unread(attribute.code, context) {
            self.fault(attribute.discard(reason));
            return Ok(());
        }
        if (attribute.flags ^ specified) & (flag::OPTIONAL | flag::TRANSITIVE) != 0 {
            // RFC 7606 §3 (c), and §5.3 for the two that carry prefixes.
            let fault = attribute.withdraw(
                update::ATTRIBUTE_FLAGS,
                "the flags are not the specified ones",
            );
            if [code::MP_REACH_NLRI, code::MP_UNREACH_NLRI].contains(&attribute.code) {
                return Err(fault.into_reset("so its prefixes cannot be trusted"));
            }
            self.fault(fault);
            return Ok(());
        }
        match attribute.code {
            code::MP_REACH_NLRI => self.mp_reach = Some(mp_reach(attribute)?),
            code::MP_UNREACH_NLRI => self.mp_unreach = mp_unreach(attribute)?,
            _ => match self.accept_value(attribute, context) {
                // Well-known and non-transitive attributes have no use for Partial
                // (RFC 4271 §4.3), and AS4_PATH and AS4_AGGREGATOR are written anew.
                Ok(())
                    if specified & flag::TRANSITIVE != 0
                        && specified & flag::OPTIONAL != 0
                        && attribute.flags & flag::PARTIAL != 0
                        && ![code::AS4_PATH, code::AS4_AGGREGATOR].contains(&attribute.code) =>
                {
                    self.partial.insert(attribute.code);
                }
                Ok(()) => {}
                Err(fault) => self.fault(fault),
            },
        }
        Ok(())
    }

    fn accept_value(
        &mut self,
        attribute: &Attribute<'a>,
        context: &UpdateContext,
    ) -> Result<(), Fault<'a>> {
        match attribute.code {
            code::ORIGIN => self.origin = Some(origin(attribute)?),
            code::AS_PATH => self.as_path = Some(as_path(attribute, context)?),
            code::NEXT_HOP => self.next_hop = Some(attribute.octets_of::<4>()?.into()),
            code::MULTI_EXIT_DISC => self.med = Some(Med(attribute.number()?)),
            code::LOCAL_PREF => self.local_pref = Some(LocalPref(attribute.number()?)),
            code::ATOMIC_AGGREGATE if attribute.value.is_empty() => self.atomic_aggregate = true,
            // RFC 7606 §7.6.
            code::ATOMIC_AGGREGATE => {
                return Err(attribute.discard("ATOMIC_AGGREGATE is not empty"));
            }
            code::AGGREGATOR => {
                self.aggregator = Some(aggregator(attribute, context.four_octet_as)?);
            }
            code::COMMUNITIES => {
                self.communities =
                    attribute.list(|octets| Community(u32::from_be_bytes(octets)))?;
            }
            code::ORIGINATOR_ID => {
                self.originator_id = Some(RouterId(attribute.octets_of::<4>()?.into()));
            }
            code::CLUSTER_LIST => {
                self.cluster_list = attribute.list(|octets: [u8; 4]| ClusterId(octets.into()))?;
            }
            code::EXTENDED_COMMUNITIES => {
                self.extended_communities = attribute.list(ExtendedCommunity)?;
            }
            code::AS4_PATH => self.as4_path = Some(as4_path(attribute)?),
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(attribute, true)?),
            code::LARGE_COMMUNITIES => self.large_communities = large_communities(attribute)?,
            code::ONLY_TO_CUSTOMER => self.only_to_customer = Some(Asn(attribute.number()?)),
            _ => {}
        }
        Ok(())
    }

    /// RFC 4271 §9: unknown well-known attributes end the session, optional transitive ones are
    /// passed on with Partial set, the others are dropped without a word.
    fn accept_unknown(&mut self, attribute: &Attribute<'a>) -> Result<(), ProtocolError> {
        if attribute.flags & flag::OPTIONAL == 0 {
            let fault = attribute.withdraw(
                update::UNRECOGNIZED_WELL_KNOWN,
                "it claims to be well-known",
            );
            return Err(fault.into_reset("and we do not know it"));
        }
        if attribute.flags & flag::TRANSITIVE != 0 {
            self.unknown.push(UnknownAttribute {
                flags: flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL,
                code: attribute.code,
                value: attribute.value.to_vec(),
            });
        }
        Ok(())
    }

    /// RFC 7606 §3 (g): the first one counts, except where it carries prefixes.
    fn refuse_second(&mut self, attribute: &Attribute<'a>) -> Result<(), ProtocolError> {
        if [code::MP_REACH_NLRI, code::MP_UNREACH_NLRI].contains(&attribute.code) {
            return Err(ProtocolError::new(
                Notification::new(notification::code::UPDATE, update::MALFORMED_ATTRIBUTE_LIST),
                format!("attribute {} appears twice", attribute.code),
            ));
        }
        self.fault(attribute.discard("the attribute appears more than once"));
        Ok(())
    }

    /// Puts back what a two-octet peer could not say (RFC 6793 §4.2.3).
    fn restore_four_octet_as(&mut self) {
        let as4_path = self.as4_path.take();
        if let (Some(aggregator), Some(as4_aggregator)) = (self.aggregator, self.as4_aggregator) {
            if aggregator.asn != Asn::TRANS {
                // Somebody aggregated who knew nothing of AS4_*: both of them are out of date.
                return;
            }
            self.aggregator = Some(as4_aggregator);
        }
        if let Some(as4_path) = as4_path
            && let Some(as_path) = self.as_path.take()
        {
            self.as_path = Some(as_path.merge(as4_path));
        }
    }
}

struct Header {
    flags: u8,
    code: u8,
    length: usize,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Option<Header> {
        let (flags, code) = (reader.u8()?, reader.u8()?);
        let length = if flags & flag::EXTENDED_LENGTH != 0 {
            reader.u16()?
        } else {
            u16::from(reader.u8()?)
        };
        Some(Header {
            flags,
            code,
            length: usize::from(length),
        })
    }
}

#[derive(Clone, Copy)]
struct Attribute<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// From flags to value.
    octets: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn withdraw(&self, subcode: u8, reason: &'static str) -> Fault<'a> {
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

    fn discard(&self, reason: &'static str) -> Fault<'a> {
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

    fn octets_of<const N: usize>(&self) -> Result<[u8; N], Fault<'a>> {
        self.value
            .try_into()
            .map_err(|_| self.withdraw(update::ATTRIBUTE_LENGTH, "the length is wrong"))
    }

    fn number(&self) -> Result<u32, Fault<'a>> {
        self.octets_of().map(u32::from_be_bytes)
    }

    /// One or more items of `N` octets.
    fn list<const N: usize, T>(&self, item: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Fault<'a>> {
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

/// Which attribute codes a message has brought.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// `false` if the code was there before.
    fn insert(&mut self, code: u8) -> bool {
        let bit = 1 << (code % 64);
        let Some(word) = self.0.get_mut(usize::from(code / 64)) else {
            return false;
        };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// Why attributes with this code are dropped from this peer without a look at them.
fn discarded_unread(code: u8, context: &UpdateContext) -> Option<&'static str> {
    match code {
        // RFC 7606 §7.5, §7.9, §7.10.
        code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if context.ebgp => {
            Some("an external peer may not send it")
        }
        // RFC 6793 §4.1.
        code::AS4_PATH | code::AS4_AGGREGATOR if context.four_octet_as => {
            Some("a 4-octet AS peer may not send it")
        }
        _ => None,
    }
}

fn list_fault<'a>(code: u8, octets: &'a [u8], reason: &'static str) -> Fault<'a> {
    Fault {
        error: AttributeError {
            code,
            treat_as_withdraw: true,
            reason,
        },
        subcode: update::MALFORMED_ATTRIBUTE_LIST,
        octets,
    }
}

fn origin<'a>(attribute: &Attribute<'a>) -> Result<Origin, Fault<'a>> {
    match attribute.octets_of()? {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        _ => Err(attribute.withdraw(update::INVALID_ORIGIN, "ORIGIN has an undefined value")),
    }
}

fn as_path<'a>(attribute: &Attribute<'a>, context: &UpdateContext) -> Result<AsPath, Fault<'a>> {
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
fn as4_path<'a>(attribute: &Attribute<'a>) -> Result<AsPath, Fault<'a>> {
    let path = AsPath::decode(attribute.value, true)
        .map_err(|cause| attribute.discard(bad_as_path(cause)))?;
    if path.is_empty() {
        return Err(attribute.discard("AS4_PATH is empty"));
    }
    Ok(path.without_confed())
}

/// RFC 7606 §7.7, RFC 7607 §2, RFC 6793 §6: malformed ones are discarded.
fn aggregator<'a>(attribute: &Attribute<'a>, four_octet_as: bool) -> Result<Aggregator, Fault<'a>> {
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
fn large_communities<'a>(attribute: &Attribute<'a>) -> Result<Vec<LargeCommunity>, Fault<'a>> {
    let all = attribute.list(|octets: [u8; 12]| {
        let (parts, _) = octets.as_chunks::<4>();
        let mut community = [0; 3];
        for (to, from) in community.iter_mut().zip(parts) {
            *to = u32::from_be_bytes(*from);
        }
        LargeCommunity(community)
    })?;
    let mut seen = std::collections::BTreeSet::new();
    Ok(all
        .into_iter()
        .filter(|community| seen.insert(*community))
        .collect())
}

fn mp_reach<'a>(attribute: &Attribute<'a>) -> Result<MpReach<'a>, ProtocolError> {
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
    let nlri = mp_nlri(attribute, family, reader)?;
    Ok(MpReach::Ours { next_hop, nlri })
}

fn mp_unreach<'a>(attribute: &Attribute<'a>) -> Result<Option<Nlri<'a>>, ProtocolError> {
    let cut = || attribute.reset(update::OPTIONAL_ATTRIBUTE, "MP_UNREACH_NLRI is cut short");
    let mut reader = Reader::new(attribute.value);
    let afi = reader.u16().ok_or_else(cut)?;
    let safi = reader.u8().ok_or_else(cut)?;
    match Family::from_afi_safi(afi, safi) {
        Some(family) => mp_nlri(attribute, family, reader).map(Some),
        None => Ok(None),
    }
}

/// RFC 7606 §5.3: one bad prefix makes the whole run unreadable.
fn mp_nlri<'a>(
    attribute: &Attribute<'a>,
    family: Family,
    reader: Reader<'a>,
) -> Result<Nlri<'a>, ProtocolError> {
    Nlri::parse(family, reader.rest())
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
