//! A guest kernel as a user process: user-mode Linux, for what the host's kernel may lack (ipip).
//! `tests/harness/guest-kernel/build` makes it and prints where it is.
//!
//! The guest's root is the host's file system, so the programs just built run in it. It has its own
//! /run, /dev and /proc; scratch files belong in its /dev/shm. A fork costs some 50 ms there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent::lab::process::{self, Finished};
use anyhow::{Context, Result};

/// Where the kernel is.
pub const KERNEL_VARIABLE: &str = "CARACAL_GUEST_KERNEL";
/// A directory in memory for the guest's own memory; a file on a disk is many times slower.
const MEMORY: &str = "/dev/shm";

/// Boots a guest, runs `command` in it, and halts.
///
/// # Errors
/// If there is no kernel, the guest does not boot, or it does not end in time.
pub fn run(command: &[&str], timeout: Duration) -> Result<Finished> {
    let kernel = std::env::var_os(KERNEL_VARIABLE).map(PathBuf::from);
    let kernel = kernel.with_context(|| {
        format!("{KERNEL_VARIABLE} is not set; tests/harness/guest-kernel/build prints its value")
    })?;
    let directory = tempfile::Builder::new()
        .prefix("caracal-guest-")
        .tempdir()?;
    let path = directory.path();
    let init = path.join("init");
    fs::write(&init, init_script(path, command))?;
    fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let memory = tempfile::tempdir_in(if Path::new(MEMORY).is_dir() {
        MEMORY
    } else {
        "/tmp"
    })?;
    let mut kernel = Command::new(kernel);
    kernel
        .env("TMPDIR", memory.path())
        .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"])
        .args(["mem=768M", "quiet", "con=null", "con0=fd:0,fd:1"])
        .arg(format!("uml_dir={}", memory.path().display()))
        .arg(format!("init={}", init.display()));
    let console = process::run(None, &mut kernel, "", timeout)
        .with_context(|| format!("the guest said: {}", said(path)))?;
    let status = fs::read_to_string(path.join("status")).unwrap_or_default();
    let code: i32 = status
        .trim()
        .parse()
        .with_context(|| format!("the guest left no exit status\n{}", console.stdout))?;
    Ok(Finished {
        status: std::os::unix::process::ExitStatusExt::from_raw(code << 8),
        stdout: said(path),
        stderr: console.stdout,
    })
}

fn said(directory: &Path) -> String {
    fs::read_to_string(directory.join("output")).unwrap_or_default()
}

fn init_script(directory: &Path, command: &[&str]) -> String {
    let quoted: Vec<String> = command.iter().map(|word| quote(word)).collect();
    let directory = quote(&directory.display().to_string());
    format!(
        "#!/bin/sh\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sys /sys\n\
         mount -t devtmpfs dev /dev 2>/dev/null\n\
         mkdir -p /dev/pts /dev/shm\n\
         mount -t devpts pts /dev/pts\n\
         mount -t tmpfs shm /dev/shm\n\
         mount -t tmpfs run /run\n\
         export TMPDIR=/dev/shm\n\
         cd {directory}\n\
         ( exec {command} ) </dev/null >output 2>&1\n\
         echo $? >status\n\
         sync\n\
         echo o >/proc/sysrq-trigger\n\
         while :; do sleep 1; done\n",
        command = quoted.join(" "),
    )
}

/// For sh: between single quotes.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
