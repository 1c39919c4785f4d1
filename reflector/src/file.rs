//! The configuration file as it is while the reflector runs: read again whenever it may say
//! something else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::datastore::watch::DirectoryWatch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::config::{self, Loaded};

/// It is read again at least this often, whatever the watch says.
const RESCAN: Duration = Duration::from_secs(10);
/// How long nothing must change before it is read: editors and `cp` write in several steps, and the
/// first half of a file may be a file as well.
const QUIET: Duration = Duration::from_millis(50);
/// Longest wait for quiet.
const LONGEST_UNREST: Duration = Duration::from_secs(1);

/// Reads the file beside whatever else goes on: it may be long, or on a slow disk.
pub struct ConfigFile {
    path: PathBuf,
    directory: DirectoryWatch,
    due_at: Instant,
    /// Of changes since it was read last, when the first one was noticed.
    unrest_since: Option<Instant>,
    reading: Option<JoinHandle<anyhow::Result<Loaded>>>,
}

impl ConfigFile {
    /// Must be called within a tokio runtime. It is read for the first time at once.
    pub fn new(path: &Path) -> ConfigFile {
        ConfigFile {
            path: path.to_owned(),
            directory: DirectoryWatch::new(directory_of(path)),
            due_at: Instant::now(),
            unrest_since: None,
            reading: None,
        }
    }

    /// Has it read again now.
    pub fn reread(&mut self) {
        self.due_at = Instant::now();
    }

    /// What the file says when it has been read the next time. Cancel-safe.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn next(&mut self) -> anyhow::Result<Loaded> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                return read?;
            }
            tokio::select! {
                () = self.directory.changed() => self.note_change(Instant::now()),
                () = sleep_until(self.due_at) => self.read(),
            }
        }
    }

    fn note_change(&mut self, now: Instant) {
        let latest = *self.unrest_since.get_or_insert(now) + LONGEST_UNREST;
        self.due_at = latest.min(now + QUIET);
    }

    fn read(&mut self) {
        // Watched before it is read, or what is written between the two would be seen late.
        self.directory.rearm();
        self.due_at = Instant::now() + RESCAN;
        self.unrest_since = None;
        let path = self.path.clone();
        self.reading = Some(tokio::task::spawn_blocking(move || config::load(&path)));
    }
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_waited_out_but_not_for_ever() {
        let mut file = ConfigFile::new(Path::new("rack-a.yaml"));
        let start = Instant::now();
        let step = Duration::from_millis(40);
        for steps in 0..100 {
            let now = start + step * steps;
            file.note_change(now);
            let expected = (now + QUIET).min(start + LONGEST_UNREST);
            assert_eq!(file.due_at, expected, "{steps}");
        }
        file.read();
        let now = start + step * 100;
        file.note_change(now);
        assert_eq!(file.due_at, now + QUIET, "a new unrest");
    }
}
