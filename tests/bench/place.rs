//! Namespaces that end with their value, and all that runs in them.

use std::path::PathBuf;
use std::time::Duration;

use agent::lab::process::{self, Process};
use agent::lab::{Mounts, Namespace};
use anyhow::Result;
use nix::sys::signal::Signal;

use crate::interrupt;

pub struct Place {
    pub namespace: Namespace,
}

impl Place {
    pub fn create(id: &str, name: &str, mounts: &Mounts) -> Result<Place> {
        let namespace = Namespace::create(id, name, mounts)?;
        interrupt::note(&namespace);
        Ok(Place { namespace })
    }

    /// What runs in there.
    pub fn processes(&self) -> Vec<Process> {
        let name: Vec<PathBuf> = self.namespace.kernel_name().into_iter().collect();
        let mut all = process::in_namespaces(&name);
        all.retain(|process| process.pid != self.namespace.holder.pid);
        all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for process in self.processes().iter().chain([&self.namespace.holder]) {
            process.signal(Signal::SIGKILL);
            // What cannot be ended has no one left to tell.
            let _ = process.wait_gone(Duration::from_secs(5));
        }
        interrupt::forget(&self.namespace);
    }
}
