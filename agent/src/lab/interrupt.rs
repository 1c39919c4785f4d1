//! Ctrl-C and SIGTERM end the lab in order: waits return `Interrupted`, and the lab is taken down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::error::{LabError, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP set the flag and no longer end this process.
pub fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(LabError::io("watch for signals"))?;
    let guard = runtime.enter();
    let mut signals = Vec::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        signals.push(signal(kind).map_err(LabError::io("watch for signals"))?);
    }
    drop(guard);
    let [mut interrupt, mut terminate, mut hangup] =
        <[_; 3]>::try_from(signals).expect("three signals were registered");
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

pub fn was_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// # Errors
/// `Interrupted` once a signal came.
pub fn check() -> Result<()> {
    if was_interrupted() {
        return Err(LabError::Interrupted);
    }
    Ok(())
}
