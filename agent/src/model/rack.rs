//! Rack: nodes that peer with the same route reflectors.

use std::net::IpAddr;

use bgp::types::{Asn, Family, Prefix};
use serde_json::Value;

use super::fields::Fields;
use super::object::Metadata;
use super::values::{self, PeerAddress};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rack {
    /// The value of the label `caracal.dev/rack` on its nodes.
    pub name: String,
    /// AS of its reflectors, and of its nodes that name none.
    pub asn: Option<Asn>,
    /// Empty: its nodes stay in the mesh.
    pub reflectors: Vec<PeerAddress>,
    /// What its reflectors tell external peers in place of the routes of its nodes. They do not
    /// overlap. Nodes have no use for them.
    pub aggregates: Vec<RackAggregate>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RackAggregate {
    pub cidr: Prefix,
    /// The router that has the specific routes: outside `cidr`, and no reflector of the rack.
    pub next_hop: IpAddr,
    pub summary_only: bool,
}

pub(super) fn read(metadata: Metadata, spec: &mut Fields<'_, '_>) -> Option<Rack> {
    let asn = spec.optional("asNumber", values::asn);
    let reflectors = spec
        .list("reflectors", values::peer_address)
        .unwrap_or_default();
    for (index, reflector) in reflectors.iter().enumerate() {
        if reflectors
            .iter()
            .take(index)
            .any(|other| other == reflector)
        {
            spec.reject(
                &format!("reflectors[{index}]"),
                format!("{} is listed twice; remove one", reflector.address),
            );
        }
    }
    let aggregates = read_aggregates(spec, &reflectors);
    Some(Rack {
        name: metadata.name,
        asn,
        reflectors,
        aggregates,
    })
}

fn read_aggregates(spec: &mut Fields<'_, '_>, reflectors: &[PeerAddress]) -> Vec<RackAggregate> {
    let aggregates: Vec<Option<RackAggregate>> = spec.mappings("aggregates", |fields| {
        Some(read_aggregate(fields, reflectors))
    });
    for (index, aggregate) in aggregates.iter().enumerate() {
        let Some(cidr) = aggregate.as_ref().map(|aggregate| aggregate.cidr) else {
            continue;
        };
        let before = aggregates.iter().take(index).flatten();
        let mut overlapping = before.filter(|other| other.cidr.overlaps(&cidr));
        if let Some(other) = overlapping.next() {
            spec.reject(
                &format!("aggregates[{index}].cidr"),
                format!("{cidr} overlaps {}; remove one", other.cidr),
            );
        }
    }
    aggregates.into_iter().flatten().collect()
}

fn read_aggregate(
    fields: &mut Fields<'_, '_>,
    reflectors: &[PeerAddress],
) -> Option<RackAggregate> {
    let cidr = fields.required(
        "cidr",
        "write the range of the rack's routes",
        aggregate_cidr,
    );
    let next_hop = fields.required(
        "nextHop",
        "write the address of the router that has the rack's routes (the ToR): a reflector forwards nothing",
        values::host_address,
    );
    let summary_only = fields.optional("summaryOnly", values::boolean);
    let (cidr, next_hop) = cidr.zip(next_hop)?;
    if let Err(reason) = check_next_hop(&cidr, next_hop, reflectors) {
        fields.reject("nextHop", reason);
    }
    Some(RackAggregate {
        cidr,
        next_hop,
        summary_only: summary_only.unwrap_or(true),
    })
}

fn aggregate_cidr(value: &Value) -> Result<Prefix, String> {
    let cidr = values::prefix(value)?;
    if cidr.is_default() {
        return Err("is everything; write the range of the rack's routes".to_owned());
    }
    if cidr.is_host() {
        return Err(format!(
            "nothing is more specific than {cidr}; write a shorter prefix"
        ));
    }
    Ok(cidr)
}

fn check_next_hop(
    cidr: &Prefix,
    next_hop: IpAddr,
    reflectors: &[PeerAddress],
) -> Result<(), String> {
    if reflectors.iter().any(|r| r.address == next_hop) {
        return Err(format!(
            "{next_hop} is a reflector of this rack, which forwards nothing; write the address of the router that has the rack's routes (the ToR)"
        ));
    }
    if cidr.contains(next_hop) {
        return Err(format!(
            "{next_hop} is inside {cidr}, which would lead to itself; write an address outside"
        ));
    }
    // The other way round is RFC 8950.
    if cidr.family() == Family::Ipv6 && next_hop.is_ipv4() {
        return Err(format!(
            "no IPv6 packet goes by {next_hop}; write an IPv6 address"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::object::{self, Object};

    /// What is read of a Rack with `spec`, and `field: reason` of what is wrong with it.
    fn rack(spec: &Value) -> (Option<Rack>, Vec<String>) {
        let parsed = object::parse(&json!({
            "apiVersion": "caracal.dev/v1alpha1",
            "kind": "Rack",
            "metadata": {"name": "a"},
            "spec": spec,
        }));
        let problems = parsed.problems.iter();
        let lines = problems.map(|problem| format!("{}: {}", problem.field, problem.reason));
        let rack = parsed.object.map(|object| match object {
            Object::Rack(rack) => rack,
            other => panic!("no Rack: {other:?}"),
        });
        (rack, lines.collect())
    }

    fn with_aggregates(aggregates: Value) -> Value {
        json!({"reflectors": ["192.168.100.2"], "aggregates": aggregates})
    }

    #[test]
    fn aggregates_are_read() {
        let spec = with_aggregates(json!([
            {"cidr": "172.17.8.0/22", "nextHop": "192.168.100.1"},
            {"cidr": "172.17.12.0/22", "nextHop": "fd00:100::1", "summaryOnly": false},
            {"cidr": "fd00:17::/48", "nextHop": "fd00:100::1", "summaryOnly": true},
        ]));
        let (rack, problems) = rack(&spec);
        assert_eq!(problems, Vec::<String>::new());
        let read = rack.expect("no problems").aggregates;
        let read: Vec<_> = read
            .iter()
            .map(|a| (a.cidr.to_string(), a.next_hop.to_string(), a.summary_only))
            .collect();
        let expected = [
            ("172.17.8.0/22", "192.168.100.1", true),
            ("172.17.12.0/22", "fd00:100::1", false),
            ("fd00:17::/48", "fd00:100::1", true),
        ];
        assert_eq!(
            read,
            expected.map(|(cidr, by, only)| (cidr.to_owned(), by.to_owned(), only))
        );
    }

    #[test]
    fn a_wrong_aggregate_says_which_field_and_what_to_write() {
        let router = "write the address of the router that has the rack's routes (the ToR)";
        for (name, aggregates, expected) in [
            (
                "no next hop",
                json!([{"cidr": "172.17.8.0/22"}]),
                format!("spec.aggregates[0].nextHop: missing; {router}: a reflector forwards nothing"),
            ),
            (
                "no cidr",
                json!([{"nextHop": "192.168.100.1"}]),
                "spec.aggregates[0].cidr: missing; write the range of the rack's routes".to_owned(),
            ),
            (
                "a reflector as next hop",
                json!([{"cidr": "172.17.8.0/22", "nextHop": "192.168.100.2"}]),
                format!(
                    "spec.aggregates[0].nextHop: 192.168.100.2 is a reflector of this rack, which forwards nothing; {router}"
                ),
            ),
            (
                "a next hop inside",
                json!([{"cidr": "172.17.8.0/22", "nextHop": "172.17.8.1"}]),
                "spec.aggregates[0].nextHop: 172.17.8.1 is inside 172.17.8.0/22, which would lead to itself; write an address outside".to_owned(),
            ),
            (
                "a next hop of no host",
                json!([{"cidr": "172.17.8.0/22", "nextHop": "0.0.0.0"}]),
                "spec.aggregates[0].nextHop: 0.0.0.0 cannot be the address of a host on a network".to_owned(),
            ),
            (
                "IPv6 by IPv4",
                json!([{"cidr": "fd00:17::/48", "nextHop": "192.168.100.1"}]),
                "spec.aggregates[0].nextHop: no IPv6 packet goes by 192.168.100.1; write an IPv6 address".to_owned(),
            ),
            (
                "everything",
                json!([{"cidr": "0.0.0.0/0", "nextHop": "192.168.100.1"}]),
                "spec.aggregates[0].cidr: is everything; write the range of the rack's routes".to_owned(),
            ),
            (
                "a single address",
                json!([{"cidr": "172.17.8.1/32", "nextHop": "192.168.100.1"}]),
                "spec.aggregates[0].cidr: nothing is more specific than 172.17.8.1/32; write a shorter prefix".to_owned(),
            ),
            (
                "one inside another",
                json!([
                    {"cidr": "172.17.8.0/22", "nextHop": "192.168.100.1"},
                    {"cidr": "172.17.9.0/24", "nextHop": "192.168.100.1"},
                ]),
                "spec.aggregates[1].cidr: 172.17.9.0/24 overlaps 172.17.8.0/22; remove one".to_owned(),
            ),
            (
                "a field that is none",
                json!([{"cidr": "172.17.8.0/22", "nextHop": "192.168.100.1", "sumaryOnly": true}]),
                "spec.aggregates[0].sumaryOnly: unknown field; did you mean `summaryOnly`?".to_owned(),
            ),
        ] {
            let (rack, problems) = rack(&with_aggregates(aggregates));
            assert_eq!(problems, [expected], "{name}");
            assert_eq!(rack, None, "{name}");
        }
    }
}
