//! Skipped tests. A test that cannot run here says so and counts as skipped, not as passed.
//!
//! The test harness of Rust knows only passed and failed, so a skip is a line of the test's output,
//! `SKIPPED: REASON`. `tests/run` counts these lines.

/// Notes that the current test is skipped. The caller then returns.
pub fn skip(reason: &str) {
    println!("SKIPPED: {reason}");
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
