//! What happens to a machine's kernel while a test does something to its programs.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use agent::lab::{Lab, Namespace, machine};
use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::product::{TIMEOUT, eventually};

/// Waits for the end of duplicate address detection, which the kernel tells of.
pub fn wait_detected(namespace: &Namespace) -> Result<()> {
    eventually("the end of duplicate address detection", TIMEOUT, || {
        let tentative = machine::ip(namespace, &["-6", "address", "show", "tentative"])?;
        Ok((!tentative.is_empty()).then_some(tentative))
    })
}

/// `ip monitor route`, running.
pub struct RouteMonitor {
    namespace: Namespace,
    child: Child,
    output: NamedTempFile,
}

/// Never used for anything else (RFC 2544 benchmarking space): its coming and going in the output
/// shows that the monitor has heard everything before.
const MARKS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];

/// Whether it is about a neighbour that the kernel found, checks and forgets by itself: what somebody
/// wrote is permanent, and NOARP without being written are groups of multicast.
fn is_the_kernels(line: &str) -> bool {
    const STATES: [&str; 5] = [" REACHABLE", " STALE", " DELAY", " PROBE", " INCOMPLETE"];
    let is_group = || line.contains("Deleted ff02:") && line.contains(" NOARP");
    line.contains("[NEIGH]") && (STATES.iter().any(|state| line.contains(state)) || is_group())
}

impl RouteMonitor {
    /// Hears every change of an IPv4 route from the time this returns.
    pub fn start(lab: &Lab, name: &str) -> Result<RouteMonitor> {
        RouteMonitor::of(lab.namespace(name)?, &["-4", "monitor", "route"])
    }

    /// The same of both families, and although thousands come at once.
    pub fn in_namespace(namespace: &Namespace) -> Result<RouteMonitor> {
        RouteMonitor::of(namespace, &["-rcvbuf", "33554432", "monitor", "route"])
    }

    /// Hears every change of anything that `ip` knows.
    pub fn of_everything(namespace: &Namespace) -> Result<RouteMonitor> {
        RouteMonitor::of(namespace, &["-rcvbuf", "33554432", "monitor", "all"])
    }

    fn of(namespace: &Namespace, arguments: &[&str]) -> Result<RouteMonitor> {
        let namespace = namespace.clone();
        let output = NamedTempFile::new()?;
        let mut command = Command::new("ip");
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(output.path())?)
            .stderr(Stdio::null());
        let child = namespace.spawn(&mut command)?;
        let monitor = RouteMonitor {
            namespace,
            child,
            output,
        };
        monitor.mark(MARKS[0])?;
        Ok(monitor)
    }

    /// Makes a harmless change until it is heard.
    fn mark(&self, mark: &str) -> Result<()> {
        let text = || fs::read_to_string(self.output.path()).context("failed to read the monitor");
        eventually("the route monitor", TIMEOUT, || {
            machine::ip(&self.namespace, &["route", "replace", mark, "dev", "lo"])?;
            machine::ip(&self.namespace, &["route", "del", mark, "dev", "lo"])?;
            Ok((!text()?.contains(mark)).then(|| "the mark was not heard".to_owned()))
        })
    }

    /// Ends it and returns every change of a route of ours, or of FRR's bgpd.
    pub fn stop(self) -> Result<Vec<String>> {
        let mut changes = self.stop_with_all()?;
        // Where this machine has no names for them, our protocols are numbers.
        let words = ["caracal", "proto bgp", "proto 202", "proto 203"];
        changes.retain(|line| words.iter().any(|word| line.contains(word)));
        Ok(changes)
    }

    /// Ends it and returns every change of ours: routes, next-hop objects, devices, and addresses and
    /// neighbours on these.
    pub fn stop_with_devices(self) -> Result<Vec<String>> {
        let mut changes = self.stop_with_all()?;
        let words = ["cara", "proto 202", "proto 203"];
        let is_ours = |line: &str| words.iter().any(|word| line.contains(word));
        changes.retain(|line| is_ours(line) && !is_the_kernels(line));
        Ok(changes)
    }

    /// Ends it and returns every change.
    pub fn stop_with_all(mut self) -> Result<Vec<String>> {
        self.mark(MARKS[1])?;
        self.child.kill()?;
        self.child.wait()?;
        let text = fs::read_to_string(self.output.path())?;
        let is_mark = |line: &str| MARKS.iter().any(|mark| line.contains(mark));
        let lines = text.lines().filter(|line| !is_mark(line));
        Ok(lines.map(str::to_owned).collect())
    }
}

impl Drop for RouteMonitor {
    fn drop(&mut self) {
        // Ended already after `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
