//! The file store: a directory of YAML files.
//!
//! Every `*.yaml` and `*.yml` directly in the directory is read; names that begin with `.` or end
//! in `~` belong to editors. Any change leads to a full scan, so that what is known never depends
//! on which notifications arrived. A file that was closed or renamed into place is read at once; one
//! that is being written, and what has disappeared, only when nothing changes for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::StoreUpdate;
use super::accepted::{Accepted, AcceptedDirectory, Content, merge};
use super::document::{Document, load, parse_stream};
use super::watch::DirectoryWatch;
use super::yaml::LARGEST_FILE;
use crate::api::schema::StoreError;
use crate::model::Snapshot;
use crate::model::object::Identity;

/// How long nothing must change before a file that is not closed is read, and before anything counts
/// as gone: editors and `cp` write in several steps, and an object may be on its way to another file.
const QUIET: Duration = Duration::from_millis(50);
/// What changes together is read together.
const GATHERING: Duration = Duration::from_millis(1);
/// Longest wait for either.
const LONGEST_UNREST: Duration = Duration::from_secs(1);
/// The safety net for lost notifications.
const RESCAN: Duration = Duration::from_secs(10);
/// While there is no directory to watch.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(1);
/// Most files in the directory.
const MOST_FILES: usize = 10_000;

/// A directory of YAML files, watched by a task of its own until this is dropped.
#[derive(Debug)]
pub struct FileStore {
    /// Holds the latest update only: a slow reader skips those in between.
    updates: watch::Receiver<Option<StoreUpdate>>,
}

impl FileStore {
    /// Begins to read `directory`. What was accepted is kept in `state_directory`/accepted.
    /// Whatever is wrong with either is told in the updates.
    ///
    /// # Panics
    /// If called outside of a tokio runtime.
    pub fn open(directory: impl Into<PathBuf>, state_directory: impl AsRef<Path>) -> FileStore {
        FileStore::begin(directory.into(), state_directory.as_ref(), true)
    }

    /// The same, for somebody who only looks: what was accepted before counts, and is left as it is.
    ///
    /// # Panics
    /// As `open`.
    pub fn open_read_only(directory: &Path, state_directory: &Path) -> FileStore {
        FileStore::begin(directory.to_owned(), state_directory, false)
    }

    fn begin(directory: PathBuf, state_directory: &Path, keeps: bool) -> FileStore {
        let accepted = state_directory.join("accepted");
        let (sender, updates) = watch::channel(None);
        let watch = DirectoryWatch::new(directory.clone());
        tokio::spawn(run(directory, (accepted, keeps), watch, sender));
        FileStore { updates }
    }

    /// The first state as soon as it was read, then the latest one whenever it has changed.
    /// Cancel-safe.
    pub async fn next(&mut self) -> StoreUpdate {
        loop {
            if self.updates.changed().await.is_err() {
                // Only when the runtime shuts down.
                return std::future::pending().await;
            }
            if let Some(update) = self.updates.borrow_and_update().clone() {
                return update;
            }
        }
    }
}

async fn run(
    directory: PathBuf,
    (accepted, keeps): (PathBuf, bool),
    mut watch: DirectoryWatch,
    updates: watch::Sender<Option<StoreUpdate>>,
) {
    let updates = Arc::new(updates);
    let mut scanner: Option<Scanner> = None;
    // At first there is nothing that could be gone.
    let mut is_quiet = true;
    loop {
        // Before the scan, so that a change during the scan is noticed.
        watch.rearm();
        let paths = (directory.clone(), accepted.clone());
        let told = Arc::clone(&updates);
        let scan = tokio::task::spawn_blocking(move || {
            let mut scanner = scanner.unwrap_or_else(|| Scanner::open(paths.0, paths.1, keeps));
            let began = std::time::Instant::now();
            let Some(update) = scanner.scan(is_quiet) else {
                return (scanner, None);
            };
            let took = began.elapsed();
            publish(&told, update);
            // The disk takes its time, and nobody has to wait for it.
            if let Some(update) = scanner.keep() {
                publish(&told, update);
            }
            (scanner, Some(took))
        });
        let took = match scan.await {
            Ok((done, took)) => {
                scanner = Some(done);
                took
            }
            Err(error) => {
                // What was accepted is on disk; the next scan begins from there.
                tracing::error!(%error, "scan of the store failed");
                scanner = None;
                Some(QUIET)
            }
        };
        let Some(took) = took else {
            is_quiet = wait_for_rest(&mut watch, QUIET).await;
            continue;
        };
        let rescan = match watch.is_armed() {
            true => RESCAN,
            false => RESCAN_UNWATCHED,
        };
        tokio::select! {
            () = updates.closed() => return,
            () = watch.changed() => {}
            () = sleep(rescan) => {}
        }
        // While hundreds of files come, at most half of the time is spent reading.
        is_quiet = wait_for_rest(&mut watch, took.clamp(GATHERING, QUIET)).await;
    }
}

/// Waits until every file that changed is closed and nothing has changed for `pause`, or until nothing
/// has for as long as counts as quiet, and whether that is so.
async fn wait_for_rest(watch: &mut DirectoryWatch, pause: Duration) -> bool {
    let deadline = Instant::now() + LONGEST_UNREST;
    loop {
        let pause = match watch.is_settled() {
            true => pause,
            false => QUIET,
        };
        tokio::select! {
            () = sleep(pause) => {
                watch.settle();
                return pause == QUIET;
            }
            () = sleep_until(deadline) => return true,
            () = watch.changed() => {}
        }
    }
}

fn publish(updates: &watch::Sender<Option<StoreUpdate>>, update: StoreUpdate) {
    updates.send_if_modified(|current| {
        if current.as_ref() == Some(&update) {
            return false;
        }
        *current = Some(update);
        true
    });
}

/// Reads the directory and remembers what it accepted. Blocks.
#[derive(Debug)]
struct Scanner {
    directory: PathBuf,
    kept: AcceptedDirectory,
    /// Whether what is accepted is kept on disk.
    keeps: bool,
    accepted: Accepted,
    /// What went wrong when the accepted versions were read.
    startup_errors: Vec<StoreError>,
    /// What is wrong with the files of the last scan.
    errors: Vec<StoreError>,
    /// What went wrong when they were kept last.
    keep_errors: Vec<StoreError>,
    synced: bool,
    /// Texts of the last scan with their documents: what did not change is not parsed again.
    parsed: BTreeMap<String, (String, Vec<Document>)>,
}

impl Scanner {
    fn open(directory: PathBuf, accepted: PathBuf, keeps: bool) -> Scanner {
        let (kept, accepted, startup_errors) = AcceptedDirectory::open(accepted);
        Scanner {
            directory,
            kept,
            keeps,
            accepted,
            startup_errors,
            errors: Vec::new(),
            keep_errors: Vec::new(),
            synced: false,
            parsed: BTreeMap::new(),
        }
    }

    /// `None`: an object has disappeared, and it is not quiet. It may be about to come back.
    fn scan(&mut self, is_quiet: bool) -> Option<StoreUpdate> {
        match read_directory(&self.directory) {
            Ok(files) => {
                let (accepted, errors) = self.merge(files);
                if !is_quiet && !has_all(&accepted, &self.accepted) {
                    return None;
                }
                self.accepted = accepted;
                self.errors = errors;
                self.synced = true;
            }
            Err(error) => {
                self.errors = vec![self.without_directory(&error)];
                self.synced = false;
            }
        }
        Some(self.update())
    }

    fn merge(
        &mut self,
        files: BTreeMap<String, Result<String, String>>,
    ) -> (Accepted, Vec<StoreError>) {
        let mut parsed = BTreeMap::new();
        let mut contents = BTreeMap::new();
        for (file, text) in files {
            let content = match text {
                Ok(text) => {
                    let documents = match self.parsed.remove(&file) {
                        Some((before, documents)) if before == text => documents,
                        Some(_) | None => parse_stream(&file, &text),
                    };
                    parsed.insert(file.clone(), (text, documents.clone()));
                    Content::Read(documents)
                }
                Err(reason) => Content::Unreadable(reason),
            };
            contents.insert(file, content);
        }
        self.parsed = parsed;
        merge(&self.accepted, &contents)
    }

    /// A directory that cannot be read is not an empty one: everything stays as it was accepted.
    fn without_directory(&self, error: &io::Error) -> StoreError {
        StoreError {
            file: self.directory.display().to_string(),
            object: "-".to_owned(),
            field: "-".to_owned(),
            reason: format!(
                "the store's directory cannot be read: {error}; nothing is changed until it can"
            ),
        }
    }

    /// Keeps what was accepted for the next start. What there is to tell, if that went otherwise than
    /// the last time.
    fn keep(&mut self) -> Option<StoreUpdate> {
        if !self.keeps {
            return None;
        }
        let errors = self.kept.save(&self.accepted);
        let before = std::mem::replace(&mut self.keep_errors, errors);
        (before != self.keep_errors).then(|| self.update())
    }

    fn update(&self) -> StoreUpdate {
        let (snapshot, conflicts) = snapshot_of(&self.accepted);
        let all = [
            &self.errors,
            &self.keep_errors,
            &conflicts,
            &self.startup_errors,
        ];
        let mut errors: Vec<StoreError> = all.into_iter().flatten().cloned().collect();
        errors.sort();
        errors.dedup();
        StoreUpdate {
            snapshot: Arc::new(snapshot),
            errors,
            synced: self.synced,
        }
    }
}

/// Whether every object of `before` is there.
fn has_all(accepted: &Accepted, before: &Accepted) -> bool {
    let objects = |all: &Accepted| -> BTreeSet<Identity> {
        let documents = all.values().flatten();
        documents
            .map(|document| document.identity.clone())
            .collect()
    };
    objects(accepted).is_superset(&objects(before))
}

/// The errors of accepted documents themselves have been reported with their file.
fn snapshot_of(accepted: &Accepted) -> (Snapshot, Vec<StoreError>) {
    let documents = accepted.values().flatten().map(|document| Document {
        errors: Vec::new(),
        ..document.clone()
    });
    load(&documents.collect::<Vec<_>>())
}

/// The text of each file, or why it cannot be read.
///
/// # Errors
/// If the directory cannot be listed completely.
fn read_directory(directory: &Path) -> io::Result<BTreeMap<String, Result<String, String>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let shown = name.to_string_lossy().into_owned();
        if !is_read(&shown) {
            continue;
        }
        if files.len() >= MOST_FILES {
            return Err(io::Error::other(format!("more than {MOST_FILES} files")));
        }
        let text = match name.to_str() {
            Some(name) => read_file(&directory.join(name)),
            None => Some(Err("the file's name is not UTF-8; rename it".to_owned())),
        };
        if let Some(text) = text {
            files.insert(shown, text);
        }
    }
    Ok(files)
}

fn is_read(name: &str) -> bool {
    let has_extension = name.ends_with(".yaml") || name.ends_with(".yml");
    has_extension && !name.starts_with('.')
}

/// `None`: it has gone since the directory was listed.
fn read_file(path: &Path) -> Option<Result<String, String>> {
    match read_text(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_link = fs::symlink_metadata(path).is_ok();
            is_link.then(|| Err("a link to a file that does not exist".to_owned()))
        }
        Err(error) => Some(Err(format!("cannot be read: {error}"))),
    }
}

/// The text of one file of resources, or why it is none: a device, a pipe, too large, not UTF-8.
/// Never waits for another process.
///
/// # Errors
/// What the file system said.
pub fn read_text(path: &Path) -> io::Result<Result<String, String>> {
    // Opening a named pipe would wait for its writer.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(Err("not a regular file; move it elsewhere".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        let megabytes = LARGEST_FILE / 1024 / 1024;
        return Ok(Err(format!("larger than {megabytes} MiB; split it")));
    }
    Ok(String::from_utf8(bytes).map_err(|_| "not UTF-8 text; save it as UTF-8".to_owned()))
}

#[cfg(test)]
mod tests;
