//! Skipped tests. A test that cannot run says so and counts as skipped, not as passed.
//!
//! The test harness knows only passed and failed, so a skip is a line `NAME<tab>REASON` in the file
//! that `CARACAL_TEST_SKIPS` names. `tests/run` subtracts these lines from what passed.

use std::fs::OpenOptions;
use std::io::Write;

/// Notes that the current test is skipped. The caller then returns.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unnamed").to_owned();
    println!("SKIPPED {test}: {reason}");
    let Some(path) = std::env::var_os("CARACAL_TEST_SKIPS") else {
        return;
    };
    let line = format!("{test}\t{reason}\n");
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        panic!("failed to note a skipped test: {error}");
    }
}

/// Why system tests cannot run here, if so. They make namespaces.
pub fn missing_privilege() -> Option<&'static str> {
    (!nix::unistd::geteuid().is_root()).then_some("needs root for network namespaces")
}

/// Skips the test, with a reason, unless it runs as root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if let Some(reason) = $crate::report::missing_privilege() {
            $crate::report::skip(reason);
            return Ok(());
        }
    };
}
