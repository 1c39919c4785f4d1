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

fn plan(own: &str, pool: &str, has_ipip: bool, settings: &TunnelSettings) -> TunnelPlan {
    let snapshot = snapshot(own, pool);
    let node = snapshot.node("a1").expect("a1");
    resolve_tunnel(&snapshot, node, &host(has_ipip), settings)
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
        Some(Tunnel {
            driver: TunnelDriver::Kernel,
            local: Ipv4Addr::new(192, 0, 2, 1),
            address: Ipv4Addr::new(172, 17, 8, 1),
            mtu: 8980,
            remotes: vec![Ipv4Addr::new(192, 0, 2, 4), Ipv4Addr::new(192, 0, 2, 9)],
        })
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
        assert_eq!(plan.tunnel.map(|tunnel| tunnel.driver), expected, "{name}");
        assert!(plan.reason.starts_with(reason), "{name}: {}", plan.reason);
        assert!(plan.is_needed, "{name}");
    }
}

#[test]
fn without_need_or_without_addresses_there_is_none() {
    for (name, own, pool, is_needed, reason) in [
        (
            "Never",
            OWN,
            "ipipMode: Never",
            false,
            "no IPPool asks for a tunnel",
        ),
        (
            "VXLAN",
            OWN,
            "vxlanMode: Always",
            false,
            "no IPPool asks for a tunnel",
        ),
        (
            "no address",
            "podCIDRs: [172.17.8.0/24]",
            "ipipMode: Always",
            true,
            "IPPool main needs a tunnel, but Node a1 has no ipv4Address",
        ),
        (
            "no podCIDR",
            "bgp: {ipv4Address: 192.0.2.1}",
            "ipipMode: Always",
            true,
            "IPPool main needs a tunnel, but Node a1 has no IPv4 podCIDR",
        ),
    ] {
        let plan = plan(own, pool, true, &TunnelSettings::default());
        assert_eq!(
            (plan.tunnel, plan.is_needed, plan.reason.as_str()),
            (None, is_needed, reason),
            "{name}"
        );
    }
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
            plan.tunnel.map(|tunnel| tunnel.mtu),
            Some(expected),
            "{name}"
        );
    }
}
