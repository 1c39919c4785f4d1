//! Communities: standard (RFC 1997), extended (RFC 4360) and large (RFC 8092), and how they are
//! written in configuration and output. What they make a speaker do is policy.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::zetta;

/// A standard community, `asn:value`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Community(pub u32);

impl Community {
    /// RFC 8326: de-prefer, this path is about to go.
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xFFFF_0000);
    /// RFC 9494: the route is stale; use any other.
    pub const LLGR_STALE: Community = Community(0xFFFF_0006);
    /// RFC 9494: never keep the route as a stale one.
    pub const NO_LLGR: Community = Community(0xFFFF_0007);
    /// RFC 7999: drop the traffic.
    pub const BLACKHOLE: Community = Community(0xFFFF_029A);
    /// RFC 1997: not outside the (confederation's) AS.
    pub const NO_EXPORT: Community = Community(0xFFFF_FF01);
    /// RFC 1997: to no peer at all.
    pub const NO_ADVERTISE: Community = Community(0xFFFF_FF02);
    /// RFC 1997: not to eBGP peers, members of the confederation included.
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xFFFF_FF03);
    /// RFC 3765: not across bilateral peerings.
    pub const NO_PEER: Community = Community(0xFFFF_FF04);

    const NAMES: [(Community, &'static str); 8] = [
        (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Community::LLGR_STALE, "llgr-stale"),
        (Community::NO_LLGR, "no-llgr"),
        (Community::BLACKHOLE, "blackhole"),
        (Community::NO_EXPORT, "no-export"),
        (Community::NO_ADVERTISE, "no-advertise"),
        (Community::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
        (Community::NO_PEER, "no-peer"),
    ];
}

/// Text that is not a community.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCommunity {
    #[error("{0:?} is neither a well-known community nor ASN:VALUE with both below 65536")]
    Standard(String),
    #[error("{0:?} is not an extended community such as rt:ASN:VALUE or soo:ADDRESS:VALUE")]
    Extended(String),
    #[error("{0:?} is not ASN:VALUE:VALUE with three numbers below 2^32")]
    Large(String),
}

impl fmt::Display for Community {
    /// Its name if it is a well-known one, else `asn:value`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Community::NAMES.iter().find(|(known, _)| known == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xFFFF),
        }
    }
}

impl FromStr for Community {
    type Err = BadCommunity;

    /// Takes what `Display` writes, `asn:value` of well-known ones, and a plain number.
    fn from_str(text: &str) -> Result<Community, BadCommunity> {
        let named = Community::NAMES.iter().find(|(_, name)| *name == text);
        named
            .map(|(community, _)| *community)
            .or_else(|| zetta::parse_community(text))
            .ok_or_else(|| BadCommunity::Standard(text.to_owned()))
    }
}

/// An extended community, as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// Types with an administrator and a number, transitive across ASes (RFC 4360 §3, RFC 5668).
mod extended {
    pub(super) const TWO_OCTET_AS: u8 = 0;
    pub(super) const IPV4_ADDRESS: u8 = 1;
    pub(super) const FOUR_OCTET_AS: u8 = 2;
    /// The subtypes with a name of their own.
    pub(super) const NAMES: [(u8, &str); 2] = [(2, "rt"), (3, "soo")];
}

impl fmt::Display for ExtendedCommunity {
    /// `rt:65001:7`, `rt:192.0.2.1:7`, `rt:4200000000:7`, the same with `soo`; others in the words
    /// of zettabgp, the least of which is all numbers in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let name = extended::NAMES.iter().find(|(code, _)| *code == subtype);
        match (kind, name) {
            (extended::TWO_OCTET_AS, Some((_, name))) => {
                let (asn, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, g]));
                write!(f, "{name}:{asn}:{value}")
            }
            (extended::IPV4_ADDRESS, Some((_, name))) => {
                let (address, value) = (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, g]));
                write!(f, "{name}:{address}:{value}")
            }
            (extended::FOUR_OCTET_AS, Some((_, name))) => {
                let (asn, value) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, g]));
                write!(f, "{name}:{asn}:{value}")
            }
            _ => f.write_str(&zetta::extended_community_text(*self)),
        }
    }
}

impl FromStr for ExtendedCommunity {
    type Err = BadCommunity;

    /// `rt:` and `soo:` with an address, or with an AS number, which takes four octets only where
    /// two do not do; other forms as zettabgp reads them.
    fn from_str(text: &str) -> Result<ExtendedCommunity, BadCommunity> {
        parse_named_extended(text)
            .or_else(|| zetta::parse_extended_community(text))
            .ok_or_else(|| BadCommunity::Extended(text.to_owned()))
    }
}

fn parse_named_extended(text: &str) -> Option<ExtendedCommunity> {
    let (name, rest) = text.split_once(':')?;
    let (administrator, value) = rest.split_once(':')?;
    let (subtype, _) = extended::NAMES.iter().find(|(_, known)| *known == name)?;
    let (kind, [a, b, c, d, e, g]) = if let Ok(asn) = administrator.parse::<u16>() {
        let ([a, b], [c, d, e, g]) = (asn.to_be_bytes(), value.parse::<u32>().ok()?.to_be_bytes());
        (extended::TWO_OCTET_AS, [a, b, c, d, e, g])
    } else {
        let (kind, [a, b, c, d]) = match administrator.parse::<Ipv4Addr>() {
            Ok(address) => (extended::IPV4_ADDRESS, address.octets()),
            Err(_) => (
                extended::FOUR_OCTET_AS,
                administrator.parse::<u32>().ok()?.to_be_bytes(),
            ),
        };
        let [e, g] = value.parse::<u16>().ok()?.to_be_bytes();
        (kind, [a, b, c, d, e, g])
    };
    Some(ExtendedCommunity([kind, *subtype, a, b, c, d, e, g]))
}

/// A large community, `global:local1:local2`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LargeCommunity(pub [u32; 3]);

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [global, local1, local2] = self.0;
        write!(f, "{global}:{local1}:{local2}")
    }
}

impl FromStr for LargeCommunity {
    type Err = BadCommunity;

    fn from_str(text: &str) -> Result<LargeCommunity, BadCommunity> {
        let mut parts = text.split(':').map(|part| part.parse().ok());
        let mut next = || parts.next().flatten();
        match (next(), next(), next(), parts.next()) {
            (Some(global), Some(local1), Some(local2), None) => {
                Ok(LargeCommunity([global, local1, local2]))
            }
            _ => Err(BadCommunity::Large(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
