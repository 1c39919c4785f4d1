//! What a rule of a BGPFilter does with the routes it matches.

use std::fmt;
use std::str::FromStr;

use crate::types::{Asn, LocalPref};
use crate::wire::attribute::PathAttributes;
use crate::wire::community::{Community, LargeCommunity};

/// The last word about a route.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Action {
    /// After these changes, in their order.
    Accept(Vec<Operation>),
    Reject,
}

impl Action {
    pub const ACCEPT: Action = Action::Accept(Vec::new());
}

/// One change of a route's attributes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// Adds it where the route does not have it.
    AddCommunity(CommunityValue),
    /// Puts these in front of AS_PATH, the first of them foremost.
    PrependAsPath(Vec<Asn>),
    /// Sets LOCAL_PREF. Towards an eBGP peer that changes nothing on the wire (RFC 4271 §5.1.5).
    SetPriority(Priority),
}

/// Makes the changes, one after the other.
pub fn apply(operations: &[Operation], attributes: &mut PathAttributes) {
    for operation in operations {
        match operation {
            Operation::AddCommunity(value) => value.add_to(attributes),
            Operation::PrependAsPath(asns) => {
                for asn in asns.iter().rev() {
                    attributes.as_path.prepend(*asn, 1);
                }
            }
            Operation::SetPriority(priority) => {
                attributes.local_pref = Some(priority.local_pref());
            }
        }
    }
}

/// Tells the changes of one rule from those of another as long as both live; no changes are always
/// the same.
pub fn identity(operations: &[Operation]) -> usize {
    match operations {
        [] => 0,
        [first, ..] => std::ptr::from_ref(first) as usize,
    }
}

/// A standard or a large community (RFC 1997, RFC 8092), as rules name them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum CommunityValue {
    Standard(Community),
    Large(LargeCommunity),
}

impl CommunityValue {
    pub fn is_in(&self, attributes: &PathAttributes) -> bool {
        match self {
            CommunityValue::Standard(value) => attributes.communities.contains(value),
            CommunityValue::Large(value) => attributes.large_communities.contains(value),
        }
    }

    fn add_to(&self, attributes: &mut PathAttributes) {
        match self {
            CommunityValue::Standard(value) => attributes.add_community(*value),
            CommunityValue::Large(_) if self.is_in(attributes) => {}
            CommunityValue::Large(value) => attributes.large_communities.push(*value),
        }
    }
}

/// Text that is no community as rules name them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a community; write aa:nn with both below 65536, or aa:nn:mm with all below 2^32")]
pub struct BadCommunityValue;

impl FromStr for CommunityValue {
    type Err = BadCommunityValue;

    /// Takes `aa:nn` and `aa:nn:mm` in decimal, without leading zeros, as Calico does.
    fn from_str(text: &str) -> Result<CommunityValue, BadCommunityValue> {
        let numbers: Option<Vec<u32>> = text.split(':').map(number).collect();
        match numbers.as_deref() {
            Some([high, low]) => {
                let octets = |half: &u32| u16::try_from(*half).map_err(|_| BadCommunityValue);
                let (high, low) = (octets(high)?, octets(low)?);
                let value = u32::from(high) << 16 | u32::from(low);
                Ok(CommunityValue::Standard(Community(value)))
            }
            Some([global, first, second]) => {
                let value = LargeCommunity([*global, *first, *second]);
                Ok(CommunityValue::Large(value))
            }
            Some(_) | None => Err(BadCommunityValue),
        }
    }
}

/// A decimal number with one spelling.
fn number(text: &str) -> Option<u32> {
    let has_leading_zero = text.len() > 1 && text.starts_with('0');
    let is_decimal = text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| is_decimal && !has_leading_zero)
}

/// How much a route is wanted, lower first, in the units of Calico's `…RoutePriority`. On the wire
/// it is LOCAL_PREF, where higher is first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Priority(u32);

impl Priority {
    pub const MIN: u32 = 1;
    pub const MAX: u32 = 2_147_483_646;

    /// `None` unless the value is 1 to 2147483646.
    pub fn new(value: u32) -> Option<Priority> {
        (Priority::MIN..=Priority::MAX)
            .contains(&value)
            .then_some(Priority(value))
    }

    /// 2147483647 less the priority: Calico's mapping between the two.
    pub fn local_pref(self) -> LocalPref {
        LocalPref(Priority::MAX + 1 - self.0)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn community(text: &str) -> CommunityValue {
        text.parse().expect(text)
    }

    fn priority(value: u32) -> Priority {
        Priority::new(value).expect("in range")
    }

    #[test]
    fn communities_are_read_as_calico_takes_them() {
        use CommunityValue::{Large, Standard};
        for (text, expected) in [
            ("65000:100", Some(Standard(Community(65000 << 16 | 100)))),
            ("0:0", Some(Standard(Community(0)))),
            ("65535:65535", Some(Standard(Community(u32::MAX)))),
            ("65536:1", None),
            ("1:65536", None),
            (
                "65000:100:200",
                Some(Large(LargeCommunity([65000, 100, 200]))),
            ),
            (
                "4294967295:4294967295:4294967295",
                Some(Large(LargeCommunity([u32::MAX; 3]))),
            ),
            ("4294967296:1:1", None),
            ("1", None),
            ("1:2:3:4", None),
            ("01:2", None),
            ("+1:2", None),
            ("1:", None),
            (" 1:2", None),
            ("no-export", None),
            ("0xff:1", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn priority_is_local_pref_from_the_other_end() {
        for (value, expected) in [
            (0, None),
            (1, Some(2_147_483_646)),
            (100, Some(2_147_483_547)),
            (256, Some(2_147_483_391)),
            (1024, Some(2_147_482_623)),
            (2_147_483_646, Some(1)),
            (2_147_483_647, None),
            (u32::MAX, None),
        ] {
            let local_pref = Priority::new(value).map(Priority::local_pref);
            assert_eq!(local_pref, expected.map(LocalPref), "{value}");
        }
    }

    #[test]
    fn operations_change_attributes_in_their_order() {
        let mut attributes = PathAttributes::originated([192, 0, 2, 1].into());
        attributes.as_path = "65100 {65200}".parse().expect("path");
        attributes.communities = thin_vec::thin_vec![Community(1), Community(2)];
        let unchanged = attributes.clone();
        apply(&[], &mut attributes);
        assert_eq!(attributes, unchanged);
        apply(
            &[
                Operation::AddCommunity(community("65000:200")),
                Operation::AddCommunity(community("0:2")),
                Operation::AddCommunity(community("65000:300:400")),
                Operation::AddCommunity(community("65000:300:400")),
                Operation::PrependAsPath(vec![Asn(65001), Asn(65002)]),
                Operation::PrependAsPath(vec![Asn(64999), Asn(64999)]),
                Operation::SetPriority(priority(100)),
                Operation::SetPriority(priority(256)),
            ],
            &mut attributes,
        );
        assert_eq!(
            attributes,
            PathAttributes {
                as_path: "64999 64999 65001 65002 65100 {65200}"
                    .parse()
                    .expect("path"),
                communities: thin_vec::thin_vec![
                    Community(1),
                    Community(2),
                    Community(65000 << 16 | 200)
                ],
                large_communities: thin_vec::thin_vec![LargeCommunity([65000, 300, 400])],
                local_pref: Some(LocalPref(2_147_483_391)),
                ..unchanged
            }
        );
    }

    #[test]
    fn a_path_that_grows_over_a_segment_gets_another() {
        let mut attributes = PathAttributes::originated([192, 0, 2, 1].into());
        attributes.as_path.prepend(Asn(65100), 254);
        apply(
            &[Operation::PrependAsPath(vec![Asn(1), Asn(2), Asn(3)])],
            &mut attributes,
        );
        let lengths: Vec<usize> = attributes
            .as_path
            .segments
            .iter()
            .map(|segment| segment.asns.len())
            .collect();
        assert_eq!(lengths, [2, 255]);
        let first: Vec<Asn> = attributes.as_path.asns().take(4).collect();
        assert_eq!(first, [Asn(1), Asn(2), Asn(3), Asn(65100)]);
    }
}
