//! Runs code in another network namespace.
//!
//! Always on a thread of its own that ends afterwards: a thread of the runtime that changed its
//! namespace would take later work there. Sockets keep the namespace they were opened in.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, setns, unshare};

/// Runs `work` in the network namespace that `netns` refers to and waits for it.
///
/// # Errors
/// If the namespace cannot be entered; `work` has then not run.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    run_after(|| setns(netns, CloneFlags::CLONE_NEWNET), work)
}

/// Runs `work` in a network namespace that exists only for it.
///
/// # Errors
/// If no namespace can be made; `work` has then not run.
pub fn run_in_new<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    run_after(|| unshare(CloneFlags::CLONE_NEWNET), work)
}

fn run_after<T: Send>(
    enter: impl FnOnce() -> nix::Result<()> + Send,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, || {
                enter()?;
                Ok(work())
            })?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
