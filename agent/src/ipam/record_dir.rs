//! A directory with one small JSON file per record, whole or absent after a crash at any moment.
//!
//! A record is written to a temporary file, synced, renamed into place, and the directory is
//! synced: once `write` returned, the record is there after a power cut. What it replaced is there
//! until then. One process at a time uses a directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crash::crash_point;

/// No record of ours comes near it; a longer file is not one.
const MAX_RECORD_BYTES: u64 = 256 * 1024;
const SUFFIX: &str = ".json";
const TEMPORARY_SUFFIX: &str = ".tmp";

#[derive(Debug)]
pub struct RecordDir {
    path: PathBuf,
    /// Makes the names of temporary files differ when records are written at the same time.
    writes: AtomicU64,
}

/// A record as found on disk.
#[derive(Debug)]
pub struct Found<T> {
    pub name: String,
    /// The reason if it could not be read.
    pub record: Result<T, String>,
}

impl RecordDir {
    /// Creates the directory if it is missing (mode 0700) and removes what writes cut short have
    /// left.
    pub fn open(path: &Path) -> io::Result<RecordDir> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(RecordDir {
            path: path.to_owned(),
            writes: AtomicU64::new(0),
        })
    }

    /// The directory as it is, for reading; `None` if there is none.
    pub fn existing(path: &Path) -> Option<RecordDir> {
        path.is_dir().then(|| RecordDir {
            path: path.to_owned(),
            writes: AtomicU64::new(0),
        })
    }

    /// Every record, sorted by name. A file that cannot be read or parsed is reported as such and
    /// does not hide the others.
    pub fn load<T: DeserializeOwned>(&self) -> io::Result<Vec<Found<T>>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let Some(name) = file_name
                .to_str()
                .and_then(|name| name.strip_suffix(SUFFIX))
            else {
                continue;
            };
            found.push(Found {
                name: name.to_owned(),
                record: read_record(&entry.path()),
            });
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// Creates or replaces a record; on disk when this returns.
    pub fn write<T: Serialize>(&self, name: &str, record: &T) -> io::Result<()> {
        let text = serde_json::to_vec(record).map_err(io::Error::other)?;
        self.write_file(&format!("{name}{SUFFIX}"), &text)?;
        self.sync()
    }

    /// Removes a record; gone from disk when this returns. `false` if there was none.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        match fs::remove_file(self.path.join(format!("{name}{SUFFIX}"))) {
            Ok(()) => {
                crash_point(format_args!("record {name} removed"));
                self.sync().map(|()| true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Leaves a note beside the records. Whole or absent after a crash, but perhaps an older one.
    pub fn write_hint(&self, file_name: &str, text: &str) -> io::Result<()> {
        let temporary = self.temporary_for(file_name);
        fs::write(&temporary, text)?;
        fs::rename(&temporary, self.path.join(file_name))?;
        crash_point(format_args!("hint {file_name} in place"));
        Ok(())
    }

    pub fn read_hint(&self, file_name: &str) -> Option<String> {
        fs::read_to_string(self.path.join(file_name)).ok()
    }

    fn write_file(&self, file_name: &str, text: &[u8]) -> io::Result<()> {
        let temporary = self.temporary_for(file_name);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(text)?;
                file.sync_all()
            })
            .and_then(|()| {
                crash_point(format_args!("record {file_name} beside its place"));
                fs::rename(&temporary, self.path.join(file_name))
            });
        crash_point(format_args!("record {file_name} in place"));
        if written.is_err() {
            // The first error is the one that tells; a leftover goes at the next start.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn temporary_for(&self, file_name: &str) -> PathBuf {
        let count = self.writes.fetch_add(1, Ordering::Relaxed);
        self.path
            .join(format!(".{file_name}.{count}{TEMPORARY_SUFFIX}"))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    file.take(MAX_RECORD_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_RECORD_BYTES {
        return Err(format!("longer than {MAX_RECORD_BYTES} bytes"));
    }
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}
