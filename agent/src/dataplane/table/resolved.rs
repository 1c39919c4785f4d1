//! The kernel's form of wanted routes, each found once while many prefixes share it.

use std::sync::Arc;

use bgp::types::Family;
use hashbrown::HashMap;

use crate::dataplane::desired::Route;
use crate::dataplane::diff::{self, Writable};
use crate::dataplane::link::Links;

/// Valid while the links stay as they are and the routes live: for one convergence.
#[derive(Default)]
pub struct ResolvedRoutes {
    /// By the address of the shared route.
    all: HashMap<(usize, Family, u8), Result<Writable, String>>,
}

impl ResolvedRoutes {
    /// As `diff::resolve`.
    ///
    /// # Errors
    /// As `diff::resolve`.
    pub fn get(
        &mut self,
        family: Family,
        route: &Arc<Route>,
        protocol: u8,
        links: &Links,
    ) -> Result<Writable, String> {
        let key = (Arc::as_ptr(route) as usize, family, protocol);
        let resolve = || diff::resolve(family, route, protocol, links);
        self.all.entry(key).or_insert_with(resolve).clone()
    }
}
