//! Path attributes, values to octets: in the order of their codes, each with the flags and the
//! length form its RFC gives it.

use std::net::IpAddr;

use bytes::BufMut;

use super::{
    Aggregator, NextHop, Origin, PathAttributes, UnknownAttribute, code, flag, specified_flags,
};
use crate::types::{Asn, Family};
use crate::wire::frame::SAFI_UNICAST;

/// Flags, code and the longer form of the length.
pub(in crate::wire) const MAX_ATTRIBUTE_HEADER_LEN: usize = 4;

/// Writes all of `attributes` but the next hop, which is added as NEXT_HOP only if `with_next_hop`
/// and if it is an IPv4 address.
pub(in crate::wire) fn encode_attributes(
    attributes: &PathAttributes,
    with_next_hop: bool,
    four_octet_as: bool,
) -> Vec<u8> {
    let mut block = Block::new(attributes);
    let as_path = &attributes.as_path;
    block.put(code::ORIGIN, |out| {
        out.put_u8(origin_octet(attributes.origin));
    });
    block.put(code::AS_PATH, |out| as_path.encode(four_octet_as, out));
    if let (true, IpAddr::V4(address)) = (with_next_hop, attributes.next_hop.address) {
        block.put(code::NEXT_HOP, |out| out.put_slice(&address.octets()));
    }
    if let Some(med) = attributes.med {
        block.put(code::MULTI_EXIT_DISC, |out| out.put_u32(med.0));
    }
    if let Some(local_pref) = attributes.local_pref {
        block.put(code::LOCAL_PREF, |out| out.put_u32(local_pref.0));
    }
    if attributes.atomic_aggregate {
        block.put(code::ATOMIC_AGGREGATE, |_| {});
    }
    if let Some(aggregator) = &attributes.aggregator {
        block.put(code::AGGREGATOR, |out| {
            put_aggregator(aggregator, four_octet_as, out);
        });
    }
    block.put_list(code::COMMUNITIES, &attributes.communities, |out, item| {
        out.put_u32(item.0);
    });
    if let Some(originator_id) = attributes.originator_id {
        block.put(code::ORIGINATOR_ID, |out| {
            out.put_slice(&originator_id.0.octets());
        });
    }
    block.put_list(code::CLUSTER_LIST, &attributes.cluster_list, |out, item| {
        out.put_slice(&item.0.octets());
    });
    block.put_list(
        code::EXTENDED_COMMUNITIES,
        &attributes.extended_communities,
        |out, item| out.put_slice(&item.0),
    );
    // RFC 6793 §4.2.2: what two octets could not say.
    if !four_octet_as && as_path.needs_four_octets() {
        block.put(code::AS4_PATH, |out| {
            as_path.without_confed().encode(true, out);
        });
    }
    if let Some(aggregator) = &attributes.aggregator
        && !four_octet_as
        && u16::try_from(aggregator.asn.0).is_err()
    {
        block.put(code::AS4_AGGREGATOR, |out| {
            put_aggregator(aggregator, true, out);
        });
    }
    block.put_list(
        code::LARGE_COMMUNITIES,
        &attributes.large_communities,
        |out, item| item.0.iter().for_each(|part| out.put_u32(*part)),
    );
    if let Some(Asn(asn)) = attributes.only_to_customer {
        block.put(code::ONLY_TO_CUSTOMER, |out| out.put_u32(asn));
    }
    block.finish()
}

/// What MP_REACH_NLRI holds before its prefixes (RFC 4760 §3).
pub(in crate::wire) fn mp_reach_head(family: Family, next_hop: &NextHop) -> Vec<u8> {
    let mut address = Vec::with_capacity(32);
    match (family, next_hop.address) {
        (Family::Ipv4, IpAddr::V4(v4)) => address.put_slice(&v4.octets()),
        // IPv6 prefixes have no other way to name an IPv4 next hop (RFC 4798 §2).
        (Family::Ipv6, IpAddr::V4(v4)) => address.put_slice(&v4.to_ipv6_mapped().octets()),
        (_, IpAddr::V6(v6)) => {
            address.put_slice(&v6.octets());
            if let Some(link_local) = next_hop.link_local {
                address.put_slice(&link_local.octets());
            }
        }
    }
    let mut head = Vec::with_capacity(5 + address.len());
    head.put_u16(family.afi());
    head.put_u8(SAFI_UNICAST);
    head.put_u8(u8::try_from(address.len()).unwrap_or(u8::MAX));
    head.put_slice(&address);
    head.put_u8(0);
    head
}

/// What MP_UNREACH_NLRI holds before its prefixes (RFC 4760 §4).
pub(in crate::wire) fn mp_unreach_head(family: Family) -> [u8; 3] {
    let [high, low] = family.afi().to_be_bytes();
    [high, low, SAFI_UNICAST]
}

pub(in crate::wire) fn put_mp_reach(head: &[u8], nlri: &[u8], out: &mut impl BufMut) {
    put_header(
        flag::OPTIONAL,
        code::MP_REACH_NLRI,
        head.len() + nlri.len(),
        out,
    );
    out.put_slice(head);
    out.put_slice(nlri);
}

pub(in crate::wire) fn put_mp_unreach(head: &[u8], nlri: &[u8], out: &mut impl BufMut) {
    put_header(
        flag::OPTIONAL,
        code::MP_UNREACH_NLRI,
        head.len() + nlri.len(),
        out,
    );
    out.put_slice(head);
    out.put_slice(nlri);
}

/// An attribute block under construction.
struct Block<'a> {
    out: Vec<u8>,
    value: Vec<u8>,
    attributes: &'a PathAttributes,
    /// Those not written yet, by code.
    unknown: &'a [UnknownAttribute],
}

impl<'a> Block<'a> {
    fn new(attributes: &'a PathAttributes) -> Block<'a> {
        Block {
            out: Vec::with_capacity(128),
            value: Vec::new(),
            attributes,
            unknown: &attributes.unknown,
        }
    }

    /// Appends a known attribute, after the unknown ones with lower codes.
    fn put(&mut self, code: u8, write_value: impl FnOnce(&mut Vec<u8>)) {
        self.put_unknown_below(Some(code));
        self.value.clear();
        write_value(&mut self.value);
        let mut flags = specified_flags(code).unwrap_or(flag::OPTIONAL);
        if self.attributes.partial.contains(code) {
            flags |= flag::PARTIAL;
        }
        put_header(flags, code, self.value.len(), &mut self.out);
        self.out.extend_from_slice(&self.value);
    }

    /// Appends a list, or nothing if it is empty: no list may be (RFC 7606 §4).
    fn put_list<T>(&mut self, code: u8, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
        if !items.is_empty() {
            self.put(code, |out| items.iter().for_each(|item| write(out, item)));
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.put_unknown_below(None);
        self.out
    }

    /// `None`: all that are left.
    fn put_unknown_below(&mut self, code: Option<u8>) {
        while let Some((first, rest)) = self.unknown.split_first()
            && code.is_none_or(|code| first.code < code)
        {
            put_header(first.flags, first.code, first.value.len(), &mut self.out);
            self.out.extend_from_slice(&first.value);
            self.unknown = rest;
        }
    }
}

/// The longer form of the length is used only where the shorter does not do. A value that does not
/// even fit the longer one makes the block larger than any message, which the caller checks.
fn put_header(flags: u8, code: u8, length: usize, out: &mut impl BufMut) {
    match u8::try_from(length) {
        Ok(length) => {
            out.put_u8(flags & !flag::EXTENDED_LENGTH);
            out.put_u8(code);
            out.put_u8(length);
        }
        Err(_) => {
            out.put_u8(flags | flag::EXTENDED_LENGTH);
            out.put_u8(code);
            out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
        }
    }
}

fn put_aggregator(aggregator: &Aggregator, four_octet_as: bool, out: &mut impl BufMut) {
    if four_octet_as {
        out.put_u32(aggregator.asn.0);
    } else {
        out.put_u16(aggregator.asn.to_two_octets());
    }
    out.put_slice(&aggregator.address.octets());
}

fn origin_octet(origin: Origin) -> u8 {
    match origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    }
}
