//! How next hops are reached (RFC 4271 §9.1.2.1), as told from outside: the RIB knows no routes of
//! the kernel. Pure.

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

/// How one next hop is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// With this cost; lower wins (RFC 4271 §9.1.2.2 (e)).
    Cost(u32),
    /// Not at all: routes over it are not eligible.
    Unresolvable,
}

/// What is known of next hops. Those that nobody told of are reached at cost 0.
#[derive(Clone, Debug, Default)]
pub struct NextHops {
    by_address: HashMap<IpAddr, Reach>,
}

impl NextHops {
    pub fn reach(&self, address: IpAddr) -> Reach {
        // Reflectors tell of none.
        if self.by_address.is_empty() {
            return Reach::Cost(0);
        }
        self.by_address
            .get(&address)
            .copied()
            .unwrap_or(Reach::Cost(0))
    }

    /// Returns those that are reached otherwise than before.
    pub fn replace(&mut self, by_address: HashMap<IpAddr, Reach>) -> HashSet<IpAddr> {
        let was = NextHops {
            by_address: std::mem::replace(&mut self.by_address, by_address),
        };
        was.by_address
            .keys()
            .chain(self.by_address.keys())
            .copied()
            .filter(|address| was.reach(*address) != self.reach(*address))
            .collect()
    }
}
