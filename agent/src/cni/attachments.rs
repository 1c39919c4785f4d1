//! Attachments on disk: what is known of a workload from ADD to DEL, across restarts of the agent.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use super::attachment::Attachment;
use crate::ipam::allocator::Owner;
use crate::ipam::record_dir::RecordDir;

/// Between container id and interface in a file's name; no container id has it.
const SEPARATOR: char = '@';

#[derive(Debug, thiserror::Error)]
pub enum AttachmentError {
    #[error("failed to read attachments")]
    Read(#[source] io::Error),
    #[error("failed to record the attachment of container {container_id}")]
    Write {
        container_id: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to remove the attachment of container {container_id}")]
    Remove {
        container_id: String,
        #[source]
        source: io::Error,
    },
}

/// A record that is there but cannot be read: its workload may run, so its address stays taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    pub owner: Owner,
    pub reason: String,
}

/// Writing blocks on the disk. Calls for one owner must not run at the same time.
#[derive(Debug)]
pub struct Attachments {
    records: RecordDir,
    by_owner: Mutex<BTreeMap<Owner, Attachment>>,
    unreadable: Vec<Unreadable>,
}

impl Attachments {
    /// Reads the attachments under `directory`, creating it if it is missing.
    ///
    /// # Errors
    /// `Read` if the directory cannot be made or listed.
    pub fn open(directory: &Path) -> Result<Attachments, AttachmentError> {
        let records = RecordDir::open(directory).map_err(AttachmentError::Read)?;
        Attachments::load(records)
    }

    /// The same for somebody who only looks. A directory that is missing has none.
    ///
    /// # Errors
    /// As `open`.
    pub fn read(directory: &Path) -> Result<Vec<Attachment>, AttachmentError> {
        match RecordDir::existing(directory) {
            Some(records) => Ok(Attachments::load(records)?.all()),
            None => Ok(Vec::new()),
        }
    }

    fn load(records: RecordDir) -> Result<Attachments, AttachmentError> {
        let mut by_owner = BTreeMap::new();
        let mut unreadable = Vec::new();
        for found in records.load().map_err(AttachmentError::Read)? {
            match (found.record, parse_file_name(&found.name)) {
                (Ok(attachment), _) => {
                    by_owner.insert(Owner::of(&attachment), attachment);
                }
                (Err(reason), Some(owner)) => unreadable.push(Unreadable { owner, reason }),
                // A foreign file: no name we ever gave.
                (Err(_), None) => {}
            }
        }
        Ok(Attachments {
            records,
            by_owner: Mutex::new(by_owner),
            unreadable,
        })
    }

    /// Creates or replaces; on disk when this returns.
    ///
    /// # Errors
    /// `Write`; then what was there before still is.
    pub fn save(&self, attachment: &Attachment) -> Result<(), AttachmentError> {
        let owner = Owner::of(attachment);
        self.records
            .write(&file_name(&owner), attachment)
            .map_err(|source| AttachmentError::Write {
                container_id: owner.container_id.clone(),
                source,
            })?;
        self.lock().insert(owner, attachment.clone());
        Ok(())
    }

    /// Off the disk when this returns. Nothing happens if there is none.
    ///
    /// # Errors
    /// `Remove`; then it is still there.
    pub fn remove(&self, owner: &Owner) -> Result<(), AttachmentError> {
        self.records
            .remove(&file_name(owner))
            .map_err(|source| AttachmentError::Remove {
                container_id: owner.container_id.clone(),
                source,
            })?;
        self.lock().remove(owner);
        Ok(())
    }

    pub fn get(&self, owner: &Owner) -> Option<Attachment> {
        self.lock().get(owner).cloned()
    }

    pub fn by_host_interface(&self, host_interface: &str) -> Option<Attachment> {
        self.lock()
            .values()
            .find(|attachment| attachment.host_interface == host_interface)
            .cloned()
    }

    /// Sorted by container and interface.
    pub fn all(&self) -> Vec<Attachment> {
        self.lock().values().cloned().collect()
    }

    /// Records that could not be read at start.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Owner, Attachment>> {
        self.by_owner
            .lock()
            .expect("nothing panics under this lock")
    }
}

impl Owner {
    pub fn of(attachment: &Attachment) -> Owner {
        Owner {
            container_id: attachment.container_id.clone(),
            container_interface: attachment.container_interface.clone(),
        }
    }
}

fn file_name(owner: &Owner) -> String {
    format!(
        "{}{SEPARATOR}{}",
        owner.container_id, owner.container_interface
    )
}

fn parse_file_name(name: &str) -> Option<Owner> {
    let (container_id, container_interface) = name.split_once(SEPARATOR)?;
    Some(Owner {
        container_id: container_id.to_owned(),
        container_interface: container_interface.to_owned(),
    })
}
