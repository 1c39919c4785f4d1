//! What one has heard of another, and what is kept of it while that one is away. Pure.

use std::collections::BTreeMap;

use bgp::speaker::status::RouteStatus;

/// What others keep of a machine that is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// Its routes or not.
    Whatever,
    /// Its routes, and that they are stale.
    Stale,
    /// The time of graceful restart is over.
    Nothing,
}

/// A route that one has of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    pub next_hop: String,
    pub is_stale: bool,
}

/// By prefix.
pub type HeardOfOne = BTreeMap<String, Heard>;

impl From<&RouteStatus> for Heard {
    fn from(route: &RouteStatus) -> Heard {
        Heard {
            next_hop: route.next_hop.to_string(),
            is_stale: route.stale,
        }
    }
}

impl Kept {
    /// The routes that one has of the machine, where they are not as said.
    pub fn contradicted_by(self, routes: &HeardOfOne) -> Option<String> {
        let is_as_said = match self {
            Kept::Whatever => true,
            Kept::Stale => !routes.is_empty() && routes.values().all(|heard| heard.is_stale),
            Kept::Nothing => routes.is_empty(),
        };
        (!is_as_said).then(|| format!("{routes:?}"))
    }
}
