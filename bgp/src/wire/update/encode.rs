//! UPDATE messages, values to octets: as many prefixes in each message as fit.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{Family, FamilySet, PathPrefix};
use crate::wire::attribute::{
    MAX_ATTRIBUTE_HEADER_LEN, PathAttributes, encode_attributes, mp_reach_head, mp_unreach_head,
    put_mp_reach, put_mp_unreach,
};
use crate::wire::frame::{self, HEADER_LEN, MAX_EXTENDED_LEN, MessageKind};
use crate::wire::nlri;

/// The lengths of withdrawn routes and of the attributes.
const LENGTHS_LEN: usize = 4;

/// What encoding depends on besides the routes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EncodeContext {
    /// Both sides sent the 4-octet AS capability (RFC 6793).
    pub four_octet_as: bool,
    /// No message gets longer: [`frame::MAX_LEN`], or [`frame::MAX_EXTENDED_LEN`] where negotiated.
    pub max_len: usize,
    /// Families whose prefixes go with path identifiers (RFC 7911 §3).
    pub add_path: FamilySet,
}

/// Attributes that leave no room for a prefix of full length in a message. The routes cannot be
/// told to this peer; what it has of them must be withdrawn (RFC 8654 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("attributes of {attributes_len} octets leave no room for a prefix in {max_len}")]
pub struct AttributesTooLarge {
    pub attributes_len: usize,
    pub max_len: usize,
}

/// [`put_announce`], message by message.
///
/// # Errors
/// The same.
pub fn encode_announce(
    family: Family,
    attributes: &PathAttributes,
    prefixes: impl Iterator<Item = impl Into<PathPrefix>>,
    context: &EncodeContext,
) -> Result<Vec<Bytes>, AttributesTooLarge> {
    let mut out = BytesMut::new();
    put_announce(family, attributes, prefixes, context, &mut out)?;
    Ok(frame::split(out.freeze()))
}

/// [`put_withdraw`], message by message.
pub fn encode_withdraw(
    family: Family,
    prefixes: impl Iterator<Item = impl Into<PathPrefix>>,
    context: &EncodeContext,
) -> Vec<Bytes> {
    let mut out = BytesMut::new();
    put_withdraw(family, prefixes, context, &mut out);
    frame::split(out.freeze())
}

/// Announces `prefixes`, all of `family`, with one set of attributes, behind what `out` holds.
///
/// IPv4 prefixes with an IPv4 next hop go into the NLRI field, all others into MP_REACH_NLRI, which
/// then comes first in its message (RFC 7606 §5.1, RFC 8950). The attributes are encoded once. No
/// prefixes make no messages.
///
/// # Errors
/// [`AttributesTooLarge`], whatever the prefixes are; `out` is as it was.
pub fn put_announce(
    family: Family,
    attributes: &PathAttributes,
    prefixes: impl Iterator<Item = impl Into<PathPrefix>>,
    context: &EncodeContext,
    out: &mut BytesMut,
) -> Result<(), AttributesTooLarge> {
    let next_hop = &attributes.next_hop;
    let mp_head = match (family, next_hop.address) {
        (Family::Ipv4, IpAddr::V4(_)) => None,
        (Family::Ipv4, IpAddr::V6(_)) | (Family::Ipv6, _) => Some(mp_reach_head(family, next_hop)),
    };
    let block = encode_attributes(attributes, mp_head.is_none(), context.four_octet_as);
    let mp_len = mp_head
        .as_ref()
        .map_or(0, |head| MAX_ATTRIBUTE_HEADER_LEN + head.len());
    let attributes_len = block.len() + mp_len;
    let room = room(attributes_len, context);
    let has_path_ids = context.add_path.contains(family);
    if room < nlri::max_encoded_len(family, has_path_ids) {
        return Err(AttributesTooLarge {
            attributes_len,
            max_len: context.max_len,
        });
    }
    pack(prefixes, has_path_ids, room, |nlri| match &mp_head {
        None => put_message(&[], |_| {}, &block, nlri, out),
        Some(head) => put_message(&[], |mp| put_mp_reach(head, nlri, mp), &block, &[], out),
    });
    Ok(())
}

/// Withdraws `prefixes`, all of `family`, behind what `out` holds: IPv4 in the WITHDRAWN ROUTES field,
/// IPv6 in MP_UNREACH_NLRI. No prefixes make no messages.
pub fn put_withdraw(
    family: Family,
    prefixes: impl Iterator<Item = impl Into<PathPrefix>>,
    context: &EncodeContext,
    out: &mut BytesMut,
) {
    let head = mp_unreach_head(family);
    let overhead = match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => MAX_ATTRIBUTE_HEADER_LEN + head.len(),
    };
    pack(
        prefixes,
        context.add_path.contains(family),
        room(overhead, context),
        |nlri| match family {
            Family::Ipv4 => put_message(nlri, |_| {}, &[], &[], out),
            Family::Ipv6 => put_message(&[], |mp| put_mp_unreach(&head, nlri, mp), &[], &[], out),
        },
    );
}

/// Tells that all routes of `family` have been sent (RFC 4724 §2).
pub fn encode_end_of_rib(family: Family) -> Bytes {
    let mut out = BytesMut::new();
    match family {
        Family::Ipv4 => put_message(&[], |_| {}, &[], &[], &mut out),
        Family::Ipv6 => {
            let head = mp_unreach_head(family);
            put_message(&[], |mp| put_mp_unreach(&head, &[], mp), &[], &[], &mut out);
        }
    }
    out.freeze()
}

/// What a message of the longest kind has left beside `taken` octets of attributes.
fn room(taken: usize, context: &EncodeContext) -> usize {
    let max_len = context.max_len.min(MAX_EXTENDED_LEN);
    max_len.saturating_sub(HEADER_LEN + LENGTHS_LEN + taken)
}

/// Fills runs of up to `room` octets with `prefixes` and has a message made of each.
fn pack(
    prefixes: impl Iterator<Item = impl Into<PathPrefix>>,
    has_path_ids: bool,
    room: usize,
    mut put_message: impl FnMut(&[u8]),
) {
    let mut run = Vec::with_capacity(room.min(256));
    for path in prefixes.map(Into::into) {
        let length = nlri::encoded_len(&path.prefix, has_path_ids);
        if !run.is_empty() && run.len() + length > room {
            put_message(&run);
            run.clear();
        }
        nlri::encode(&path, has_path_ids, &mut run);
    }
    if !run.is_empty() {
        put_message(&run);
    }
}

/// One UPDATE: the attribute that carries prefixes first, then the `block` of the others.
fn put_message(
    withdrawn: &[u8],
    put_mp: impl FnOnce(&mut BytesMut),
    block: &[u8],
    nlri: &[u8],
    out: &mut BytesMut,
) {
    let start = frame::begin_in(out, MessageKind::Update);
    put_len(withdrawn.len(), out);
    out.put_slice(withdrawn);
    let mut mp = BytesMut::new();
    put_mp(&mut mp);
    put_len(mp.len() + block.len(), out);
    out.put_slice(&mp);
    out.put_slice(block);
    out.put_slice(nlri);
    frame::finish_in(out, start);
}

/// [`room`] keeps every part below what two octets can count.
fn put_len(length: usize, out: &mut BytesMut) {
    out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
}
