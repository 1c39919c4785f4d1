//! Picks addresses for workloads. Pure: podCIDRs and reserved addresses in, an address of each
//! family out.
//!
//! The podCIDRs of a family form one ring, in their order. The search starts after the address given
//! last, so that an address just freed is the last to be given again: peers may still hold connections
//! or neighbour entries of the workload that had it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use bgp::types::{Family, Prefix};
use serde::{Deserialize, Serialize};

/// Who holds an address: one interface of one container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub container_id: String,
    pub container_interface: String,
}

/// An address and what it was given for. An owner has at most one of each family.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    pub owner: Owner,
    /// The host veth that will carry it, so that a veth is found again whose attachment was never
    /// written.
    pub host_interface: String,
    pub address: IpAddr,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAddress {
    #[error("the node has no podCIDR that holds a workload address: {}", list(.0))]
    NoPool(Vec<Prefix>),
    #[error("all {usable} workload addresses of {} are taken", list(.pod_cidrs))]
    Exhausted {
        pod_cidrs: Vec<Prefix>,
        usable: u128,
    },
}

/// Which addresses are taken, and where the next search starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allocator {
    by_address: BTreeMap<IpAddr, Assignment>,
    addresses_by_owner: BTreeMap<Owner, BTreeMap<Family, IpAddr>>,
    last_given: BTreeMap<Family, IpAddr>,
}

impl Allocator {
    /// Takes the next free address that is not in `reserved` from the podCIDRs of each family. An
    /// owner that holds one of the family already keeps it, even if the podCIDRs have changed since.
    /// Returns the owner's addresses, the families in the order of the podCIDRs.
    ///
    /// # Errors
    /// `NoPool` if no podCIDR has a workload address, `Exhausted` if all of a family are taken; then
    /// nothing was taken.
    pub fn assign(
        &mut self,
        owner: &Owner,
        host_interface: &str,
        pod_cidrs: &[Prefix],
        reserved: &BTreeSet<IpAddr>,
    ) -> Result<Vec<IpAddr>, NoAddress> {
        let mut held = self
            .addresses_by_owner
            .get(owner)
            .cloned()
            .unwrap_or_default();
        let families = families_of(pod_cidrs);
        if families.is_empty() && held.is_empty() {
            return Err(NoAddress::NoPool(pod_cidrs.to_vec()));
        }
        let mut taken = Vec::new();
        for family in families.iter().filter(|family| !held.contains_key(family)) {
            taken.push((*family, self.next_free(*family, pod_cidrs, reserved)?));
        }
        for (family, address) in taken {
            self.insert(Assignment {
                owner: owner.clone(),
                host_interface: host_interface.to_owned(),
                address,
            });
            self.last_given.insert(family, address);
            held.insert(family, address);
        }
        let mut addresses: Vec<IpAddr> = families
            .iter()
            .filter_map(|family| held.remove(family))
            .collect();
        addresses.extend(held.into_values());
        Ok(addresses)
    }

    /// Enters an assignment made earlier. `false`, and nothing changes, if the address is taken or
    /// the owner has another of its family.
    pub fn insert(&mut self, assignment: Assignment) -> bool {
        let address = assignment.address;
        let family = family_of(address);
        let held = self.addresses_by_owner.get(&assignment.owner);
        if self.by_address.contains_key(&address)
            || held.is_some_and(|held| held.contains_key(&family))
        {
            return false;
        }
        let held = self.addresses_by_owner.entry(assignment.owner.clone());
        held.or_default().insert(family, address);
        self.by_address.insert(address, assignment);
        true
    }

    /// Frees an address. `None` if nobody has it.
    pub fn release(&mut self, address: IpAddr) -> Option<Assignment> {
        let assignment = self.by_address.remove(&address)?;
        if let Some(held) = self.addresses_by_owner.get_mut(&assignment.owner) {
            held.remove(&family_of(address));
            if held.is_empty() {
                self.addresses_by_owner.remove(&assignment.owner);
            }
        }
        Some(assignment)
    }

    /// What the owner has.
    pub fn of(&self, owner: &Owner) -> impl Iterator<Item = &Assignment> {
        let held = self.addresses_by_owner.get(owner);
        let addresses = held.into_iter().flat_map(BTreeMap::values);
        addresses.filter_map(|address| self.by_address.get(address))
    }

    /// In the order of their addresses.
    pub fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        self.by_address.values()
    }

    /// One of each family.
    pub fn last_given(&self) -> impl Iterator<Item = IpAddr> {
        self.last_given.values().copied()
    }

    /// Where the search in the address's family goes on after a restart.
    pub fn set_last_given(&mut self, address: IpAddr) {
        self.last_given.insert(family_of(address), address);
    }

    fn next_free(
        &self,
        family: Family,
        pod_cidrs: &[Prefix],
        reserved: &BTreeSet<IpAddr>,
    ) -> Result<IpAddr, NoAddress> {
        let own = pod_cidrs.iter().filter(|cidr| cidr.family() == family);
        let ranges: Vec<_> = own.clone().filter_map(workload_addresses).collect();
        // Each address inspected is either taken, reserved, or the answer: the search is bounded
        // by what is taken, not by the size of the podCIDRs.
        ring_after(&ranges, self.last_given.get(&family).map(number_of))
            .filter_map(|number| address_of(family, number))
            .find(|address| !self.by_address.contains_key(address) && !reserved.contains(address))
            .ok_or_else(|| NoAddress::Exhausted {
                usable: ranges
                    .iter()
                    .map(|range| range.end() - range.start() + 1)
                    .sum(),
                pod_cidrs: own.copied().collect(),
            })
    }
}

/// The addresses of a podCIDR that workloads may have: not the network address (of IPv6 the routers'
/// anycast address, RFC 4291 §2.6.1), not the first host address (the tunnel's), not the last.
/// `None` where nothing is left (/31, /32, /127, /128).
pub fn workload_addresses(pod_cidr: &Prefix) -> Option<RangeInclusive<u128>> {
    let bits_of_family = match pod_cidr.family() {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    };
    let network = number_of(&pod_cidr.network());
    let host_bits = u128::MAX
        .checked_shr(128 - bits_of_family + u32::from(pod_cidr.length()))
        .unwrap_or(0);
    let first = network.checked_add(2)?;
    let last = (network | host_bits).checked_sub(1)?;
    (first <= last).then_some(first..=last)
}

/// Those that have a workload address, in the order in which the podCIDRs name them first.
fn families_of(pod_cidrs: &[Prefix]) -> Vec<Family> {
    let mut families = Vec::new();
    for cidr in pod_cidrs {
        if !families.contains(&cidr.family()) && workload_addresses(cidr).is_some() {
            families.push(cidr.family());
        }
    }
    families
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

fn number_of(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(*address)),
        IpAddr::V6(address) => u128::from(*address),
    }
}

/// `None` for a number that the family does not reach.
fn address_of(family: Family, number: u128) -> Option<IpAddr> {
    match family {
        Family::Ipv4 => {
            let number = u32::try_from(number).ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(number)))
        }
        Family::Ipv6 => Some(IpAddr::V6(Ipv6Addr::from(number))),
    }
}

/// All addresses of `ranges` once, beginning with the one that follows `last_given`; from the start
/// if that one is in no range.
fn ring_after(
    ranges: &[RangeInclusive<u128>],
    last_given: Option<u128>,
) -> impl Iterator<Item = u128> {
    let position = last_given.and_then(|last| {
        let index = ranges.iter().position(|range| range.contains(&last))?;
        Some((index, last))
    });
    let (index, after, until) = match position {
        // `last` is below the last address of its podCIDR, so the sum does not overflow.
        Some((index, last)) => (
            index,
            last + 1..=*ranges[index].end(),
            *ranges[index].start()..=last,
        ),
        None => (0, ranges[0].clone(), RangeInclusive::new(1, 0)),
    };
    let rest = ranges[index + 1..].iter().chain(&ranges[..index]);
    after.chain(rest.cloned().flatten()).chain(until)
}

fn list(prefixes: &[Prefix]) -> String {
    if prefixes.is_empty() {
        return String::from("none");
    }
    let texts: Vec<_> = prefixes.iter().map(Prefix::to_string).collect();
    texts.join(", ")
}
