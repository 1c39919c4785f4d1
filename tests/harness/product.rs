//! The product as a user sees it: its programs, and what they say of themselves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::api::schema::{Items, Status};
use agent::lab::process::{Finished, wait_until};
use agent::lab::{Driver, Lab, LabError, Options, Process, Scenario};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

/// The longest that anything here may take to come about.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the product's programs were built: beside the tests.
pub fn programs() -> Result<PathBuf> {
    let test = std::env::current_exe().context("failed to find the test's own program")?;
    let target = test.parent().and_then(Path::parent);
    Ok(target
        .context("the test is not in a target directory")?
        .to_owned())
}

/// A whole lab, up.
pub fn lab(scenario: Scenario) -> Result<Lab> {
    let options = Options {
        scenario,
        ..Options::default()
    };
    Ok(Lab::up(options, &programs()?)?)
}

/// As `lab`, with the tunnel of these nodes a carrier's.
pub fn lab_with_carriers(scenario: Scenario, nodes: &[&str]) -> Result<Lab> {
    let userspace = |node: &&str| ((*node).to_owned(), Driver::Userspace);
    let options = Options {
        scenario,
        drivers: nodes.iter().map(userspace).collect(),
    };
    Ok(Lab::up(options, &programs()?)?)
}

/// A lab with machines and links, and nothing started.
pub fn wired_lab(scenario: Scenario) -> Result<Lab> {
    let options = Options {
        scenario,
        ..Options::default()
    };
    let mut lab = Lab::new(options, &programs()?)?;
    lab.wire()?;
    Ok(lab)
}

/// The output of a finished command that must have succeeded.
pub fn succeeded(finished: Finished) -> Result<String> {
    ensure!(
        finished.status.success(),
        "{}\n{}{}",
        finished.status,
        finished.stdout,
        finished.stderr
    );
    Ok(finished.stdout)
}

fn json<T: DeserializeOwned>(lab: &Lab, machine: &str, arguments: &[&str]) -> Result<T> {
    let finished = lab.caracal(machine, &[arguments, &["-o", "json"]].concat())?;
    let said = &finished.stdout;
    // Exit status 1 means a finding, which the JSON tells.
    serde_json::from_str(said)
        .with_context(|| format!("caracal {arguments:?} said {said}{}", finished.stderr))
}

pub fn status(lab: &Lab, machine: &str) -> Result<Status> {
    json(lab, machine, &["status"])
}

pub fn peers(lab: &Lab, machine: &str) -> Result<Vec<PeerStatus>> {
    let items: Items<PeerStatus> = json(lab, machine, &["peers"])?;
    Ok(items.items)
}

pub fn routes(lab: &Lab, machine: &str, arguments: &[&str]) -> Result<Vec<RouteStatus>> {
    let items: Items<RouteStatus> = json(lab, machine, &[&["routes"], arguments].concat())?;
    Ok(items.items)
}

/// Waits until `look` finds nothing missing. An error of `look` counts as missing, and is shown.
pub fn eventually(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<String>>,
) -> Result<()> {
    wait_until(what, timeout, || {
        Ok(look().unwrap_or_else(|error| Some(format!("{error:#}"))))
    })?;
    Ok(())
}

/// The running program of a machine of the lab.
pub fn program(lab: &Lab, machine: &str) -> Result<Process> {
    let is_its = |process: &&Process| process.name == machine;
    let found = lab.processes().iter().rfind(is_its);
    found
        .cloned()
        .with_context(|| format!("no program on {machine}"))
}

/// kill -9, and its end awaited.
pub fn kill(process: &Process) -> std::result::Result<(), LabError> {
    process.signal(Signal::SIGKILL);
    process.wait_gone(Duration::from_secs(5))
}

/// Waits until every session of `machine` is established and none of its routes is stale: what a
/// graceful restart has to do is done.
pub fn wait_settled(lab: &Lab, machine: &str) -> Result<()> {
    let what = format!("sessions and fresh routes on {machine}");
    let settled = eventually(&what, TIMEOUT, || {
        let peers = peers(lab, machine)?;
        let down = peers.iter().find(|peer| peer.state != "established");
        if peers.is_empty() || down.is_some() {
            return Ok(Some(format!("{down:?} of {} peers", peers.len())));
        }
        let routes = routes(lab, machine, &[])?;
        let stale = routes.iter().find(|route| route.stale);
        Ok(stale.map(|route| format!("{} is stale", route.prefix)))
    });
    settled.with_context(|| lab.all_last_lines())
}
