//! What a reflector remembers over a restart: the peers that came from listen ranges.
//!
//! After a restart their End-of-RIB is waited for, because a table sent before theirs is complete
//! would make clients drop routes that are still right (RFC 4724 §4.1).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tracing::warn;

/// In octets. More than an address for each place that a range can have.
const LARGEST: u64 = 1024 * 1024;

/// A file with one address per line.
pub struct Memory {
    path: PathBuf,
    /// What the disk did not take.
    unwritten: Option<Vec<IpAddr>>,
}

impl Memory {
    pub fn new(state_dir: &Path) -> Memory {
        Memory {
            path: state_dir.join("reflector-peers"),
            unwritten: None,
        }
    }

    /// `None`: there never was a reflector here, so nothing restarts. Lines that are no address are
    /// skipped: half a memory is better than none, and an unreadable one still tells of a restart.
    pub fn recall(&self) -> Option<Vec<IpAddr>> {
        let octets = match self.read() {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the peers of before are not known");
                Vec::new()
            }
        };
        let lines = octets.split(|octet| *octet == b'\n');
        let texts = lines.filter_map(|line| str::from_utf8(line).ok());
        Some(texts.filter_map(|text| text.trim().parse().ok()).collect())
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        let file = File::open(&self.path)?;
        file.take(LARGEST).read_to_end(&mut octets)?;
        Ok(octets)
    }

    /// Replaces what is remembered, atomically, and returns when it is on the disk.
    ///
    /// # Errors
    /// What the file system said; the former content is then still there until
    /// [`Memory::catch_up`].
    pub fn remember(&mut self, peers: Vec<IpAddr>) -> io::Result<()> {
        self.unwritten = Some(peers);
        self.catch_up()
    }

    /// Writes what could not be written before.
    ///
    /// # Errors
    /// As [`Memory::remember`].
    pub fn catch_up(&mut self) -> io::Result<()> {
        if let Some(peers) = &self.unwritten {
            self.write(peers)?;
        }
        self.unwritten = None;
        Ok(())
    }

    fn write(&self, peers: &[IpAddr]) -> io::Result<()> {
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
        let mut memory = Memory::new(dir.path());
        assert_eq!(memory.recall(), None);
        let peers: Vec<IpAddr> = vec![
            "192.168.100.100".parse().expect("v4"),
            "2001:db8::1".parse().expect("v6"),
        ];
        memory.remember(peers.clone()).expect("written");
        assert_eq!(memory.recall(), Some(peers));
        memory.remember(Vec::new()).expect("written");
        assert_eq!(memory.recall(), Some(Vec::new()));
    }

    #[test]
    fn damaged_lines_are_skipped() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("reflector-peers");
        let address = "10.0.0.1".parse().expect("v4");
        for (name, octets) in [
            ("cut off", &b"10.0.0.1\n10.0."[..]),
            ("not text", b"\xff\xfe\0\n10.0.0.1\n\xff\n"),
        ] {
            fs::write(&path, octets).expect("written");
            let recalled = Memory::new(dir.path()).recall();
            assert_eq!(recalled, Some(vec![address]), "{name}");
        }
    }

    #[test]
    fn a_memory_that_cannot_be_read_still_tells_of_a_restart() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("reflector-peers")).expect("made");
        assert_eq!(Memory::new(dir.path()).recall(), Some(Vec::new()));
    }

    #[test]
    fn what_the_disk_did_not_take_is_written_later() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let state = dir.path().join("state");
        let mut memory = Memory::new(&state);
        let peers: Vec<IpAddr> = vec!["10.0.0.1".parse().expect("v4")];
        assert!(memory.remember(peers.clone()).is_err());
        fs::create_dir(&state).expect("made");
        memory.catch_up().expect("written");
        assert_eq!(memory.recall(), Some(peers));
        fs::remove_dir_all(&state).expect("gone");
        memory.catch_up().expect("nothing is left to be written");
    }
}
