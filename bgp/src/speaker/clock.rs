//! The time, as the runtime's timers have it.

use std::time::Instant;

/// Now. Where a test pauses the runtime's clock, this stands still and moves with it; a deadline by
/// any other clock would come too early or never.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
