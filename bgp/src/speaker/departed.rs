//! Peers of listen ranges that are gone: how their sessions ended, for who looks later, and for the
//! count of flaps once they are back.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::config::PeerKey;
use super::slot::PeerSlot;
use crate::fsm::session::LastError;
use crate::wire::notification::code;

/// The oldest makes way for one more.
const MOST: usize = 256;

/// Who was not back by then is not missed any more.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// In the order in which they left.
#[derive(Default)]
pub struct Departed(VecDeque<Box<PeerSlot>>);

impl Departed {
    /// Keeps a peer of a range whose task has ended, if there is anything to tell: a stranger that only
    /// connected, and was sent away to make place, leaves no trace.
    pub fn keep(&mut self, slot: Box<PeerSlot>) {
        let was_refused = |(error, _): &(LastError, SystemTime)| {
            !(error.sent && error.notification.code == code::CEASE)
        };
        let has_news = slot.flaps > 0 || slot.last_error.as_ref().is_some_and(was_refused);
        if !has_news {
            return;
        }
        self.take(&slot.key);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(slot);
    }

    /// It is back.
    pub fn take(&mut self, key: &PeerKey) -> Option<Box<PeerSlot>> {
        let index = self.0.iter().position(|slot| slot.key == *key)?;
        self.0.remove(index)
    }

    /// Forgets those that are not peers any more.
    pub fn retain(&mut self, is_peer: impl Fn(&PeerKey) -> bool) {
        self.0.retain(|slot| is_peer(&slot.key));
    }

    pub fn iter(&self) -> impl Iterator<Item = &PeerSlot> {
        let now = SystemTime::now();
        let is_recent = move |slot: &&PeerSlot| {
            let away = now.duration_since(slot.since).unwrap_or_default();
            away < KEPT
        };
        self.0.iter().map(|slot| &**slot).filter(is_recent)
    }
}
