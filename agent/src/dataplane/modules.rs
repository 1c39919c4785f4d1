//! Modules that the kernel would load if it were asked for what they do.

use std::path::Path;

/// Whether asking for `module` would load it. `None`: it is there already, or never will be, and
/// asking changes nothing. A machine whose modules cannot be listed is taken to have it.
pub fn has_unloaded(module: &str) -> Option<bool> {
    let is_there = Path::new("/sys/module").join(module).exists();
    // A kernel that can load none has no list of loaded ones.
    let are_there_any = Path::new("/proc/modules").exists();
    if is_there || !are_there_any {
        return None;
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let directory = Path::new("/lib/modules").join(release.trim());
    match std::fs::read_to_string(directory.join("modules.dep")) {
        Ok(list) => list.contains(&format!("/{module}.ko")).then_some(true),
        Err(_) => Some(true),
    }
}
