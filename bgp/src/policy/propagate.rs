//! The defaults: what passes where no filter decided, and why something did not.

use crate::types::Prefix;

/// What an import accepts that no filter decided.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ImportDefault {
    /// iBGP: everything.
    Accept,
    /// An agent's eBGP peer: prefixes inside `pools`, not the default route, nothing equal to or
    /// covering an own block; a longer one inside an own block only if `lent` has it.
    InsidePools {
        pools: Vec<Prefix>,
        own: Vec<Prefix>,
        lent: Vec<Prefix>,
    },
    /// A reflector's eBGP peer: everything but the default route, martians and own-AS paths;
    /// bounded to `pools` unless that is empty.
    AllButMartians { pools: Vec<Prefix> },
    /// Nothing.
    Reject,
}

/// What an export says that no filter decided.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ExportDefault {
    /// Whatever the rules of iBGP, eBGP and reflection pass on.
    Accept,
    /// Only routes this speaker originates (an agent's eBGP peer).
    OwnOnly,
    Reject,
}

/// Why a route is not used or not said. Its `Display` is `rejectedReason`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Rejection {
    #[error("rejected by filter {0}")]
    Filter(String),
    #[error("outside every IPPool and no filter accepts it")]
    OutsidePools,
    #[error("the default route is not accepted from eBGP without a filter")]
    DefaultRoute,
    #[error("equal to or covering own prefix {0}")]
    CoversOwn(Prefix),
    #[error("inside own prefix {0} and not lent")]
    InsideOwn(Prefix),
    #[error("martian prefix")]
    Martian,
    #[error("own AS in AS_PATH")]
    OwnAs,
    #[error("own ORIGINATOR_ID")]
    OwnOriginatorId,
    #[error("own cluster id in CLUSTER_LIST")]
    OwnCluster,
    #[error("next hop is an own address")]
    NextHopSelf,
    #[error("next hop is not a unicast address")]
    NextHopInvalid,
    #[error("first AS in AS_PATH is not the peer's")]
    FirstAs,
    #[error("no route is accepted from this peer")]
    Closed,
}
