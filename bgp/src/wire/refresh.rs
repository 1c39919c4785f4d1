//! ROUTE-REFRESH (RFC 2918) and its enhanced form (RFC 7313).

use crate::types::Family;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefreshKind {
    /// Subtype 0: please send again.
    Request,
    /// Subtype 1, BoRR.
    Begin,
    /// Subtype 2, EoRR.
    End,
}

/// A ROUTE-REFRESH for one of our families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteRefresh {
    pub family: Family,
    pub kind: RefreshKind,
}
