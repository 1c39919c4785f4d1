//! From a peer's UPDATE to the route in the kernel.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{NEXT_HOP, Size};
use crate::daemons::Running;
use crate::kernel::{RouteMonitor, write_routes};
use crate::load::Load;
use crate::load::messages::{Attributes, announce, withdraw};
use crate::load::plan::{Nlri, Plan};
use crate::scenarios::{Figure, PATIENCE, megabytes, percentile};

/// How often there is a single change.
const PERIOD: Duration = Duration::from_millis(1);
/// Who is slower makes fewer.
const LASTS: Duration = Duration::from_secs(10);

/// One session and what the kernel says of its routes.
pub struct Bench {
    pub load: Load,
    pub monitor: RouteMonitor,
}

impl Bench {
    pub fn start(routes: u32) -> Result<Bench> {
        let plan = Plan {
            senders: 1,
            prefixes: routes,
            prefixes_per_set: routes,
        };
        let mut load = Load::new(plan, 1, false)?;
        let monitor = RouteMonitor::start(routes, number)?;
        load.connect(1, PATIENCE)?;
        Ok(Bench { load, monitor })
    }

    /// Says that, and returns the seconds until the kernel has so many routes. Looks each so many
    /// milliseconds: who looks all the time takes a processor from a daemon that has use for it.
    pub fn timed(&mut self, said: Vec<u8>, routes: u32, pause: u8) -> Result<f64> {
        let start = Instant::now();
        self.load.say(0, &Rc::from(said))?;
        while self.monitor.count() != routes {
            let count = self.monitor.count();
            ensure!(
                start.elapsed() < PATIENCE,
                "{count} of {routes} routes after {PATIENCE:?}"
            );
            self.load.turn(pause)?;
            self.monitor.read()?;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

pub fn announced(routes: std::ops::Range<u32>, set: u32) -> Vec<u8> {
    let prefixes: Vec<Nlri> = routes.map(Plan::host).collect();
    let next_hop = NEXT_HOP;
    let mut out = Vec::new();
    announce(&Attributes { next_hop, set }, &prefixes, &mut out);
    out
}

fn withdrawn(routes: std::ops::Range<u32>) -> Vec<u8> {
    let prefixes: Vec<Nlri> = routes.map(Plan::host).collect();
    let mut out = Vec::new();
    withdraw(&prefixes, &mut out);
    out
}

fn number(length: u8, address: [u8; 4]) -> Option<u32> {
    Plan::number_of_host(address).filter(|_| length == 32)
}

pub fn table(running: &Running, size: &Size) -> Result<Vec<Figure>> {
    let routes = size.routes;
    let mut bench = Bench::start(routes)?;
    let before = running.usage()?;
    let installed = bench.timed(announced(0..routes, 0), routes, 1)?;
    let full = running.usage()?;
    let removed = bench.timed(withdrawn(0..routes), 0, 1)?;
    let after = running.usage()?;
    Ok(vec![
        ("in s", installed),
        ("its CPU s", (full.cpu - before.cpu).as_secs_f64()),
        ("out s", removed),
        ("its CPU s ", (after.cpu - full.cpu).as_secs_f64()),
        ("peak MB", megabytes(after.peak)),
    ])
}

pub fn raw_table(_: &Running, size: &Size) -> Result<Vec<Figure>> {
    let mut times = [0.0; 2];
    for (time, is_new) in times.iter_mut().zip([true, false]) {
        let start = Instant::now();
        write_routes((0..size.routes).map(Plan::host), NEXT_HOP, is_new)?;
        *time = start.elapsed().as_secs_f64();
    }
    Ok(vec![("in s", times[0]), ("out s", times[1])])
}

/// One route after the other goes and comes.
pub fn changes(running: &Running, size: &Size) -> Result<Vec<Figure>> {
    let routes = size.routes;
    let mut bench = Bench::start(routes)?;
    bench.timed(announced(0..routes, 0), routes, 1)?;
    let before = running.usage()?;
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let mut due = start;
    for change in 0..size.changes {
        if start.elapsed() > LASTS {
            break;
        }
        // Spread over the table.
        let route = change * 7919 % routes;
        let one = route..route + 1;
        for (said, count, times) in [
            (withdrawn(one.clone()), routes - 1, &mut removed),
            (announced(one, 1), routes, &mut added),
        ] {
            while Instant::now() < due {
                bench.load.turn(0)?;
            }
            due = (due + PERIOD).max(Instant::now());
            times.push(bench.timed(said, count, 0)? * 1e3);
        }
    }
    let cpu = running.usage()?.cpu - before.cpu;
    Ok(vec![
        ("add p50 ms", percentile(&mut added, 50)),
        ("add p99 ms", percentile(&mut added, 99)),
        ("remove p50 ms", percentile(&mut removed, 50)),
        ("remove p99 ms", percentile(&mut removed, 99)),
        ("its CPU s", cpu.as_secs_f64()),
        ("changes", added.len() as f64 * 2.0),
    ])
}
