//! From the end of a prefix on the node to the withdrawal at its peer.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{NEXT_HOP, Size};
use crate::daemons::Running;
use crate::kernel::write_routes;
use crate::load::Load;
use crate::load::plan::Plan;
use crate::routers::agent;
use crate::scenarios::{Figure, PATIENCE, percentile};

/// Who is slower makes fewer.
const LASTS: Duration = Duration::from_secs(20);
/// Of each, so that no prefix flaps.
const PREFIXES: u32 = 256;

pub fn measure(running: &Running, size: &Size) -> Result<Vec<Figure>> {
    // The peer counts what it does not send itself: the second half.
    let plan = Plan {
        senders: 2,
        prefixes: PREFIXES,
        prefixes_per_set: PREFIXES,
    };
    let mut load = Load::new(plan, 0, false)?;
    load.checks = false;
    load.connect(1, PATIENCE)?;
    let is_in_store = agent::has_store(running.directory());
    let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for round in 0..size.withdrawals {
        if start.elapsed() > LASTS {
            break;
        }
        let prefix = PREFIXES + round % PREFIXES;
        for (is_there, times) in [(true, &mut announced), (false, &mut withdrawn)] {
            let begun = Instant::now();
            if is_in_store {
                let shown = is_there.then(|| {
                    let [a, b, c, _] = Plan::prefix(prefix).address;
                    format!(", {a}.{b}.{c}.0/24")
                });
                agent::write_node(running.directory(), &shown.unwrap_or_default())?;
            } else {
                write_routes([Plan::prefix(prefix)], NEXT_HOP, is_there)?;
            }
            let is_heard = |load: &Load| load.all_have(prefix) == is_there;
            load.run_until("the peer hears", PATIENCE, is_heard)?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(vec![
        ("gone p50 ms", percentile(&mut withdrawn, 50)),
        ("gone p99 ms", percentile(&mut withdrawn, 99)),
        ("new p50 ms", percentile(&mut announced, 50)),
        ("new p99 ms", percentile(&mut announced, 99)),
        ("rounds", withdrawn.len() as f64),
    ])
}
