//! The files of the repository, and rules for every one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the repository: its path from the root and its text.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// Lines with their numbers, without the unit tests that end a Rust file.
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        let lines = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        lines.map(|(at, line)| (at + 1, line))
    }

    /// Lines of code with their numbers: no comments.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.product_lines()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent()
        .expect("the crate is in the repository")
        .to_owned()
}

/// Every file that is or could be committed and whose name ends so.
pub fn files(ending: &str) -> Vec<Source> {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .expect("git lists the repository's files");
    assert!(listed.status.success(), "git ls-files failed");
    let listed = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let mut paths: Vec<&str> = listed
        .lines()
        .filter(|path| path.ends_with(ending))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    let files: Vec<Source> = paths
        .into_iter()
        .filter_map(|path| {
            Some(Source {
                path: path.to_owned(),
                text: fs::read_to_string(root().join(path)).ok()?,
            })
        })
        .collect();
    assert!(!files.is_empty(), "no file ends in {ending}");
    files
}

/// Whether a file holds tests only; they are read beside what they test.
pub fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Fails with one line per finding.
pub fn expect_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

#[test]
fn no_source_file_has_more_than_800_lines() {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > 800).then(|| format!("{}: {lines} lines", source.path))
    };
    let findings: Vec<String> = files(".rs").iter().filter_map(long).collect();
    expect_none("split files before 800 lines", &findings);
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = |source: &&Source| !source.text.starts_with("//!") && !is_test(&source.path);
    let files = files(".rs");
    let findings: Vec<String> = files
        .iter()
        .filter(silent)
        .map(|source| source.path.clone())
        .collect();
    expect_none("a file opens with //!", &findings);
}

#[test]
fn open_ends_name_an_issue() {
    let mut findings = Vec::new();
    for source in files(".rs") {
        // This file speaks of the marks it looks for.
        if source.path.ends_with("tidy/sources.rs") {
            continue;
        }
        for (at, line) in source.text.lines().enumerate() {
            let is_open = ["TODO", "FIXME"].iter().any(|mark| line.contains(mark));
            if is_open && !line.contains("issue") {
                findings.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    expect_none("a TODO names an open issue", &findings);
}

#[test]
fn tests_do_not_sleep() {
    let mut findings = Vec::new();
    for source in files(".rs") {
        let from = if is_test(&source.path) {
            0
        } else {
            source.product_lines().count()
        };
        // Between two looks at a condition, up to a deadline, a pause is right.
        let lines: Vec<&str> = source.text.lines().collect();
        let polls = |at: usize| {
            let near = at.saturating_sub(12)..lines.len().min(at + 5);
            let mut near = lines.get(near).unwrap_or_default().iter();
            near.any(|line| line.to_lowercase().contains("deadline"))
        };
        for (at, line) in source.text.lines().enumerate().skip(from) {
            let sleeps = ["thread::sleep(", "time::sleep("]
                .iter()
                .any(|call| line.contains(call));
            if sleeps && !polls(at) && !source.path.ends_with("tidy/sources.rs") {
                findings.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    expect_none("wait for a condition with a deadline", &findings);
}
