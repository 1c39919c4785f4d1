//! Numbers that have a meaning, each with its own type, and the prefixes that routes are about.
//!
//! Constructors check; a value that exists is valid.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An autonomous system number, 4 octets (RFC 6793).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// Stands for a 4-octet AS where only two octets fit (RFC 6793 §9).
    pub const TRANS: Asn = Asn(23456);

    /// Whether it is for private use (RFC 6996 §5).
    pub fn is_private(self) -> bool {
        matches!(self.0, 64512..=65534 | 4_200_000_000..=4_294_967_294)
    }

    /// The two-octet form for the OPEN message: AS_TRANS if the number does not fit.
    pub fn to_two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A BGP Identifier: any non-zero 32-bit number, written as an IPv4 address (RFC 6286 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouterId(pub Ipv4Addr);

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A route reflection cluster (RFC 4456 §7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub Ipv4Addr);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// LOCAL_PREF (RFC 4271 §5.1.5): higher wins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LocalPref(pub u32);

impl LocalPref {
    /// What a route has that brought none.
    pub const DEFAULT: LocalPref = LocalPref(100);
}

/// MULTI_EXIT_DISC (RFC 4271 §5.1.4): lower wins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Med(pub u32);

/// A hold time in whole seconds: 0 (never expires) or 3 to 65535 (RFC 4271 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HoldTime(u16);

/// A hold time of 1 or 2 seconds, which RFC 4271 §4.2 forbids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("hold time {0} s is not 0 or at least 3 (RFC 4271 §4.2)")]
pub struct UnacceptableHoldTime(pub u16);

impl HoldTime {
    pub const DEFAULT: HoldTime = HoldTime(90);

    /// # Errors
    /// `UnacceptableHoldTime` for 1 and 2.
    pub fn new(seconds: u16) -> Result<HoldTime, UnacceptableHoldTime> {
        match seconds {
            1 | 2 => Err(UnacceptableHoldTime(seconds)),
            _ => Ok(HoldTime(seconds)),
        }
    }

    pub fn seconds(self) -> u16 {
        self.0
    }

    /// The smaller of both sides' proposals (RFC 4271 §4.2).
    pub fn negotiate(self, other: HoldTime) -> HoldTime {
        HoldTime(self.0.min(other.0))
    }
}

/// What a speaker is to the other end of an eBGP session (RFC 9234 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Role {
    Provider,
    RouteServer,
    RouteServerClient,
    Customer,
    Peer,
}

impl fmt::Display for Role {
    /// As in configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Provider => "provider",
            Role::RouteServer => "rs",
            Role::RouteServerClient => "rsClient",
            Role::Customer => "customer",
            Role::Peer => "peer",
        })
    }
}

/// The address families this speaker carries, all SAFI unicast (RFC 4760).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The IANA address family number.
    pub fn afi(self) -> u16 {
        match self {
            Family::Ipv4 => 1,
            Family::Ipv6 => 2,
        }
    }

    /// The family of an (AFI, SAFI) pair, if it is one of ours.
    pub fn from_afi_safi(afi: u16, safi: u8) -> Option<Family> {
        match (afi, safi) {
            (1, 1) => Some(Family::Ipv4),
            (2, 1) => Some(Family::Ipv6),
            _ => None,
        }
    }

    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        })
    }
}

/// Some of the [`Family`]s, in a byte: what a session carries, or does for some of them only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FamilySet(u8);

impl FamilySet {
    pub const EMPTY: FamilySet = FamilySet(0);

    pub fn contains(self, family: Family) -> bool {
        self.0 & FamilySet::bit(family) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order of [`Family::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL
            .into_iter()
            .filter(move |family| self.contains(*family))
    }

    fn bit(family: Family) -> u8 {
        match family {
            Family::Ipv4 => 1,
            Family::Ipv6 => 2,
        }
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<T: IntoIterator<Item = Family>>(families: T) -> FamilySet {
        let bits = families.into_iter().map(FamilySet::bit);
        FamilySet(bits.fold(0, |all, bit| all | bit))
    }
}

impl fmt::Debug for FamilySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A prefix and which of its paths is meant (RFC 7911 §3). The path identifier has a meaning on
/// sessions with ADD-PATH only; elsewhere it is 0 and not on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PathPrefix {
    pub prefix: Prefix,
    pub path_id: u32,
}

impl From<Prefix> for PathPrefix {
    fn from(prefix: Prefix) -> PathPrefix {
        PathPrefix { prefix, path_id: 0 }
    }
}

/// An IPv4 or IPv6 prefix. Bits beyond the length are always zero, so equality is route equality.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prefix {
    V4 { bits: u32, length: u8 },
    V6 { bits: [u8; 16], length: u8 },
}

/// Text that is not a prefix, or has bits set beyond its length.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPrefix {
    #[error("{0:?} is not ADDRESS/LENGTH")]
    Syntax(String),
    #[error("{0:?} has bits set beyond its length; did you mean {1}?")]
    HostBits(String, Prefix),
}

impl Prefix {
    /// The prefix of `length` bits that holds `address`; host bits are cleared.
    /// `None` if `length` exceeds the family's 32 or 128.
    pub fn new(address: IpAddr, length: u8) -> Option<Prefix> {
        match address {
            IpAddr::V4(address) if length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Some(Prefix::V4 {
                    bits: u32::from(address) & mask,
                    length,
                })
            }
            IpAddr::V6(address) if length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                let bits = (u128::from(address) & mask).to_be_bytes();
                Some(Prefix::V6 { bits, length })
            }
            _ => None,
        }
    }

    /// The /32 or /128 of one address.
    pub fn host(address: IpAddr) -> Prefix {
        match address {
            IpAddr::V4(address) => Prefix::V4 {
                bits: u32::from(address),
                length: 32,
            },
            IpAddr::V6(address) => Prefix::V6 {
                bits: address.octets(),
                length: 128,
            },
        }
    }

    pub fn family(&self) -> Family {
        match self {
            Prefix::V4 { .. } => Family::Ipv4,
            Prefix::V6 { .. } => Family::Ipv6,
        }
    }

    /// The lowest address.
    pub fn network(&self) -> IpAddr {
        match self {
            Prefix::V4 { bits, .. } => IpAddr::V4(Ipv4Addr::from(*bits)),
            Prefix::V6 { bits, .. } => IpAddr::V6(Ipv6Addr::from(*bits)),
        }
    }

    /// Prefix length in bits: 0 to 32 or 0 to 128.
    pub fn length(&self) -> u8 {
        match self {
            Prefix::V4 { length, .. } | Prefix::V6 { length, .. } => *length,
        }
    }

    pub fn is_host(&self) -> bool {
        match self {
            Prefix::V4 { length, .. } => *length == 32,
            Prefix::V6 { length, .. } => *length == 128,
        }
    }

    pub fn is_default(&self) -> bool {
        self.length() == 0
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.covers(&Prefix::host(address))
    }

    /// Whether `other` is this prefix or a longer one inside it. Never across families.
    pub fn covers(&self, other: &Prefix) -> bool {
        if other.family() != self.family() || other.length() < self.length() {
            return false;
        }
        Prefix::new(other.network(), self.length()).is_some_and(|cut| cut == *self)
    }

    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.length())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    /// Parses `ADDRESS/LENGTH` and refuses host bits: `10.0.0.1/24` is a typing error more often
    /// than a wish.
    fn from_str(text: &str) -> Result<Prefix, BadPrefix> {
        let syntax = || BadPrefix::Syntax(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(syntax)?;
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let length: u8 = length.parse().map_err(|_| syntax())?;
        let prefix = Prefix::new(address, length).ok_or_else(syntax)?;
        if prefix.network() != address {
            return Err(BadPrefix::HostBits(text.to_owned(), prefix));
        }
        Ok(prefix)
    }
}

impl Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect(text)
    }

    #[test]
    fn covering_follows_bits_and_length() {
        for (name, outer, inner, covers) in [
            ("itself", "10.0.0.0/8", "10.0.0.0/8", true),
            ("longer inside", "10.0.0.0/8", "10.9.0.0/16", true),
            ("shorter", "10.9.0.0/16", "10.0.0.0/8", false),
            ("elsewhere", "10.0.0.0/8", "11.0.0.0/16", false),
            (
                "default covers all",
                "0.0.0.0/0",
                "255.255.255.255/32",
                true,
            ),
            ("never across families", "0.0.0.0/0", "2001:db8::/32", false),
            ("v6", "2001:db8::/32", "2001:db8:1::/48", true),
        ] {
            assert_eq!(prefix(outer).covers(&prefix(inner)), covers, "{name}");
        }
    }

    #[test]
    fn host_bits_and_bad_lengths_are_refused() {
        for text in [
            "10.0.0.1/24",
            "10.0.0.0/33",
            "10.0.0.0",
            "x/8",
            "::/129",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn hold_time_of_one_or_two_seconds_is_refused() {
        assert!(HoldTime::new(1).is_err() && HoldTime::new(2).is_err());
        assert_eq!(HoldTime::new(3).map(HoldTime::seconds), Ok(3));
        assert_eq!(HoldTime::new(0).map(HoldTime::seconds), Ok(0));
    }
}
