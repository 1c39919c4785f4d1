//! The node's address assignments on disk: one file per address, named by it. A workload of both
//! families has two.
//!
//! An address is on disk before it is handed out, and off the disk before it can be handed out
//! again, so no crash leads to one address for two workloads. What a crash can leave is an address
//! without a workload; `reconcile` finds those.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use bgp::types::Prefix;
use tracing::warn;

use super::allocator::{Allocator, Assignment, NoAddress, Owner};
use super::record_dir::RecordDir;

/// Remembers across restarts which address of each family was given last. Only a hint: losing it means that an
/// address may be used again sooner.
const LAST_GIVEN: &str = "last-given";

#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
    #[error("failed to read address assignments")]
    Read(#[source] io::Error),
    #[error("failed to record address {address}")]
    Write {
        address: IpAddr,
        #[source]
        source: io::Error,
    },
    #[error("failed to release address {address}")]
    Release {
        address: IpAddr,
        #[source]
        source: io::Error,
    },
}

/// All calls block on the disk. Calls for one owner must not run at the same time; calls for
/// different owners may.
#[derive(Debug)]
pub struct Ipam {
    records: RecordDir,
    allocator: Mutex<Allocator>,
}

impl Ipam {
    /// Reads the assignments under `directory`, creating it if it is missing. A record that cannot
    /// be read, or contradicts another, is moved out of the way: if a workload has the address,
    /// `reconcile` enters it anew.
    ///
    /// # Errors
    /// `Read` if the directory cannot be made or listed.
    pub fn open(directory: &Path) -> Result<Ipam, IpamError> {
        let records = RecordDir::open(directory).map_err(IpamError::Read)?;
        let mut allocator = Allocator::default();
        for found in records.load::<Assignment>().map_err(IpamError::Read)? {
            let problem = match found.record {
                Err(reason) => reason,
                Ok(assignment) if assignment.address.to_string() != found.name => {
                    format!("it is about {}", assignment.address)
                }
                Ok(assignment) if allocator.insert(assignment.clone()) => continue,
                Ok(_) => String::from("its owner has another address of this family"),
            };
            warn!(
                file = found.name,
                error = problem,
                "unusable address record removed"
            );
            records.remove(&found.name).map_err(IpamError::Read)?;
        }
        let last_given = records.read_hint(LAST_GIVEN).unwrap_or_default();
        for address in last_given
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
        {
            allocator.set_last_given(address);
        }
        Ok(Ipam {
            records,
            allocator: Mutex::new(allocator),
        })
    }

    /// Gives `owner` an address of each family that `pod_cidrs` have, or those it has already; on
    /// disk when this returns.
    ///
    /// # Errors
    /// `NoAddress` if there is none of a family, `Write` if one could not be recorded; then what was
    /// given anew is free again.
    pub fn assign(
        &self,
        owner: &Owner,
        host_interface: &str,
        pod_cidrs: &[Prefix],
        reserved: &BTreeSet<IpAddr>,
    ) -> Result<Vec<IpAddr>, IpamError> {
        let (addresses, new) = {
            let mut allocator = self.lock();
            let before: BTreeSet<IpAddr> = allocator.of(owner).map(|one| one.address).collect();
            let addresses = allocator.assign(owner, host_interface, pod_cidrs, reserved)?;
            let all = allocator.of(owner);
            let new = all.filter(|one| !before.contains(&one.address));
            let new: Vec<Assignment> = new.cloned().collect();
            (addresses, new)
        };
        // Synced outside the lock, so that many workloads starting at once wait for the disk
        // together and not one after the other.
        let written = new.iter().try_for_each(|assignment| self.write(assignment));
        if let Err(error) = written {
            for assignment in &new {
                if let Err(error) = self.release_address(assignment.address) {
                    warn!(%error, "an address stays taken until its owner's DEL");
                }
            }
            return Err(error);
        }
        Ok(addresses)
    }

    /// Frees the owner's addresses; they can be given again when this returns. Returns which.
    ///
    /// # Errors
    /// `Release` for the first whose record could not be removed; it stays taken.
    pub fn release(&self, owner: &Owner) -> Result<Vec<IpAddr>, IpamError> {
        let addresses = self.of(owner).into_iter().map(|one| one.address);
        addresses
            .map(|address| self.release_address(address).map(|()| address))
            .collect()
    }

    fn release_address(&self, address: IpAddr) -> Result<(), IpamError> {
        self.records
            .remove(&address.to_string())
            .map_err(|source| IpamError::Release { address, source })?;
        // Only now: given out earlier, the new record would be the one removed.
        self.lock().release(address);
        Ok(())
    }

    /// What the owner has.
    pub fn of(&self, owner: &Owner) -> Vec<Assignment> {
        self.lock().of(owner).cloned().collect()
    }

    /// In the order of their addresses.
    pub fn assignments(&self) -> Vec<Assignment> {
        self.lock().assignments().cloned().collect()
    }

    /// Brings the records in line with what is attached: enters addresses that are in use without
    /// a record, and returns the assignments no workload has. Those are for the caller to release,
    /// after the interface they were for is gone. To be called before the first `assign`.
    ///
    /// # Errors
    /// `Write` if a missing record could not be written.
    pub fn reconcile(&self, attached: &[Assignment]) -> Result<Vec<Assignment>, IpamError> {
        for assignment in attached {
            let is_new = self.lock().insert(assignment.clone());
            if is_new {
                warn!(address = %assignment.address, container = assignment.owner.container_id,
                    "address in use had no record");
                self.write(assignment)?;
            }
        }
        let owners: BTreeSet<_> = attached.iter().map(|one| &one.owner).collect();
        let mut assignments = self.assignments();
        assignments.retain(|one| !owners.contains(&one.owner));
        Ok(assignments)
    }

    fn write(&self, assignment: &Assignment) -> Result<(), IpamError> {
        let address = assignment.address;
        self.records
            .write(&address.to_string(), assignment)
            .map_err(|source| IpamError::Write { address, source })?;
        let last_given: Vec<String> = {
            let allocator = self.lock();
            let addresses = allocator.last_given();
            addresses.map(|address| address.to_string()).collect()
        };
        if let Err(error) = self.records.write_hint(LAST_GIVEN, &last_given.join(" ")) {
            warn!(%error, "failed to note the address given last");
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Allocator> {
        self.allocator
            .lock()
            .expect("no code panics while it holds the allocator")
    }
}
