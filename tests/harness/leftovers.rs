//! Nothing of a lab may stay behind.

use std::fs;
use std::path::Path;

use agent::lab::netns::LAB_VARIABLE;

/// Everything of lab `id` that is still there: processes (and with them namespaces, links, mounts)
/// and its directory.
pub fn of(id: &str) -> Vec<String> {
    let mut left = processes(id);
    let directory = std::env::temp_dir().join(format!("caracal-lab-{id}"));
    if directory.exists() {
        left.push(directory.display().to_string());
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mark = format!("caracal-lab-{id}");
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&mark))
            .map(str::to_owned),
    );
    left
}

/// A namespace of the lab lives no longer than the last process in it.
fn processes(id: &str) -> Vec<String> {
    let mark = format!("{LAB_VARIABLE}={id}");
    let has_mark = |pid: &Path| {
        let environment = fs::read(pid.join("environ")).unwrap_or_default();
        environment
            .split(|octet| *octet == 0)
            .any(|entry| entry == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| has_mark(path))
        .map(|path| {
            let command = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
            format!("{}: {}", path.display(), command.replace('\0', " "))
        })
        .collect()
}
