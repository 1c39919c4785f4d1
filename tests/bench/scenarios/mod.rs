//! What is measured, and how.

mod flap;
mod flood;
mod idle;
mod scale;
mod storm;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::daemons::{Daemon, Running};
use crate::load::Load;
use crate::load::plan::Plan;

/// The longest that a daemon may take for one step.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A figure of one run: what it is, with its unit.
pub type Figure = (&'static str, f64);

pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    measure: fn(&Running, &Shape, bool) -> Result<Vec<Figure>>,
    shape: Shape,
}

/// Who is there and who sends what.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub clients: u32,
    /// The first client that counts what it hears.
    pub counts_from: u32,
    pub plan: Plan,
}

const fn shape(clients: u32, counts_from: u32, senders: u32, prefixes: u32, per_set: u32) -> Shape {
    Shape {
        clients,
        counts_from,
        plan: Plan {
            senders,
            prefixes,
            prefixes_per_set: per_set,
        },
    }
}

/// All to all, a prefix each.
const fn each(clients: u32) -> Shape {
    shape(clients, 0, clients, 1, 1)
}

macro_rules! scenarios {
    ($($name:literal, $title:literal, $measure:path, $shape:expr;)*) => {
        &[$(Scenario { name: $name, title: $title, measure: $measure, shape: $shape }),*]
    };
}

pub const ALL: &[Scenario] = scenarios![
    "a", "1 client sends 100,000 prefixes, 1 receives", flood::measure, shape(2, 1, 1, 100_000, 100_000);
    "b", "10 clients send 10,000 prefixes each, 50 receive all", flood::measure, shape(60, 10, 10, 10_000, 10_000);
    "c", "100 clients, one prefix each, all to all", flood::measure, each(100);
    "d", "1,000 clients, one prefix each, all to all", flood::measure, each(1000);
    "e", "1,000,000 prefixes in 100,000 attribute sets, 1 receives", flood::measure, shape(2, 1, 1, 1_000_000, 10);
    "e10", "1,000,000 prefixes in 100,000 attribute sets, 10 receive", flood::measure, shape(11, 1, 1, 1_000_000, 10);
    "f", "one flap, 100,000 routes in the table, 20,000 changes/s, 10 receive", flap::measure, flap::SHAPE;
    "g", "100 clients with 100 prefixes each drop and return", storm::measure, shape(100, 0, 100, 100, 100);
    "idle100", "100 clients, no routes", idle::measure, shape(100, 0, 0, 1, 1);
    "idle1000", "1,000 clients, no routes", idle::measure, shape(1000, 0, 0, 1, 1);
    "n10", "10 clients, one prefix each", scale::measure, each(10);
    "n100", "100 clients, one prefix each", scale::measure, each(100);
    "n1000", "1,000 clients, one prefix each", scale::measure, each(1000);
    "n1500", "1,500 clients, one prefix each", scale::measure, each(1500);
    "n2000", "2,000 clients, one prefix each", scale::measure, each(2000);
];

impl Scenario {
    /// One run with a fresh process.
    pub fn run(&self, daemon: &dyn Daemon) -> Result<Vec<Figure>> {
        let running = Running::start(daemon, self.shape.clients)?;
        running.wait_listening()?;
        let measured = running
            .namespace()
            .enter(|| Ok((self.measure)(&running, &self.shape, daemon.is_relay())))?;
        measured.with_context(|| format!("it said: {}", running.last_words()))
    }
}

/// The generator with all its sessions, and how long they took, in seconds.
fn connected(shape: &Shape, is_relay: bool) -> Result<(Load, f64)> {
    let mut load = Load::new(shape.plan, shape.counts_from, is_relay)?;
    let up = load.connect(shape.clients, PATIENCE)?;
    Ok((load, up.as_secs_f64()))
}

pub fn megabytes(kibibytes: u64) -> f64 {
    kibibytes as f64 * 1024.0 / 1e6
}

/// Of values in any order.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get(last * percent / 100)
        .copied()
        .unwrap_or(f64::NAN)
}
