//! What was wrong with a peer's UPDATEs and did not end the session: counted, and the last one kept.
//!
//! RFC 7606 §8 wants such errors logged with the message. A peer decides how often it makes them, so
//! each has a [`Quiet`] of its own.

use std::time::SystemTime;

use bytes::Bytes;
use tracing::warn;

use super::clock;
use super::config::PeerKey;
use super::quiet::Quiet;
use super::status::{MalformedStatus, UpdateErrorCounts};
use crate::wire::update::AttributeError;

/// The faults of one peer, since it was configured.
#[derive(Debug, Default)]
pub struct Faults {
    pub counts: UpdateErrorCounts,
    last: Option<(AttributeError, Bytes, SystemTime)>,
    lines: Quiet,
}

impl Faults {
    pub fn note(&mut self, peer: &PeerKey, errors: &[AttributeError], body: Bytes) {
        for error in errors {
            match error.treat_as_withdraw {
                true => self.counts.treat_as_withdraw += 1,
                false => self.counts.attribute_discard += 1,
            }
        }
        // What cost routes says more than what did not.
        let telling = errors.iter().find(|error| error.treat_as_withdraw);
        let Some(error) = telling.or(errors.first()) else {
            return;
        };
        if let Some(count) = self.lines.note(errors.len(), clock::now()) {
            warn!(%peer, attribute = error.code, reason = error.reason,
                treat_as_withdraw = error.treat_as_withdraw, count, "malformed attributes");
        }
        self.last = Some((error.clone(), body, SystemTime::now()));
    }

    pub fn last(&self) -> Option<MalformedStatus> {
        let (error, body, at) = self.last.as_ref()?;
        Some(MalformedStatus {
            data_hex: body.iter().map(|octet| format!("{octet:02x}")).collect(),
            reason: format!("attribute {}: {}", error.code, error.reason),
            at: humantime::format_rfc3339_millis(*at).to_string(),
        })
    }
}
