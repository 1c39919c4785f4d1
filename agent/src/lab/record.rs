//! What a lab made, on disk: so that a later command finds it, and so that a lab whose owner died
//! can be taken down by exactly that and nothing else.
//!
//! The record is `lab.json` in the lab's directory, written anew before and after each thing made.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::error::{LabError, Result};
use super::netns::Namespace;
use super::process::{self, Process};
use super::topology::Options;

const FILE: &str = "lab.json";
const DIRECTORY_PREFIX: &str = "caracal-lab-";
/// How long a killed process may take to disappear.
const END_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub id: String,
    pub directory: PathBuf,
    /// The process that takes it down at its end; absent for a lab that `up` left running.
    pub owner: Option<Process>,
    pub options: Options,
    pub namespaces: Vec<Namespace>,
    pub processes: Vec<Process>,
    pub workloads: Vec<Workload>,
}

/// A workload attached through the CNI plugin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub name: String,
    pub node: String,
    pub address: std::net::Ipv4Addr,
}

impl Record {
    /// Makes the directory of a new lab, readable by root alone.
    pub fn create(options: Options) -> Result<Record> {
        let base = std::env::temp_dir();
        if base.starts_with("/run") || base.starts_with("/var/run") {
            return Err(LabError::DirectoryHidden(base));
        }
        let template = base.join(format!("{DIRECTORY_PREFIX}XXXXXX"));
        let directory = nix::unistd::mkdtemp(&template)
            .map_err(|errno| LabError::io(format!("make {}", template.display()))(errno.into()))?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let record = Record {
            id: name.trim_start_matches(DIRECTORY_PREFIX).to_owned(),
            owner: Some(Process::this()?),
            directory,
            options,
            namespaces: Vec::new(),
            processes: Vec::new(),
            workloads: Vec::new(),
        };
        record.save()?;
        Ok(record)
    }

    pub fn save(&self) -> Result<()> {
        let file = self.directory.join(FILE);
        let fresh = self.directory.join("lab.json.new");
        let text = serde_json::to_string_pretty(self).expect("plain values serialise");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &file))
            .map_err(LabError::io(format!("write {}", file.display())))
    }

    pub fn namespace(&self, name: &str) -> Result<&Namespace> {
        let found = self.namespaces.iter().find(|known| known.name == name);
        found.ok_or_else(|| LabError::UnknownNode {
            name: name.to_owned(),
            known: self
                .namespaces
                .iter()
                .map(|known| known.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Ends every process of the lab and removes its directory. Goes on after an error.
    ///
    /// Whoever lives in one of the lab's namespaces is the lab's: they were made by it, and nobody
    /// gets into them by chance. That is how daemons are found that its programs started.
    ///
    /// # Errors
    /// `Findings` with everything that could not be removed.
    pub fn remove(&self) -> Result<()> {
        let is_held = |namespace: &&Namespace| namespace.holder.is_running();
        let held = self.namespaces.iter().filter(is_held);
        let kernel_names: Vec<PathBuf> = held.filter_map(Namespace::kernel_name).collect();
        let holders: Vec<i32> = self.namespaces.iter().map(|held| held.holder.pid).collect();
        let mut problems = Vec::new();
        let mut end = |processes: Vec<Process>| {
            for process in &processes {
                process.signal(Signal::SIGKILL);
            }
            for process in &processes {
                if let Err(error) = process.wait_gone(END_TIMEOUT) {
                    problems.push(error.to_string());
                }
            }
        };
        end(self.processes.clone());
        // A daemon may start another while it is being ended. The holders stay to the last, so
        // that the namespaces' kernel names cannot pass to others meanwhile.
        for _ in 0..20 {
            let mut members = process::in_namespaces(&kernel_names);
            members.retain(|member| !holders.contains(&member.pid));
            if members.is_empty() {
                break;
            }
            end(members);
        }
        let holders = self.namespaces.iter().map(|held| held.holder.clone());
        end(holders.collect());
        let removed = fs::remove_dir_all(&self.directory);
        // Two labs that start at once may both remove the leftovers of a third.
        if let (Err(error), true) = (removed, self.directory.exists()) {
            let directory = self.directory.display();
            problems.push(format!("failed to remove {directory}: {error}"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(LabError::Findings(problems))
    }
}

/// The records of all labs of this user, by directory name.
pub fn all() -> Vec<Record> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return Vec::new();
    };
    let mut directories: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_lab_directory(path))
        .collect();
    directories.sort();
    directories.iter().filter_map(|path| read(path)).collect()
}

/// Takes down what dead owners left. Labs that `up` left running stay.
pub fn remove_leftovers() -> Result<Vec<String>> {
    let is_left = |record: &Record| {
        record
            .owner
            .as_ref()
            .is_some_and(|owner| !owner.is_running())
    };
    let mut removed = Vec::new();
    for record in all().into_iter().filter(is_left) {
        record.remove()?;
        removed.push(record.id);
    }
    Ok(removed)
}

/// The temporary directory is open to all: only a directory that we made is believed.
fn is_lab_directory(path: &Path) -> bool {
    let has_name = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(DIRECTORY_PREFIX));
    has_name
        && fs::symlink_metadata(path).is_ok_and(|meta| {
            meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o077 == 0
        })
}

fn read(directory: &Path) -> Option<Record> {
    let text = fs::read_to_string(directory.join(FILE)).ok()?;
    let record: Record = serde_json::from_str(&text).ok()?;
    (record.directory == directory).then_some(record)
}
