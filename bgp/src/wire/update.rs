//! UPDATE (RFC 4271 §4.3) with the error handling of RFC 7606.
//!
//! A body becomes prefixes to withdraw and prefixes to announce, which borrow the body; `encode` is
//! the way back. Whether a peer may send a route, and whether its next hop is any good, is for
//! policy and RIB to say.

mod encode;

pub use encode::{
    AttributesTooLarge, EncodeContext, encode_announce, encode_end_of_rib, encode_withdraw,
    put_announce, put_withdraw,
};

use super::attribute::{self, AttributeBlock, MpReach, NextHop, PathAttributes};
use super::error::ProtocolError;
use super::nlri::Nlri;
use super::notification::{self, Notification};
use super::reader::Reader;
use crate::types::{Family, FamilySet};

/// What decoding depends on besides the bytes.
#[derive(Clone, Copy, Debug)]
pub struct UpdateContext {
    /// Both sides sent the 4-octet AS capability (RFC 6793).
    pub four_octet_as: bool,
    /// LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are discarded from eBGP peers (RFC 7606 §7.5, 7.9, 7.10).
    pub ebgp: bool,
    /// Families whose prefixes come with path identifiers (RFC 7911 §3).
    pub add_path: FamilySet,
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
    /// 0 where octets are left over that are no attribute.
    pub code: u8,
    /// `false`: the attribute alone was dropped (attribute discard).
    pub treat_as_withdraw: bool,
    pub reason: &'static str,
}

/// Decodes the body of an UPDATE, which may be of any length.
///
/// Prefixes keep their order, duplicates included. Prefixes of families that are not ours are
/// ignored. Within [`Update`] nothing is empty but what the message left empty.
///
/// # Errors
/// 3/x where RFC 7606 leaves nothing but the end of the session: prefixes that cannot be read, a
/// second or malformed MP_REACH_NLRI or MP_UNREACH_NLRI, an unknown well-known attribute, and
/// treat-as-withdraw where the message announces nothing.
pub fn decode_update<'a>(
    body: &'a [u8],
    context: &UpdateContext,
) -> Result<Update<'a>, ProtocolError> {
    let fields = Fields::split(body).ok_or_else(|| {
        // RFC 4271 §6.3: one of the two lengths is more than the message has.
        ProtocolError::new(
            update_error(notification::update::MALFORMED_ATTRIBUTE_LIST),
            "the withdrawn routes or the attributes overrun the message",
        )
    })?;
    let withdrawn = parse_nlri(fields.withdrawn, context)?;
    let nlri = parse_nlri(fields.nlri, context)?;
    let block = attribute::decode(fields.attributes, context)?;

    let mut update = Update::default();
    if withdrawn.is_empty() && nlri.is_empty() {
        update.end_of_rib = end_of_rib(&block);
    }
    let unreachable = [Some(withdrawn), block.mp_unreach].into_iter().flatten();
    update
        .withdrawn
        .extend(unreachable.filter(|run| !run.is_empty()));
    announce(block, nlri, &mut update)?;
    Ok(update)
}

/// Adds what the message announces, or withdraws it where an attribute's fault demands so.
fn announce<'a>(
    mut block: AttributeBlock<'a>,
    nlri: Nlri<'a>,
    update: &mut Update<'a>,
) -> Result<(), ProtocolError> {
    let mut runs: Vec<(Option<NextHop>, Nlri<'a>)> = Vec::new();
    if !nlri.is_empty() {
        runs.push((block.classic_next_hop(), nlri));
    }
    let mut announces_foreign = false;
    match block.mp_reach {
        Some(MpReach::Ours { next_hop, nlri }) if !nlri.is_empty() => {
            runs.push((Some(next_hop), nlri));
        }
        Some(MpReach::Foreign) => announces_foreign = true,
        Some(MpReach::Ours { .. }) | None => {}
    }
    let faults = std::mem::take(&mut block.faults);
    update
        .errors
        .extend(faults.iter().map(|fault| fault.error.clone()));
    let mut withdraw = false;
    if let Some(fault) = faults.into_iter().find(|f| f.error.treat_as_withdraw) {
        if runs.is_empty() && !announces_foreign {
            // RFC 7606 §5.2: a message with faulty attributes and no prefixes to announce may be
            // one whose prefixes we failed to find.
            return Err(fault.into_reset("and the message announces nothing"));
        }
        withdraw = true;
    } else if !runs.is_empty()
        && let Some(missing) = block.missing_mandatory(!nlri.is_empty())
    {
        update.errors.push(missing);
        withdraw = true;
    }
    if withdraw {
        let runs = runs.into_iter().map(|(_, nlri)| nlri);
        update.withdrawn.extend(runs);
        return Ok(());
    }
    // Both fields at once are rare, so the common message moves its attributes.
    let Some((next_hop, last)) = runs.pop() else {
        return Ok(());
    };
    let attributes = next_hop.and_then(|next_hop| block.into_attributes(next_hop));
    let Some(attributes) = attributes else {
        return Ok(());
    };
    for (next_hop, nlri) in runs {
        if let Some(next_hop) = next_hop {
            let attributes = PathAttributes {
                next_hop,
                ..attributes.clone()
            };
            update.announced.push(Announcement { attributes, nlri });
        }
    }
    update.announced.push(Announcement {
        attributes,
        nlri: last,
    });
    Ok(())
}

/// The family of a message that withdraws and announces nothing: IPv4 if it has no attribute at
/// all, that of an empty MP_UNREACH_NLRI if this is all there is (RFC 4724 §2).
fn end_of_rib(block: &AttributeBlock<'_>) -> Option<Family> {
    match (block.count, &block.mp_unreach) {
        (0, None) if block.faults.is_empty() => Some(Family::Ipv4),
        (1, Some(nlri)) if nlri.is_empty() && block.faults.is_empty() => Some(nlri.family()),
        _ => None,
    }
}

/// The three parts of the body. `nlri` is what the others leave.
struct Fields<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    nlri: &'a [u8],
}

impl<'a> Fields<'a> {
    fn split(body: &'a [u8]) -> Option<Fields<'a>> {
        let mut reader = Reader::new(body);
        let withdrawn_len = reader.u16()?;
        let withdrawn = reader.take(usize::from(withdrawn_len))?;
        let attributes_len = reader.u16()?;
        let attributes = reader.take(usize::from(attributes_len))?;
        Some(Fields {
            withdrawn,
            attributes,
            nlri: reader.rest(),
        })
    }
}

/// The fields outside attributes are of IPv4. RFC 7606 §5.3: one bad prefix makes the whole run
/// unreadable, which ends the session.
fn parse_nlri<'a>(bytes: &'a [u8], context: &UpdateContext) -> Result<Nlri<'a>, ProtocolError> {
    let has_path_ids = context.add_path.contains(Family::Ipv4);
    Nlri::parse(Family::Ipv4, has_path_ids, bytes).map_err(|cause| {
        ProtocolError::new(
            update_error(notification::update::INVALID_NETWORK_FIELD),
            cause.to_string(),
        )
    })
}

fn update_error(subcode: u8) -> Notification {
    Notification::new(notification::code::UPDATE, subcode)
}
