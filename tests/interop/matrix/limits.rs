//! How much is too much: prefixes, and octets in a message.

use anyhow::{Result, ensure};
use bgp::speaker::status::PeerStatus;
use bgp::types::LocalPref;
use bgp::wire::attribute::PathAttributes;
use bgp::wire::community::LargeCommunity;
use bgp::wire::frame::{HEADER_LEN, MAX_LEN, MessageKind};
use bgp::wire::notification::{Notification, cease, code};
use harness::routers::{Router, Setting};
use harness::script::Script;
use harness::site::Site;
use harness::speaker::{Running, address, config, peer};
use harness::wiretap::{Heard, Wiretap};

use super::start_session;

/// RFC 4486 §4: the router announces more than we take, and only its session ends.
pub fn too_many_prefixes_end_its_session_alone(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, Setting::default())?;
    let mut limiting = config(1);
    peer(&mut limiting, 2).max_prefixes = Some(1);
    peer(&mut limiting, 3);
    let mut other = config(3);
    peer(&mut other, 1);
    let ours = Running::start(&site.ours, limiting)?;
    let other = Running::start(&site.ours, other)?;
    ours.established(2)?;
    ours.expect_route("10.2.0.0/16", "within the limit", |route| route.best)?;
    other.established(1)?;
    // Both called each other, and one of the connections may have had to give way.
    let before = other.peer(1)?.flaps;

    let wiretap = Wiretap::start(&site.ours)?;
    router.announce_more(&site, "10.21.0.0/16")?;
    wiretap.expect("Cease, maximum number of prefixes", |heard| {
        heard.from.ip() == address(1) && heard.to.ip() == address(2) && is_too_many(heard)
    })?;
    ours.wait_peer("the reason, shown", 2, |peer| has_ended(peer, "sent"))?;
    let unaffected = other.peer(1)?;
    ensure!(
        unaffected.state == "established" && unaffected.flaps == before,
        "{unaffected:?}"
    );
    other.expect_route("10.1.0.0/16", "still there", |route| route.best)
}

/// Who announced too much is let in as soon as it may announce that much.
pub fn a_higher_maximum_brings_it_back(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, Setting::default())?;
    let mut limiting = config(1);
    peer(&mut limiting, 2).max_prefixes = Some(1);
    let ours = Running::start(&site.ours, limiting.clone())?;
    ours.established(2)?;
    ours.expect_route("10.2.0.0/16", "within the limit", |route| route.best)?;
    router.announce_more(&site, "10.21.0.0/16")?;
    ours.wait_peer("the end of the session", 2, |peer| has_ended(peer, "sent"))?;
    router.dial_now(&site)?;
    peer(&mut limiting, 2).max_prefixes = Some(2);
    ours.configure(limiting);
    ours.established(2)?;
    for prefix in ["10.2.0.0/16", "10.21.0.0/16"] {
        ours.expect_route(prefix, "within the higher limit", |route| route.best)?;
    }
    Ok(())
}

/// The router takes no more than two prefixes.
pub fn too_many_prefixes_for_it_end_the_session(router: &'static dyn Router) -> Result<()> {
    let setting = Setting {
        max_prefixes: Some(2),
        ..Setting::default()
    };
    let (site, ours) = start_session(router, setting)?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    let wiretap = Wiretap::start(&site.ours)?;
    let mut more = config(1);
    peer(&mut more, 2);
    for last in 11..15 {
        more.originated.extend(config(last).originated);
    }
    ours.configure(more);
    wiretap.expect("Cease, maximum number of prefixes", |heard| {
        heard.from.ip() == address(2) && is_too_many(heard)
    })?;
    ours.wait_peer("the reason, shown", 2, |peer| has_ended(peer, "received"))
}

/// Cease, maximum number of prefixes reached, also as the reason of a hard reset (RFC 8538 §3.1).
fn is_too_many(heard: &Heard) -> bool {
    let Ok(notification) = Notification::decode(&heard.frame.body) else {
        return false;
    };
    let reason = notification.hard_reset_reason().unwrap_or(notification);
    heard.frame.kind == MessageKind::Notification
        && (reason.code, reason.subcode) == (code::CEASE, cease::MAXIMUM_PREFIXES)
}

fn has_ended(peer: &PeerStatus, direction: &str) -> bool {
    let error = peer.last_error.as_ref();
    error.is_some_and(|error| {
        let is_it = match (error.code, error.subcode) {
            (code::CEASE, cease::MAXIMUM_PREFIXES) => true,
            (code::CEASE, cease::HARD_RESET) => error.data_hex.starts_with("0601"),
            _ => false,
        };
        is_it && error.direction == direction
    })
}

/// What the scripted peer 3 says of a route.
fn small() -> PathAttributes {
    PathAttributes {
        local_pref: Some(LocalPref::DEFAULT),
        ..PathAttributes::originated(address(3))
    }
}

/// More octets than a message of 4096 holds; the last community is 64512:77:4242.
fn large() -> PathAttributes {
    let communities = (0..700).map(|value| LargeCommunity([64512, 76, value]));
    let last = LargeCommunity([64512, 77, 4242]);
    PathAttributes {
        large_communities: communities.chain([last]).collect(),
        ..small()
    }
}

/// Our speaker 1 with the router and the scripted peer 3 as clients.
fn reflector(site: &Site) -> Result<Running> {
    let mut reflector = config(1);
    peer(&mut reflector, 2).route_reflector_client = true;
    peer(&mut reflector, 3).route_reflector_client = true;
    let ours = Running::start(&site.ours, reflector)?;
    ours.established(2)?;
    Ok(ours)
}

/// RFC 8654: a route of more than 4096 octets goes from us to the router, and another one back.
pub fn extended_messages_pass_both_ways(router: &'static dyn Router) -> Result<()> {
    let setting = Setting {
        reflects: true,
        ..Setting::default()
    };
    let site = Site::start(router, setting)?;
    let ours = reflector(&site)?;
    let capabilities = ours.peer(2)?.capabilities;
    let has_it = capabilities.iter().any(|name| name == "extended-message");
    ensure!(has_it, "{capabilities:?}");
    let wiretap = Wiretap::start(&site.ours)?;
    let [us, it] = [1, 2].map(address);

    let mut to_us = Script::dial(&site.ours, 3, 1)?;
    to_us.announce("10.31.0.0/16", &large())?;
    site.expect_route("10.31.0.0/16", &["4242"])?;
    let mut to_it = Script::dial(&site.ours, 3, 2)?;
    to_it.announce("10.32.0.0/16", &large())?;
    ours.expect_route("10.32.0.0/16", "whole", |route| {
        route.large_communities.len() == 701
    })?;
    for (from, to) in [(us, it), (it, us)] {
        wiretap.expect(&format!("a long message from {from}"), |heard| {
            let length = heard.frame.body.len() + HEADER_LEN;
            (heard.from.ip(), heard.to.ip()) == (from, to) && length > MAX_LEN
        })?;
    }
    Ok(())
}

/// RFC 8654 §4: a route that outgrows a router without extended messages is withdrawn from it, and
/// the session stays.
pub fn route_too_long_for_it_is_withdrawn(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, Setting::default())?;
    let ours = reflector(&site)?;
    let mut peer = Script::dial(&site.ours, 3, 1)?;
    peer.announce("10.31.0.0/16", &small())?;
    site.expect_route("10.31.0.0/16", &["192.0.2.3"])?;
    peer.announce("10.31.0.0/16", &large())?;
    site.expect_no_route("10.31.0.0/16")?;
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    ensure!(ours.peer(2)?.flaps == 0, "the session ended on the way");
    Ok(())
}
