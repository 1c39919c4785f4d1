//! A dry run: what would be written is noted, and nothing is.
//!
//! In: an engine whose every writer asks here first. Out: differences between what is there and what
//! would be. Requests to rtnetlink are held back by the socket itself, and read against the kernel at
//! the end (`seen`); what is written by other ways is noted where it would be.

mod seen;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

pub use self::seen::Seen;

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Difference {
    pub object: String,
    /// `None`: it is not there.
    pub present: Option<String>,
    /// `None`: it would go.
    pub wanted: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match (&self.present, &self.wanted) {
            (Some(present), Some(wanted)) => write!(f, "~ {object}: {present}, would be {wanted}"),
            (Some(present), None) => write!(f, "- {object}: {present}"),
            (None, wanted) => {
                let wanted = wanted.as_deref().unwrap_or_default();
                write!(f, "+ {object}: {wanted}")
            }
        }
    }
}

/// Whether writers write, or what they would have. Clones share what is noted.
#[derive(Clone, Debug, Default)]
pub struct Rehearsal(Option<Arc<Mutex<Vec<Difference>>>>);

impl Rehearsal {
    pub fn begin() -> Rehearsal {
        Rehearsal(Some(Arc::default()))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns whether this is a rehearsal; then the caller does not write.
    pub fn takes(&self, difference: impl FnOnce() -> Difference) -> bool {
        let Some(noted) = &self.0 else {
            return false;
        };
        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(difference());
        true
    }

    /// What was noted so far, in order.
    pub fn noted(&self) -> Vec<Difference> {
        let noted = self.0.as_ref();
        noted
            .map(|noted| noted.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }
}
