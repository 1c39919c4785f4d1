//! `caracal drain`: whether a program was told that it is about to go, remembered over its restart.
//!
//! A drained node that is killed and started again must not draw traffic once more, so the word is a
//! file in the state directory: there or not, whatever is in it. Shared by agent and reflector.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct DrainMark {
    path: PathBuf,
}

impl DrainMark {
    /// `program` tells those apart that share a state directory.
    pub fn new(state_dir: &Path, program: &str) -> DrainMark {
        DrainMark {
            path: state_dir.join(format!("{program}-draining")),
        }
    }

    pub fn is_set(&self) -> bool {
        self.path.exists()
    }

    /// Sets or removes it; on disk when this returns.
    ///
    /// # Errors
    /// What the file system said.
    pub fn set(&self, is_draining: bool) -> io::Result<()> {
        if is_draining {
            File::create(&self.path)?.sync_all()?;
        } else {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_each_program_is_there_until_it_is_taken_away() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let agent = || DrainMark::new(dir.path(), "agent");
        assert!(!agent().is_set());
        agent().set(false).expect("nothing to remove");
        for _ in 0..2 {
            agent().set(true).expect("written");
            assert!(agent().is_set());
        }
        assert!(!DrainMark::new(dir.path(), "reflector").is_set());
        agent().set(false).expect("removed");
        assert!(!agent().is_set());
    }

    #[test]
    fn a_mark_that_cannot_be_kept_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let gone = DrainMark::new(&dir.path().join("gone"), "agent");
        assert!(gone.set(true).is_err());
        assert!(!gone.is_set());
    }
}
