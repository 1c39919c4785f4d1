//! NLRI: runs of prefixes (RFC 4271 §4.3, RFC 4760 §5), with path identifiers where ADD-PATH was
//! negotiated (RFC 7911 §3).
//!
//! A run is checked once, whole, when its message is decoded; reading it afterwards cannot fail and
//! does not allocate. Which error a bad run is, and what the prefixes mean, is for `update` to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BufMut;

use super::reader::Reader;
use crate::types::{Family, PathPrefix, Prefix};

/// A run of prefixes that was checked once and is read without allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nlri<'a> {
    family: Family,
    has_path_ids: bool,
    bytes: &'a [u8],
    count: usize,
}

/// Why octets are not a run of prefixes (RFC 7606 §5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadNlri {
    #[error("a prefix length of {0} is more than its family has bits")]
    LengthTooLong(u8),
    #[error("the last prefix is cut short")]
    Cut,
}

impl<'a> Nlri<'a> {
    /// Checks `bytes` to the end. No bytes are a run of no prefixes.
    ///
    /// # Errors
    /// See [`BadNlri`].
    pub fn parse(family: Family, has_path_ids: bool, bytes: &'a [u8]) -> Result<Nlri<'a>, BadNlri> {
        let mut reader = Reader::new(bytes);
        let mut count = 0;
        while !reader.is_empty() {
            if has_path_ids {
                reader.u32().ok_or(BadNlri::Cut)?;
            }
            let length = reader.u8().ok_or(BadNlri::Cut)?;
            if length > max_length(family) {
                return Err(BadNlri::LengthTooLong(length));
            }
            reader.take(octets(length)).ok_or(BadNlri::Cut)?;
            count += 1;
        }
        Ok(Nlri {
            family,
            has_path_ids,
            bytes,
            count,
        })
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// How many prefixes, duplicates included.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The prefixes of [`Nlri::paths`], without their path identifiers.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> + use<'a> {
        self.paths().map(|path| path.prefix)
    }

    /// In wire order. Bits beyond a prefix's length are cleared: they have no meaning
    /// (RFC 4271 §4.3) and must not tell two equal routes apart.
    pub fn paths(&self) -> impl Iterator<Item = PathPrefix> + use<'a> {
        let (family, has_path_ids) = (self.family, self.has_path_ids);
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            let path_id = if has_path_ids { reader.u32()? } else { 0 };
            let length = reader.u8()?;
            let bits = reader.take(octets(length))?;
            let address = match family {
                Family::Ipv4 => IpAddr::V4(Ipv4Addr::from(left_aligned::<4>(bits))),
                Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(left_aligned::<16>(bits))),
            };
            let prefix = Prefix::new(address, length)?;
            Some(PathPrefix { prefix, path_id })
        })
    }
}

/// Octets one entry takes: its path identifier if there is one, its length, then as many octets as
/// its bits need.
pub(super) fn encoded_len(prefix: &Prefix, has_path_ids: bool) -> usize {
    path_id_len(has_path_ids) + 1 + octets(prefix.length())
}

/// What the longest entry of a family takes.
pub(super) fn max_encoded_len(family: Family, has_path_ids: bool) -> usize {
    path_id_len(has_path_ids) + 1 + octets(max_length(family))
}

pub(super) fn encode(path: &PathPrefix, has_path_ids: bool, out: &mut impl BufMut) {
    if has_path_ids {
        out.put_u32(path.path_id);
    }
    let prefix = &path.prefix;
    out.put_u8(prefix.length());
    let count = octets(prefix.length());
    match prefix {
        Prefix::V4 { bits, .. } => out.put_slice(&bits.to_be_bytes()[..count]),
        Prefix::V6 { bits, .. } => out.put_slice(&bits[..count]),
    }
}

fn path_id_len(has_path_ids: bool) -> usize {
    if has_path_ids { 4 } else { 0 }
}

fn max_length(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    }
}

fn octets(length: u8) -> usize {
    usize::from(length.div_ceil(8))
}

fn left_aligned<const N: usize>(bits: &[u8]) -> [u8; N] {
    let mut address = [0; N];
    for (to, from) in address.iter_mut().zip(bits) {
        *to = *from;
    }
    address
}
