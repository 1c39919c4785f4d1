//! The host's own network daemons: files that keep them off what is ours, and whether they are kept
//! off it.
//!
//! systemd-networkd configures every link that a `.network` file matches, and removes routes it did
//! not make from its links and from where there is no link. NetworkManager looks after what it knows.
//! Daemons of the host are neither restarted nor reloaded from here: that is the operator's to time.

mod network_manager;
mod networkd;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::installed_file::{InstalledFileError, place, remove};

/// Without it a file of this name is somebody else's.
const TAG: &str = "# Written by caracal-agent install, removed by caracal-agent uninstall.";

/// Octets of a file of theirs; the rest is not read.
const FILE_MAX: u64 = 1 << 20;

/// A file of ours among a daemon's.
#[derive(PartialEq, Eq, Debug)]
pub struct DropIn {
    /// From the root of the host.
    path: &'static str,
    /// The file is written only where this directory is, for without it there is no such daemon.
    needs: &'static str,
    settings: &'static str,
    /// What makes the daemon read it.
    pub read_by: &'static str,
}

impl DropIn {
    pub fn path(&self, root: &Path) -> PathBuf {
        root.join(self.path)
    }

    fn text(&self) -> String {
        format!("{TAG}\n{}", self.settings)
    }

    fn is_ours(&self, root: &Path) -> bool {
        fs::read_to_string(self.path(root)).is_ok_and(|text| text.lines().next() == Some(TAG))
    }
}

const DROP_INS: [DropIn; 3] = [
    DropIn {
        // Of all files that match a link networkd takes the first, by name.
        path: "etc/systemd/network/00-caracal.network",
        needs: "etc/systemd",
        settings: "[Match]\nName=cara*\n\n[Link]\nUnmanaged=yes\n",
        read_by: "networkctl reload",
    },
    DropIn {
        // Here the last file wins. Routes by the NIC, which is networkd's, and routes without a link
        // are ours, too. Versions before 256 know no ManageForeignNextHops and log one line about it.
        // We make no rules, so it is not for us to say whose rules stay.
        path: "etc/systemd/networkd.conf.d/90-caracal.conf",
        needs: "etc/systemd",
        settings: "[Network]\nManageForeignRoutes=no\nManageForeignNextHops=no\n",
        read_by: "systemctl restart systemd-networkd",
    },
    DropIn {
        // The last file, so that no list of others (such as calico.conf) replaces this one, and added
        // to theirs. managed=0 in a section [device] would be for interfaces that NetworkManager has
        // not seen yet; those that it manages it would keep, even over a restart.
        path: "etc/NetworkManager/conf.d/zz-caracal.conf",
        needs: "etc/NetworkManager",
        settings: "[keyfile]\nunmanaged-devices+=interface-name:cara*\n",
        read_by: "systemctl reload NetworkManager",
    },
];

/// Writes what keeps the daemons of the host at `root` off our interfaces and routes. Files that are
/// right already are left alone. Goes on after an error.
///
/// Returns what was written, and why the rest was not.
pub fn install(root: &Path) -> (Vec<&'static DropIn>, Vec<InstalledFileError>) {
    let (mut written, mut problems) = (Vec::new(), Vec::new());
    for drop_in in &DROP_INS {
        match write(root, drop_in) {
            Ok(true) => written.push(drop_in),
            Ok(false) => {}
            Err(error) => problems.push(error),
        }
    }
    (written, problems)
}

fn write(root: &Path, drop_in: &DropIn) -> Result<bool, InstalledFileError> {
    let (path, text) = (drop_in.path(root), drop_in.text());
    let is_right = fs::read_to_string(&path).is_ok_and(|present| present == text);
    if is_right || !root.join(drop_in.needs).is_dir() {
        return Ok(false);
    }
    if path.exists() && !drop_in.is_ours(root) {
        return Err(InstalledFileError::Foreign { path, line: TAG });
    }
    place(&path, |temporary| fs::write(temporary, &text))?;
    Ok(true)
}

/// Removes those of our files that are still ours.
///
/// # Errors
/// One per file that could not be removed.
pub fn uninstall(root: &Path) -> Vec<InstalledFileError> {
    let ours = DROP_INS.iter().filter(|drop_in| drop_in.is_ours(root));
    let removed = ours.map(|drop_in| remove(&drop_in.path(root)));
    removed.filter_map(Result::err).collect()
}

/// The daemons that run on the host at `root` and are not kept off what is ours: (daemon, reason). By
/// what their files come to, whoever wrote them, and by what NetworkManager keeps of `interfaces`,
/// ours by index; whether networkd has read its files is not known.
pub fn findings(root: &Path, interfaces: &BTreeMap<u32, String>) -> Vec<(&'static str, String)> {
    let mut findings = Vec::new();
    // The directories are there without the daemon, too.
    if root.join("run/systemd/netif/state").exists() {
        let networks = files(root, &networkd::DIRECTORIES, "network", "network");
        let mut configuration = main_file(root, "etc/systemd/networkd.conf");
        configuration.extend(files(
            root,
            &networkd::DIRECTORIES,
            "networkd.conf.d",
            "conf",
        ));
        let found = networkd::findings(&networks, &configuration);
        findings.extend(found.map(|reason| ("systemd-networkd", reason)));
    }
    let records = root.join("run/NetworkManager/devices");
    if records.exists() {
        let configuration = network_manager::in_order(
            main_file(root, "etc/NetworkManager/NetworkManager.conf"),
            files(root, &network_manager::DIRECTORIES, "conf.d", "conf"),
        );
        let is_managed = |index: &u32| {
            let record = read(&records.join(index.to_string()));
            record.is_some_and(|record| network_manager::is_managed(&record))
        };
        let managed = interfaces.iter().filter(|(index, _)| is_managed(index));
        let managed: Vec<String> = managed.map(|(_, name)| name.clone()).collect();
        let found = network_manager::finding(&configuration, &managed);
        findings.extend(found.map(|reason| ("NetworkManager", reason)));
    }
    findings
}

/// A file of a daemon's configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ConfigurationFile {
    /// As the host names it.
    path: String,
    text: String,
}

/// At most `FILE_MAX` of a file. `None` if it cannot be read; what is no file, such as /dev/null, which
/// hides others of its name, is empty.
fn read(path: &Path) -> Option<String> {
    let file = (OpenOptions::new().read(true))
        // Nobody may write into what somebody has made a pipe.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let kind = file.metadata().ok()?.file_type();
    if kind.is_dir() {
        return None;
    }
    let mut text = Vec::new();
    if kind.is_file() {
        file.take(FILE_MAX).read_to_end(&mut text).ok()?;
    }
    // Comments may be of any encoding.
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn main_file(root: &Path, path: &str) -> Vec<ConfigurationFile> {
    let file = read(&root.join(path)).map(|text| ConfigurationFile {
        path: format!("/{path}"),
        text,
    });
    file.into_iter().collect()
}

/// The files `*.extension` of `directory` within `parents`, in the order of their names. Of several
/// with one name, that in the first of `parents`. What cannot be read is left out.
fn files(
    root: &Path,
    parents: &[&str],
    directory: &str,
    extension: &str,
) -> Vec<ConfigurationFile> {
    let mut by_name = BTreeMap::new();
    for parent in parents {
        let place = format!("{parent}/{directory}");
        let entries = fs::read_dir(root.join(&place)).into_iter().flatten();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let (Some(name), true) = (
                path.file_name().and_then(|name| name.to_str()),
                path.extension().is_some_and(|found| found == extension),
            ) else {
                continue;
            };
            if let Some(text) = read(&path) {
                let path = format!("/{place}/{name}");
                by_name
                    .entry(name.to_owned())
                    .or_insert(ConfigurationFile { path, text });
            }
        }
    }
    by_name.into_values().collect()
}

/// (section, key, value) of a file, in order. Lines that end with a backslash go on.
fn settings(text: &str) -> Vec<(String, String, String)> {
    let mut settings = Vec::new();
    let mut section = String::new();
    for line in text.replace("\\\n", " ").lines().map(str::trim) {
        let name = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(name) = name {
            name.clone_into(&mut section);
        } else if let (false, Some((key, value))) =
            (line.starts_with(['#', ';']), line.split_once('='))
        {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            settings.push((section.clone(), key, value));
        }
    }
    settings
}

fn is_no(value: &str) -> bool {
    ["no", "n", "false", "f", "off", "0"].contains(&value.to_lowercase().as_str())
}

#[cfg(test)]
mod tests;
