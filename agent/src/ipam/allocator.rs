//! Picks addresses for workloads. Pure: podCIDRs and reserved addresses in, an address out.
//!
//! The podCIDRs form one ring, in their order. The search starts after the address given last, so
//! that an address just freed is the last to be given again: peers may still hold connections or
//! neighbour entries of the workload that had it. IPv6 podCIDRs are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use bgp::types::Prefix;
use serde::{Deserialize, Serialize};

/// Who holds an address: one interface of one container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub container_id: String,
    pub container_interface: String,
}

/// An address and what it was given for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    pub owner: Owner,
    /// The host veth that will carry it, so that a veth is found again whose attachment was never
    /// written.
    pub host_interface: String,
    pub address: Ipv4Addr,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAddress {
    #[error("the node has no IPv4 podCIDR that holds a workload address: {}", list(.0))]
    NoPool(Vec<Prefix>),
    #[error("all {usable} workload addresses of {} are taken", list(.pod_cidrs))]
    Exhausted { pod_cidrs: Vec<Prefix>, usable: u64 },
}

/// Which addresses are taken, and where the next search starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allocator {
    by_address: BTreeMap<Ipv4Addr, Assignment>,
    address_by_owner: BTreeMap<Owner, Ipv4Addr>,
    last_given: Option<Ipv4Addr>,
}

impl Allocator {
    /// Takes the next free address of `pod_cidrs` that is not in `reserved`. An owner that holds
    /// one already is given the same again, even if the podCIDRs have changed since.
    ///
    /// # Errors
    /// `NoPool` if no podCIDR has a workload address, `Exhausted` if all of them are taken.
    pub fn assign(
        &mut self,
        owner: &Owner,
        host_interface: &str,
        pod_cidrs: &[Prefix],
        reserved: &BTreeSet<IpAddr>,
    ) -> Result<Ipv4Addr, NoAddress> {
        if let Some(address) = self.address_by_owner.get(owner) {
            return Ok(*address);
        }
        let address = self.next_free(pod_cidrs, reserved)?;
        self.insert(Assignment {
            owner: owner.clone(),
            host_interface: host_interface.to_owned(),
            address,
        });
        self.last_given = Some(address);
        Ok(address)
    }

    /// Enters an assignment made earlier. `false`, and nothing changes, if the address is taken or
    /// the owner has another.
    pub fn insert(&mut self, assignment: Assignment) -> bool {
        if self.by_address.contains_key(&assignment.address)
            || self.address_by_owner.contains_key(&assignment.owner)
        {
            return false;
        }
        self.address_by_owner
            .insert(assignment.owner.clone(), assignment.address);
        self.by_address.insert(assignment.address, assignment);
        true
    }

    /// Frees the owner's address. `None` if it has none.
    pub fn release(&mut self, owner: &Owner) -> Option<Assignment> {
        let address = self.address_by_owner.remove(owner)?;
        self.by_address.remove(&address)
    }

    pub fn get(&self, owner: &Owner) -> Option<&Assignment> {
        self.by_address.get(self.address_by_owner.get(owner)?)
    }

    /// In the order of their addresses.
    pub fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        self.by_address.values()
    }

    pub fn last_given(&self) -> Option<Ipv4Addr> {
        self.last_given
    }

    /// Where the search goes on after a restart.
    pub fn set_last_given(&mut self, address: Option<Ipv4Addr>) {
        self.last_given = address;
    }

    fn next_free(
        &self,
        pod_cidrs: &[Prefix],
        reserved: &BTreeSet<IpAddr>,
    ) -> Result<Ipv4Addr, NoAddress> {
        let ranges: Vec<_> = pod_cidrs.iter().filter_map(workload_addresses).collect();
        if ranges.is_empty() {
            return Err(NoAddress::NoPool(pod_cidrs.to_vec()));
        }
        // Each address inspected is either taken, reserved, or the answer: the search is bounded
        // by what is taken, not by the size of the podCIDRs.
        ring_after(&ranges, self.last_given)
            .map(Ipv4Addr::from)
            .find(|address| {
                !self.by_address.contains_key(address) && !reserved.contains(&IpAddr::V4(*address))
            })
            .ok_or_else(|| NoAddress::Exhausted {
                pod_cidrs: pod_cidrs.to_vec(),
                usable: ranges
                    .iter()
                    .map(|range| u64::from(range.end() - range.start()) + 1)
                    .sum(),
            })
    }
}

/// The addresses of a podCIDR that workloads may have: not the network address, not the first host
/// address (the tunnel's), not the last. `None` for IPv6 and where nothing is left (/31, /32).
pub fn workload_addresses(pod_cidr: &Prefix) -> Option<RangeInclusive<u32>> {
    let Prefix::V4 { bits, length } = *pod_cidr else {
        return None;
    };
    let host_bits = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    let first = bits.checked_add(2)?;
    let last = (bits | host_bits).checked_sub(1)?;
    (first <= last).then_some(first..=last)
}

/// All addresses of `ranges` once, beginning with the one that follows `last_given`; from the start
/// if that one is in no range.
fn ring_after(
    ranges: &[RangeInclusive<u32>],
    last_given: Option<Ipv4Addr>,
) -> impl Iterator<Item = u32> {
    let position = last_given.map(u32::from).and_then(|last| {
        let index = ranges.iter().position(|range| range.contains(&last))?;
        Some((index, last))
    });
    let (index, after, until) = match position {
        // `last` is below the broadcast address, so the sum does not overflow.
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
