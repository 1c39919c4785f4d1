//! Kernel parameters below /proc/sys/net, read first and written only if they differ.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens the file.

use std::io;
use std::path::PathBuf;

use super::rehearsal::{Difference, Rehearsal};
use crate::crash::crash_point;

const BASE: &str = "/proc/sys/net";

/// Sets the parameter `path` (`ipv4/ip_forward`). Returns the value that it had before, if another.
///
/// # Errors
/// As the file system says; `NotFound` if the kernel has no such parameter or device.
pub fn ensure(rehearsal: &Rehearsal, path: &str, value: &str) -> io::Result<Option<String>> {
    let present = match read(path) {
        // The device is one of those that are not made either.
        Err(error) if error.kind() == io::ErrorKind::NotFound && rehearsal.is_on() => {
            read(&of_new_device(path).ok_or(error)?)?
        }
        present => present?,
    };
    if present == value {
        return Ok(None);
    }
    if rehearsal.takes(|| Difference {
        object: format!("sysctl net/{path}"),
        present: Some(present.clone()),
        wanted: Some(value.to_owned()),
    }) {
        return Ok(Some(present));
    }
    std::fs::write(file(path), value)?;
    crash_point(format_args!("sysctl {path}"));
    Ok(Some(present))
}

/// The parameter's value without surrounding white space.
///
/// # Errors
/// As `ensure`.
pub fn read(path: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(file(path))?.trim().to_owned())
}

/// Where the value is that a device of this kind of parameters begins with.
fn of_new_device(path: &str) -> Option<String> {
    match path.split('/').collect::<Vec<_>>().as_slice() {
        [family, kind, _, parameter] => Some(format!("{family}/{kind}/default/{parameter}")),
        _ => None,
    }
}

/// What is in the directory `path` (`ipv6/conf`), in no order.
///
/// # Errors
/// As `ensure`.
pub fn list(path: &str) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(file(path))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn file(path: &str) -> PathBuf {
    PathBuf::from(format!("{BASE}/{path}"))
}
