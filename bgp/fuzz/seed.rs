//! Fills corpus/TARGET with the captured messages of bgp/tests/vectors, one file each, and with a few
//! sessions. Files that are there stay.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Marker, length and type.
const HEADER_LEN: usize = 19;

fn main() -> std::io::Result<()> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    let mut files: Vec<PathBuf> = fs::read_dir(own.join("../tests/vectors"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for file in files {
        let name = file
            .file_stem()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        let rows = rows(&fs::read_to_string(&file)?);
        // A stream of the first hundred messages, in pieces of 100 octets.
        let stream: Vec<u8> = rows
            .iter()
            .take(100)
            .flat_map(|row| row.octets.clone())
            .collect();
        write(own, "frames", &name, &[&[99][..], &stream].concat())?;
        for (number, row) in rows.iter().enumerate() {
            let (target, content) = row.seed();
            write(own, target, &format!("{name}-{number}"), &content)?;
            count += 1;
        }
    }
    // As targets/session.rs reads them: two octets of configuration, then events; see there. A
    // session that comes up on our dial, on the peer's, and a collision.
    for (name, events) in [
        ("ours", &[0, 0, 0, 2, 0, 5, 0, 0, 6, 0, 7, 0, 14, 40][..]),
        ("theirs", &[4, 0, 0, 3, 5, 0, 0, 6, 0, 8, 0, 12, 14, 255]),
        (
            "collision",
            &[0xFF, 0xFF, 0, 2, 0, 3, 5, 0, 0, 5, 1, 0, 6, 0, 6, 1],
        ),
    ] {
        write(own, "session", name, events)?;
    }
    println!("{count} messages");
    Ok(())
}

fn write(own: &Path, target: &str, name: &str, content: &[u8]) -> std::io::Result<()> {
    let directory = own.join("corpus").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), content)
}

struct Row {
    octets: Vec<u8>,
    session: String,
}

impl Row {
    /// The target that reads it, and how.
    fn seed(&self) -> (&'static str, Vec<u8>) {
        let body = &self.octets[HEADER_LEN..];
        match self.octets[HEADER_LEN - 1] {
            1 => ("open", body.to_vec()),
            2 => {
                let has = |word: &str| self.session.contains(word);
                let flag = |value: u8, is_set: bool| if is_set { value } else { 0 };
                let session = flag(1, has("as2")) | flag(2, has("ebgp")) | flag(12, has("addpath"));
                ("update", [&[session][..], body].concat())
            }
            3 => ("notification", body.to_vec()),
            5 => ("refresh", body.to_vec()),
            _ => ("frames", [&[18][..], &self.octets].concat()),
        }
    }
}

fn rows(text: &str) -> Vec<Row> {
    let block = |block: &str| {
        let fields: BTreeMap<&str, &str> = block
            .lines()
            .filter_map(|line| line.split_once(": "))
            .collect();
        Some(Row {
            octets: octets(fields.get("bytes")?),
            session: (*fields.get("session")?).to_owned(),
        })
    };
    text.split("\n\n").filter_map(block).collect()
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| digit.to_digit(16).expect("hexadecimal") as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
