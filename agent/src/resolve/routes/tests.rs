use std::net::Ipv4Addr;

use super::*;
use crate::dataplane::desired::{Tunnel, TunnelDriver};
use crate::dataplane::host::Link;
use crate::datastore::{load, parse_stream};

mod shared;

/// a1 is here; a2 is on its subnet, b1 on another. Pools: 172.17/16 by `mode`, 172.18/16 never.
fn snapshot(mode: &str) -> Snapshot {
    let stream = format!(
        "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {{name: a1}}
spec: {{bgp: {{ipv4Address: 192.168.100.100/24, ipv6Address: 'fd00:100::100'}}, podCIDRs: [172.17.8.0/24]}}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {{name: a2}}
spec: {{bgp: {{ipv4Address: 192.168.100.101/24, ipv6Address: 'fd00:100::101'}}, podCIDRs: [172.17.9.0/24]}}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {{name: b1}}
spec: {{bgp: {{ipv4Address: 192.168.200.101/24}}, podCIDRs: [172.17.10.0/24]}}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {{name: b2}}
spec: {{bgp: {{ipv4Address: 192.168.200.102/24}}, podCIDRs: [172.17.11.0/24]}}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {{name: main}}
spec: {{cidr: 172.17.0.0/16, {mode}}}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {{name: inner}}
spec: {{cidr: 172.17.10.128/25}}
"
    );
    load(&parse_stream("f.yaml", &stream)).0
}

fn route(prefix: &str, gateway: Option<&str>, device: &str) -> HostRoute {
    HostRoute {
        prefix: prefix.parse().expect(prefix),
        metric: 0,
        is_unicast: true,
        gateway: gateway.map(|gateway| gateway.parse().expect(gateway)),
        device: Some(device.to_owned()),
    }
}

/// eth0 on 192.168.100.0/24 with a default route; ppp0 is point-to-point.
fn host() -> HostView {
    let link = |is_point_to_point| Link {
        index: 2,
        mtu: 1500,
        is_up: true,
        is_running: true,
        is_point_to_point,
    };
    HostView {
        links: [("eth0", false), ("eth1", false), ("ppp0", true)]
            .map(|(name, is_p2p)| (name.to_owned(), link(is_p2p)))
            .into(),
        addresses: ["192.168.100.100", "fd00:100::100", "10.9.9.9"]
            .map(|address| (address.parse().expect(address), "eth0".to_owned()))
            .into(),
        routes: vec![
            route("0.0.0.0/0", Some("192.168.100.1"), "eth0"),
            route("192.168.100.0/24", None, "eth0"),
            route("fd00:100::/64", None, "eth0"),
            route("10.20.0.0/16", None, "ppp0"),
        ],
        has_kernel_ipip: true,
        ..HostView::default()
    }
}

fn tunnel() -> TunnelPlan {
    plan(TunnelKind::Ipip, TunnelDriver::Kernel)
}

fn plan(kind: TunnelKind, driver: TunnelDriver) -> TunnelPlan {
    let tunnel = Tunnel {
        local: Ipv4Addr::new(192, 168, 100, 100),
        address: Ipv4Addr::new(172, 17, 8, 1),
        address6: None,
        mtu: 1480,
        mac: None,
        remotes: Vec::new(),
        neighbours: [(IpAddr::V4(Ipv4Addr::new(172, 17, 10, 1)), [2; 6])].into(),
        forwarding: [].into(),
    };
    TunnelPlan {
        kind,
        tunnel: Some((driver, tunnel)),
        reason: "it works".to_owned(),
    }
}

/// `RULE via GATEWAY dev DEVICE [src SOURCE]`, or `-`.
fn shown(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Skip { .. } => "-".to_owned(),
        Resolution::Program {
            hop: Hop { gateway, device },
            source,
            rule,
            ..
        } => {
            let source = source.map(|source| format!(" src {source}"));
            let source = source.unwrap_or_default();
            format!("{rule} via {gateway} dev {device}{source}")
        }
    }
}

/// Resolves one prefix by the kernel of `host`.
fn resolve_learned(
    prefix: Prefix,
    next_hop: IpAddr,
    snapshot: &Snapshot,
    node: &Node,
    host: &HostView,
    tunnel: Option<&TunnelPlan>,
) -> Resolution {
    resolver(snapshot, node, host, tunnel).resolve(prefix, next_hop)
}

fn resolver<'a>(
    snapshot: &Snapshot,
    node: &Node,
    host: &HostView,
    plans: impl IntoIterator<Item = &'a TunnelPlan>,
) -> NextHopResolver {
    NextHopResolver::new(
        Arc::new(snapshot.clone()),
        node.clone(),
        Arc::new(host.clone()),
        plans.into_iter().cloned().collect(),
    )
}

const CROSS: &str = "ipipMode: CrossSubnet";
const ALWAYS: &str = "ipipMode: Always";
const NEVER: &str = "ipipMode: Never";

#[test]
fn the_rules_decide_in_order() {
    for (name, mode, prefix, next_hop, expected) in [
        (
            "a: far node, CrossSubnet",
            CROSS,
            "172.17.10.0/24",
            "192.168.200.101",
            "a via 192.168.200.101 dev caracal-ipip src 172.17.8.1",
        ),
        (
            "a: far node, Always",
            ALWAYS,
            "172.17.10.0/24",
            "192.168.200.101",
            "a via 192.168.200.101 dev caracal-ipip src 172.17.8.1",
        ),
        (
            "a: near node, Always",
            ALWAYS,
            "172.17.9.0/24",
            "192.168.100.101",
            "a via 192.168.100.101 dev caracal-ipip src 172.17.8.1",
        ),
        (
            "b: near node, CrossSubnet",
            CROSS,
            "172.17.9.0/24",
            "192.168.100.101",
            "b via 192.168.100.101 dev eth0",
        ),
        (
            "b: near node, Never",
            NEVER,
            "172.17.9.0/24",
            "192.168.100.101",
            "b via 192.168.100.101 dev eth0",
        ),
        (
            "b: router, off-pool",
            ALWAYS,
            "203.0.113.0/24",
            "192.168.100.3",
            "b via 192.168.100.3 dev eth0",
        ),
        (
            "b: router, in a pool that says Always",
            ALWAYS,
            "172.17.99.0/24",
            "192.168.100.3",
            "b via 192.168.100.3 dev eth0",
        ),
        (
            "b: near node, off-pool, Always elsewhere",
            ALWAYS,
            "203.0.113.0/24",
            "192.168.100.101",
            "b via 192.168.100.101 dev eth0",
        ),
        (
            "b: IPv6",
            ALWAYS,
            "fd00:9::/64",
            "fd00:100::101",
            "b via fd00:100::101 dev eth0",
        ),
        (
            "c: far node, Never",
            NEVER,
            "172.17.10.0/24",
            "192.168.200.101",
            "c via 192.168.100.1 dev eth0",
        ),
        (
            "c: far node, off-pool never into a tunnel",
            ALWAYS,
            "203.0.113.0/24",
            "192.168.200.101",
            "c via 192.168.100.1 dev eth0",
        ),
        (
            "c: far node, longest pool says Never",
            ALWAYS,
            "172.17.10.128/25",
            "192.168.200.101",
            "c via 192.168.100.1 dev eth0",
        ),
        (
            "c: far router, in a pool",
            ALWAYS,
            "172.17.99.0/24",
            "198.51.100.7",
            "c via 192.168.100.1 dev eth0",
        ),
        (
            "d: own node address",
            CROSS,
            "172.17.9.0/24",
            "192.168.100.100",
            "-",
        ),
        (
            "d: another local address",
            CROSS,
            "172.17.9.0/24",
            "10.9.9.9",
            "-",
        ),
        (
            "d: own podCIDR",
            CROSS,
            "172.17.8.0/24",
            "192.168.100.101",
            "-",
        ),
        (
            "d: behind a point-to-point link",
            NEVER,
            "203.0.113.0/24",
            "10.20.0.1",
            "-",
        ),
        (
            "d: no route in IPv6",
            NEVER,
            "fd00:9::/64",
            "fd00:200::1",
            "-",
        ),
        (
            "b: IPv4 by an IPv6 neighbour",
            NEVER,
            "172.17.9.0/24",
            "fd00:100::101",
            "b via fd00:100::101 dev eth0",
        ),
        (
            "b: the same, where only what is far is tunnelled",
            CROSS,
            "172.17.9.0/24",
            "fd00:100::101",
            "b via fd00:100::101 dev eth0",
        ),
        (
            "d: the same, where IPIP would have to lead there",
            ALWAYS,
            "172.17.9.0/24",
            "fd00:100::101",
            "-",
        ),
        (
            "d: IPv6 by an IPv4 neighbour",
            NEVER,
            "fd00:9::/64",
            "192.168.100.101",
            "-",
        ),
    ] {
        let snapshot = snapshot(mode);
        let node = snapshot.node("a1").expect("a1");
        let resolution = resolve_learned(
            prefix.parse().expect(prefix),
            next_hop.parse().expect(next_hop),
            &snapshot,
            node,
            &host(),
            Some(&tunnel()),
        );
        assert_eq!(shown(&resolution), expected, "{name}: {resolution:?}");
    }
}

#[test]
fn the_kernels_routes_say_what_is_near() {
    let far = "192.168.200.101";
    let with = |extra: Vec<HostRoute>| {
        let mut host = host();
        host.routes.extend(extra);
        host
    };
    let no_default = || {
        let mut host = host();
        host.routes.retain(|route| !route.prefix.is_default());
        host
    };
    let cheaper = |metric, device: &str| HostRoute {
        metric,
        ..route("192.168.200.0/24", None, device)
    };
    for (name, mode, host, expected) in [
        (
            "no default route, tunnel",
            CROSS,
            no_default(),
            "a via 192.168.200.101 dev caracal-ipip src 172.17.8.1",
        ),
        ("no default route, Never", NEVER, no_default(), "-"),
        (
            "a second NIC makes it near",
            CROSS,
            with(vec![route("192.168.200.0/24", None, "eth1")]),
            "b via 192.168.200.101 dev eth1",
        ),
        (
            "a host route with gateway makes it far",
            CROSS,
            with(vec![
                route("192.168.200.0/24", None, "eth1"),
                route("192.168.200.101/32", Some("192.168.100.9"), "eth0"),
            ]),
            "a via 192.168.200.101 dev caracal-ipip src 172.17.8.1",
        ),
        (
            "the lowest metric counts, whatever comes first",
            NEVER,
            with(vec![
                cheaper(100, "ppp0"),
                cheaper(10, "eth1"),
                cheaper(50, "ppp0"),
            ]),
            "b via 192.168.200.101 dev eth1",
        ),
        (
            "a point-to-point link is not on-link",
            CROSS,
            with(vec![route("192.168.200.0/24", None, "ppp0")]),
            "a via 192.168.200.101 dev caracal-ipip src 172.17.8.1",
        ),
        (
            "an unreachable route resolves nothing",
            NEVER,
            with(vec![HostRoute {
                is_unicast: false,
                ..route("192.168.200.0/24", None, "eth1")
            }]),
            "-",
        ),
        (
            "nor does a multipath route",
            NEVER,
            with(vec![HostRoute {
                device: None,
                ..route("192.168.200.0/24", None, "eth1")
            }]),
            "-",
        ),
        (
            "nor does a device that is gone",
            NEVER,
            with(vec![route("192.168.200.0/24", None, "eth7")]),
            "-",
        ),
    ] {
        let snapshot = snapshot(mode);
        let node = snapshot.node("a1").expect("a1");
        let tunnel = tunnel();
        let resolver = resolver(&snapshot, node, &host, [&tunnel]);
        let prefix = "172.17.10.0/24".parse().expect("prefix");
        let resolution = resolver.resolve(prefix, far.parse().expect(far));
        assert_eq!(shown(&resolution), expected, "{name}: {resolution:?}");
    }
}

#[test]
fn next_hops_are_as_far_as_the_kernel_says() {
    use bgp::speaker::Reach::{Cost, Unresolvable};
    let without_default = |host: &mut HostView| host.routes.retain(|r| !r.prefix.is_default());
    let unplugged = |host: &mut HostView| {
        let eth0 = host.links.get_mut("eth0").expect("eth0");
        eth0.is_running = false;
    };
    let with_multipath_default = |host: &mut HostView| host.routes[0].device = None;
    let unchanged = |_: &mut HostView| {};
    type Change<'a> = &'a dyn Fn(&mut HostView);
    for (name, change, next_hop, has_tunnel, expected) in [
        (
            "on-link",
            &unchanged as Change<'_>,
            "192.168.100.101",
            true,
            Cost(0),
        ),
        ("on-link, IPv6", &unchanged, "fd00:100::101", true, Cost(0)),
        (
            "by the default route",
            &unchanged,
            "198.51.100.7",
            true,
            Cost(1),
        ),
        ("a far node", &unchanged, "192.168.200.101", true, Cost(1)),
        ("ourselves", &unchanged, "192.168.100.100", true, Cost(0)),
        (
            "no route in IPv6",
            &unchanged,
            "fd00:200::1",
            true,
            Unresolvable,
        ),
        (
            "behind a point-to-point link",
            &unchanged,
            "10.20.0.1",
            true,
            Unresolvable,
        ),
        (
            "no default route",
            &without_default,
            "198.51.100.7",
            true,
            Unresolvable,
        ),
        (
            "a far node, no route",
            &without_default,
            "192.168.200.101",
            true,
            Unresolvable,
        ),
        (
            "no carrier, near",
            &unplugged,
            "192.168.100.101",
            true,
            Unresolvable,
        ),
        (
            "no carrier, far",
            &unplugged,
            "192.168.200.101",
            true,
            Unresolvable,
        ),
        (
            "a far node by several routers",
            &with_multipath_default,
            "192.168.200.101",
            true,
            Cost(1),
        ),
        (
            "the same without tunnel",
            &with_multipath_default,
            "192.168.200.101",
            false,
            Unresolvable,
        ),
        (
            "no node, by several routers",
            &with_multipath_default,
            "198.51.100.7",
            true,
            Unresolvable,
        ),
    ] {
        let snapshot = snapshot(CROSS);
        let node = snapshot.node("a1").expect("a1");
        let mut host = host();
        change(&mut host);
        let tunnel = Some(tunnel()).filter(|_| has_tunnel);
        let resolver = resolver(&snapshot, node, &host, &tunnel);
        let reach = resolver.reach(next_hop.parse().expect(next_hop));
        assert_eq!(reach, expected, "{name}");
    }
}

#[test]
fn the_interface_of_a_next_hop_is_that_of_the_kernels_route() {
    let unchanged = |_: &mut HostView| {};
    let with_multipath_default = |host: &mut HostView| host.routes[0].device = None;
    let without_default = |host: &mut HostView| host.routes.retain(|r| !r.prefix.is_default());
    type Change<'a> = &'a dyn Fn(&mut HostView);
    for (name, change, next_hop, expected) in [
        (
            "on-link",
            &unchanged as Change<'_>,
            "192.168.100.101",
            Some("eth0"),
        ),
        (
            "by the default route",
            &unchanged,
            "198.51.100.7",
            Some("eth0"),
        ),
        ("ourselves", &unchanged, "192.168.100.100", None),
        ("no route", &without_default, "198.51.100.7", None),
        (
            "by several interfaces",
            &with_multipath_default,
            "198.51.100.7",
            None,
        ),
    ] {
        let snapshot = snapshot(CROSS);
        let node = snapshot.node("a1").expect("a1");
        let mut host = host();
        change(&mut host);
        let resolver = resolver(&snapshot, node, &host, []);
        let interface = resolver.interface(next_hop.parse().expect(next_hop));
        assert_eq!(interface, expected, "{name}");
    }
}

#[test]
fn what_needs_a_tunnel_that_is_not_there_is_not_programmed() {
    let snapshot = snapshot(ALWAYS);
    let node = snapshot.node("a1").expect("a1");
    let resolution = resolve_learned(
        "172.17.10.0/24".parse().expect("prefix"),
        "192.168.200.101".parse().expect("address"),
        &snapshot,
        node,
        &host(),
        None,
    );
    let reason =
        "192.168.200.101 is node b1, and IPPool main says Always, but there is no tunnel device";
    let expected = Resolution::Skip {
        reason: reason.to_owned(),
    };
    assert_eq!(resolution, expected);
}

#[test]
fn the_carriers_device_is_used_where_it_is_the_driver() {
    let snapshot = snapshot(CROSS);
    let node = snapshot.node("a1").expect("a1");
    let tunnel = plan(TunnelKind::Ipip, TunnelDriver::Userspace);
    let prefix = "172.17.10.0/24".parse().expect("prefix");
    let next_hop = "192.168.200.101".parse().expect("address");
    let resolution = resolve_learned(prefix, next_hop, &snapshot, node, &host(), Some(&tunnel));
    assert_eq!(
        shown(&resolution),
        "a via 192.168.200.101 dev caracal-tun src 172.17.8.1"
    );
}

/// `shown`, or the reason why not.
fn shown_or_why(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Skip { reason } => reason.clone(),
        Resolution::Program { .. } => shown(resolution),
    }
}

#[test]
fn each_pool_takes_its_own_kind_of_tunnel() {
    let blocked = TunnelPlan {
        tunnel: None,
        reason: "the foreign device x is in the way".to_owned(),
        ..plan(TunnelKind::Vxlan, TunnelDriver::Vxlan)
    };
    let vxlan = plan(TunnelKind::Vxlan, TunnelDriver::Vxlan);
    let udp = plan(TunnelKind::Udp, TunnelDriver::Udp);
    let (far, other_far) = ("192.168.200.101", "192.168.200.102");
    for (name, mode, plans, next_hop, expected) in [
        (
            "VXLAN leads to the node's tunnel address",
            "vxlanMode: CrossSubnet",
            vec![tunnel(), vxlan.clone(), udp.clone()],
            far,
            "a via 172.17.10.1 dev caracal-vxlan src 172.17.8.1",
        ),
        (
            "UDP leads to the node",
            "udpMode: Always",
            vec![tunnel(), vxlan.clone(), udp],
            far,
            "a via 192.168.200.101 dev caracal-udp src 172.17.8.1",
        ),
        (
            "a node whose tunnel address is another's",
            "vxlanMode: Always",
            vec![vxlan],
            other_far,
            "192.168.200.102 is node b2, and IPPool main says Always, but node b2 has no ipv4 \
             tunnel address",
        ),
        (
            "VXLAN that is blocked",
            "vxlanMode: Always",
            vec![blocked],
            far,
            "192.168.200.101 is node b1, and IPPool main says Always, but the foreign device x is \
             in the way",
        ),
    ] {
        let snapshot = snapshot(mode);
        let node = snapshot.node("a1").expect("a1");
        let host = host();
        let resolver = resolver(&snapshot, node, &host, &plans);
        let prefix = "172.17.10.0/24".parse().expect("prefix");
        let resolution = resolver.resolve(prefix, next_hop.parse().expect(next_hop));
        assert_eq!(shown_or_why(&resolution), expected, "{name}");
    }
}

#[test]
fn vxlan_carries_ipv6_to_the_nodes_ipv6_tunnel_address() {
    let stream = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: a1}
spec: {bgp: {ipv4Address: 192.168.100.100}, podCIDRs: [172.17.8.0/24, 'fd00:8::/64']}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: b1}
spec:
  bgp: {ipv4Address: 192.168.200.101, ipv6Address: 'fd00:200::101'}
  podCIDRs: [172.17.10.0/24, 'fd00:10::/64']
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: six}
spec: {cidr: 'fd00::/16', vxlanMode: Always}
";
    let snapshot = load(&parse_stream("f.yaml", stream)).0;
    let node = snapshot.node("a1").expect("a1");
    let host = host();
    let settings = tunnel::TunnelSettings::default();
    let plans = tunnel::resolve_tunnels(&snapshot, node, &host, &settings);
    let resolver = resolver(&snapshot, node, &host, &plans);
    let prefix = "fd00:10::/64".parse().expect("prefix");
    let resolution = resolver.resolve(prefix, "fd00:200::101".parse().expect("address"));
    assert_eq!(
        shown_or_why(&resolution),
        "a via fd00:10::1 dev caracal-vxlan src fd00:8::1"
    );
}

#[test]
fn own_pod_cidrs_are_blackholed() {
    let snapshot = snapshot(CROSS);
    let node = snapshot.node("a1").expect("a1");
    let expected = [("172.17.8.0/24".parse().expect("prefix"), Route::Blackhole)];
    assert_eq!(blackholes(node), expected.into());
}

#[test]
fn equal_paths_join_the_best_where_they_go_its_way() {
    let tunnelled = "via 192.168.200.101 dev caracal-ipip";
    let second = "via 192.168.200.102 dev caracal-ipip";
    let near = "via 192.168.100.101 dev eth0";
    let router = "via 192.168.100.3 dev eth0";
    let (far_node, other_far_node) = ("192.168.200.101", "192.168.200.102");
    let (near_node, near_router) = ("192.168.100.101", "192.168.100.3");
    for (name, next_hops, expected, source) in [
        ("one", vec![near_node], vec![near], false),
        (
            "two direct, in their own order",
            vec![near_node, near_router],
            vec![router, near],
            false,
        ),
        (
            "the same the other way round",
            vec![near_router, near_node],
            vec![router, near],
            false,
        ),
        (
            "two tunnelled",
            vec![far_node, other_far_node],
            vec![tunnelled, second],
            true,
        ),
        (
            "the best is tunnelled",
            vec![far_node, near_router],
            vec![tunnelled],
            true,
        ),
        (
            "the best is direct",
            vec![near_node, far_node],
            vec![near],
            false,
        ),
        (
            "behind one router",
            vec!["198.51.100.7", "198.51.100.8"],
            vec!["via 192.168.100.1 dev eth0"],
            false,
        ),
        (
            "the best does not resolve",
            vec!["10.20.0.1", near_node],
            vec![near],
            false,
        ),
        (
            "another does not",
            vec![near_node, "192.168.100.100"],
            vec![near],
            false,
        ),
        (
            "by both families",
            vec![near_router, "fd00:100::7"],
            vec![router, "via fd00:100::7 dev eth0"],
            false,
        ),
        ("none does", vec!["10.20.0.1", "10.9.9.9"], vec![], false),
    ] {
        let snapshot = snapshot(CROSS);
        let node = snapshot.node("a1").expect("a1");
        let (host, tunnel) = (host(), tunnel());
        let mut resolver = resolver(&snapshot, node, &host, [&tunnel]);
        let next_hops: Vec<IpAddr> = next_hops
            .iter()
            .map(|text| text.parse().expect(text))
            .collect();
        let prefix = "172.17.10.0/24".parse().expect("prefix");
        let resolved = resolver.resolve_all(prefix, next_hops.iter().copied().collect());
        let (hops, is_tunnelled): (Vec<String>, bool) = match resolved.route.as_deref() {
            Some(Route::Via { hops, source }) => {
                let text = |hop: &Hop| format!("via {} dev {}", hop.gateway, hop.device);
                (hops.iter().map(text).collect(), source.is_some())
            }
            _ => (Vec::new(), false),
        };
        assert_eq!(hops, expected, "{name}: {resolved:?}");
        assert_eq!(is_tunnelled, source, "{name}");
        let shown: Vec<IpAddr> = resolved
            .paths
            .iter()
            .map(|(next_hop, _)| *next_hop)
            .collect();
        assert_eq!(shown, next_hops, "{name}: each is shown");
    }
}
