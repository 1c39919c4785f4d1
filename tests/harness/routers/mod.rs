//! Routers by others, as Debian has them: how each is configured, started and asked.
//!
//! The router is 192.0.2.2 of AS 64512, with two internal peers of ours at 192.0.2.1 and 192.0.2.3,
//! both families in each session. It announces 10.2.0.0/16 and 2001:db8:2::/48, the first with the
//! large community 64512:1:2.

mod bird;
mod frr;
mod gobgp;
mod openbgpd;

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
#[derive(Clone, Copy, Default)]
pub struct Setting {
    /// Our speakers are clients of it.
    pub reflects: bool,
    /// It dials as well as it listens.
    pub dials: bool,
}

pub trait Router: Sync {
    fn name(&self) -> &'static str;

    /// The program by which a missing package is noticed.
    fn program(&self) -> &'static str;

    /// Writes its configuration.
    fn prepare(&self, directory: &Path, setting: Setting, mounts: &mut Mounts) -> Result<()>;

    fn commands(&self, directory: &Path, again: bool) -> Vec<Command>;

    /// Makes it announce its routes, where its configuration does not.
    fn announce(&self, site: &Site) -> Result<()>;

    fn route(&self, site: &Site, prefix: &str) -> Result<String>;

    /// Has it ask 192.0.2.1 for all routes again.
    fn refresh(&self, site: &Site) -> Result<String>;

    /// Has it dial 192.0.2.1 at once, whatever it waits for after a session that ended.
    fn dial_now(&self, _: &Site) -> Result<()> {
        Ok(())
    }
}

const PEERS: [&str; 2] = ["192.0.2.1", "192.0.2.3"];
