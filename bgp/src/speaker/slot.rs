//! What the core keeps of a peer, and of its session while that is up.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::config::{PeerConfig, PeerKey};
use super::control::ControlSender;
use super::faults::Faults;
use super::outbox::Outbox;
use super::traffic::Traffic;
use crate::fsm::refresh::RefreshState;
use crate::fsm::restart::HelperState;
use crate::fsm::session::{LastError, Negotiated, State};
use crate::rib::peer::PeerSetup;
use crate::types::Family;

/// What the core keeps of a peer.
pub struct PeerSlot {
    pub key: PeerKey,
    pub config: PeerConfig,
    /// Came from a listen range.
    pub is_dynamic: bool,
    /// Told to stop; its id is free once its task finished.
    pub is_leaving: bool,
    pub control: ControlSender,
    /// Set while established.
    pub session: Option<Established>,
    pub helper: HelperState,
    /// Of the last session, for what is kept of it.
    pub state: State,
    pub since: SystemTime,
    pub last_error: Option<(LastError, SystemTime)>,
    pub flaps: u64,
    pub last_connect_error: Option<(String, SystemTime)>,
    /// Idle until then because it had too many prefixes.
    pub held_until: Option<Instant>,
    /// Near the maximum of prefixes, and the log says so.
    pub is_warned_of_prefixes: bool,
    pub faults: Faults,
    pub traffic: Arc<Traffic>,
}

impl PeerSlot {
    /// Whether there is a session, or routes of the last one. Of a peer of a range that is the
    /// reason to exist: a bare connection proves nothing.
    pub(super) fn is_up_or_kept(&self) -> bool {
        let mut families = Family::ALL.iter();
        self.session.is_some() || families.any(|family| self.helper.is_stale(*family))
    }

    /// Whether `config` is of a router of another AS than the one that was here.
    pub(super) fn is_another_in(&self, config: &PeerConfig) -> bool {
        let session = self.session.as_ref();
        let is = session.map(|session| session.negotiated.remote_asn);
        let was = is.or(self.config.remote_asn);
        was.zip(config.remote_asn)
            .is_some_and(|(was, is)| was != is)
    }

    /// Whether a peer of a range still needs its place: one that is held down and forgotten would
    /// be back at once.
    pub(super) fn is_needed(&self) -> bool {
        self.is_up_or_kept() || self.held_until.is_some()
    }
}

pub struct Established {
    pub negotiated: Box<Negotiated>,
    /// As the RIB last heard.
    pub setup: PeerSetup,
    pub outbox: Arc<Outbox>,
    pub refresh: RefreshState,
}
