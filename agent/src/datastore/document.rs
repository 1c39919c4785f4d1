//! The documents of a file or another source, each read and checked by itself.

use std::sync::Arc;

use super::yaml::{self, Chunk};
use crate::api::schema::StoreError;
use crate::model::object::{self, Identity, Object};
use crate::model::snapshot::{Snapshot, Sourced};

/// One document of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    pub file: String,
    pub identity: Identity,
    /// `None`: rejected.
    pub object: Option<Object>,
    /// What is wrong with it, sorted. An accepted object may have some too: fields that have no
    /// effect.
    pub errors: Vec<StoreError>,
    /// As it stands in the file.
    pub text: Arc<str>,
}

/// Reads every document of a file. One that is wrong costs only itself.
pub fn parse_stream(file: &str, stream: &str) -> Vec<Document> {
    let chunks = yaml::split(stream);
    let mut documents: Vec<Document> = chunks
        .iter()
        .take(yaml::MOST_DOCUMENTS)
        .enumerate()
        .map(|(index, chunk)| parse_document(file, index, chunk))
        .collect();
    if chunks.len() > yaml::MOST_DOCUMENTS {
        documents.push(too_many(file, chunks.len()));
    }
    documents
}

/// The snapshot that documents make, and everything that is wrong with them, sorted.
pub fn load<'d>(documents: impl IntoIterator<Item = &'d Document>) -> (Snapshot, Vec<StoreError>) {
    let mut errors = Vec::new();
    let mut objects = Vec::new();
    for document in documents {
        errors.extend(document.errors.iter().cloned());
        objects.extend(document.object.iter().map(|object| Sourced {
            file: document.file.clone(),
            object: object.clone(),
        }));
    }
    let (snapshot, conflicts) = Snapshot::build(objects);
    errors.extend(conflicts);
    errors.sort();
    errors.dedup();
    (snapshot, errors)
}

fn parse_document(file: &str, index: usize, chunk: &Chunk<'_>) -> Document {
    let position = format!("document {}", index + 1);
    let value = match yaml::parse(chunk) {
        Ok(value) => value,
        Err(error) => {
            let field = format!("line {}", error.line);
            return unidentified(file, &position, &field, &error.to_string(), chunk.text);
        }
    };
    let parsed = object::parse(&value);
    let name = match &parsed.identity {
        Identity::Known(_) | Identity::Foreign(_) => parsed.identity.to_string(),
        Identity::Unknown(part) if part == "-/-" || part == "-" => position,
        Identity::Unknown(part) => part.clone(),
    };
    let errors = parsed.problems.into_iter().map(|problem| StoreError {
        file: file.to_owned(),
        object: name.clone(),
        field: problem.field,
        reason: problem.reason,
    });
    Document {
        file: file.to_owned(),
        identity: parsed.identity,
        object: parsed.object,
        errors: errors.collect(),
        text: chunk.text.into(),
    }
}

fn too_many(file: &str, count: usize) -> Document {
    let most = yaml::MOST_DOCUMENTS;
    let reason =
        format!("{count} documents, of which only the first {most} are read; split the file");
    unidentified(file, "-", "-", &reason, "")
}

fn unidentified(file: &str, object: &str, field: &str, reason: &str, text: &str) -> Document {
    Document {
        file: file.to_owned(),
        identity: Identity::Unknown(object.to_owned()),
        object: None,
        errors: vec![StoreError {
            file: file.to_owned(),
            object: object.to_owned(),
            field: field.to_owned(),
            reason: reason.to_owned(),
        }],
        text: text.into(),
    }
}

#[cfg(test)]
mod tests;
