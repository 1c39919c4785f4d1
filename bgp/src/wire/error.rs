//! What was wrong with a message, in the terms needed to answer it (RFC 4271 §6).

use super::notification::Notification;

/// A message that must be answered by a NOTIFICATION and the end of the session.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason} ({notification})")]
pub struct ProtocolError {
    pub notification: Notification,
    /// For people: a lower-case clause without a full stop.
    pub reason: String,
}

impl ProtocolError {
    pub fn new(notification: Notification, reason: impl Into<String>) -> ProtocolError {
        ProtocolError {
            notification,
            reason: reason.into(),
        }
    }
}
