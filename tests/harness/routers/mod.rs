//! Routers by others, as Debian has them: how each is configured, started and asked.
//!
//! The router is 192.0.2.2 and 2001:db8::2, of AS 64512 or, as an external peer, 64513; both families
//! in each session. It announces 10.2.0.0/16 and 2001:db8:2::/48, the first with the large community
//! 64512:1:2. What else a test wants of it is a [`Setting`].

mod bird;
mod frr;
mod gobgp;
mod openbgpd;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

pub use self::bird::Bird;
pub use self::frr::Frr;
pub use self::gobgp::Gobgp;
pub use self::openbgpd::Openbgpd;
use crate::site::Site;

/// What a test wants of the router beside the usual.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Our speakers, in the order of `Router::refresh` and the like: the first is the one that they
    /// are about.
    pub peers: Vec<IpAddr>,
    /// It is of another AS than our speakers.
    pub is_external: bool,
    /// Our speakers are clients of it.
    pub reflects: bool,
    /// It dials as well as it listens.
    pub dials: bool,
    /// The TCP MD5 key of every session.
    pub password: Option<&'static str>,
    pub hops: Hops,
    /// Most prefixes of a family that it takes of one of our speakers. OpenBGPD counts all families
    /// together.
    pub max_prefixes: Option<u32>,
    /// Its routes say that they are about to go (RFC 8326).
    pub drains: bool,
    /// Several paths a prefix, both ways, in both families (RFC 7911).
    pub add_paths: bool,
    /// IPv4 prefixes with IPv6 next hops, both ways (RFC 8950).
    pub extended_next_hop: bool,
    /// What it is to our speakers (RFC 9234): `customer` or `provider`.
    pub role: Option<&'static str>,
}

/// How far away our speakers are, as the router sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hops {
    /// As it comes: external peers are on the link and get packets with a TTL of 1.
    Unsaid,
    /// On the link by their TTL, which has to be 255 (RFC 5082).
    Secured,
    /// External peers behind so many hops.
    Many(u8),
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            peers: [1, 3]
                .map(|last| Ipv4Addr::new(192, 0, 2, last).into())
                .to_vec(),
            is_external: false,
            reflects: false,
            dials: false,
            password: None,
            hops: Hops::Unsaid,
            max_prefixes: None,
            drains: false,
            add_paths: false,
            extended_next_hop: false,
            role: None,
        }
    }
}

impl Setting {
    /// The router's AS.
    pub fn asn(&self) -> u32 {
        if self.is_external { 64513 } else { 64512 }
    }

    /// The speaker that a test is about.
    pub fn first_peer(&self) -> String {
        self.peers
            .first()
            .map(IpAddr::to_string)
            .unwrap_or_default()
    }
}

/// The router's own address in a session with `peer`.
fn own_address(peer: &IpAddr) -> &'static str {
    if peer.is_ipv4() {
        "192.0.2.2"
    } else {
        "2001:db8::2"
    }
}

pub trait Router: Sync {
    fn name(&self) -> &'static str;

    /// The program by which a missing package is noticed.
    fn program(&self) -> &'static str;

    /// Whether it writes what it learns to the kernel.
    fn has_fib(&self) -> bool;

    /// Writes its configuration.
    fn prepare(&self, directory: &Path, setting: &Setting, mounts: &mut Mounts) -> Result<()>;

    fn commands(&self, directory: &Path, again: bool) -> Vec<Command>;

    /// Makes it announce its routes, where its configuration does not.
    fn announce(&self, site: &Site) -> Result<()>;

    /// Has it announce another IPv4 prefix.
    fn announce_more(&self, site: &Site, prefix: &str) -> Result<()>;

    fn route(&self, site: &Site, prefix: &str) -> Result<String>;

    /// Has it ask the first peer for all IPv4 routes again.
    fn refresh(&self, site: &Site) -> Result<String>;

    /// The word by which it shows the community 65535:0 (RFC 8326).
    fn graceful_shutdown(&self) -> &'static str;

    /// Has it dial the first peer at once, whatever it waits for after a session that ended.
    fn dial_now(&self, _: &Site) -> Result<()> {
        Ok(())
    }
}
