//! From a peer's UPDATE to the route in the kernel.

mod kernel;

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::kernel::{RouteMonitor, write_raw};
use crate::daemons::{Daemon, Running};
use crate::load::Load;
use crate::load::messages::{Attributes, announce, withdraw};
use crate::load::plan::Plan;
use crate::scenarios::{Figure, PATIENCE, megabytes, percentile};

/// Routes of the peer.
const ROUTES: u32 = 100_000;
/// Behind the uplink.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
/// Single changes beside the table, and how often there is one.
const CHANGES: u32 = 3000;
/// Who is slower than that makes fewer.
const LASTS: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_millis(1);

pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    measure: fn(&Running) -> Result<Vec<Figure>>,
    /// What writing to the kernel costs without anybody deciding; `None`: that is no limit here.
    limit: Option<fn() -> Result<Vec<Figure>>>,
}

pub const ALL: &[Scenario] = &[
    Scenario {
        name: "fib",
        title: "one peer's 100,000 routes into the kernel and out again",
        measure: table,
        limit: Some(raw_table),
    },
    Scenario {
        name: "change",
        title: "single changes, 1,000/s, beside 100,000 routes, until the kernel has them",
        measure: changes,
        limit: None,
    },
];

impl Scenario {
    /// One run with a fresh process.
    pub fn run(&self, daemon: &dyn Daemon) -> Result<Vec<Figure>> {
        let running = Running::start(daemon, 1)?;
        if daemon.is_relay() {
            let limit = self.limit.unwrap_or(|| Ok(Vec::new()));
            return running.namespace.enter(|| Ok(limit()))?;
        }
        running.wait_listening()?;
        let measured = running.namespace.enter(|| Ok((self.measure)(&running)))?;
        measured.with_context(|| format!("it said: {}", running.last_words()))
    }
}

/// One session and what the kernel says of its routes.
struct Bench {
    load: Load,
    monitor: RouteMonitor,
}

impl Bench {
    fn start() -> Result<Bench> {
        let plan = Plan {
            senders: 1,
            prefixes: ROUTES,
            prefixes_per_set: ROUTES,
        };
        let mut load = Load::new(plan, 1, false)?;
        let monitor = RouteMonitor::start(ROUTES)?;
        load.connect(1, PATIENCE)?;
        Ok(Bench { load, monitor })
    }

    /// Says that, and returns the seconds until the kernel has so many routes. Looks each so many
    /// milliseconds: who looks all the time takes a processor from a daemon that has use for it.
    fn timed(&mut self, said: Vec<u8>, routes: u32, pause: u8) -> Result<f64> {
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

fn announced(routes: std::ops::Range<u32>, set: u32) -> Vec<u8> {
    let prefixes: Vec<[u8; 3]> = routes.map(Plan::prefix).collect();
    let next_hop = NEXT_HOP;
    let mut out = Vec::new();
    announce(&Attributes { next_hop, set }, &prefixes, &mut out);
    out
}

fn withdrawn(routes: std::ops::Range<u32>) -> Vec<u8> {
    let prefixes: Vec<[u8; 3]> = routes.map(Plan::prefix).collect();
    let mut out = Vec::new();
    withdraw(&prefixes, &mut out);
    out
}

fn table(running: &Running) -> Result<Vec<Figure>> {
    let mut bench = Bench::start()?;
    let before = running.usage()?;
    let installed = bench.timed(announced(0..ROUTES, 0), ROUTES, 1)?;
    let full = running.usage()?;
    let removed = bench.timed(withdrawn(0..ROUTES), 0, 1)?;
    let after = running.usage()?;
    Ok(vec![
        ("in s", installed),
        ("its CPU s", (full.cpu - before.cpu).as_secs_f64()),
        ("out s", removed),
        ("its CPU s ", (after.cpu - full.cpu).as_secs_f64()),
        ("peak MB", megabytes(after.peak)),
    ])
}

fn raw_table() -> Result<Vec<Figure>> {
    let mut times = [0.0; 2];
    for (time, is_new) in times.iter_mut().zip([true, false]) {
        let start = Instant::now();
        write_raw(0..ROUTES, NEXT_HOP, is_new)?;
        *time = start.elapsed().as_secs_f64();
    }
    Ok(vec![("in s", times[0]), ("out s", times[1])])
}

/// One route after the other goes and comes.
fn changes(running: &Running) -> Result<Vec<Figure>> {
    let mut bench = Bench::start()?;
    bench.timed(announced(0..ROUTES, 0), ROUTES, 1)?;
    let before = running.usage()?;
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let mut due = start;
    for change in 0..CHANGES {
        if start.elapsed() > LASTS {
            break;
        }
        // Spread over the table.
        let route = change * 7919 % ROUTES;
        let one = route..route + 1;
        for (said, count, times) in [
            (withdrawn(one.clone()), ROUTES - 1, &mut removed),
            (announced(one, 1), ROUTES, &mut added),
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
