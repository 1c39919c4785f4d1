//! Capabilities in words, for `peers`.

use crate::types::{Family, Role};
use crate::wire::capability::Capability;

/// One capability as it is shown: the field's name for it, with what it carries.
pub fn describe(capability: &Capability) -> String {
    match capability {
        Capability::MultiProtocol { afi, safi } => match Family::from_afi_safi(*afi, *safi) {
            Some(family) => format!("multiprotocol {family}"),
            None => format!("multiprotocol {afi}/{safi}"),
        },
        Capability::RouteRefresh => "route-refresh".to_owned(),
        Capability::ExtendedNextHop(_) => "extended-next-hop".to_owned(),
        Capability::ExtendedMessage => "extended-message".to_owned(),
        Capability::Role(octet) => Role::from_octet(*octet)
            .map_or_else(|| format!("role {octet}"), |role| format!("role {role}")),
        Capability::GracefulRestart(restart) => {
            let restarting = if restart.restart_state {
                " restarting"
            } else {
                ""
            };
            let notification = if restart.notification {
                " notification"
            } else {
                ""
            };
            let families: Vec<String> = restart
                .families
                .iter()
                .map(|(family, forwards)| format!(" {family}{}", if *forwards { "+f" } else { "" }))
                .collect();
            format!(
                "graceful-restart {}s{restarting}{notification}{}",
                restart.restart_time_secs,
                families.concat()
            )
        }
        Capability::FourOctetAs(asn) => format!("four-octet-as {asn}"),
        Capability::AddPath(_) => "add-path".to_owned(),
        Capability::EnhancedRouteRefresh => "enhanced-route-refresh".to_owned(),
        Capability::LongLivedGracefulRestart(_) => "long-lived-graceful-restart".to_owned(),
        Capability::Fqdn { host, domain } if domain.is_empty() => format!("fqdn {host}"),
        Capability::Fqdn { host, domain } => format!("fqdn {host}.{domain}"),
        // As FRR says it beside the one of RFC 2918.
        Capability::Unknown { code: 128, .. } => "prestandard-route-refresh".to_owned(),
        Capability::Unknown { code, .. } => format!("unknown {code}"),
    }
}
