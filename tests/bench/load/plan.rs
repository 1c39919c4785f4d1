//! Who announces what: every prefix has a number, and from it follow its sender and its attributes.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::messages::{self, Attributes};

/// The first prefix is 20.0.0.0/24, the next one 20.0.1.0/24, and so on; the first host 20.0.0.0.
const BASE: u32 = 20 << 16;

/// As an UPDATE has it (RFC 4271 §4.3).
#[derive(Clone, Copy, Debug)]
pub struct Nlri {
    /// Bits.
    pub length: u8,
    /// With zeros after those.
    pub address: [u8; 4],
}

impl Nlri {
    /// Octets of the address that are said.
    pub fn said(&self) -> &[u8] {
        &self.address[..usize::from(self.length).div_ceil(8)]
    }
}

/// `senders` clients, the first ones, with `prefixes` each in sets of `prefixes_per_set`.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub senders: u32,
    pub prefixes: u32,
    pub prefixes_per_set: u32,
}

/// 10.1.0.1 and up.
pub fn address(client: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a01_0000 + client + 1)
}

impl Plan {
    pub fn total(&self) -> u32 {
        self.senders * self.prefixes
    }

    /// The numbers of a sender's prefixes.
    pub fn of(&self, sender: u32) -> Range<u32> {
        if sender < self.senders {
            sender * self.prefixes..(sender + 1) * self.prefixes
        } else {
            0..0
        }
    }

    pub fn prefix(index: u32) -> Nlri {
        let address = ((BASE + index) << 8).to_be_bytes();
        Nlri {
            length: 24,
            address,
        }
    }

    /// A /32 in place of the prefix of that number.
    pub fn host(index: u32) -> Nlri {
        let address = ((BASE << 8) + index).to_be_bytes();
        Nlri {
            length: 32,
            address,
        }
    }

    /// The number of a /32 in any plan.
    pub fn number_of_host(address: [u8; 4]) -> Option<u32> {
        u32::from_be_bytes(address).checked_sub(BASE << 8)
    }

    /// The number of a /24, if it is one of these.
    pub fn index(&self, prefix: [u8; 3]) -> Option<u32> {
        Plan::number(prefix).filter(|index| *index < self.total())
    }

    /// The number of a /24 in any plan.
    pub fn number([a, b, c]: [u8; 3]) -> Option<u32> {
        u32::from_be_bytes([0, a, b, c]).checked_sub(BASE)
    }

    /// What the routes of prefix `index` say, and the numbers of all that say the same.
    pub fn set_of(&self, index: u32) -> (Attributes, Range<u32>) {
        let sender = index / self.prefixes;
        let set = index / self.prefixes_per_set;
        let first = set * self.prefixes_per_set;
        let attributes = Attributes {
            next_hop: address(sender),
            set,
        };
        (attributes, first..first + self.prefixes_per_set)
    }

    /// All that a sender announces.
    pub fn announcement(&self, sender: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let mut index = self.of(sender).start;
        while index < self.of(sender).end {
            let (attributes, same) = self.set_of(index);
            let end = same.end.min(self.of(sender).end);
            let prefixes: Vec<Nlri> = (index..end).map(Plan::prefix).collect();
            messages::announce(&attributes, &prefixes, &mut out);
            index = end;
        }
        out
    }

    pub fn withdrawal(&self, sender: u32) -> Vec<u8> {
        let prefixes: Vec<Nlri> = self.of(sender).map(Plan::prefix).collect();
        let mut out = Vec::new();
        messages::withdraw(&prefixes, &mut out);
        out
    }
}
