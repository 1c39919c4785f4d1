//! The end of a carrier that has handed over: what its directions have in hand goes its way first, and
//! they take nothing more.
//!
//! A direction waits in a system call that takes packets as soon as there are any, and only it knows
//! when it has sent them. So the call is interrupted, and the process ends when both directions have
//! come to their ends: the carrier that follows waits for that.

use std::os::unix::thread::JoinHandleExt;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tracing::warn;

const WAKE_UP: Signal = Signal::SIGUSR1;
/// Until the signal is sent again: it may have come just before the call that it should interrupt.
const AGAIN: Duration = Duration::from_millis(1);
/// Nothing passes meanwhile, so a direction that cannot end costs what it has in hand.
const PATIENCE: Duration = Duration::from_secs(1);

/// Has the signal interrupt system calls and do nothing else.
///
/// # Errors
/// The kernel's.
#[allow(unsafe_code, reason = "sigaction has no safe wrapper")]
pub fn prepare() -> nix::Result<()> {
    extern "C" fn do_nothing(_: libc::c_int) {}
    // Without SA_RESTART: a restarted call would wait on.
    let action = SigAction::new(
        SigHandler::Handler(do_nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler touches nothing.
    unsafe { sigaction(WAKE_UP, &action) }.map(drop)
}

/// Waits for the end of these, which look at `is_leaving` when a call is interrupted.
pub fn await_ends(directions: &[JoinHandle<()>]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut running = (directions.iter())
            .filter(|direction| !direction.is_finished())
            .peekable();
        if running.peek().is_none() {
            return;
        }
        if Instant::now() > deadline {
            warn!("packets in hand are lost: they could not be sent");
            return;
        }
        running.for_each(wake_up);
        thread::sleep(AGAIN);
    }
}

#[allow(unsafe_code, reason = "pthread_kill has no safe wrapper")]
fn wake_up(direction: &JoinHandle<()>) {
    // SAFETY: a thread's handle is valid until it is joined, which takes `direction`. One that has ended
    // by now needs no signal, so nobody asks whether it came.
    unsafe { libc::pthread_kill(direction.as_pthread_t(), WAKE_UP as libc::c_int) };
}
