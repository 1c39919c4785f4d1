//! Packets and routes while a test does something to a lab's programs: steady echoes between
//! workloads, and every change of a route on its machines.

use std::thread;
use std::time::{Duration, Instant};

use agent::lab::Lab;
use agent::lab::ping::{self, Probe, Target};
use agent::lab::record::Workload;
use anyhow::{Context, Result, bail, ensure};

use crate::monitor::RouteMonitor;

/// 10 ms apart, after the end.
const LAST_ECHOES: u16 = 50;

pub struct Watch {
    monitors: Vec<(String, RouteMonitor)>,
    probes: Vec<(String, Probe)>,
    /// The way of the last echoes: from one workload to the address of another.
    last: (String, Target),
    begun: Instant,
}

/// What a watch saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub sent: usize,
    /// Which way, and how long after the beginning.
    pub lost: Vec<(String, Duration)>,
    pub route_events: Vec<String>,
    pub longest_gap: Duration,
}

impl Watch {
    /// Watches the routes of `machines`, and packets from the first workload of each flow to the
    /// second and back, one every `interval`.
    pub fn start(
        lab: &Lab,
        machines: &[String],
        flows: &[[String; 2]],
        interval: Duration,
    ) -> Result<Watch> {
        let mut monitors = Vec::new();
        for machine in machines {
            monitors.push((machine.clone(), RouteMonitor::start(lab, machine)?));
        }
        let mut probes = Vec::new();
        for (identifier, [from, to]) in (1..).zip(flows) {
            let target = target(lab, to, identifier)?;
            let probe = Probe::start(lab.namespace(from)?, target, interval)?;
            probes.push((format!("{from} to {to}"), probe));
        }
        let [from, to] = flows.first().context("nothing flows")?;
        Ok(Watch {
            monitors,
            probes,
            last: (from.clone(), target(lab, to, 0)?),
            begun: Instant::now(),
        })
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Watches a little longer: what comes of a restart may come after it looks done.
    pub fn stop(self, lab: &Lab) -> Result<Seen> {
        let (from, to) = self.last;
        ping::burst(lab.namespace(&from)?, &[to], LAST_ECHOES)?;
        let mut seen = Seen::default();
        for (name, monitor) in self.monitors {
            let events = monitor.stop()?;
            let named = events.into_iter().map(|event| format!("{name}: {event}"));
            seen.route_events.extend(named);
        }
        // At the same time: each waits for late answers.
        let stopping: Vec<_> = (self.probes.into_iter())
            .map(|(name, probe)| (name, thread::spawn(move || probe.stop())))
            .collect();
        for (name, report) in stopping {
            let Ok(report) = report.join() else {
                bail!("the probe {name} panicked");
            };
            ensure!(report.sent > 0, "{name}: nothing was sent");
            seen.sent += report.sent;
            let lost = report.lost.iter().map(|(_, at)| (name.clone(), *at));
            seen.lost.extend(lost);
            seen.longest_gap = seen.longest_gap.max(report.longest_gap);
        }
        Ok(seen)
    }
}

fn target(lab: &Lab, workload: &str, identifier: u16) -> Result<Target> {
    let is_it = |attached: &&Workload| attached.name == workload;
    let found = lab.workloads().iter().find(is_it);
    let found = found.with_context(|| format!("no workload {workload}"))?;
    Ok(Target {
        address: found.address,
        identifier,
    })
}

impl Seen {
    /// Nothing was lost and no route changed.
    pub fn expect_calm(&self) -> Result<()> {
        ensure!(self.lost.is_empty(), "lost {:?}", self.lost);
        ensure!(
            self.route_events.is_empty(),
            "routes changed:\n{}",
            self.route_events.join("\n")
        );
        Ok(())
    }
}
