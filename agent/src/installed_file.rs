//! Files that this program puts on a host for other programs to read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::crash::crash_point;

#[derive(Debug, thiserror::Error)]
pub enum InstalledFileError {
    #[error("failed to install {}", .path.display())]
    Install {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to remove {}", .path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} is not replaced: it does not begin with the line {line:?}, so somebody else wrote it; \
         move it away",
        .path.display()
    )]
    Foreign { path: PathBuf, line: &'static str },
}

/// Has `write` fill a file beside `path` and puts it in its place, so that who reads at this moment
/// sees the old or the new one, whole. Missing directories are made.
///
/// # Errors
/// `Install`.
pub fn place(
    path: &Path,
    write: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), InstalledFileError> {
    // The name starts with a dot and ends in none that daemons look for: they read every file they
    // find, such as *.conflist or *.conf.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| write(&temporary))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| InstalledFileError::Install {
            path: path.to_owned(),
            source,
        })
}

/// A missing file is no error.
///
/// # Errors
/// `Remove`.
pub fn remove(path: &Path) -> Result<(), InstalledFileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            let path = path.to_owned();
            Err(InstalledFileError::Remove { path, source })
        }
        _ => {
            crash_point(format_args!("{} removed", path.display()));
            Ok(())
        }
    }
}
