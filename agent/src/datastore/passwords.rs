//! The files that BGPPeers name as their password. Read apart from the resources, which may be on
//! other machines.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bgp::speaker::secret::Secret;

use crate::model::Snapshot;
use crate::model::peer::{Password, Passwords};

/// Reads every file that a BGPPeer names.
pub fn read(snapshot: &Snapshot) -> Passwords {
    snapshot
        .peers()
        .filter_map(|peer| match &peer.password {
            Some(Password::File(path)) => Some((path.clone(), read_file(path))),
            Some(Password::Unsupported) | None => None,
        })
        .collect()
}

/// The first line end at the end is not part of the password: editors add it.
fn read_file(path: &Path) -> Result<Secret, String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    // A pipe would keep us waiting for its other end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut octets = Vec::new();
    let limit = Secret::MAX_LEN as u64 + 3;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut octets))
        .map_err(unreadable)?;
    let line = octets.strip_suffix(b"\n").unwrap_or(&octets);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // Its length alone would tell of a file that is none of the asker's business.
    Secret::new(line).map_err(|_| {
        format!(
            "{} does not hold one line of 1 to {} octets",
            path.display(),
            Secret::MAX_LEN
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_plain_file_is_a_password() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("password");
        for (name, content, expected) in [
            ("as it is", "secret", Some("secret")),
            ("with a line end", "secret\n", Some("secret")),
            ("of another system", "secret\r\n", Some("secret")),
            ("spaces are part of it", " secret ", Some(" secret ")),
            ("nothing", "\n", None),
            ("longest", &"x".repeat(80), Some(&*"x".repeat(80))),
            ("too long", &"x".repeat(81), None),
        ] {
            std::fs::write(&path, content).expect("write");
            let expected = expected.map(|text| Secret::new(text).expect("length"));
            assert_eq!(read_file(&path).ok(), expected, "{name}");
        }
        assert!(read_file(dir.path()).is_err(), "a directory");
        assert!(read_file(&dir.path().join("missing")).is_err());
    }
}
