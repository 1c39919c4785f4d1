use super::*;
use crate::dataplane::host::Link;
use crate::datastore::{load, parse_stream};

fn snapshot(own: &str, pool: &str) -> Snapshot {
    let stream = format!(
        "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {{name: a1}}
spec: {{{own}}}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {{name: a2}}
spec: {{bgp: {{ipv4Address: 192.0.2.9}}}}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {{name: a3}}
spec: {{bgp: {{ipv4Address: 192.0.2.4}}}}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {{name: main}}
spec: {{cidr: 172.17.0.0/16, {pool}}}
"
    );
    load(&parse_stream("f.yaml", &stream)).0
}

const OWN: &str = "bgp: {ipv4Address: 192.0.2.1}, podCIDRs: ['fd00:8::/64', 172.17.8.0/24]";

fn host(has_kernel_ipip: bool) -> HostView {
    let link = Link {
        index: 2,
        mtu: 9000,
        is_up: true,
        is_running: true,
        is_point_to_point: false,
    };
    HostView {
        links: [("eth0".to_owned(), link)].into(),
        addresses: [("192.0.2.1".parse().expect("address"), "eth0".to_owned())].into(),
        routes: Vec::new(),
        has_kernel_ipip,
        ..HostView::default()
    }
}

/// The plan for the one kind of tunnel that the pool asks for.
fn plan(own: &str, pool: &str, has_ipip: bool, settings: &TunnelSettings) -> TunnelPlan {
    let mut plans = plans(own, pool, &host(has_ipip), settings);
    assert_eq!(plans.len(), 1, "{plans:?}");
    plans.remove(0)
}

fn plans(own: &str, pool: &str, host: &HostView, settings: &TunnelSettings) -> Vec<TunnelPlan> {
    let snapshot = snapshot(own, pool);
    let node = snapshot.node("a1").expect("a1");
    resolve_tunnels(&snapshot, node, host, settings)
}

fn mac(text: &str) -> [u8; 6] {
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).expect("octet"))
        .collect();
    octets.try_into().expect("six octets")
}

#[test]
fn a_tunnel_is_made_where_a_pool_asks_for_one() {
    let plan = plan(
        OWN,
        "ipipMode: CrossSubnet",
        true,
        &TunnelSettings::default(),
    );
    assert_eq!(
        plan.tunnel,
        Some((
            TunnelDriver::Kernel,
            Tunnel {
                local: Ipv4Addr::new(192, 0, 2, 1),
                address: Ipv4Addr::new(172, 17, 8, 1),
                address6: None,
                mtu: 8980,
                mac: None,
                remotes: vec![Ipv4Addr::new(192, 0, 2, 4), Ipv4Addr::new(192, 0, 2, 9)],
                neighbours: [].into(),
                forwarding: [].into(),
            }
        ))
    );
    assert_eq!(plan.reason, "auto: the kernel has ipip; mtu follows eth0");
}

#[test]
fn the_driver_follows_setting_and_kernel() {
    let pool = "ipipMode: Always";
    let blocked = Some("tunl0 has the same parameters".to_owned());
    for (name, driver, has_ipip, kernel_blocked, expected, reason) in [
        (
            "auto with",
            DriverSetting::Auto,
            true,
            None,
            Some(TunnelDriver::Kernel),
            "auto: the kernel has ipip",
        ),
        (
            "auto without",
            DriverSetting::Auto,
            false,
            None,
            Some(TunnelDriver::Userspace),
            "auto: this kernel has no ipip",
        ),
        (
            "auto, blocked",
            DriverSetting::Auto,
            true,
            blocked.clone(),
            Some(TunnelDriver::Userspace),
            "auto: tunl0 has the same parameters",
        ),
        (
            "userspace",
            DriverSetting::Userspace,
            true,
            None,
            Some(TunnelDriver::Userspace),
            "tunnelDriver is userspace",
        ),
        (
            "kernel with",
            DriverSetting::Kernel,
            true,
            None,
            Some(TunnelDriver::Kernel),
            "tunnelDriver is kernel",
        ),
        (
            "kernel without",
            DriverSetting::Kernel,
            false,
            None,
            None,
            "tunnelDriver is kernel, but this kernel has no ipip",
        ),
        (
            "kernel, blocked",
            DriverSetting::Kernel,
            true,
            blocked,
            None,
            "tunnelDriver is kernel, but tunl0 has the same parameters",
        ),
    ] {
        let settings = TunnelSettings {
            driver,
            kernel_blocked,
            ..TunnelSettings::default()
        };
        let plan = plan(OWN, pool, has_ipip, &settings);
        assert_eq!(plan.tunnel.map(|(driver, _)| driver), expected, "{name}");
        assert!(plan.reason.starts_with(reason), "{name}: {}", plan.reason);
    }
}

#[test]
fn without_addresses_there_is_none() {
    for (name, own, pool, reason) in [
        (
            "no address",
            "podCIDRs: [172.17.8.0/24]",
            "ipipMode: Always",
            "IPPool main needs a tunnel, but Node a1 has no ipv4Address",
        ),
        (
            "no podCIDR",
            "bgp: {ipv4Address: 192.0.2.1}",
            "ipipMode: Always",
            "IPPool main needs a tunnel, but Node a1 has no IPv4 podCIDR",
        ),
        (
            "no podCIDR, VXLAN",
            "bgp: {ipv4Address: 192.0.2.1}",
            "vxlanMode: CrossSubnet",
            "IPPool main needs a tunnel, but Node a1 has no IPv4 podCIDR",
        ),
    ] {
        let plan = plan(own, pool, true, &TunnelSettings::default());
        assert_eq!(
            (plan.tunnel, plan.reason.as_str()),
            (None, reason),
            "{name}"
        );
    }
}

#[test]
fn no_tunnel_is_planned_where_no_pool_asks_for_one() {
    let settings = TunnelSettings::default();
    assert_eq!(plans(OWN, "ipipMode: Never", &host(true), &settings), []);
}

const SECOND_POOL: &str = "ipipMode: Always}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: second}
spec: {cidr: 172.18.0.0/16, vxlanMode: Never}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: third}
spec: {cidr: 172.19.0.0/16, vxlanMode: CrossSubnet}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: fourth}
spec: {cidr: 172.20.0.0/16, udpMode: Always";

#[test]
fn each_kind_that_a_pool_asks_for_has_its_device_and_mtu() {
    let plans = plans(OWN, SECOND_POOL, &host(false), &TunnelSettings::default());
    let devices: Vec<(String, &str, u32)> = plans
        .iter()
        .filter_map(|plan| {
            let (driver, tunnel) = plan.tunnel.as_ref()?;
            Some((plan.kind.to_string(), driver.device(), tunnel.mtu))
        })
        .collect();
    assert_eq!(
        devices,
        [
            ("IPIP".to_owned(), "caracal-tun", 8980),
            ("VXLAN".to_owned(), "caracal-vxlan", 8950),
            ("UDP".to_owned(), "caracal-udp", 8972),
        ]
    );
}

/// The MACs are of `printf NAME | sha1sum`.
#[test]
fn vxlan_knows_the_mac_and_the_tunnel_address_of_every_other_node() {
    let own = "bgp: {ipv4Address: 192.0.2.1}, podCIDRs: [172.17.8.0/24]}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: a4}
spec: {bgp: {ipv4Address: 192.0.2.7}, podCIDRs: [172.17.9.0/24, 172.17.10.0/24]";
    let plan = plan(own, "vxlanMode: Always", true, &TunnelSettings::default());
    let (driver, tunnel) = plan.tunnel.expect("planned");
    assert_eq!(driver, TunnelDriver::Vxlan);
    assert_eq!(tunnel.mac, Some(mac("02:f2:9b:c9:1b:bd")));
    let address = |text: &str| text.parse::<IpAddr>().expect("address");
    assert_eq!(
        tunnel.neighbours,
        [(address("172.17.9.1"), mac("02:21:44:0d:ba:05"))].into(),
        "those that have podCIDRs"
    );
    assert_eq!(
        tunnel.forwarding,
        [
            (mac("02:b9:f8:5d:aa:6f"), Ipv4Addr::new(192, 0, 2, 9)),
            (mac("02:25:2b:c0:67:63"), Ipv4Addr::new(192, 0, 2, 4)),
            (mac("02:21:44:0d:ba:05"), Ipv4Addr::new(192, 0, 2, 7)),
        ]
        .into()
    );
}

#[test]
fn ipv6_tunnel_addresses_stand_where_an_ipv6_pool_asks_for_vxlan() {
    let own = "bgp: {ipv4Address: 192.0.2.1}, podCIDRs: [172.17.8.0/24, 'fd00:8::/64']}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: a4}
spec: {bgp: {ipv4Address: 192.0.2.7}, podCIDRs: ['fd00:9::/64', 172.17.9.0/24]";
    let both = "vxlanMode: Always}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: six}
spec: {cidr: 'fd00::/16', vxlanMode: Always";
    for (name, pool, address6, neighbours) in [
        ("IPv4 alone", "vxlanMode: Always", None, vec!["172.17.9.1"]),
        (
            "both",
            both,
            Some("fd00:8::1"),
            vec!["172.17.9.1", "fd00:9::1"],
        ),
    ] {
        let plan = plan(own, pool, true, &TunnelSettings::default());
        let (_, tunnel) = plan.tunnel.expect("planned");
        let address6 = address6.map(|text| text.parse().expect("address"));
        assert_eq!(tunnel.address6, address6, "{name}");
        let names: Vec<String> = tunnel.neighbours.keys().map(IpAddr::to_string).collect();
        assert_eq!(names, neighbours, "{name}");
    }
}

#[test]
fn foreign_vxlan_device_is_named_and_nothing_takes_its_place() {
    let host = HostView {
        foreign_vxlan: Some("flannel.1".to_owned()),
        ..host(true)
    };
    let plans = plans(OWN, "vxlanMode: Always", &host, &TunnelSettings::default());
    assert_eq!(plans.len(), 1);
    assert_eq!(plans[0].tunnel, None);
    assert_eq!(
        plans[0].reason,
        "the foreign device flannel.1 has the parameters of caracal-vxlan (VNI 4096, port 4789)"
    );
}

#[test]
fn the_mtu_is_that_of_the_nic_unless_said() {
    for (name, mtu, nic, expected) in [
        ("said", Some(1400), None, 1400),
        ("of the named NIC", None, Some("eth0"), 8980),
        ("of a NIC that is not there", None, Some("eth9"), 1480),
    ] {
        let settings = TunnelSettings {
            mtu,
            nic: nic.map(str::to_owned),
            ..TunnelSettings::default()
        };
        let plan = plan(OWN, "ipipMode: Always", true, &settings);
        assert_eq!(
            plan.tunnel.map(|(_, tunnel)| tunnel.mtu),
            Some(expected),
            "{name}"
        );
    }
}
