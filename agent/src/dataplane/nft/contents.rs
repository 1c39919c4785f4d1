//! What our table is to hold for a node: sources of workloads, tunnelled packets, wrong sources.
//!
//! Pure. Each function adds one subject: its sets, its rules, and its jump from a hook.
//!
//! ```text
//! prerouting (raw) --from cara…--> from-workload   source not its own: drop; like a tunnel's: drop
//!                  \-------------> tunnel-guard    tunnelled, to us, not from a node: drop
//! host-output      ICMP that a tunnel's packets are not understood: drop, while the carrier is one
//! postrouting      through the tunnel with another address of this host: the tunnel's instead
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::model::{Chain, Field, InterfaceName, Kind, Rule, Set, Table};
use super::names::{
    FROM_WORKLOAD, HOST_OUTPUT, POSTROUTING, PREROUTING, TUNNEL_GUARD, TUNNEL_PEERS,
    WORKLOAD_SOURCES_V4, WORKLOAD_SOURCES_V6,
};
use crate::dataplane::desired::{Tunnel, TunnelDriver, WorkloadLink};
use crate::names::{INTERFACE_PREFIX, UDP_TUNNEL_PORT, VXLAN_PORT, VXLAN_VNI, WORKLOAD_GATEWAY};

/// Before connection tracking, which would remember what is dropped anyway.
const RAW: i32 = -300;
const FILTER: i32 = 0;
/// Where source addresses are translated.
const SOURCE_NAT: i32 = 100;

type Tunnels = BTreeMap<TunnelDriver, Tunnel>;

/// What the table depends on.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    pub workloads: &'a BTreeMap<String, WorkloadLink>,
    /// A route of ours leads the workloads' gateway to the loopback device.
    pub answers_for_gateway: bool,
    pub tunnels: &'a Tunnels,
    /// Remote ends of ipip devices that are not ours. Their packets are that device's.
    pub foreign_peers: &'a [Ipv4Addr],
}

/// Empty if the node has neither workloads nor a tunnel.
pub fn wanted(contents: &Contents<'_>) -> Table {
    let Contents {
        workloads,
        answers_for_gateway,
        tunnels,
        foreign_peers,
    } = *contents;
    let mut table = Table::default();
    if workloads.is_empty() && tunnels.is_empty() {
        return table;
    }
    table.chains.insert(
        PREROUTING.to_owned(),
        Chain::at("filter", "prerouting", RAW),
    );
    check_workload_sources(&mut table, workloads);
    if answers_for_gateway {
        drop_to_gateway(&mut table);
    }
    if !tunnels.is_empty() {
        name_peers(&mut table, tunnels, foreign_peers);
        guard_tunnels(&mut table, tunnels);
        correct_sources(&mut table, tunnels);
        suppress_unreachable(&mut table, tunnels);
    }
    table
}

/// By a set and not by the route back (rp_filter, `fib`): it holds whatever the routes are, such as
/// while a foreign one shadows the workload's, and an interface that we do not know yet has no
/// source at all.
fn check_workload_sources(table: &mut Table, workloads: &BTreeMap<String, WorkloadLink>) {
    let pairs = || {
        workloads.iter().filter_map(|(name, workload)| {
            let name = Field::Interface(InterfaceName::new(name)?);
            Some((name, workload.addresses.iter()))
        })
    };
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (name, addresses) in pairs() {
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4.push(vec![name.clone(), Field::V4(*address)]),
                IpAddr::V6(address) => v6.push(vec![name.clone(), Field::V6(*address)]),
            }
        }
    }
    table.sets.insert(
        WORKLOAD_SOURCES_V4.to_owned(),
        Set::of([Kind::Interface, Kind::V4], v4),
    );
    table.sets.insert(
        WORKLOAD_SOURCES_V6.to_owned(),
        Set::of([Kind::Interface, Kind::V6], v6),
    );
    // Our tunnel devices begin like workloads' interfaces.
    table.rule(
        PREROUTING,
        Rule::new(
            "from workloads",
            format!(
                "iifname \"{INTERFACE_PREFIX}*\" iifname != \"caracal-*\" jump {FROM_WORKLOAD}"
            ),
        ),
    );
    table.rule(
        FROM_WORKLOAD,
        Rule::new(
            "source is not the workload's",
            format!("meta nfproto ipv4 iifname . ip saddr != @{WORKLOAD_SOURCES_V4} counter drop"),
        ),
    );
    // A neighbour asks and answers from a link-local address, or from none; nothing of it is
    // forwarded.
    table.rule(
        FROM_WORKLOAD,
        Rule::new(
            "source is not the workload's",
            format!(
                "meta nfproto ipv6 ip6 saddr != {{ ::, fe80::/10 }} \
                 iifname . ip6 saddr != @{WORKLOAD_SOURCES_V6} counter drop"
            ),
        ),
    );
}

/// The gateway is there to be asked for its MAC. What is sent to itself would circle in the loopback
/// device until its TTL is used up.
fn drop_to_gateway(table: &mut Table) {
    let text = format!("ip daddr {WORKLOAD_GATEWAY} counter drop");
    table.rule(
        FROM_WORKLOAD,
        Rule::new("nobody is at the gateway's address", text),
    );
}

/// Nodes, to all tunnels alike: who is one is one. No workload may look like one, whatever the kind
/// of tunnel: under the address of this node, if something translates it, others would take it.
fn name_peers(table: &mut Table, tunnels: &Tunnels, foreign_peers: &[Ipv4Addr]) {
    let remotes = tunnels.values().flat_map(|tunnel| &tunnel.remotes);
    let peers = remotes.chain(foreign_peers);
    table.sets.insert(
        TUNNEL_PEERS.to_owned(),
        Set::of([Kind::V4], peers.map(|address| vec![Field::V4(*address)])),
    );
    for encapsulation in [ip_in_ip(), udp(), vxlan()] {
        table.rule(
            FROM_WORKLOAD,
            Rule::new(
                "a workload is no tunnel",
                format!("ip daddr @{TUNNEL_PEERS} {encapsulation} counter drop"),
            ),
        );
    }
}

/// Only packets to this node's own address, so that other tunnels of the host, and those of others
/// through it, stay as they are.
fn guard_tunnels(table: &mut Table, tunnels: &Tunnels) {
    table.rule(
        PREROUTING,
        Rule::new("to the tunnel", format!("jump {TUNNEL_GUARD}")),
    );
    for (driver, tunnel) in tunnels {
        let local = tunnel.local;
        let encapsulation = encapsulation_of(*driver);
        table.rule(
            TUNNEL_GUARD,
            Rule::new(
                "tunnelled, but not by a node",
                format!(
                    "ip daddr {local} {encapsulation} ip saddr != @{TUNNEL_PEERS} counter drop"
                ),
            ),
        );
    }
}

/// A socket bound to the node's address, or a connection to a service: its source was chosen
/// before the tunnel was. The remote node would answer beside the tunnel.
fn correct_sources(table: &mut Table, tunnels: &Tunnels) {
    let mut chain = Chain::at("nat", "postrouting", SOURCE_NAT);
    for (driver, tunnel) in tunnels {
        let device = driver.device();
        let mut correct = |local: String| {
            let text = format!("oifname \"{device}\" fib saddr type local {local} masquerade");
            let rule = Rule::new("the tunnel's address instead", text);
            chain.rules.push(rule);
        };
        correct(format!("ip saddr != {}", tunnel.address));
        // Neighbours on the device speak to each other from link-local addresses.
        if let Some(address) = tunnel.address6 {
            correct(format!("ip6 saddr != {{ {address}, fe80::/10 }}"));
        }
    }
    table.chains.insert(POSTROUTING.to_owned(), chain);
}

/// Where a kernel with ipip meets packets that none of its devices takes, and where no carrier runs
/// for a moment, the kernel complains to the sender (RFC 1122 §3.2.2.1), whose own tunnel then
/// reports the workloads behind this node as unreachable. @th,136,8 is the protocol of the packet
/// complained of: octet 9 of the header behind the 8 octets of ICMP.
fn suppress_unreachable(table: &mut Table, tunnels: &Tunnels) {
    let complaints = tunnels.keys().filter_map(|driver| match driver {
        TunnelDriver::Userspace => Some("@th,136,8 4".to_owned()),
        // And behind a header of 20 octets, as ours are, the port it was for.
        TunnelDriver::Udp => Some(format!("@th,136,8 17 @th,240,16 {UDP_TUNNEL_PORT}")),
        TunnelDriver::Kernel | TunnelDriver::Vxlan => None,
    });
    let rules: Vec<Rule> = complaints
        .map(|about| {
            let text = format!(
                "ip daddr @{TUNNEL_PEERS} icmp type 3 icmp code {{ 2, 3 }} {about} counter drop"
            );
            Rule::new("the carrier takes them", text)
        })
        .collect();
    if !rules.is_empty() {
        let mut chain = Chain::at("filter", "output", FILTER);
        chain.rules = rules;
        table.chains.insert(HOST_OUTPUT.to_owned(), chain);
    }
}

fn encapsulation_of(driver: TunnelDriver) -> String {
    match driver {
        TunnelDriver::Kernel | TunnelDriver::Userspace => ip_in_ip(),
        TunnelDriver::Vxlan => vxlan(),
        TunnelDriver::Udp => udp(),
    }
}

fn ip_in_ip() -> String {
    "ip protocol 4".to_owned()
}

fn udp() -> String {
    format!("udp dport {UDP_TUNNEL_PORT}")
}

/// RFC 7348 §5: behind the 8 octets of UDP and 4 of flags is the network's number. Another network
/// is somebody else's.
fn vxlan() -> String {
    format!("udp dport {VXLAN_PORT} @th,96,24 {VXLAN_VNI}")
}

#[cfg(test)]
mod tests;
