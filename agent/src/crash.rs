//! Lets a test end the agent after any step that lasts: a write to the disk or to the kernel, a
//! program started. What it leaves then is what kill -9 at that moment leaves.
//!
//! Only builds with debug assertions have it, and they only for a process that was told by `arm`: its
//! environment names a directory. While that holds a file `after` with a number, steps are noted in
//! `passed`, and the process kills itself when that has so many. Release builds contain nothing of it.

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
    use std::fs::{self, File};
    use std::io::{self, Write};
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    /// Steps of several threads are noted one by one.
    static NOTING: Mutex<()> = Mutex::new(());

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
        let _noting = NOTING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = last_step(directory) else {
            return;
        };
        if note(directory, step).is_ok_and(|count| count == last) {
            let _ = kill(Pid::this(), Signal::SIGKILL);
            std::process::abort();
        }
    }

    fn last_step(directory: &Path) -> Option<usize> {
        let text = fs::read_to_string(directory.join("after")).ok()?;
        text.trim().parse().ok()
    }

    /// Returns how many there are now: the test removes them.
    fn note(directory: &Path, step: fmt::Arguments<'_>) -> io::Result<usize> {
        let path = directory.join("passed");
        let mut file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        let count = io::read_to_string(&file)?.lines().count() + 1;
        // In one piece: the test may be reading.
        file.write_all(format!("{count} {step}\n").as_bytes())?;
        Ok(count)
    }
}
