//! Everybody says all there is, and later takes it back.

use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;

use super::{Figure, PATIENCE, Shape, connected, megabytes};
use crate::daemons::Running;
use crate::load::Load;

pub fn measure(running: &Running, shape: &Shape, is_relay: bool) -> Result<Vec<Figure>> {
    let announcements = encoded(shape, |sender| shape.plan.announcement(sender));
    let withdrawals = encoded(shape, |sender| shape.plan.withdrawal(sender));
    let (mut load, up) = connected(shape, is_relay)?;
    let before = running.usage()?;
    let (converge, updates) = {
        let seconds = timed(&mut load, &announcements, Load::all_have_all)?;
        let of_last = load.clients.last().map_or(0, |client| client.updates);
        (seconds, of_last)
    };
    let full = running.usage()?;
    let withdraw = timed(&mut load, &withdrawals, Load::all_have_none)?;
    let after = running.usage()?;
    Ok(vec![
        ("converge s", converge),
        ("its CPU s", (full.cpu - before.cpu).as_secs_f64()),
        ("withdraw s", withdraw),
        ("its CPU s ", (after.cpu - full.cpu).as_secs_f64()),
        ("peak MB", megabytes(after.peak)),
        ("up s", up),
        ("updates", updates as f64),
    ])
}

/// What each sender says.
pub fn encoded(shape: &Shape, say: impl Fn(u32) -> Vec<u8>) -> Vec<Rc<[u8]>> {
    (0..shape.plan.senders)
        .map(|sender| say(sender).into())
        .collect()
}

/// Has the senders say that, and returns the seconds until `is_over`.
pub fn timed(load: &mut Load, said: &[Rc<[u8]>], is_over: impl Fn(&Load) -> bool) -> Result<f64> {
    let start = Instant::now();
    for (sender, octets) in (0..).zip(said) {
        load.say(sender, octets)?;
    }
    load.run_until("all of it", PATIENCE, is_over)?;
    Ok(start.elapsed().as_secs_f64())
}
