//! Whether the host answers for its workloads' gateway, and what makes it.
//!
//! Pure. In: the host's addresses and routes. Out: a route or none. The gateway of IPv6 is an address of
//! each workload's link and needs none.

use bgp::types::Prefix;

use crate::dataplane::desired::Route;
use crate::dataplane::host::HostView;
use crate::names::WORKLOAD_GATEWAY;

/// Any device that is up but the workload's own will do; this one is on every host.
const LOOPBACK: &str = "lo";

/// Proxy ARP answers for what the host has a route to, by another device than the one asked from: the
/// default route does. A host without, or whose uplink is down, needs one to the gateway alone. (A
/// proxy neighbour entry helps no more: the kernel looks for the route first.)
pub fn gateway_route(host: &HostView) -> Option<(Prefix, Route)> {
    let gateway = Prefix::host(WORKLOAD_GATEWAY.into());
    if host.addresses.contains_key(&gateway.network()) {
        return None;
    }
    let covering = host
        .routes
        .iter()
        .filter(|route| route.prefix.covers(&gateway));
    let best = covering.max_by_key(|route| (route.prefix.length(), u32::MAX - route.metric));
    let is_answered = best.is_some_and(|route| route.is_unicast);
    let device = LOOPBACK.to_owned();
    (!is_answered).then_some((gateway, Route::Link { device }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::host::HostRoute;

    fn host(routes: &[(&str, u32, bool)]) -> HostView {
        let route = |(prefix, metric, is_unicast): &(&str, u32, bool)| HostRoute {
            prefix: prefix.parse().expect("a prefix"),
            metric: *metric,
            is_unicast: *is_unicast,
            gateway: None,
            device: Some("eth0".into()),
        };
        HostView {
            routes: routes.iter().map(route).collect(),
            ..HostView::default()
        }
    }

    #[test]
    fn route_is_wanted_where_nothing_else_leads_to_the_gateway() {
        for (name, routes, is_wanted) in [
            ("no routes", &[][..], true),
            ("subnet only", &[("10.0.0.0/24", 0, true)], true),
            ("default route", &[("0.0.0.0/0", 0, true)], false),
            ("link-local subnet", &[("169.254.0.0/16", 0, true)], false),
            ("unreachable default", &[("0.0.0.0/0", 0, false)], true),
            (
                "default beside an unreachable one",
                &[("0.0.0.0/0", 9, false), ("0.0.0.0/0", 1, true)],
                false,
            ),
            (
                "blackhole over it",
                &[("0.0.0.0/0", 0, true), ("169.254.0.0/16", 0, false)],
                true,
            ),
            ("default of IPv6", &[("::/0", 0, true)], true),
        ] {
            assert_eq!(gateway_route(&host(routes)).is_some(), is_wanted, "{name}");
        }
    }

    #[test]
    fn host_that_has_the_address_answers_anyway() {
        let mut host = host(&[]);
        host.addresses
            .insert(WORKLOAD_GATEWAY.into(), "dummy0".into());
        assert_eq!(gateway_route(&host), None);
    }
}
