//! How a rack of any size comes up, and how soon all its clients hear of one withdrawal.

use std::rc::Rc;

use anyhow::Result;

use super::flood::{encoded, timed};
use super::{Figure, Shape, connected, megabytes, percentile};
use crate::daemons::Running;
use crate::load::Load;

/// Withdrawals that are timed, one after the other.
const WITHDRAWALS: u32 = 100;

pub fn measure(running: &Running, shape: &Shape, is_relay: bool) -> Result<Vec<Figure>> {
    let announcements = encoded(shape, |sender| shape.plan.announcement(sender));
    let (mut load, up) = connected(shape, is_relay)?;
    let converge = timed(&mut load, &announcements, Load::all_have_all)?;
    let mut withdrawn = Vec::new();
    for number in 0..WITHDRAWALS {
        let sender = number % shape.plan.senders;
        let gone: Rc<[u8]> = shape.plan.withdrawal(sender).into();
        let index = shape.plan.of(sender).start;
        let seconds = timed_by(&mut load, sender, &gone, |load| load.none_has(index))?;
        withdrawn.push(seconds * 1e3);
        let back = &announcements[sender as usize];
        timed_by(&mut load, sender, back, Load::all_have_all)?;
    }
    let usage = running.usage()?;
    Ok(vec![
        ("up s", up),
        ("converge s", converge),
        ("withdraw p50 ms", percentile(&mut withdrawn, 50)),
        ("withdraw p99 ms", percentile(&mut withdrawn, 99)),
        ("peak MB", megabytes(usage.peak)),
        ("CPU s", usage.cpu.as_secs_f64()),
    ])
}

fn timed_by(
    load: &mut Load,
    sender: u32,
    octets: &Rc<[u8]>,
    is_over: impl Fn(&Load) -> bool,
) -> Result<f64> {
    let start = std::time::Instant::now();
    load.say(sender, octets)?;
    load.run_until("one change", super::PATIENCE, is_over)?;
    Ok(start.elapsed().as_secs_f64())
}
