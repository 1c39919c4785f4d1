//! Makes the container runtime use Caracal: the plugin's binary and the network configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::protocol::{CniVersion, PLUGIN_TYPE};
use crate::installed_file::{InstalledFileError, place, remove};

/// Sorts before what distributions ship, so that the runtime takes it.
pub const CONFLIST: &str = "10-caracal.conflist";

/// Copies `plugin` into `bin_dir`, then writes the network configuration into `conf_dir`: the
/// runtime looks for the binary as soon as it sees the configuration. Both are replaced whole, so
/// that a runtime that reads at this moment sees the old or the new one. Returns what was written.
///
/// # Errors
/// `Install` for the first file that could not be written.
pub fn install(
    plugin: &Path,
    bin_dir: &Path,
    conf_dir: &Path,
    socket: &Path,
) -> Result<[PathBuf; 2], InstalledFileError> {
    let binary = bin_dir.join(PLUGIN_TYPE);
    place(&binary, |temporary| {
        fs::copy(plugin, temporary)?;
        fs::set_permissions(temporary, fs::Permissions::from_mode(0o755))
    })?;
    let conflist = conf_dir.join(CONFLIST);
    place(&conflist, |temporary| {
        fs::write(temporary, format!("{:#}\n", network_configuration(socket)))
    })?;
    Ok([binary, conflist])
}

/// Removes both; missing ones are no error.
///
/// # Errors
/// One per file that could not be removed.
pub fn uninstall(bin_dir: &Path, conf_dir: &Path) -> Vec<InstalledFileError> {
    let files = [conf_dir.join(CONFLIST), bin_dir.join(PLUGIN_TYPE)];
    let removed = files.into_iter().map(|path| remove(&path));
    removed.filter_map(Result::err).collect()
}

/// In version 1.0.0: from 1.1.0 on, runtimes also call STATUS and GC.
fn network_configuration(socket: &Path) -> serde_json::Value {
    json!({
        "cniVersion": CniVersion::V1_0_0,
        "name": "caracal",
        "plugins": [{"type": PLUGIN_TYPE, "socket": socket}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_binary_and_configuration_and_removes_them_again() {
        let root = tempfile::tempdir().expect("a directory");
        let plugin = root.path().join("caracal-cni");
        fs::write(&plugin, "binary").expect("the plugin");
        let (bin, conf) = (root.path().join("bin"), root.path().join("net.d"));
        let socket = Path::new("/run/caracal/agent.sock");
        for _ in ["first", "again"] {
            install(&plugin, &bin, &conf, socket).expect("installed");
        }

        let mode = fs::metadata(bin.join("caracal-cni")).expect("the binary");
        assert_eq!(mode.permissions().mode() & 0o777, 0o755);
        let text = fs::read(conf.join(CONFLIST)).expect("the configuration");
        let conflist: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            conflist["plugins"][0],
            json!({"type": "caracal-cni", "socket": "/run/caracal/agent.sock"})
        );
        assert_eq!(fs::read_dir(&conf).expect("a directory").count(), 1);

        for _ in ["first", "again"] {
            assert!(uninstall(&bin, &conf).is_empty());
        }
        assert_eq!(fs::read_dir(&bin).expect("a directory").count(), 0);
        assert_eq!(fs::read_dir(&conf).expect("a directory").count(), 0);
    }
}
