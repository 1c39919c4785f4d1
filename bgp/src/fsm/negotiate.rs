//! Our OPEN, the checks of the peer's that need configuration, and what both agree on
//! (RFC 4271 §4.2, §6.2; RFC 4760 §8; RFC 5492 §3).

use std::net::SocketAddr;
use std::time::Duration;

use super::event::Direction;
use super::notifications;
use crate::types::{Asn, Family, HoldTime, RouterId};
use crate::wire::capability::{Capability, GracefulRestart};
use crate::wire::notification::{code, open as open_error};
use crate::wire::open::Open;
use crate::wire::{Notification, ProtocolError};

/// What our side of the session is set to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConfig {
    pub local_asn: Asn,
    /// `None` for listen ranges without an AS: any AS the peer says, checked by the driver's policy.
    pub remote_asn: Option<Asn>,
    pub router_id: RouterId,
    pub hold_time: HoldTime,
    /// Overrides a third of the negotiated hold time, never above it.
    pub keepalive_time: Option<Duration>,
    pub connect_retry_time: Duration,
    /// First wait after an error, doubled with each further one.
    pub idle_hold_time: Duration,
    /// Upper bound of the wait; zero switches the back-off off.
    pub idle_hold_max: Duration,
    /// How long a write may be stuck (RFC 9687); the driver reports it, this is only negotiated up.
    pub send_hold_time: Option<Duration>,
    /// Never dial.
    pub passive: bool,
    /// Families to announce, at least one.
    pub families: Vec<Family>,
    /// `None`: graceful restart is not offered.
    pub graceful_restart: Option<GracefulRestart>,
}

/// What both OPENs agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Negotiated {
    pub direction: Direction,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub remote_asn: Asn,
    pub remote_router_id: RouterId,
    /// The smaller of both.
    pub hold_time: HoldTime,
    pub keepalive_time: Duration,
    /// Families both sides announced; IPv4 where the peer sent no multiprotocol capability at all (RFC 4760 §8).
    pub families: Vec<Family>,
    pub four_octet_as: bool,
    pub route_refresh: bool,
    /// Refreshes are demarcated, both ways (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Messages other than OPEN and KEEPALIVE may have 65535 octets, both ways (RFC 8654).
    pub extended_message: bool,
    /// As the peer sent it; `None` if either side did not offer it.
    pub graceful_restart: Option<GracefulRestart>,
    /// All the peer sent, for display.
    pub capabilities: Vec<Capability>,
}

impl Negotiated {
    /// The peer sent N, so that with our own graceful restart covers NOTIFICATIONs too (RFC 8538 §2).
    pub fn has_graceful_notification(&self) -> bool {
        self.graceful_restart
            .as_ref()
            .is_some_and(|theirs| theirs.notification)
    }
}

/// Whether a new configuration holds for the session that is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum ConfigChange {
    /// It does, or it will from the next OPEN on without harm.
    Live,
    /// Both sides agreed on something else: the session must be reset to follow it.
    NeedsReset,
}

impl SessionConfig {
    /// What changing from `self` to `new` means for a session that is up. Timers of dialling and
    /// back-off apply at once; the graceful restart offer and the keepalive time from the next
    /// OPEN on; everything else that the OPEN says needs a reset.
    pub fn change_to(&self, new: &SessionConfig) -> ConfigChange {
        let is_same_open = self.local_asn == new.local_asn
            && self.remote_asn == new.remote_asn
            && self.router_id == new.router_id
            && self.hold_time == new.hold_time
            && self.families == new.families;
        if is_same_open {
            ConfigChange::Live
        } else {
            ConfigChange::NeedsReset
        }
    }
}

/// The two ends of a TCP connection and who opened it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoints {
    pub(super) direction: Direction,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// The OPEN that `config` makes us send.
pub(super) fn our_open(config: &SessionConfig) -> Open {
    let mut capabilities: Vec<Capability> = config
        .families
        .iter()
        .copied()
        .map(Capability::from)
        .collect();
    capabilities.push(Capability::RouteRefresh);
    capabilities.push(Capability::EnhancedRouteRefresh);
    capabilities.push(Capability::ExtendedMessage);
    capabilities.push(Capability::FourOctetAs(config.local_asn));
    capabilities.extend(
        config
            .graceful_restart
            .clone()
            .map(Capability::GracefulRestart),
    );
    Open {
        asn: config.local_asn,
        hold_time: config.hold_time,
        router_id: config.router_id,
        capabilities,
    }
}

/// Checks the peer's OPEN against `config` and combines both.
///
/// # Errors
/// 2/2 for another AS than configured, 2/3 for our own identifier within our AS, 2/7 if no address
/// family is common.
pub(super) fn negotiate(
    config: &SessionConfig,
    endpoints: Endpoints,
    open: Open,
) -> Result<Negotiated, ProtocolError> {
    if let Some(expected) = config.remote_asn.filter(|expected| *expected != open.asn) {
        return Err(ProtocolError {
            notification: Notification::new(code::OPEN, open_error::BAD_PEER_AS),
            reason: format!("peer says AS {} instead of {expected}", open.asn),
        });
    }
    // RFC 6286 §2.2: identifiers are unique within an AS only.
    if open.router_id == config.router_id && open.asn == config.local_asn {
        return Err(ProtocolError {
            notification: Notification::new(code::OPEN, open_error::BAD_BGP_IDENTIFIER),
            reason: format!("peer has our own BGP identifier {}", open.router_id),
        });
    }
    let theirs = open.families();
    let families: Vec<Family> = config
        .families
        .iter()
        .copied()
        .filter(|family| theirs.contains(family))
        .collect();
    if families.is_empty() {
        return Err(ProtocolError {
            notification: notifications::unsupported_capability(&config.families),
            reason: "peer announces no address family that is configured".to_owned(),
        });
    }
    let hold_time = config.hold_time.negotiate(open.hold_time);
    Ok(Negotiated {
        direction: endpoints.direction,
        local: endpoints.local,
        remote: endpoints.remote,
        remote_asn: open.asn,
        remote_router_id: open.router_id,
        hold_time,
        keepalive_time: keepalive_time(hold_time, config.keepalive_time),
        families,
        four_octet_as: open.four_octet_as().is_some(),
        route_refresh: open.route_refresh(),
        enhanced_route_refresh: open.enhanced_route_refresh(),
        extended_message: open.extended_message(),
        graceful_restart: config
            .graceful_restart
            .as_ref()
            .and(open.graceful_restart().cloned()),
        capabilities: open.capabilities,
    })
}

/// A third of the hold time in whole seconds (RFC 4271 §4.4), or `configured` if that is shorter;
/// never below a second (ibid.). Zero, meaning none are sent, if the hold time is zero.
fn keepalive_time(hold_time: HoldTime, configured: Option<Duration>) -> Duration {
    let third = Duration::from_secs(u64::from(hold_time.seconds() / 3));
    match configured {
        Some(configured) if !third.is_zero() => configured.clamp(Duration::from_secs(1), third),
        Some(_) | None => third,
    }
}
