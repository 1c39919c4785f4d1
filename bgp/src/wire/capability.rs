//! Capabilities of the OPEN message (RFC 5492).

use crate::types::{Asn, Family};

/// One capability. Those we do not know are kept raw, for display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Capability {
    /// Code 1, RFC 4760. `family` is `None` for an (AFI, SAFI) that is not ours.
    MultiProtocol {
        afi: u16,
        safi: u8,
    },
    /// Code 2, RFC 2918.
    RouteRefresh,
    /// Code 5, RFC 8950: (NLRI AFI, NLRI SAFI, next hop AFI).
    ExtendedNextHop(Vec<(u16, u16, u16)>),
    /// Code 6, RFC 8654.
    ExtendedMessage,
    /// Code 9, RFC 9234.
    Role(u8),
    /// Code 64, RFC 4724 and RFC 8538.
    GracefulRestart(GracefulRestart),
    /// Code 65, RFC 6793.
    FourOctetAs(Asn),
    /// Code 69, RFC 7911: (AFI, SAFI, 1 receive | 2 send | 3 both).
    AddPath(Vec<(u16, u8, u8)>),
    /// Code 70, RFC 7313.
    EnhancedRouteRefresh,
    /// Code 71, RFC 9494: (AFI, SAFI, flags, stale time in seconds, 24 bits).
    LongLivedGracefulRestart(Vec<(u16, u8, u8, u32)>),
    /// Code 73: host and domain name, tolerated and shown.
    Fqdn {
        host: String,
        domain: String,
    },
    Unknown {
        code: u8,
        data: Vec<u8>,
    },
}

/// The graceful restart capability (RFC 4724 §3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GracefulRestart {
    /// R: the sender has just restarted; do not wait for its End-of-RIB before sending.
    pub restart_state: bool,
    /// N (RFC 8538): NOTIFICATION and hold expiry are covered too.
    pub notification: bool,
    /// Seconds within which the sender expects to be back: 0 to 4095.
    pub restart_time_secs: u16,
    /// Families covered, each with F: forwarding state was preserved. Foreign families are skipped.
    pub families: Vec<(Family, bool)>,
}
