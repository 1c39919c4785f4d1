//! Kernel parameters below /proc/sys/net, read first and written only if they differ.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens the file.

use std::io;
use std::path::PathBuf;

use crate::crash::crash_point;

const BASE: &str = "/proc/sys/net";

/// Sets the parameter `path` (`ipv4/ip_forward`). Returns whether it had another value before.
///
/// # Errors
/// As the file system says; `NotFound` if the kernel has no such parameter or device.
pub fn ensure(path: &str, value: &str) -> io::Result<bool> {
    if read(path)? == value {
        return Ok(false);
    }
    std::fs::write(file(path), value)?;
    crash_point(format_args!("sysctl {path}"));
    Ok(true)
}

/// The parameter's value without surrounding white space.
///
/// # Errors
/// As `ensure`.
pub fn read(path: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(file(path))?.trim().to_owned())
}

fn file(path: &str) -> PathBuf {
    PathBuf::from(format!("{BASE}/{path}"))
}
