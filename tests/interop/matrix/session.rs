//! How sessions come and go.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use bgp::types::{Asn, Family};
use harness::routers::{Hops, Router, Setting};
use harness::site::Site;
use harness::speaker::{Running, address6, config, peer, peer_at};
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

/// A session over IPv6 carries both families as well.
pub fn both_families_pass_over_ipv6(router: &'static dyn Router) -> Result<()> {
    let [us, it] = [1, 2].map(address6);
    let setting = Setting {
        peers: vec![us],
        ..Setting::default()
    };
    let site = Site::start(router, setting)?;
    let mut over_ipv6 = config(1);
    over_ipv6.listen = vec![SocketAddr::new(us, 179)];
    peer_at(&mut over_ipv6, it);
    let ours = Running::start(&site.ours, over_ipv6)?;
    ours.established_at(it)?;
    for (prefix, next_hop) in [
        ("10.2.0.0/16", "192.0.2.2"),
        ("2001:db8:2::/48", "2001:db8::2"),
    ] {
        ours.expect_route(prefix, "from the router", |route| {
            route.best && route.next_hop.to_string() == next_hop
        })?;
    }
    site.expect_route("10.1.0.0/16", &["192.0.2.1"])?;
    site.expect_route("2001:db8:1::/48", &["2001:db8::1"])
}

/// An external peer behind a hop: both sides send with the TTL that takes them there, and no more.
pub fn external_peer_is_two_hops_away(router: &'static dyn Router) -> Result<()> {
    let us = IpAddr::from([198, 51, 100, 2]);
    let setting = Setting {
        peers: vec![us],
        is_external: true,
        hops: Hops::Many(2),
        ..Setting::default()
    };
    let external = Some(Asn(setting.asn()));
    let mut site = Site::start(router, setting)?;
    let behind = site.add_behind_us()?;
    let mut far = config(1);
    far.listen = vec![SocketAddr::new(us, 179)];
    far.local_addresses = vec![us];
    for own in far.originated.values_mut() {
        own.next_hop = us;
    }
    let router = peer(&mut far, 2);
    router.remote_asn = external;
    router.families = vec![Family::Ipv4];
    router.ttl = 2;
    let ours = Running::start(&behind, far)?;
    ours.established(2)?;
    ours.expect_route("10.2.0.0/16", "learned", |route| {
        route.best && route.as_path == "64513"
    })?;
    site.expect_route("10.1.0.0/16", &["198.51.100.2", "64512"])
}
