//! The last accepted version of every object, by the file it came from.
//!
//! When a document becomes wrong, the version before stays in force. So that this also holds
//! after a restart, the accepted documents are kept in the state directory, one file for each file
//! of the store and under its name, holding the documents as they were written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::document::{Document, parse_stream};
use crate::api::schema::StoreError;
use crate::crash::crash_point;
use crate::model::object::{Identity, ObjectId};

/// Accepted documents by file. Every one of them has an object.
pub type Accepted = BTreeMap<String, Vec<Document>>;

/// What a scan found in one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    Read(Vec<Document>),
    /// The file is there, but what it says is not known: the reason.
    Unreadable(String),
}

/// What is accepted now, and everything that is wrong with the documents. A rejected object keeps
/// the version that `previous` holds; one whose document is gone goes too, unless its file has a
/// part that cannot be read and might be that document, or is empty altogether.
pub fn merge(
    previous: &Accepted,
    files: &BTreeMap<String, Content>,
) -> (Accepted, Vec<StoreError>) {
    let mut accepted = Accepted::new();
    let mut errors = Vec::new();
    for (file, content) in files {
        let before = previous.get(file).map(Vec::as_slice).unwrap_or_default();
        let documents = match content {
            Content::Read(documents) if documents.is_empty() => {
                // What an editor leaves for a moment, or a full disk for longer.
                let staying = without_those_elsewhere(file, before, files);
                if !staying.is_empty() {
                    let reason = "the file is empty; delete it to remove its objects";
                    errors.push(unreadable(file, reason, staying.len()));
                }
                staying
            }
            Content::Read(documents) => {
                let kept = kept_of_file(before, documents);
                let moved = moved_here(file, documents, &kept, previous, files);
                let staying = [kept, moved].concat();
                errors.extend(explained_errors(documents, &staying));
                let valid = documents.iter().filter(|d| d.object.is_some()).cloned();
                valid.chain(staying).collect()
            }
            Content::Unreadable(reason) => {
                errors.push(unreadable(file, reason, before.len()));
                before.to_vec()
            }
        };
        if !documents.is_empty() {
            accepted.insert(file.clone(), documents);
        }
    }
    (accepted, errors)
}

fn without_those_elsewhere(
    file: &str,
    before: &[Document],
    files: &BTreeMap<String, Content>,
) -> Vec<Document> {
    let others = files.iter().filter(|(other, _)| *other != file);
    let elsewhere: BTreeSet<&ObjectId> = others
        .filter_map(|(_, content)| match content {
            Content::Read(documents) => Some(ids(documents, |document| document.object.is_some())),
            Content::Unreadable(_) => None,
        })
        .flatten()
        .collect();
    let is_only_here =
        |document: &&Document| known(document).is_some_and(|id| !elsewhere.contains(id));
    before.iter().filter(is_only_here).cloned().collect()
}

fn kept_of_file(before: &[Document], now: &[Document]) -> Vec<Document> {
    let valid = ids(now, |document| document.object.is_some());
    let rejected = ids(now, |document| document.object.is_none());
    let may_be_any = now
        .iter()
        .any(|document| matches!(document.identity, Identity::Unknown(_)));
    let stays = |document: &&Document| {
        known(document)
            .is_some_and(|id| !valid.contains(id) && (rejected.contains(id) || may_be_any))
    };
    before.iter().filter(stays).cloned().collect()
}

/// Versions of rejected objects that were accepted from another file, which has them no more.
fn moved_here(
    file: &str,
    now: &[Document],
    kept: &[Document],
    previous: &Accepted,
    files: &BTreeMap<String, Content>,
) -> Vec<Document> {
    let found = ids(now, |document| document.object.is_some());
    let kept = ids(kept, |_| true);
    let rejected = ids(now, |document| document.object.is_none());
    let mut moved = Vec::new();
    for id in rejected {
        if found.contains(id) || kept.contains(id) {
            continue;
        }
        let origin = previous.iter().find(|(origin, documents)| {
            let held = documents.iter().any(|document| known(document) == Some(id));
            let holds = match files.get(*origin) {
                Some(Content::Read(documents)) => {
                    documents.iter().any(|document| known(document) == Some(id))
                }
                Some(Content::Unreadable(_)) => true,
                None => false,
            };
            held && !holds
        });
        let documents = origin.map(|(_, documents)| documents.as_slice());
        for document in documents.unwrap_or_default() {
            if known(document) == Some(id) {
                moved.push(Document {
                    file: file.to_owned(),
                    ..document.clone()
                });
            }
        }
    }
    moved
}

/// The documents' errors; those of a rejected object say what is in force instead.
fn explained_errors(documents: &[Document], staying: &[Document]) -> Vec<StoreError> {
    let staying = ids(staying, |_| true);
    let valid = ids(documents, |document| document.object.is_some());
    let mut errors = Vec::new();
    for document in documents {
        let consequence = match (&document.object, known(document)) {
            (Some(_), _) | (None, None) => "",
            (None, Some(id)) if staying.contains(id) => " (last accepted version stays)",
            (None, Some(id)) if valid.contains(id) => "",
            (None, Some(_)) => " (absent: no version was accepted)",
        };
        errors.extend(document.errors.iter().map(|error| StoreError {
            reason: format!("{}{consequence}", error.reason),
            ..error.clone()
        }));
    }
    errors
}

fn unreadable(file: &str, reason: &str, kept: usize) -> StoreError {
    let consequence = match kept {
        0 => "",
        _ => " (last accepted versions of its objects stay)",
    };
    StoreError {
        file: file.to_owned(),
        object: "-".to_owned(),
        field: "-".to_owned(),
        reason: format!("{reason}{consequence}"),
    }
}

fn ids(documents: &[Document], wanted: impl Fn(&Document) -> bool) -> BTreeSet<&ObjectId> {
    documents
        .iter()
        .filter(|document| wanted(document))
        .filter_map(known)
        .collect()
}

fn known(document: &Document) -> Option<&ObjectId> {
    match &document.identity {
        Identity::Known(id) => Some(id),
        Identity::Foreign(_) | Identity::Unknown(_) => None,
    }
}

/// The directory that accepted documents are kept in.
#[derive(Debug)]
pub struct AcceptedDirectory {
    path: PathBuf,
    /// What is on disk, as far as this process knows.
    written: BTreeMap<String, String>,
}

impl AcceptedDirectory {
    /// Reads what was kept. What cannot be read is reported and counts as never accepted.
    pub fn open(path: PathBuf) -> (AcceptedDirectory, Accepted, Vec<StoreError>) {
        let mut directory = AcceptedDirectory {
            path,
            written: BTreeMap::new(),
        };
        let mut accepted = Accepted::new();
        let mut errors = Vec::new();
        match directory.read_all() {
            Ok(files) => {
                for (file, text) in files {
                    let mut documents = parse_stream(&file, &text);
                    documents.retain(|document| document.object.is_some());
                    accepted.insert(file.clone(), documents);
                    directory.written.insert(file, text);
                }
            }
            Err(error) => errors.push(directory.error("cannot be read", &error)),
        }
        (directory, accepted, errors)
    }

    fn read_all(&self) -> io::Result<Vec<(String, String)>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // A write that did not end.
            if name == TEMPORARY {
                continue;
            }
            files.push((name, fs::read_to_string(entry.path())?));
        }
        Ok(files)
    }

    /// Brings the directory to `accepted`; writes only files that differ. Each file is replaced
    /// whole and is on disk when this returns.
    pub fn save(&mut self, accepted: &Accepted) -> Vec<StoreError> {
        let wanted: BTreeMap<String, String> = accepted
            .iter()
            .map(|(file, documents)| (file.clone(), stream_of(documents)))
            .collect();
        if wanted == self.written {
            return Vec::new();
        }
        let mut errors = Vec::new();
        if let Err(error) = fs::create_dir_all(&self.path) {
            return vec![self.error("cannot be made", &error)];
        }
        for (file, text) in &wanted {
            if self.written.get(file) == Some(text) {
                continue;
            }
            match self.replace(file, text) {
                Ok(()) => {
                    self.written.insert(file.clone(), text.clone());
                }
                Err(error) => errors.push(self.error(&format!("cannot keep {file}"), &error)),
            }
        }
        let gone: Vec<String> = self
            .written
            .keys()
            .filter(|file| !wanted.contains_key(*file))
            .cloned()
            .collect();
        for file in gone {
            match fs::remove_file(self.path.join(&file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    errors.push(self.error(&format!("cannot remove {file}"), &error));
                }
                Ok(()) | Err(_) => {
                    self.written.remove(&file);
                }
            }
        }
        if let Err(error) = sync_directory(&self.path) {
            errors.push(self.error("cannot be synced", &error));
        }
        errors
    }

    fn replace(&self, file: &str, text: &str) -> io::Result<()> {
        let temporary = self.path.join(TEMPORARY);
        let mut output = File::create(&temporary)?;
        output.write_all(text.as_bytes())?;
        output.sync_all()?;
        crash_point(format_args!("accepted {file} beside its place"));
        fs::rename(&temporary, self.path.join(file))?;
        crash_point(format_args!("accepted {file} in place"));
        Ok(())
    }

    fn error(&self, what: &str, error: &io::Error) -> StoreError {
        StoreError {
            file: self.path.display().to_string(),
            object: "-".to_owned(),
            field: "-".to_owned(),
            reason: format!("{what}: {error}; a rejected object may be lost at the next restart"),
        }
    }
}

/// The store reads no file whose name begins with a dot, so none is kept under this one.
const TEMPORARY: &str = ".new";

fn stream_of(documents: &[Document]) -> String {
    let mut stream = String::new();
    for document in documents {
        stream.push_str("---");
        if !document.text.starts_with([' ', '\t', '\r', '\n']) {
            stream.push('\n');
        }
        stream.push_str(&document.text);
        if !document.text.ends_with('\n') {
            stream.push('\n');
        }
    }
    stream
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests;
