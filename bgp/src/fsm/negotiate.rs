//! The checks of the peer's OPEN that need configuration, and what both sides agree on (RFC 4271
//! §4.2, §6.2; RFC 4760 §8; RFC 5492 §3). Our own OPEN is made by `offer`.
//!
//! What one side offers and the other does not is off:
//!
//! | feature | offered if | on if the peer |
//! |---|---|---|
//! | several paths to a prefix, RFC 7911 | `add_path_…`, by family | lists the family, the other way |
//! | IPv4 over IPv6 next hops, RFC 8950 | `extended_next_hop`, IPv4 is carried | lists IPv4 over IPv6 |
//! | role, RFC 9234 | `role`, external session | has the counterpart, or none unless `role_strict` |
//! | long-lived stale routes, RFC 9494 | `long_lived_stale_time`, graceful restart | has both capabilities |

mod offer;
mod role;

use std::net::SocketAddr;
use std::time::Duration;

use super::event::Direction;
use super::notifications;
use crate::types::{Asn, Family, FamilySet, HoldTime, Role, RouterId};
use crate::wire::capability::{AddPathDirections, Capability, GracefulRestart, LongLivedFamily};
use crate::wire::notification::{code, open as open_error};
use crate::wire::open::Open;
use crate::wire::{Notification, ProtocolError};

pub(super) use offer::our_open;

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
    /// How long the peer should keep our routes as its last resort once the restart time is over:
    /// whole seconds, at most 2^24 - 1 (RFC 9494 §3.1). `None`, or without graceful restart: not
    /// offered.
    pub long_lived_stale_time: Option<Duration>,
    /// Families in which we can send several paths to a prefix (RFC 7911 §4). Those that
    /// `families` lacks count for nothing.
    pub add_path_send: FamilySet,
    /// Families in which we can receive several.
    pub add_path_receive: FamilySet,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950 §4).
    pub extended_next_hop: bool,
    /// What we are to an external peer (RFC 9234 §4).
    pub role: Option<Role>,
    /// A peer that announces no role is refused, where we have one (RFC 9234 §4.2).
    pub role_strict: bool,
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
    /// What the peer asks for beyond the restart time, for families of the session, each once. Empty
    /// if it would do so for us only; `None` if either side did not offer it, or not together with
    /// graceful restart (RFC 9494 §4.5).
    pub long_lived: Option<Vec<LongLivedFamily>>,
    /// We send path identifiers: we can send several paths and the peer can receive them
    /// (RFC 7911 §5).
    pub add_path_send: FamilySet,
    /// The peer sends path identifiers.
    pub add_path_receive: FamilySet,
    /// IPv4 prefixes may go with IPv6 next hops, both ways (RFC 8950 §4).
    pub ipv4_over_ipv6: bool,
    /// Ours, on external sessions; the peer has the counterpart or knows no roles (RFC 9234 §4.2).
    pub role: Option<Role>,
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

    /// What the peer asks for beyond the restart time in this family; `None` if it does not.
    pub fn long_lived_of(&self, family: Family) -> Option<LongLivedFamily> {
        let mut families = self.long_lived.iter().flatten();
        families.find(|entry| entry.family == family).copied()
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
    /// IPv4 only, nothing optional offered, hold time 90 s, connect retry 5 s, back-off from 1 to
    /// 10 s.
    pub fn new(local_asn: Asn, remote_asn: Option<Asn>, router_id: RouterId) -> SessionConfig {
        SessionConfig {
            local_asn,
            remote_asn,
            router_id,
            hold_time: HoldTime::DEFAULT,
            keepalive_time: None,
            connect_retry_time: Duration::from_secs(5),
            idle_hold_time: Duration::from_secs(1),
            idle_hold_max: Duration::from_secs(10),
            send_hold_time: None,
            passive: false,
            families: vec![Family::Ipv4],
            graceful_restart: None,
            long_lived_stale_time: None,
            add_path_send: FamilySet::EMPTY,
            add_path_receive: FamilySet::EMPTY,
            extended_next_hop: false,
            role: None,
            role_strict: false,
        }
    }

    /// What changing from `self` to `new` means for a session that is up. Timers of dialling and
    /// back-off apply at once; the offers of graceful restart and long-lived stale routes and the
    /// keepalive time from the next OPEN on; everything else that the OPEN says needs a reset, as
    /// does asking for a role that the peer may not have announced.
    pub fn change_to(&self, new: &SessionConfig) -> ConfigChange {
        // Long-lived stale routes are offered only beside graceful restart.
        let without_restart = |config: &SessionConfig| {
            our_open(&SessionConfig {
                graceful_restart: None,
                ..config.clone()
            })
        };
        let asks_for_a_role = new.role.is_some() && new.role_strict && !self.role_strict;
        let is_same_open = self.remote_asn == new.remote_asn
            && without_restart(self) == without_restart(new)
            && !asks_for_a_role;
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

/// Checks the peer's OPEN against `config` and combines both.
///
/// # Errors
/// 2/2 for another AS than configured, 2/3 for our own identifier within our AS, 2/7 if no address
/// family is common, 2/11 if the roles do not go together.
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
    let role = role::agree_on_role(config, &open)?;
    let hold_time = config.hold_time.negotiate(open.hold_time);
    let common = |offered: FamilySet, theirs: fn(AddPathDirections) -> bool| {
        let families = families.iter().copied();
        families
            .filter(|family| offered.contains(*family) && theirs(open.add_path(*family)))
            .collect()
    };
    Ok(Negotiated {
        direction: endpoints.direction,
        local: endpoints.local,
        remote: endpoints.remote,
        remote_asn: open.asn,
        remote_router_id: open.router_id,
        hold_time,
        keepalive_time: keepalive_time(hold_time, config.keepalive_time),
        add_path_send: common(config.add_path_send, |theirs| theirs.receive),
        add_path_receive: common(config.add_path_receive, |theirs| theirs.send),
        long_lived: long_lived(config, &families, &open),
        ipv4_over_ipv6: config.extended_next_hop
            && families.contains(&Family::Ipv4)
            && open.ipv4_over_ipv6_next_hop(),
        role,
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

/// What the peer asks for, if we offer the same. Its other families count for nothing.
fn long_lived(
    config: &SessionConfig,
    families: &[Family],
    open: &Open,
) -> Option<Vec<LongLivedFamily>> {
    config.graceful_restart.as_ref()?;
    config.long_lived_stale_time?;
    let mut theirs = open.long_lived()?;
    theirs.retain(|entry| families.contains(&entry.family));
    Some(theirs)
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

#[cfg(test)]
mod tests;
