//! The path attribute block of an UPDATE, octets to values (RFC 7606).
//!
//! Every attribute is judged by itself: a malformed one becomes a [`Fault`] and the walk goes on,
//! so that the prefixes in MP_REACH_NLRI are found wherever the fault is. What the faults do to the
//! routes is decided in `update`, which knows all prefixes of the message.

use std::net::{IpAddr, Ipv4Addr};

use thin_vec::ThinVec;

use super::value::{self, Attribute, Fault, MpReach};
use super::{
    Aggregator, NextHop, Origin, Partial, PathAttributes, UnknownAttribute, code, flag,
    specified_flags,
};
use crate::types::{Asn, ClusterId, LocalPref, Med, RouterId};
use crate::wire::as_path::AsPath;
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
    communities: ThinVec<Community>,
    originator_id: Option<RouterId>,
    cluster_list: ThinVec<ClusterId>,
    extended_communities: ThinVec<ExtendedCommunity>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    large_communities: ThinVec<LargeCommunity>,
    only_to_customer: Option<Asn>,
    unknown: ThinVec<UnknownAttribute>,
    partial: Partial,
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
        let attribute = match Attribute::read(&mut reader) {
            Ok(attribute) => attribute,
            // RFC 7606 §3 (j): prefixes that cannot be read cannot be withdrawn.
            Err(fault) if carries_prefixes(fault.error.code) => {
                return Err(fault.into_reset("so its prefixes are unknown"));
            }
            // The total length still tells where the prefixes behind the block begin.
            Err(fault) => {
                decoded.faults.push(fault);
                break;
            }
        };
        decoded.count += 1;
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
            self.faults.push(attribute.discard(reason));
            return Ok(());
        }
        if (attribute.flags ^ specified) & (flag::OPTIONAL | flag::TRANSITIVE) != 0 {
            // RFC 7606 §3 (c), and §5.3 for the two that carry prefixes.
            let fault = attribute.withdraw(
                update::ATTRIBUTE_FLAGS,
                "the flags are not the specified ones",
            );
            if carries_prefixes(attribute.code) {
                return Err(fault.into_reset("so its prefixes cannot be trusted"));
            }
            self.faults.push(fault);
            return Ok(());
        }
        match attribute.code {
            code::MP_REACH_NLRI => self.mp_reach = Some(value::mp_reach(attribute, context)?),
            code::MP_UNREACH_NLRI => self.mp_unreach = value::mp_unreach(attribute, context)?,
            _ => match self.accept_value(attribute, context) {
                Ok(()) if keeps_partial(attribute.code, specified) => {
                    self.partial
                        .set(attribute.code, attribute.flags & flag::PARTIAL != 0);
                }
                Ok(()) => {}
                Err(fault) => self.faults.push(fault),
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
            code::ORIGIN => self.origin = Some(value::origin(attribute)?),
            code::AS_PATH => self.as_path = Some(value::as_path(attribute, context)?),
            code::NEXT_HOP => self.next_hop = Some(attribute.octets_of::<4>()?.into()),
            code::MULTI_EXIT_DISC => self.med = Some(Med(attribute.number()?)),
            code::LOCAL_PREF => self.local_pref = Some(LocalPref(attribute.number()?)),
            code::ATOMIC_AGGREGATE if attribute.value.is_empty() => self.atomic_aggregate = true,
            // RFC 7606 §7.6.
            code::ATOMIC_AGGREGATE => {
                return Err(attribute.discard("ATOMIC_AGGREGATE is not empty"));
            }
            code::AGGREGATOR => {
                self.aggregator = Some(value::aggregator(attribute, context.four_octet_as)?);
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
            code::AS4_PATH => self.as4_path = Some(value::as4_path(attribute)?),
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(value::aggregator(attribute, true)?),
            code::LARGE_COMMUNITIES => {
                self.large_communities = value::large_communities(attribute)?
            }
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
        if carries_prefixes(attribute.code) {
            return Err(ProtocolError::new(
                Notification::new(notification::code::UPDATE, update::MALFORMED_ATTRIBUTE_LIST),
                format!("attribute {} appears twice", attribute.code),
            ));
        }
        self.faults
            .push(attribute.discard("the attribute appears more than once"));
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

/// Faults in these leave prefixes unknown, so that nothing can be withdrawn.
fn carries_prefixes(code: u8) -> bool {
    matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI)
}

/// Partial has a meaning for optional transitive attributes only (RFC 4271 §4.3); AS4_PATH and
/// AS4_AGGREGATOR are not passed on but written anew.
fn keeps_partial(code: u8, specified: u8) -> bool {
    specified == flag::OPTIONAL | flag::TRANSITIVE
        && !matches!(code, code::AS4_PATH | code::AS4_AGGREGATOR)
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
