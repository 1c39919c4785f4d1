//! Where the resources come from.
//!
//! A store reads documents, keeps the last accepted version of each object, and yields a
//! [`StoreUpdate`] whenever what it knows has changed. Today there is the directory of YAML files
//! ([`file`]); what a file says is read by [`document`], which the reflector uses as well.

pub mod accepted;
pub mod document;
pub mod file;
pub mod passwords;
pub mod watch;
pub mod yaml;

use std::sync::Arc;

pub use document::{Document, load, parse_stream};
pub use file::FileStore;

use crate::api::schema::StoreError;
use crate::model::Snapshot;

/// What a store knows now. Each one stands for itself: a reader may skip to the latest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreUpdate {
    pub snapshot: Arc<Snapshot>,
    /// Everything that is wrong, sorted.
    pub errors: Vec<StoreError>,
    /// The store can be read, and was read completely. Nothing is written to the kernel before the
    /// first such update. While false the snapshot is what was accepted before.
    pub synced: bool,
}
