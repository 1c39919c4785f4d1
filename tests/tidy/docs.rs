//! What the pages promise exists.

use std::os::unix::fs::PermissionsExt;

use crate::sources::{expect_none, files, root};

#[test]
fn the_two_commands_of_the_readme_exist_and_can_be_run() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README.md");
    let mut findings = Vec::new();
    for command in ["tests/lab", "tests/run"] {
        if !readme.contains(&format!("./{command}")) {
            findings.push(format!("README.md does not name ./{command}"));
        }
        let mode = std::fs::metadata(root().join(command)).map(|meta| meta.permissions().mode());
        if !mode.is_ok_and(|mode| mode & 0o111 == 0o111) {
            findings.push(format!("{command} is not an executable file"));
        }
    }
    expect_none("two commands do all the set-up", &findings);
}

#[test]
fn links_between_pages_resolve() {
    let mut findings = Vec::new();
    for page in files(".md") {
        let at = root().join(&page.path);
        let directory = at.parent().expect("a file is in a directory");
        for target in links(&page.text) {
            let is_elsewhere = target.contains("://") || target.starts_with('#');
            let file = target.split('#').next().unwrap_or_default();
            if !is_elsewhere && !directory.join(file).exists() {
                findings.push(format!("{}: {target}", page.path));
            }
        }
    }
    expect_none("a link leads to a file", &findings);
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    for part in text.split("](").skip(1) {
        if let Some((target, _)) = part.split_once(')') {
            targets.push(target);
        }
    }
    targets
}
