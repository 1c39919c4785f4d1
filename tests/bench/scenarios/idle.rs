//! Sessions that say nothing.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Figure, Shape, connected, megabytes};
use crate::daemons::Running;

/// So long everybody is quiet before memory is read.
const QUIET: Duration = Duration::from_secs(1);

pub fn measure(running: &Running, shape: &Shape, is_relay: bool) -> Result<Vec<Figure>> {
    let (mut load, up) = connected(shape, is_relay)?;
    let start = Instant::now();
    while start.elapsed() < QUIET {
        load.turn(100)?;
    }
    let usage = running.usage()?;
    Ok(vec![
        ("resident MB", megabytes(usage.resident)),
        ("peak MB", megabytes(usage.peak)),
        ("up s", up),
    ])
}
