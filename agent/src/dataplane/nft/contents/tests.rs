use std::net::Ipv6Addr;

use super::*;
use crate::dataplane::nft::model::Element;

fn workload(addresses: &[&str]) -> WorkloadLink {
    let address = |text: &&str| text.parse().expect("an address");
    WorkloadLink {
        addresses: addresses.iter().map(address).collect(),
        mac: None,
    }
}

const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

fn workloads() -> BTreeMap<String, WorkloadLink> {
    BTreeMap::from([
        (
            "cara0123456789a".into(),
            workload(&["172.17.8.2", "fd00::2"]),
        ),
        ("cara0123456789b".into(), workload(&["172.17.8.3"])),
    ])
}

fn tunnels(drivers: &[TunnelDriver]) -> Tunnels {
    let tunnel = |driver: &TunnelDriver| {
        let tunnel = Tunnel {
            local: Ipv4Addr::new(192, 0, 2, 1),
            address: Ipv4Addr::new(172, 17, 8, 1),
            address6: (*driver == TunnelDriver::Vxlan).then_some(ADDRESS6),
            mtu: 1450,
            mac: None,
            remotes: vec![Ipv4Addr::new(192, 0, 2, 2)],
            neighbours: BTreeMap::new(),
            forwarding: BTreeMap::new(),
        };
        (*driver, tunnel)
    };
    drivers.iter().map(tunnel).collect()
}

fn table_of(
    workloads: &BTreeMap<String, WorkloadLink>,
    tunnels: &Tunnels,
    foreign_peers: &[Ipv4Addr],
) -> Table {
    wanted(&Contents {
        workloads,
        answers_for_gateway: false,
        tunnels,
        foreign_peers,
    })
}

fn texts<'a>(table: &'a Table, chain: &str) -> Vec<&'a str> {
    let rules = table.chains[chain].rules.iter();
    rules.map(|rule| rule.text.as_str()).collect()
}

fn elements(table: &Table, set: &str) -> Vec<Vec<Field>> {
    let keys = |element: &Element| element.key.clone();
    table.sets[set].elements.iter().map(keys).collect()
}

#[test]
fn node_without_workloads_and_tunnel_has_no_table() {
    assert!(table_of(&BTreeMap::new(), &Tunnels::new(), &[]).is_empty());
}

#[test]
fn each_interface_has_its_own_addresses() {
    let table = table_of(&workloads(), &Tunnels::new(), &[]);
    let name = |name| Field::Interface(InterfaceName::new(name).expect("a name"));
    assert_eq!(
        elements(&table, WORKLOAD_SOURCES_V4),
        [
            vec![
                name("cara0123456789a"),
                Field::V4(Ipv4Addr::new(172, 17, 8, 2))
            ],
            vec![
                name("cara0123456789b"),
                Field::V4(Ipv4Addr::new(172, 17, 8, 3))
            ],
        ]
    );
    assert_eq!(
        elements(&table, WORKLOAD_SOURCES_V6),
        [vec![
            name("cara0123456789a"),
            Field::V6("fd00::2".parse().expect("an address"))
        ]]
    );
}

#[test]
fn tunnel_is_guarded_only_where_there_is_one() {
    let table = table_of(&workloads(), &Tunnels::new(), &[]);
    let chains: Vec<&str> = table.chains.keys().map(String::as_str).collect();
    assert_eq!(chains, [FROM_WORKLOAD, PREROUTING]);
    let without_output = [FROM_WORKLOAD, POSTROUTING, PREROUTING, TUNNEL_GUARD];
    let with_output = [
        FROM_WORKLOAD,
        HOST_OUTPUT,
        POSTROUTING,
        PREROUTING,
        TUNNEL_GUARD,
    ];
    for (driver, chains) in [
        (TunnelDriver::Kernel, &without_output[..]),
        (TunnelDriver::Vxlan, &without_output),
        (TunnelDriver::Userspace, &with_output),
        (TunnelDriver::Udp, &with_output),
    ] {
        let table = table_of(&workloads(), &tunnels(&[driver]), &[]);
        let names: Vec<&str> = table.chains.keys().map(String::as_str).collect();
        assert_eq!(names, chains, "{driver:?}");
    }
}

#[test]
fn ends_of_foreign_tunnels_are_let_in() {
    let foreign = Ipv4Addr::new(198, 51, 100, 9);
    let table = table_of(&workloads(), &tunnels(&[TunnelDriver::Kernel]), &[foreign]);
    assert_eq!(
        elements(&table, TUNNEL_PEERS),
        [Ipv4Addr::new(192, 0, 2, 2), foreign].map(|peer| vec![Field::V4(peer)])
    );
}

#[test]
fn interface_that_could_end_the_quotes_is_left_out() {
    let mut workloads = workloads();
    for name in ["cara\" }", "cara*", "cara\n", "cara0123456789abcdef", ""] {
        workloads.insert(name.into(), workload(&["172.17.8.9"]));
    }
    let table = table_of(&workloads, &Tunnels::new(), &[]);
    assert_eq!(elements(&table, WORKLOAD_SOURCES_V4).len(), 2);
}

#[test]
fn each_of_two_tunnels_has_its_guard_and_its_source() {
    let both = tunnels(&[TunnelDriver::Vxlan, TunnelDriver::Userspace]);
    let table = table_of(&workloads(), &both, &[]);
    assert_eq!(
        texts(&table, TUNNEL_GUARD),
        [
            "ip daddr 192.0.2.1 ip protocol 4 ip saddr != @tunnel-peers4 counter drop",
            "ip daddr 192.0.2.1 udp dport 4789 @th,96,24 4096 ip saddr != @tunnel-peers4 counter drop",
        ]
    );
    assert_eq!(
        texts(&table, POSTROUTING),
        [
            "oifname \"caracal-tun\" fib saddr type local ip saddr != 172.17.8.1 masquerade",
            "oifname \"caracal-vxlan\" fib saddr type local ip saddr != 172.17.8.1 masquerade",
            "oifname \"caracal-vxlan\" fib saddr type local ip6 saddr != { fd00::1, fe80::/10 } masquerade",
        ]
    );
    assert_eq!(elements(&table, TUNNEL_PEERS).len(), 1, "one node");
}
