//! Ctrl-C ends the daemon that is measured, too.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent::lab::{Namespace, process};
use nix::sys::signal::{SigSet, Signal};

/// Where something runs at the moment.
static IN_USE: Mutex<Vec<Namespace>> = Mutex::new(Vec::new());

fn in_use() -> MutexGuard<'static, Vec<Namespace>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that something runs there from now on.
pub fn note(namespace: &Namespace) {
    in_use().push(namespace.clone());
}

/// Notes that nothing runs there any more.
pub fn forget(namespace: &Namespace) {
    in_use().retain(|known| known != namespace);
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
            let in_use = in_use();
            let names: Vec<PathBuf> = in_use.iter().filter_map(Namespace::kernel_name).collect();
            for process in process::in_namespaces(&names) {
                process.signal(Signal::SIGKILL);
            }
            std::process::exit(130);
        }
    });
    Ok(())
}
