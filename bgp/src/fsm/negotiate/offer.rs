//! Our OPEN: what `SessionConfig` makes us announce (RFC 4271 §4.2, RFC 5492).

use super::SessionConfig;
use crate::types::Family;
use crate::wire::capability::{AddPathDirections, Capability, GracefulRestart, LongLivedFamily};
use crate::wire::frame::SAFI_UNICAST;
use crate::wire::open::Open;

/// The OPEN that `config` makes us send.
pub(in crate::fsm) fn our_open(config: &SessionConfig) -> Open {
    let mut capabilities: Vec<Capability> = config
        .families
        .iter()
        .copied()
        .map(Capability::from)
        .collect();
    capabilities.push(Capability::RouteRefresh);
    capabilities.push(Capability::EnhancedRouteRefresh);
    capabilities.push(Capability::ExtendedMessage);
    capabilities.extend(extended_next_hop(config));
    capabilities.extend(role(config));
    capabilities.push(Capability::FourOctetAs(config.local_asn));
    capabilities.extend(
        config
            .graceful_restart
            .clone()
            .map(Capability::GracefulRestart),
    );
    capabilities.extend(add_path(config));
    capabilities.extend(long_lived(config));
    Open {
        asn: config.local_asn,
        hold_time: config.hold_time,
        router_id: config.router_id,
        capabilities,
    }
}

/// RFC 8950 §4: IPv4 unicast prefixes may have an IPv6 next hop.
fn extended_next_hop(config: &SessionConfig) -> Option<Capability> {
    let is_offered = config.extended_next_hop && config.families.contains(&Family::Ipv4);
    is_offered.then(|| {
        let (ipv4, ipv6) = (Family::Ipv4.afi(), Family::Ipv6.afi());
        Capability::ExtendedNextHop(vec![(ipv4, u16::from(SAFI_UNICAST), ipv6)])
    })
}

/// RFC 9234 §4.1: on external sessions only. Whether the session with a peer of any AS is one shows
/// when its OPEN comes, which ours does not wait for; inside an AS the capability has no meaning.
fn role(config: &SessionConfig) -> Option<Capability> {
    let is_internal = config.remote_asn == Some(config.local_asn);
    let role = config.role.filter(|_| !is_internal)?;
    Some(Capability::Role(role.octet()))
}

/// RFC 7911 §4: all families in one instance, each once.
fn add_path(config: &SessionConfig) -> Option<Capability> {
    let of = |family: &Family| AddPathDirections {
        receive: config.add_path_receive.contains(*family),
        send: config.add_path_send.contains(*family),
    };
    let entries: Vec<(u16, u8, u8)> = config
        .families
        .iter()
        .map(|family| (family.afi(), SAFI_UNICAST, of(family).octet()))
        .filter(|(_, _, value)| *value != 0)
        .collect();
    (!entries.is_empty()).then_some(Capability::AddPath(entries))
}

/// RFC 9494 §3.1: never without the graceful restart capability, whose families and forwarding
/// state go for this one too.
fn long_lived(config: &SessionConfig) -> Option<Capability> {
    let restart: &GracefulRestart = config.graceful_restart.as_ref()?;
    let stale_time = config.long_lived_stale_time?;
    let entry = |&(family, preserved): &(Family, bool)| {
        LongLivedFamily {
            family,
            preserved,
            stale_time,
        }
        .entry()
    };
    let entries = restart.families.iter().map(entry).collect();
    Some(Capability::LongLivedGracefulRestart(entries))
}
