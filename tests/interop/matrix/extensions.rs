//! What both sides have to agree on, and is off unless asked for.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use bgp::speaker::Stop;
use bgp::speaker::config::{AddPaths, Originated, SpeakerConfig};
use bgp::types::{Asn, Role};
use bgp::wire::notification::{code, open};
use harness::product::eventually;
use harness::routers::{Router, Setting};
use harness::site::{Site, TIMEOUT};
use harness::speaker::{Running, address, address6, config, peer, peer_at};

/// A prefix that speakers 3 and 101 both have.
const SHARED: &str = "10.9.0.0/16";
const OTHER: u8 = 101;

/// RFC 7911: we reflect both paths to the router, and take one of them back.
pub fn several_paths_go_to_it(router: &'static dyn Router) -> Result<()> {
    let setting = Setting {
        add_paths: true,
        ..Setting::default()
    };
    let site = Site::start(router, setting)?;
    let mut reflector = config(1);
    peer(&mut reflector, 2).add_paths = BOTH_WAYS;
    for client in [3, OTHER] {
        peer(&mut reflector, client).route_reflector_client = true;
    }
    let ours = Running::start(&site.ours, reflector)?;
    let _stays = Running::start(&site.ours, with_shared(3, 1)?)?;
    let goes = Running::start(&site.ours, with_shared(OTHER, 1)?)?;
    ours.established(2)?;
    let said = ours.peer(2)?.add_paths;
    ensure!(said.send == ["ipv4", "ipv6"], "{said:?}");
    site.expect_route(SHARED, &["192.0.2.3", "192.0.2.101"])?;
    goes.stop(Stop::ForGood);
    eventually("the end of one path", TIMEOUT, || {
        let said = site.route(SHARED)?;
        let holds = said.contains("192.0.2.3") && !said.contains("192.0.2.101");
        Ok((!holds).then_some(said))
    })
}

/// RFC 7911: the router reflects both paths to us, and takes one of them back.
pub fn several_paths_come_from_it(router: &'static dyn Router) -> Result<()> {
    let setting = Setting {
        peers: [1, 3, OTHER].map(address).to_vec(),
        add_paths: true,
        reflects: true,
        ..Setting::default()
    };
    let site = Site::start(router, setting)?;
    let mut taking = config(1);
    peer(&mut taking, 2).add_paths = BOTH_WAYS;
    let ours = Running::start(&site.ours, taking)?;
    let _stays = Running::start(&site.ours, with_shared(3, 2)?)?;
    let goes = Running::start(&site.ours, with_shared(OTHER, 2)?)?;
    ours.established(2)?;
    let expect = |what: &str, next_hops: &[u8]| {
        eventually(what, TIMEOUT, || {
            let paths = ours.routes(SHARED)?;
            let mut found: Vec<IpAddr> = paths.iter().map(|path| path.next_hop).collect();
            found.sort();
            let wanted: Vec<IpAddr> = next_hops.iter().map(|last| address(*last)).collect();
            let numbered = paths.iter().all(|path| path.path_id.is_some());
            Ok((found != wanted || !numbered).then(|| format!("{paths:?}\n{}", site.log())))
        })
    };
    expect("both paths, numbered", &[3, OTHER])?;
    goes.stop(Stop::ForGood);
    expect("the end of one path", &[3])
}

const BOTH_WAYS: AddPaths = AddPaths {
    send: true,
    receive: true,
};

/// The speaker `last` with the shared prefix and a session with `to`.
fn with_shared(last: u8, to: u8) -> Result<SpeakerConfig> {
    let mut shares = config(last);
    shares
        .originated
        .insert(SHARED.parse()?, Originated::new(address(last)));
    peer(&mut shares, to);
    Ok(shares)
}

/// RFC 8950: in a session over IPv6, IPv4 prefixes with IPv6 next hops.
pub fn ipv4_goes_by_ipv6_next_hops(router: &'static dyn Router) -> Result<()> {
    let [us, it] = [1, 2].map(address6);
    let setting = Setting {
        peers: vec![us],
        extended_next_hop: true,
        ..Setting::default()
    };
    let site = Site::start(router, setting)?;
    let mut over_ipv6 = config(1);
    over_ipv6.listen = vec![SocketAddr::new(us, 179)];
    for own in over_ipv6.originated.values_mut() {
        own.next_hop = us;
    }
    peer_at(&mut over_ipv6, it).extended_next_hop = true;
    let ours = Running::start(&site.ours, over_ipv6)?;
    ours.established_at(it)?;
    ours.expect_route("10.2.0.0/16", "by an IPv6 next hop", |route| {
        route.best && route.next_hop == it
    })?;
    ours.expect_route("2001:db8:2::/48", "as ever", |route| {
        route.best && route.next_hop == it
    })?;
    site.expect_route("10.1.0.0/16", &["2001:db8::1"])
}

/// RFC 9234 §5: what a provider says goes to customers only, whichever side is the provider.
pub fn roles_mark_what_is_for_customers_only(router: &'static dyn Router) -> Result<()> {
    for (its, ours_is, otc_of_its_route) in [
        ("customer", Role::Provider, None),
        ("provider", Role::Customer, Some(Asn(64513))),
    ] {
        let setting = with_role(its);
        let asn = Asn(setting.asn());
        let site = Site::start(router, setting)?;
        let ours = Running::start(&site.ours, as_role(ours_is, asn))?;
        ours.established(2)?;
        ours.expect_route("10.2.0.0/16", its, |route| {
            route.best && route.only_to_customer == otc_of_its_route
        })?;
        // As its tools show it, OTC is the only other place of our AS.
        site.expect_route("10.1.0.0/16", &["64512"])?;
        if ours_is == Role::Provider {
            eventually("OTC of our AS", TIMEOUT, || {
                let said = site.route("10.1.0.0/16")?.to_lowercase();
                let marked = said.lines().any(|line| {
                    ["otc", "only-to-customer", "only to customer"]
                        .iter()
                        .any(|name| line.contains(name))
                });
                Ok((!marked).then_some(said))
            })?;
        }
    }
    Ok(())
}

/// RFC 9234 §4.2: two providers have no session, and both know why.
pub fn roles_that_do_not_go_together_end_the_session(router: &'static dyn Router) -> Result<()> {
    let setting = with_role("provider");
    let asn = Asn(setting.asn());
    let site = Site::start(router, setting)?;
    let ours = Running::start(&site.ours, as_role(Role::Provider, asn))?;
    ours.wait_peer("the role mismatch, shown", 2, |peer| {
        let error = peer.last_error.as_ref();
        peer.state != "established"
            && error.is_some_and(|error| {
                (error.code, error.subcode) == (code::OPEN, open::ROLE_MISMATCH)
            })
    })
}

fn with_role(role: &'static str) -> Setting {
    Setting {
        peers: vec![address(1)],
        is_external: true,
        role: Some(role),
        ..Setting::default()
    }
}

/// Our speaker 1 with a role towards the router of another AS.
fn as_role(role: Role, asn: Asn) -> SpeakerConfig {
    let mut speaker = config(1);
    let router = peer(&mut speaker, 2);
    router.remote_asn = Some(asn);
    router.role = Some(role);
    router.role_strict = true;
    speaker
}

/// RFC 8326 §4: while we drain, our routes say so; afterwards they do not.
pub fn our_routes_say_that_they_are_about_to_go(router: &'static dyn Router) -> Result<()> {
    let site = Site::start(router, Setting::default())?;
    let mut draining = config(1);
    peer(&mut draining, 2);
    let ours = Running::start(&site.ours, draining.clone())?;
    ours.established(2)?;
    let word = router.graceful_shutdown().to_lowercase();
    for (drains, what) in [(false, "before"), (true, "draining"), (false, "after")] {
        draining.is_draining = drains;
        ours.configure(draining.clone());
        for prefix in ["10.1.0.0/16", "2001:db8:1::/48"] {
            eventually(&format!("{prefix} {what}"), TIMEOUT, || {
                let said = site.route(prefix)?;
                let holds = !said.is_empty() && said.to_lowercase().contains(&word) == drains;
                Ok((!holds).then_some(said))
            })?;
        }
    }
    ensure!(ours.peer(2)?.flaps == 0, "the session ended on the way");
    Ok(())
}
