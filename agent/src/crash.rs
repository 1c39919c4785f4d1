//! Lets a test end the agent after any step that lasts: a write to the disk or to the kernel, a
//! program started. What it leaves then is what kill -9 at that moment leaves.
//!
//! Only builds with debug assertions have it, and they only for a process that was told by `arm`: its
//! environment names a directory. While that holds a file `after` with a number, steps are counted
//! and noted in `passed`, and the process kills itself after so many. Release builds contain nothing
//! of it.

/// Names the directory.
pub const VARIABLE: &str = "CARACAL_CRASH_DIR";

#[cfg(debug_assertions)]
pub use self::armed::{arm, crash_point};

#[cfg(not(debug_assertions))]
pub fn arm() {}

/// A step is done.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn crash_point(_: std::fmt::Arguments<'_>) {}

#[cfg(debug_assertions)]
mod armed {
    use std::fmt;
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    static STEPS: AtomicU32 = AtomicU32::new(0);

    /// Once, by the process that is to be killed; its children are not.
    pub fn arm() {
        if let Some(directory) = std::env::var_os(super::VARIABLE) {
            DIRECTORY.get_or_init(|| directory.into());
        }
    }

    /// A step is done.
    pub fn crash_point(step: fmt::Arguments<'_>) {
        let Some(directory) = DIRECTORY.get() else {
            return;
        };
        let Some(last) = last_step(directory) else {
            return;
        };
        let count = STEPS.fetch_add(1, Ordering::SeqCst) + 1;
        note(directory, count, step);
        if count == last {
            let _ = kill(Pid::this(), Signal::SIGKILL);
            std::process::abort();
        }
    }

    fn last_step(directory: &Path) -> Option<u32> {
        let text = fs::read_to_string(directory.join("after")).ok()?;
        text.trim().parse().ok()
    }

    /// For the test's message: it counts steps without it as well.
    fn note(directory: &Path, count: u32, step: fmt::Arguments<'_>) {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("passed"));
        let _ = file.and_then(|mut file| writeln!(file, "{count} {step}"));
    }
}
