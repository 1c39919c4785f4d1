//! One prefix comes and goes, again and again, while others change all the time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Figure, PATIENCE, Shape, connected, percentile, shape};
use crate::daemons::Running;
use crate::load::Load;
use crate::load::messages::{Attributes, announce, withdraw};
use crate::load::plan::{Nlri, Plan, address};

const TABLE: u32 = 100_000;
const CHANGING: u32 = 20_000;
/// Changes in one message, of which there is one each millisecond.
const CHANGES: u32 = 20;
const FLAPPING: u32 = TABLE + CHANGING;
/// How often each changing prefix changes at most.
const ROUNDS: u32 = 8;
const LASTS: Duration = Duration::from_secs(5);

/// Client 0 has the table, 1 the prefixes that change, 2 the one that flaps; ten more count.
pub const SHAPE: Shape = shape(13, 3, 1, FLAPPING + 1, FLAPPING + 1);

pub fn measure(running: &Running, shape: &Shape, is_relay: bool) -> Result<Vec<Figure>> {
    let (mut load, _) = connected(shape, is_relay)?;
    load.checks = false;
    let table = said(0, 0, 0..TABLE);
    let changes: Vec<Rc<[u8]>> = (0..ROUNDS)
        .flat_map(|round| {
            let firsts = (TABLE..FLAPPING).step_by(CHANGES as usize);
            firsts.map(move |first| said(1, round, first..first + CHANGES))
        })
        .collect();
    load.say(0, &table)?;
    for change in &changes[..(CHANGING / CHANGES) as usize] {
        load.say(1, change)?;
    }
    let has_table = |load: &Load| {
        let mut counting = load.clients.iter().filter(|client| client.counts());
        counting.all(|client| client.count == FLAPPING)
    };
    load.run_until("the table", PATIENCE, has_table)?;

    let here = said(2, 0, FLAPPING..FLAPPING + 1);
    let mut gone = Vec::new();
    withdraw(&[Plan::prefix(FLAPPING)], &mut gone);
    let gone: Rc<[u8]> = gone.into();
    let before = running.usage()?;
    let mut churn = Churn {
        changes: &changes,
        start: Instant::now(),
        made: 0,
    };
    let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
    while churn.start.elapsed() < LASTS {
        let all_have: fn(&Load) -> bool = |load| load.all_have(FLAPPING);
        announced.push(churn.flap(&mut load, &here, all_have)?);
        withdrawn.push(churn.flap(&mut load, &gone, |load| load.none_has(FLAPPING))?);
    }
    let cpu = running.usage()?.cpu - before.cpu;
    Ok(vec![
        ("p50 ms", percentile(&mut announced, 50)),
        ("p99 ms", percentile(&mut announced, 99)),
        ("max ms", percentile(&mut announced, 100)),
        ("withdraw p50 ms", percentile(&mut withdrawn, 50)),
        ("withdraw p99 ms", percentile(&mut withdrawn, 99)),
        ("its CPU s", cpu.as_secs_f64()),
        ("flaps", announced.len() as f64),
    ])
}

fn said(client: u32, set: u32, indices: std::ops::Range<u32>) -> Rc<[u8]> {
    let attributes = Attributes {
        next_hop: address(client),
        set,
    };
    let prefixes: Vec<Nlri> = indices.map(Plan::prefix).collect();
    let mut out = Vec::new();
    announce(&attributes, &prefixes, &mut out);
    out.into()
}

struct Churn<'a> {
    changes: &'a [Rc<[u8]>],
    start: Instant,
    made: usize,
}

impl Churn<'_> {
    /// Milliseconds until the last one has heard of it.
    fn flap(
        &mut self,
        load: &mut Load,
        said: &Rc<[u8]>,
        is_over: impl Fn(&Load) -> bool,
    ) -> Result<f64> {
        let start = Instant::now();
        load.say(2, said)?;
        while !is_over(load) {
            ensure!(
                start.elapsed() < PATIENCE,
                "a flap: not within {PATIENCE:?}"
            );
            if self.start.elapsed().as_millis() as usize > self.made {
                load.say(1, &self.changes[self.made % self.changes.len()])?;
                self.made += 1;
            }
            load.turn(0)?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}
