//! Commands run on the lab's machines, and what the kernel there says.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::error::{LabError, Result};
use super::netns::Namespace;
use super::process;

/// A short command's longest time; generous, because guest kernels are slow.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// A line of `ip -j route`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct KernelRoute {
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    pub dst: String,
    #[serde(default)]
    pub gateway: Option<String>,
    #[serde(default)]
    pub dev: Option<String>,
    #[serde(default)]
    pub protocol: Option<String>,
    #[serde(default)]
    pub scope: Option<String>,
    #[serde(default)]
    pub prefsrc: Option<String>,
    #[serde(default)]
    pub metric: Option<u32>,
    #[serde(default)]
    pub flags: Vec<String>,
}

/// `ip ARGUMENTS`, unedited.
pub fn ip(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    process::output(
        Some(namespace),
        command.args(arguments),
        "",
        COMMAND_TIMEOUT,
    )
}

/// Runs the lines as one `ip -batch`.
pub fn ip_batch(namespace: &Namespace, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    let command = command.args(["-batch", "-"]);
    process::output(Some(namespace), command, lines, COMMAND_TIMEOUT).map(|_| ())
}

/// Table main, by destination as `ip` spells it. Of several routes to one destination the first.
pub fn routes(namespace: &Namespace) -> Result<BTreeMap<String, KernelRoute>> {
    let text = ip(namespace, &["-j", "-4", "route", "show", "table", "main"])?;
    let routes: Vec<KernelRoute> =
        serde_json::from_str(&text).map_err(|error| LabError::Command {
            command: "ip -j route".to_owned(),
            reason: error.to_string(),
        })?;
    let mut by_destination = BTreeMap::new();
    for route in routes {
        by_destination.entry(route.dst.clone()).or_insert(route);
    }
    Ok(by_destination)
}

/// Whether a program can be started.
pub fn has_tool(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path);
    places
        .map(|place| place.join(tool))
        .any(|file| file.is_file())
}
