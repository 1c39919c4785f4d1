//! The timers of a session.
