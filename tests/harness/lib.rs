//! What system tests share: labs, guest kernels, skipping with a reason.
//!
//! Namespaces, captures, pings and waiting are those of `agent::lab`.

pub mod guest;
pub mod report;

use std::path::{Path, PathBuf};

use agent::lab::{Lab, Options, Scenario};
use anyhow::{Context, Result};

/// Where the product's programs were built: beside the tests.
pub fn programs() -> Result<PathBuf> {
    let test = std::env::current_exe().context("failed to find the test's own program")?;
    let deps = test.parent().and_then(Path::parent);
    Ok(deps.context("the test is not in a target directory")?.to_owned())
}

/// A whole lab, up.
pub fn lab(scenario: Scenario) -> Result<Lab> {
    let options = Options {
        scenario,
        ..Options::default()
    };
    Ok(Lab::up(options, &programs()?)?)
}

/// The output of a finished command that must have succeeded.
pub fn succeeded(finished: &agent::lab::process::Finished) -> Result<&str> {
    anyhow::ensure!(
        finished.status.success(),
        "{}\n{}{}",
        finished.status,
        finished.stdout,
        finished.stderr
    );
    Ok(&finished.stdout)
}
