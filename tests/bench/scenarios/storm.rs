//! All clients drop at once, and return at once.

use std::time::Instant;

use anyhow::Result;

use super::flood::{encoded, timed};
use super::{Figure, PATIENCE, Shape, connected, megabytes};
use crate::daemons::Running;
use crate::load::Load;

pub fn measure(running: &Running, shape: &Shape, is_relay: bool) -> Result<Vec<Figure>> {
    let announcements = encoded(shape, |sender| shape.plan.announcement(sender));
    let (mut load, _) = connected(shape, is_relay)?;
    let first = timed(&mut load, &announcements, Load::all_have_all)?;
    let before = running.usage()?;
    let start = Instant::now();
    load.disconnect();
    load.connect(shape.clients, PATIENCE)?;
    let up = start.elapsed().as_secs_f64();
    timed(&mut load, &announcements, Load::all_have_all)?;
    let converged = start.elapsed().as_secs_f64();
    let after = running.usage()?;
    Ok(vec![
        ("back s", converged),
        ("all up s", up),
        ("its CPU s", (after.cpu - before.cpu).as_secs_f64()),
        ("first s", first),
        ("peak MB", megabytes(after.peak)),
    ])
}
