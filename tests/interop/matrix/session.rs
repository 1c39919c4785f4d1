//! How sessions come and go.

use anyhow::Result;
use bgp::speaker::Stop;
use harness::routers::{Router, Setting};
use harness::site::Site;
use harness::speaker::{Running, config, peer};
use nix::sys::signal::Signal;

/// RFC 4271 §6.5: nothing is heard for the hold time.
pub fn silent_peer_is_dropped_and_comes_back(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, Setting::default())?;
    let mut impatient = config(1);
    peer(&mut impatient, 2).hold_time = bgp::types::HoldTime::new(3)?;
    let ours = Running::start(&site.ours, impatient)?;
    ours.established(2)?;
    site.signal_router(Signal::SIGSTOP);
    ours.wait_peer("the end of the silent session", 2, |peer| {
        let error = peer.last_error.as_ref();
        error.is_some_and(|error| error.code == 4 && error.direction == "sent")
    })?;
    site.signal_router(Signal::SIGCONT);
    ours.wait_peer("its return", 2, |peer| {
        peer.state == "established" && peer.flaps >= 1
    })?;
    ours.expect_route("10.2.0.0/16", "learned again", |route| {
        route.best && !route.stale
    })
}

/// RFC 4271 §6.8, again and again: one session each time, whoever dialled it.
pub fn both_sides_dial_at_once(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(
        router,
        Setting {
            dials: true,
            ..Setting::default()
        },
    )?;
    for _ in 0..5 {
        let mut config = config(1);
        peer(&mut config, 2);
        let ours = Running::start(&site.ours, config)?;
        router.dial_now(&site)?;
        ours.established(2)?;
        ours.expect_route("10.2.0.0/16", "learned", |route| route.best)?;
        site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
        ours.stop(Stop::ForGood);
    }
    Ok(())
}
