//! Who may connect: TCP MD5 (RFC 2385) and TTL security (RFC 5082).

use agent::lab::Namespace;
use anyhow::{Result, ensure};
use bgp::speaker::config::SpeakerConfig;
use bgp::speaker::secret::Secret;
use bgp::types::Asn;
use harness::counters;
use harness::product::eventually;
use harness::routers::{Hops, Router, Setting};
use harness::site::{Site, TIMEOUT};
use harness::speaker::{Running, config, peer};

use super::expect_exchange;

const KEY: &str = "open-sesame";

fn keyed(key: &str) -> Result<SpeakerConfig> {
    let mut keyed = config(1);
    peer(&mut keyed, 2).password = Some(Secret::new(key)?);
    Ok(keyed)
}

fn keyed_site(router: &'static dyn Router) -> Result<Site> {
    let setting = Setting {
        password: Some(KEY),
        dials: true,
        ..Setting::default()
    };
    Site::start(router, setting)
}

pub fn md5_key_of_both_connects(router: &'static dyn Router) -> Result<()> {
    let site = keyed_site(router)?;
    let ours = Running::start(&site.ours, keyed(KEY)?)?;
    ours.established(2)?;
    expect_exchange(&site, &ours)
}

/// Nobody connects before the keys are the same; then nothing else is needed.
pub fn other_md5_key_connects_nobody(router: &'static dyn Router) -> Result<()> {
    let site = keyed_site(router)?;
    let ours = Running::start(&site.ours, keyed("open-rye")?)?;
    eventually("segments with another key", TIMEOUT, || {
        let at_ours = counters::tcp(&site.ours, "TCPMD5Failure")?;
        let refused = at_ours + counters::tcp(&site.theirs, "TCPMD5Failure")?;
        Ok((refused < 3).then(|| format!("{refused} were refused")))
    })?;
    expect_nothing(&site, &ours)?;
    ours.configure(keyed(KEY)?);
    ours.established(2)?;
    expect_exchange(&site, &ours)
}

/// External, because OpenBGPD looks at the TTL of external peers only.
fn secured_site(router: &'static dyn Router) -> Result<Site> {
    let setting = Setting {
        is_external: true,
        hops: Hops::Secured,
        ..Setting::default()
    };
    Site::start(router, setting)
}

fn external(site: &Site) -> SpeakerConfig {
    let mut external = config(1);
    peer(&mut external, 2).remote_asn = Some(Asn(site.setting().asn()));
    external
}

pub fn ttl_security_of_both_connects(router: &'static dyn Router) -> Result<()> {
    let site = secured_site(router)?;
    let mut secured = external(&site);
    peer(&mut secured, 2).ttl_security_hops = Some(1);
    let ours = Running::start(&site.ours, secured)?;
    ours.established(2)?;
    expect_exchange(&site, &ours)
}

/// Without TTL security an external router sends with a TTL of 1: as from 255 hops away.
pub fn ttl_security_refuses_a_lower_ttl(router: &'static dyn Router) -> Result<()> {
    let setting = Setting {
        is_external: true,
        ..Setting::default()
    };
    let site = Site::start(router, setting)?;
    let mut secured = external(&site);
    peer(&mut secured, 2).ttl_security_hops = Some(1);
    let ours = Running::start(&site.ours, secured)?;
    expect_refused(&site, &site.ours)?;
    expect_nothing(&site, &ours)?;
    ours.configure(external(&site));
    ours.established(2)?;
    expect_exchange(&site, &ours)
}

/// The router asks for packets from the link; ours say that they have come a hop too far.
pub fn ttl_security_of_the_router_refuses_ours(router: &'static dyn Router) -> Result<()> {
    let site = secured_site(router)?;
    let mut far = external(&site);
    peer(&mut far, 2).ttl = 254;
    let ours = Running::start(&site.ours, far)?;
    expect_refused(&site, &site.theirs)?;
    // Of a connection that it took before it looked at the TTL we may have heard its KEEPALIVE.
    expect_no_routes(&site, &ours)
}

/// Waits until the kernel of `namespace` has dropped packets for their TTL.
fn expect_refused(site: &Site, namespace: &Namespace) -> Result<()> {
    eventually("packets of too low a TTL", TIMEOUT, || {
        let refused = counters::tcp(namespace, "TCPMinTTLDrop")?;
        Ok((refused < 3).then(|| format!("{refused} were refused\n{}", site.log())))
    })
}

fn expect_nothing(site: &Site, ours: &Running) -> Result<()> {
    let peer = ours.peer(2)?;
    ensure!(peer.state != "established" && peer.flaps == 0, "{peer:?}");
    expect_no_routes(site, ours)
}

fn expect_no_routes(site: &Site, ours: &Running) -> Result<()> {
    ensure!(ours.routes("10.2.0.0/16")?.is_empty(), "we have its route");
    ensure!(site.route("10.1.0.0/16")?.is_empty(), "it has our route");
    Ok(())
}
