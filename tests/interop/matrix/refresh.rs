//! Everything asked for, or told, once more.

use anyhow::{Result, ensure};
use bgp::policy::{Action, Filter, PrefixMatch, Rule};
use bgp::speaker::config::SpeakerConfig;
use bgp::speaker::status::RouteStatus;
use bgp::types::Family;
use bgp::wire::frame::MessageKind;
use bgp::wire::refresh::{RefreshKind, RouteRefresh};
use harness::routers::{Router, Setting};
use harness::site::Site;
use harness::speaker::{Running, address, config, peer};
use harness::wiretap::{Heard, Wiretap};

use super::start_session;

/// A change of policy ends no session: what the peer sent is judged again, and the peer is asked
/// besides, whether or not it answers.
pub fn refused_routes_come_back_without_a_reset(router: &'static dyn Router) -> Result<()> {
    let (_site, ours) = start_session(router, Setting::default())?;
    ours.expect_route("10.2.0.0/16", "used", is_used)?;
    refuse_for_a_while(&ours)?;
    ensure!(ours.peer(2)?.flaps == 0, "the session ended on the way");
    Ok(())
}

fn is_used(route: &RouteStatus) -> bool {
    route.rejected_reason.is_none() && !route.stale
}

/// Refuses the router's IPv4 routes, then admits them again.
fn refuse_for_a_while(ours: &Running) -> Result<()> {
    ours.configure(refusing());
    ours.expect_route("10.2.0.0/16", "refused", |route| {
        route.rejected_reason.is_some()
    })?;
    let mut admitting = config(1);
    peer(&mut admitting, 2);
    ours.configure(admitting);
    ours.expect_route("10.2.0.0/16", "used again", is_used)
}

fn refusing() -> SpeakerConfig {
    let mut refusing = config(1);
    peer(&mut refusing, 2).filters = vec![Filter {
        name: "none".to_owned(),
        import_v4: vec![Rule::new(PrefixMatch::Any, Action::Reject)],
        ..Filter::default()
    }];
    refusing
}

pub fn refresh_is_answered(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = start_session(router, Setting::default())?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    router.refresh(&site)?;
    // The answer changes nothing; what may go wrong is the session, or the route.
    let mut more = config(1);
    peer(&mut more, 2);
    let later = config(7).originated;
    more.originated.extend(later);
    ours.configure(more);
    site.expect_route("10.7.0.0/16", &[])?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    ensure!(ours.peer(2)?.flaps == 0, "the session ended on the way");
    Ok(())
}

/// RFC 7313 §4: it says where its answer begins and where it ends.
pub fn its_answer_is_demarcated(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = start_enhanced_session(router)?;
    ours.expect_route("10.2.0.0/16", "used", is_used)?;
    let wiretap = Wiretap::start(&site.ours)?;
    refuse_for_a_while(&ours)?;
    expect_refresh(&wiretap, 1, RefreshKind::Request)?;
    expect_refresh(&wiretap, 2, RefreshKind::Begin)?;
    expect_refresh(&wiretap, 2, RefreshKind::End)?;
    ours.expect_route("10.2.0.0/16", "repeated", is_used)?;
    ensure!(ours.peer(2)?.flaps == 0, "the session ended on the way");
    Ok(())
}

/// The same of ours.
pub fn our_answer_is_demarcated(router: &'static dyn Router) -> Result<()> {
    let (site, ours) = start_enhanced_session(router)?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    let wiretap = Wiretap::start(&site.ours)?;
    router.refresh(&site)?;
    expect_refresh(&wiretap, 2, RefreshKind::Request)?;
    expect_refresh(&wiretap, 1, RefreshKind::Begin)?;
    expect_refresh(&wiretap, 1, RefreshKind::End)?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    ensure!(ours.peer(2)?.flaps == 0, "the session ended on the way");
    Ok(())
}

fn start_enhanced_session(router: &'static dyn Router) -> Result<(Site, Running)> {
    let (site, ours) = start_session(router, Setting::default())?;
    let capabilities = ours.peer(2)?.capabilities;
    let is_it = |name: &String| name == "enhanced-route-refresh";
    ensure!(capabilities.iter().any(is_it), "{capabilities:?}");
    Ok((site, ours))
}

/// Waits until 192.0.2.`last` sent such a message for IPv4.
fn expect_refresh(wiretap: &Wiretap, last: u8, kind: RefreshKind) -> Result<()> {
    let family = Family::Ipv4;
    let is_it = |heard: &Heard| {
        heard.from.ip() == address(last)
            && heard.frame.kind == MessageKind::RouteRefresh
            && RouteRefresh::decode(&heard.frame.body) == Ok(Some(RouteRefresh { family, kind }))
    };
    wiretap.expect(&format!("{kind:?} of {}", address(last)), is_it)
}
