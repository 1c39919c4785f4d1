//! What must be true in a working lab, as findings: empty means it holds. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::capture::Sighting;
use super::machine::KernelRoute;
use super::packet::Carriage;
use super::topology::{self, Node, Path, ROUTER, Scenario};
use crate::names;

/// What differs between a node's table main and what it must hold. `workloads`: its own.
pub fn node_routes(
    scenario: Scenario,
    node: &Node,
    workloads: &[Ipv4Addr],
    table: &BTreeMap<String, KernelRoute>,
) -> Vec<String> {
    let mut findings = Vec::new();
    for address in workloads {
        let holds = table.get(&address.to_string()).is_some_and(|route| {
            let device = route.dev.as_deref().unwrap_or_default();
            device.starts_with(names::INTERFACE_PREFIX)
                && route.scope.as_deref() == Some("link")
                && route.protocol.as_deref() == Some("caracal")
        });
        if !holds {
            findings.push(format!("{}: no workload route {address}", node.name));
        }
    }
    let own = node.pod_cidr();
    let kind = table.get(&own).and_then(|route| route.kind.as_deref());
    if kind != Some("blackhole") {
        findings.push(format!("{}: no blackhole {own}", node.name));
    }
    let expected = topology::learned_routes(scenario, node);
    for route in &expected {
        let holds = table.get(&route.prefix).is_some_and(|known| {
            known.gateway.as_deref() == Some(route.gateway.to_string().as_str())
                && route
                    .device
                    .admits(known.dev.as_deref().unwrap_or_default())
                && known.prefsrc == route.source.map(|source| source.to_string())
                && known.protocol.as_deref() == Some("caracal-bgp")
                && known.flags.iter().any(|flag| flag == "onlink")
        });
        if !holds {
            let (prefix, gateway) = (&route.prefix, route.gateway);
            findings.push(format!("{}: no {prefix} via {gateway}", node.name));
        }
    }
    let is_learned = |route: &&KernelRoute| route.protocol.as_deref() == Some("caracal-bgp");
    for route in table.values().filter(is_learned) {
        if !expected.iter().any(|known| known.prefix == route.dst) {
            findings.push(format!("{}: unexpected route {}", node.name, route.dst));
        }
    }
    findings
}

/// A plain router holds no route into the pool.
pub fn plain_router(table: &BTreeMap<String, KernelRoute>) -> Vec<String> {
    let is_pod = |destination: &&String| {
        let text = if destination.contains('/') {
            (*destination).clone()
        } else {
            format!("{destination}/32")
        };
        text.parse().is_ok_and(topology::is_in_pool)
    };
    let pods = table.keys().filter(is_pod);
    pods.map(|prefix| format!("{ROUTER}: holds the pod route {prefix}"))
        .collect()
}

/// FRR holds every podCIDR with the right gateway.
pub fn frr_routes(scenario: Scenario, table: &BTreeMap<String, KernelRoute>) -> Vec<String> {
    let mut findings = Vec::new();
    for (prefix, gateway) in topology::frr_routes(scenario) {
        let known = table.get(&prefix).and_then(|route| route.gateway.clone());
        if known.as_deref() != Some(gateway.to_string().as_str()) {
            let known = known.as_deref().unwrap_or("nothing");
            findings.push(format!("FRR: {prefix} via {known}, not via {gateway}"));
        }
    }
    findings
}

/// One pair of the matrix, as far as its wires go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair<'a> {
    pub identifier: u16,
    pub from: &'a Node,
    pub to: &'a Node,
    /// Source of the requests: a workload's address; a host's NIC, or its tunnel address.
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
}

/// The path on which a pair's echoes were seen.
///
/// # Errors
/// Why the sightings fit no path: mixed carriage, wrong outer or inner addresses, a wire missed.
pub fn path_seen(pair: &Pair<'_>, sightings: &[Sighting]) -> Result<Path, String> {
    let mine: Vec<&Sighting> = sightings
        .iter()
        .filter(|seen| seen.echo.identifier == pair.identifier)
        .collect();
    for seen in &mine {
        check_addresses(pair, seen)?;
    }
    let at = |place: &str| mine.iter().any(|seen| seen.place == place);
    let is_bare = |seen: &&&Sighting| seen.carriage == Carriage::Bare;
    let bare = mine.iter().filter(is_bare).count();
    let path = match (bare, mine.len()) {
        (_, 0) => return Ok(Path::Local),
        (0, _) => Path::Tunnel,
        (bare, all) if bare == all => Path::Direct,
        (bare, all) => return Err(format!("{bare} of {all} packets were bare")),
    };
    for place in [pair.from.name, pair.to.name] {
        if !at(place) {
            return Err(format!("nothing seen on the wire of {place}"));
        }
    }
    let crosses_racks = pair.from.rack != pair.to.rack;
    if at(ROUTER) != crosses_racks {
        let seen = if crosses_racks { "nothing" } else { "packets" };
        return Err(format!("{seen} seen on the wire of the router"));
    }
    Ok(path)
}

fn check_addresses(pair: &Pair<'_>, seen: &Sighting) -> Result<(), String> {
    let echo = &seen.echo;
    let ends = |is_request: bool, from: Ipv4Addr, to: Ipv4Addr| {
        if is_request { (from, to) } else { (to, from) }
    };
    let (source, destination) = ends(echo.is_request, echo.source, echo.destination);
    if destination != pair.destination || source != pair.source {
        return Err(format!(
            "{} to {} seen on {} {}: not the pair's own addresses",
            echo.source, echo.destination, seen.place, seen.interface
        ));
    }
    if let Carriage::Tunnelled {
        source,
        destination,
    } = seen.carriage
    {
        let outer = ends(echo.is_request, source, destination);
        if outer != (pair.from.address, pair.to.address) {
            return Err(format!(
                "outer addresses {source} to {destination} seen on {} {}: not the two nodes",
                seen.place, seen.interface
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::packet::Echo;
    use super::*;

    fn pair<'a>(from: &'a Node, to: &'a Node) -> Pair<'a> {
        Pair {
            identifier: 7,
            from,
            to,
            source: Ipv4Addr::new(172, 17, 8, 2),
            destination: Ipv4Addr::new(172, 17, 10, 2),
        }
    }

    fn sighting(place: &str, carriage: Carriage) -> Sighting {
        Sighting {
            place: place.to_owned(),
            interface: "eth0".to_owned(),
            carriage,
            echo: Echo {
                source: Ipv4Addr::new(172, 17, 8, 2),
                destination: Ipv4Addr::new(172, 17, 10, 2),
                is_request: true,
                identifier: 7,
                sequence: 0,
            },
        }
    }

    #[test]
    fn sightings_tell_the_path() {
        let (a1, b1) = (&topology::NODES[0], &topology::NODES[2]);
        let tunnel = Carriage::Tunnelled {
            source: a1.address,
            destination: b1.address,
        };
        let backwards = Carriage::Tunnelled {
            source: b1.address,
            destination: a1.address,
        };
        let everywhere = |carriage: Carriage| {
            ["a1", "router", "b1"]
                .map(|place| sighting(place, carriage))
                .to_vec()
        };
        let mixed = [everywhere(tunnel), everywhere(Carriage::Bare)].concat();
        for (name, sightings, expected) in [
            ("nothing", Vec::new(), Some(Path::Local)),
            ("tunnelled", everywhere(tunnel), Some(Path::Tunnel)),
            ("bare", everywhere(Carriage::Bare), Some(Path::Direct)),
            ("mixed", mixed, None),
            ("outer addresses swapped", everywhere(backwards), None),
            ("router saw nothing", everywhere(tunnel)[..1].to_vec(), None),
        ] {
            assert_eq!(
                path_seen(&pair(a1, b1), &sightings).ok(),
                expected,
                "{name}"
            );
        }
    }
}
