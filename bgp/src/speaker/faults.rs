//! What was wrong with a peer's UPDATEs and did not end the session: counted, and the last one kept.
//!
//! RFC 7606 §8 wants such errors logged with the message. A peer decides how often it makes them, so
//! the log has at most one line a second and peer, which says how many it stands for.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tracing::warn;

use super::config::PeerKey;
use super::status::{MalformedStatus, UpdateErrorCounts};
use crate::wire::update::AttributeError;

/// Between two lines in the log.
const QUIET: Duration = Duration::from_secs(1);

/// The faults of one peer, since it was configured.
#[derive(Debug, Default)]
pub struct Faults {
    pub counts: UpdateErrorCounts,
    last: Option<(AttributeError, Bytes, SystemTime)>,
    logged_at: Option<Instant>,
    unlogged: usize,
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
        self.unlogged += errors.len();
        if self.logged_at.is_none_or(|at| at.elapsed() >= QUIET) {
            let count = std::mem::take(&mut self.unlogged);
            warn!(%peer, attribute = error.code, reason = error.reason,
                treat_as_withdraw = error.treat_as_withdraw, count, "malformed attributes");
            self.logged_at = Some(Instant::now());
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
