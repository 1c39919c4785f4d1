//! Whose connections are looked at at all: those from addresses of listed peers and from ranges.
//! Listeners ask, so that a stranger costs an accept and no word to anybody. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::config::SpeakerConfig;
use crate::types::Prefix;

/// Who may connect.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Admitted {
    addresses: BTreeSet<IpAddr>,
    ranges: Vec<Prefix>,
}

impl Admitted {
    pub fn by(config: &SpeakerConfig) -> Admitted {
        Admitted {
            addresses: config.peers.keys().map(|key| key.address).collect(),
            ranges: config.ranges.keys().copied().collect(),
        }
    }

    /// `address` may be an IPv4 one in IPv6's clothes.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut ranges = self.ranges.iter();
        self.addresses.contains(&address) || ranges.any(|range| range.contains(address))
    }
}

/// Listed addresses alone.
#[cfg(test)]
impl FromIterator<IpAddr> for Admitted {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Admitted {
        Admitted {
            addresses: addresses.into_iter().collect(),
            ranges: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_addresses_and_ranges_are_admitted_and_nobody_else() {
        let admitted = Admitted {
            addresses: ["192.0.2.1", "2001:db8::1"]
                .map(|text| text.parse().expect("an address"))
                .into(),
            ranges: ["198.51.100.0/25", "2001:db8:1::/48"]
                .map(|text| text.parse().expect("a prefix"))
                .into(),
        };
        for (address, is_admitted) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.2", false),
            ("198.51.100.127", true),
            ("198.51.100.128", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
            ("2001:db8:1:2::3", true),
            ("2001:db8:2::3", false),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(admitted.admits(parsed), is_admitted, "{address}");
        }
        let nobody = Admitted::default();
        assert!(!nobody.admits([192, 0, 2, 1].into()));
    }
}
