//! What outlives the end of either side.

use anyhow::{Result, ensure};
use harness::routers::{Router, Setting};
use harness::speaker::{Running, config, peer};

use super::start_session;

pub fn routes_outlive_kill_of_peer(router: &'static dyn Router) -> Result<()> {
    let (mut site, ours) = start_session(router, Setting::default())?;
    for prefix in ["10.2.0.0/16", "2001:db8:2::/48"] {
        ours.expect_route(prefix, "learned", |route| !route.stale)?;
    }
    site.kill_router()?;
    for prefix in ["10.2.0.0/16", "2001:db8:2::/48"] {
        ours.expect_route(prefix, "kept", |route| route.best && route.stale)?;
    }
    site.start_router(true)?;
    ours.established(2)?;
    for prefix in ["10.2.0.0/16", "2001:db8:2::/48"] {
        ours.expect_route(prefix, "fresh", |route| route.best && !route.stale)?;
    }
    Ok(())
}

pub fn routes_outlive_kill_of_us(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = start_session(router, Setting::default())?;
    let kept = ["10.1.0.0/16", "2001:db8:1::/48"];
    for prefix in kept {
        site.expect_route(prefix, &[])?;
    }
    ours.kill();
    let still = |when: &str| -> Result<()> {
        for prefix in kept {
            ensure!(!site.route(prefix)?.is_empty(), "{prefix} went {when}");
        }
        Ok(())
    };
    still("with us")?;
    let mut restarted = config(1);
    peer(&mut restarted, 2);
    restarted.graceful_restart.restarting = true;
    let ours = Running::start(&site.ours, restarted)?;
    ours.established(2)?;
    still("as we came back")?;
    ours.expect_route("10.2.0.0/16", "learned again", |route| route.best)?;
    still("as we were told everything")
}
