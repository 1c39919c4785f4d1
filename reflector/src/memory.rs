//! What a reflector remembers over a restart: the peers that came from listen ranges.
//!
//! After a restart their End-of-RIB is waited for, because a table sent before theirs is complete
//! would make clients drop routes that are still right (RFC 4724 §4.1).

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A file with one address per line.
pub struct Memory {
    path: PathBuf,
}

impl Memory {
    pub fn new(state_dir: &Path) -> Memory {
        Memory {
            path: state_dir.join("reflector-peers"),
        }
    }

    /// `None`: there never was a reflector here, so nothing restarts. Lines that are no address are
    /// skipped: half a memory is better than none.
    pub fn recall(&self) -> Option<Vec<IpAddr>> {
        let text = fs::read_to_string(&self.path).ok()?;
        Some(
            text.lines()
                .filter_map(|line| line.trim().parse().ok())
                .collect(),
        )
    }

    /// Replaces what is remembered, atomically, and returns when it is on the disk.
    ///
    /// # Errors
    /// What the file system said; the former content is then still there.
    pub fn remember(&self, peers: &[IpAddr]) -> io::Result<()> {
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        for peer in peers {
            writeln!(file, "{peer}")?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_last_is_recalled() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let memory = Memory::new(dir.path());
        assert_eq!(memory.recall(), None);
        let peers: Vec<IpAddr> = vec![
            "192.168.100.100".parse().expect("v4"),
            "2001:db8::1".parse().expect("v6"),
        ];
        memory.remember(&peers).expect("written");
        assert_eq!(memory.recall(), Some(peers));
        memory.remember(&[]).expect("written");
        assert_eq!(memory.recall(), Some(Vec::new()));
    }

    #[test]
    fn damaged_lines_are_skipped() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let memory = Memory::new(dir.path());
        fs::write(dir.path().join("reflector-peers"), "10.0.0.1\n10.0.\n").expect("written");
        assert_eq!(memory.recall(), Some(vec!["10.0.0.1".parse().expect("v4")]));
    }
}
