//! Ctrl-C ends the daemon that is measured, too.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use agent::lab::{Namespace, process};
use nix::sys::signal::{SigSet, Signal};

/// Where something runs at the moment.
static IN_USE: Mutex<Option<Namespace>> = Mutex::new(None);

/// Notes where something runs; `None`: nowhere any more.
pub fn note(namespace: Option<&Namespace>) {
    *IN_USE.lock().unwrap_or_else(PoisonError::into_inner) = namespace.cloned();
}

/// Has SIGINT and SIGTERM end this program and all that it started. Before any other thread begins.
///
/// # Errors
/// If the kernel refuses to block the signals.
pub fn watch() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
            let names: Vec<PathBuf> = in_use.iter().filter_map(Namespace::kernel_name).collect();
            for process in process::in_namespaces(&names) {
                process.signal(Signal::SIGKILL);
            }
            std::process::exit(130);
        }
    });
    Ok(())
}
