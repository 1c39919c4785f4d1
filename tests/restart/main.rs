//! Twenty nodes: one, some or all of their agents, and the reflectors, are killed and come back, and
//! no packet and no route notices.

mod absent;
mod matrix;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One fleet at a time: twenty agents that start at once are enough for a small machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has taken its fleet down.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
