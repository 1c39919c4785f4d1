//! A comparison with a kernel that has everything as it should be.
//!
//! It is seen from outside: the daemon is idle but for its pass each second, so a pass begins when its
//! processor time begins to grow, and is over when that stands still.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Size;
use super::fib::{Bench, announced};
use crate::daemons::Running;
use crate::kernel::{dump_routes, write_routes};
use crate::load::plan::Plan;
use crate::scenarios::{Figure, percentile};
use crate::usage::Usage;

/// So often the daemon is told to look.
const PERIOD: Duration = Duration::from_secs(1);
/// Longer than a pass stands still.
const PAUSE: Duration = Duration::from_millis(50);

pub fn measure(running: &Running, size: &Size) -> Result<Vec<Figure>> {
    let mut bench = Bench::start(size.routes)?;
    bench.timed(announced(0..size.routes, 0), size.routes, 1)?;
    let pids = running.pids()?;
    let used = || pids.iter().map(|pid| Usage::of(*pid).cpu).sum();
    // What follows the last route.
    look(&mut bench, 2 * PERIOD, used)?;

    let changes = bench.monitor.changes();
    let before: Duration = used();
    let mut bursts = look(&mut bench, size.passes * PERIOD, used)?;
    let cpu = (used() - before).as_secs_f64() / f64::from(size.passes);
    bursts.sort_by(f64::total_cmp);
    let passes = bursts.len().min(size.passes as usize);
    ensure!(passes > 0, "it did nothing at all");
    let mut passes = bursts.split_off(bursts.len() - passes);
    Ok(vec![
        ("pass p50 s", percentile(&mut passes, 50)),
        ("longest s", percentile(&mut passes, 100)),
        ("its CPU s", cpu),
        ("route writes", (bench.monitor.changes() - changes) as f64),
    ])
}

/// How long it was busy each time, in seconds.
fn look(bench: &mut Bench, lasts: Duration, used: impl Fn() -> Duration) -> Result<Vec<f64>> {
    let start = Instant::now();
    let mut bursts = Vec::new();
    let mut burst: Option<(Instant, Instant)> = None;
    let (mut looked, mut cpu) = (start, used());
    while start.elapsed() < lasts {
        bench.load.turn(1)?;
        bench.monitor.read()?;
        let (before, now) = (std::mem::replace(&mut looked, Instant::now()), used());
        if now == cpu {
            continue;
        }
        cpu = now;
        burst = match burst {
            Some((began, last)) if looked - last < PAUSE => Some((began, looked)),
            over => {
                bursts.extend(over);
                Some((before, looked))
            }
        };
    }
    bursts.extend(burst);
    let length = |(began, last): (Instant, Instant)| (last - began).as_secs_f64();
    Ok(bursts.into_iter().map(length).collect())
}

/// Reading the table is what no comparison can do without.
pub fn dump(_: &Running, size: &Size) -> Result<Vec<Figure>> {
    write_routes((0..size.routes).map(Plan::host), super::NEXT_HOP, true)?;
    let mut times = Vec::new();
    for _ in 0..size.passes {
        let start = Instant::now();
        let count = dump_routes()?;
        times.push(start.elapsed().as_secs_f64());
        ensure!(count >= size.routes, "{count} routes are there");
    }
    let longest = times.iter().copied().max_by(f64::total_cmp);
    Ok(vec![
        ("pass p50 s", percentile(&mut times, 50)),
        ("longest s", longest.context("a pass")?),
    ])
}
