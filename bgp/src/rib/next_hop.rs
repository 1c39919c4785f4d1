//! How next hops are reached (RFC 4271 §9.1.2.1), as told from outside: the RIB knows no routes of
//! the kernel. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

/// How one next hop is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// With this cost; lower wins (RFC 4271 §9.1.2.2 (e)).
    Cost(u32),
    /// Not at all: routes over it are not eligible.
    Unresolvable,
}

/// What is known of one next hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextHopInfo {
    pub reach: Reach,
    /// The name of the interface by which packets to it leave.
    pub interface: Option<Arc<str>>,
}

impl From<Reach> for NextHopInfo {
    fn from(reach: Reach) -> NextHopInfo {
        NextHopInfo {
            reach,
            interface: None,
        }
    }
}

/// What is known of next hops. Those that nobody told of are reached at cost 0, by an interface that
/// is not known.
#[derive(Clone, Debug, Default)]
pub struct NextHops {
    by_address: HashMap<IpAddr, NextHopInfo>,
    /// Since somebody tells: reflectors have nobody who does.
    tracked: Option<Tracked>,
}

/// The next hops of learned routes. Bounded by their attribute sets; those that no route has any
/// more stay until the sets are purged.
#[derive(Clone, Debug, Default)]
struct Tracked {
    addresses: HashSet<IpAddr>,
    /// Those that nobody has told of yet.
    unanswered: HashSet<IpAddr>,
    /// `addresses` differ from what was last asked about.
    is_question_due: bool,
}

/// Next hops of which something else is known than before.
#[derive(Debug, Default)]
pub struct ChangedNextHops {
    pub reached_otherwise: HashSet<IpAddr>,
    pub by_other_interface: HashSet<IpAddr>,
}

impl NextHops {
    pub fn reach(&self, address: IpAddr) -> Reach {
        self.get(address)
            .map_or(Reach::Cost(0), |next_hop| next_hop.reach)
    }

    pub fn interface(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.get(address)?.interface.as_ref()
    }

    fn get(&self, address: IpAddr) -> Option<&NextHopInfo> {
        if self.by_address.is_empty() {
            return None;
        }
        self.by_address.get(&address)
    }

    pub fn replace(&mut self, by_address: HashMap<IpAddr, NextHopInfo>) -> ChangedNextHops {
        let was = NextHops {
            by_address: std::mem::replace(&mut self.by_address, by_address),
            tracked: None,
        };
        if let Some(tracked) = &mut self.tracked {
            let is_unanswered = |address: &&IpAddr| !self.by_address.contains_key(*address);
            tracked.unanswered = tracked
                .addresses
                .iter()
                .filter(is_unanswered)
                .copied()
                .collect();
        }
        let mut changed = ChangedNextHops::default();
        for address in was.by_address.keys().chain(self.by_address.keys()) {
            if was.reach(*address) != self.reach(*address) {
                changed.reached_otherwise.insert(*address);
            }
            if was.interface(*address) != self.interface(*address) {
                changed.by_other_interface.insert(*address);
            }
        }
        changed
    }

    pub fn is_tracking(&self) -> bool {
        self.tracked.is_some()
    }

    /// From now on these are the next hops that are asked about; `note` adds to them.
    pub fn track(&mut self, addresses: HashSet<IpAddr>) {
        let is_same = |tracked: &Tracked| tracked.addresses == addresses;
        if self.tracked.as_ref().is_some_and(is_same) {
            return;
        }
        let is_unanswered = |address: &&IpAddr| !self.by_address.contains_key(*address);
        self.tracked = Some(Tracked {
            unanswered: addresses.iter().filter(is_unanswered).copied().collect(),
            addresses,
            is_question_due: true,
        });
    }

    /// A route with this next hop was learned.
    pub fn note(&mut self, address: IpAddr) {
        if let Some(tracked) = &mut self.tracked
            && tracked.addresses.insert(address)
        {
            tracked.is_question_due = true;
            if !self.by_address.contains_key(&address) {
                tracked.unanswered.insert(address);
            }
        }
    }

    /// Whether there are next hops that nobody has told of yet although somebody tells.
    pub fn is_waiting(&self) -> bool {
        let is_waiting = |tracked: &Tracked| !tracked.unanswered.is_empty();
        self.tracked.as_ref().is_some_and(is_waiting)
    }

    pub fn is_question_due(&self) -> bool {
        self.tracked
            .as_ref()
            .is_some_and(|tracked| tracked.is_question_due)
    }

    /// The next hops to tell of, all of them.
    pub fn question(&mut self) -> BTreeSet<IpAddr> {
        let Some(tracked) = &mut self.tracked else {
            return BTreeSet::new();
        };
        tracked.is_question_due = false;
        tracked.addresses.iter().copied().collect()
    }
}
