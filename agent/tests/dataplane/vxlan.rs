//! The kernel's VXLAN between two nodes whose router knows only the host subnets.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use agent::dataplane::desired::{Desired, Hop, LearnedChange, Route, TunnelDriver};
use agent::names::vtep_mac;

use crate::capture::{Capture, Packet};
use crate::netns::{Namespace, wait_until};
use crate::routes::{has_ipv6, host, open, prefix};
use crate::site::{DEADLINE, Site, tunnel};

const PROTOCOL_UDP: u8 = 17;
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn site() -> Option<Site> {
    crate::site::site([TunnelDriver::Vxlan; 2])
}

fn desired(local: Ipv4Addr) -> Desired {
    let driver = TunnelDriver::Vxlan;
    Desired {
        tunnels: [(driver, tunnel(driver, local, 8, None))].into(),
        ..Desired::default()
    }
}

/// The VXLAN header and what follows, of UDP packets to port 4789.
fn vxlan(packet: &Packet) -> Option<&[u8]> {
    let is_vxlan =
        packet.protocol == PROTOCOL_UDP && packet.bytes[22..24] == 4789_u16.to_be_bytes();
    is_vxlan.then(|| &packet.bytes[28..])
}

#[test]
fn workloads_reach_each_other_and_the_router_sees_vxlan_alone() {
    let Some(site) = site() else { return };
    let mut capture = Capture::start(&site.router);
    site.wait_for_ping();
    let [one, two] = &site.nodes;
    assert!(two.workload.can_ping("172.17.1.2"));
    assert!(one.host.can_ping("172.17.2.2"), "from the host too");
    for (from, to, source, target) in [
        (one.local, two.local, "1", "2"),
        (two.local, one.local, "2", "1"),
    ] {
        let outer: Vec<&[u8]> = capture
            .packets()
            .iter()
            .filter(|packet| (packet.source, packet.destination) == (from, to))
            .filter_map(vxlan)
            .collect();
        assert!(!outer.is_empty(), "{from} to {to}");
        for bytes in outer {
            // RFC 7348 §5: flag I, VNI in the upper three octets of the second word.
            assert_eq!(bytes[..8], [8, 0, 0, 0, 0, 0x10, 0, 0], "VNI 4096");
            assert_eq!(bytes[8..14], vtep_mac(target), "to the other's MAC");
            assert_eq!(bytes[14..20], vtep_mac(source), "from ours");
            assert_eq!(bytes[20..22], [8, 0], "IPv4, and no ARP");
        }
    }
    let inside = Ipv4Addr::new(172, 17, 1, 2);
    let mut packets = capture.packets().iter();
    assert!(packets.all(|packet| packet.source != inside && packet.destination != inside));
}

fn evidence(host: &Namespace) -> String {
    let device = host.ip("-d addr show caracal-vxlan");
    // The index changes when the device is made anew, and with it the neighbours' order.
    let device = device.split_once(':').expect("index").1;
    let others = [
        host.ip("neigh show nud permanent"),
        host.ip("route show"),
        host.run("bridge fdb show dev caracal-vxlan").1,
    ];
    let mut lines: Vec<String> = device
        .lines()
        .chain(others.iter().flat_map(|text| text.lines()))
        .map(|line| line.trim().to_owned())
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// What was never ours is removed and no repair.
const NOT_COUNTED: &str = "";

#[test]
fn what_others_spoil_of_the_tunnel_is_put_right_and_counted() {
    let Some(site) = site() else { return };
    let [one, _] = &site.nodes;
    let right = evidence(&one.host);
    for part in [
        "vxlan id 4096 local 192.168.1.100",
        "dstport 4789",
        "nolearning",
        "mtu 1450",
        "dst 192.168.2.100",
    ] {
        assert!(right.contains(part), "{part}: {right}");
    }
    assert_eq!(one.host.sysctl("ipv4/conf/caracal-vxlan/rp_filter"), "2");
    let mac = vtep_mac("2").map(|octet| format!("{octet:02x}")).join(":");
    let device = "dev caracal-vxlan";
    for (name, kind, spoil) in [
        ("mtu", "tunnel", "ip link set caracal-vxlan mtu 1400".into()),
        (
            "address",
            "tunnel",
            format!("ip addr del 172.17.1.1/32 {device}"),
        ),
        (
            "another address",
            "tunnel",
            format!("ip addr add 172.17.1.9/32 {device}"),
        ),
        ("down", "tunnel", "ip link set caracal-vxlan down".into()),
        (
            "MAC",
            "tunnel",
            "ip link set caracal-vxlan address 02:00:00:00:00:01".into(),
        ),
        (
            "rp_filter",
            "tunnel",
            "sysctl -qw net.ipv4.conf.caracal-vxlan.rp_filter=1".into(),
        ),
        (
            "learning",
            "tunnel",
            "ip link set caracal-vxlan type vxlan id 4096 learning".into(),
        ),
        (
            "local",
            "tunnel",
            "ip link set caracal-vxlan type vxlan id 4096 local 192.168.1.1".into(),
        ),
        ("gone", "tunnel", "ip link del caracal-vxlan".into()),
        (
            "no forwarding entry",
            "forwarding",
            format!("bridge fdb del {mac} {device}"),
        ),
        (
            "another destination",
            "forwarding",
            format!("bridge fdb replace {mac} {device} dst 192.168.2.7"),
        ),
        (
            "an entry for nobody",
            NOT_COUNTED,
            format!("bridge fdb append 00:00:00:00:00:00 {device} dst 192.168.2.7"),
        ),
        (
            "no neighbour",
            "neighbour",
            format!("ip neigh del 172.17.2.1 {device}"),
        ),
        (
            "another neighbour",
            "neighbour",
            format!("ip neigh replace 172.17.2.1 lladdr 02:00:00:00:00:09 nud permanent {device}"),
        ),
    ] {
        one.host.block_on(async || {
            let mut dataplane = one.open().await;
            assert_eq!(
                dataplane.writes().await,
                0,
                "{name}: a restart writes nothing"
            );
            let (is_ok, output) = one.host.run(&spoil);
            assert!(is_ok, "{name}: {output}");
            let mut repaired = u64::from(kind == NOT_COUNTED);
            let deadline = Instant::now() + DEADLINE;
            while repaired == 0 || evidence(&one.host) != right {
                assert!(
                    Instant::now() < deadline,
                    "{name}: {repaired} repaired, {}\nnot\n{right}",
                    evidence(&one.host)
                );
                let report = dataplane.apply(&one.desired).await;
                assert!(report.failed.is_empty(), "{name}: {report:?}");
                repaired += report.repairs.get(kind).copied().unwrap_or_default();
            }
        });
        site.wait_for_ping();
    }
}

#[test]
fn a_device_of_other_parameters_is_made_anew() {
    let Some(host) = host() else { return };
    host.ip("link add caracal-vxlan type vxlan id 7 dstport 8472");
    host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane.apply(&desired(LOCAL)).await;
        assert!(report.failed.is_empty(), "{report:?}");
        let device = host.ip("-d link show caracal-vxlan");
        assert!(device.contains("vxlan id 4096"), "{device}");
        let other = Ipv4Addr::new(10, 0, 0, 7);
        let report = dataplane.apply(&desired(other)).await;
        assert!(
            report.failed.is_empty() && report.repairs.is_empty(),
            "{report:?}"
        );
        let device = host.ip("-d link show caracal-vxlan");
        assert!(device.contains("local 10.0.0.7"), "{device}");
        dataplane.apply(&Desired::default()).await;
    });
    assert!(!host.run("ip link show caracal-vxlan").0);
}

#[test]
fn foreign_device_with_our_parameters_is_named_and_left_alone() {
    let Some(host) = host() else { return };
    host.ip("link add theirs type vxlan id 4096 dstport 4789 local 10.0.0.1");
    host.block_on(async || {
        let mut dataplane = open().await;
        let view = dataplane.observe_host().await.expect("host is read");
        assert_eq!(view.foreign_vxlan.as_deref(), Some("theirs"));
        let report = dataplane.apply(&desired(LOCAL)).await;
        assert_eq!(report.failed.len(), 1, "{report:?}");
        let reason = &report.failed[0].1;
        assert!(
            reason.starts_with("device theirs has the parameters"),
            "{reason}"
        );
        host.ip("link del theirs");
        host.ip("link add others type vxlan id 4096 dstport 8472 local 10.0.0.1");
        let view = dataplane.observe_host().await.expect("host is read");
        assert_eq!(view.foreign_vxlan, None, "another port");
        let report = dataplane.apply(&desired(LOCAL)).await;
        assert!(report.failed.is_empty(), "{report:?}");
    });
    assert!(host.run("ip link show others").0);
}

#[test]
fn a_path_smaller_than_the_nic_passes_packets_with_and_without_df() {
    let Some(site) = site() else { return };
    site.wait_for_ping();
    let [one, two] = &site.nodes;
    site.router.ip("link set rack2 mtu 1400");
    two.host.ip("link set eth0 mtu 1400");
    for (from, to) in [(&one.workload, "172.17.2.2"), (&two.workload, "172.17.1.2")] {
        for (name, df) in [("DF", "do"), ("without DF", "dont")] {
            // 1420 octets with headers: more than the path, not more than the device.
            let ping = format!("ping -n -M {df} -s 1392 -c 1 -W 5 {to}");
            let (is_ok, output) = from.run(&ping);
            assert!(is_ok, "{name} to {to}: {output}");
        }
    }
}

#[test]
fn a_tunnel_that_is_not_wanted_stays_until_its_routes_have_left() {
    let Some(site) = site() else { return };
    let [one, _] = &site.nodes;
    one.host.block_on(async || {
        let mut dataplane = one.open().await;
        let udp = TunnelDriver::Udp;
        let remote = Some((Ipv4Addr::new(192, 168, 2, 100), 2));
        let other = Desired {
            tunnels: [(udp, tunnel(udp, one.local, 1, remote))].into(),
            ..one.desired.clone()
        };
        let report = dataplane.apply(&other).await;
        assert!(report.failed.is_empty(), "{report:?}");
        assert!(
            one.workload.can_ping("172.17.2.2"),
            "the route is still the old one"
        );
        let devices = one.host.ip("-o link show");
        assert!(
            devices.contains("caracal-vxlan") && devices.contains("caracal-udp"),
            "{devices}"
        );
        let learned = LearnedChange {
            route: None,
            ..one.learned.clone()
        };
        let report = dataplane.apply_learned(vec![learned]).await;
        assert!(report.failed.is_empty(), "{report:?}");
        let devices = one.host.ip("-o link show");
        assert!(!devices.contains("caracal-vxlan"), "{devices}");
    });
}

#[test]
fn vxlan_carries_ipv6_between_the_tunnel_addresses() {
    let Some(site) = site() else { return };
    if !has_ipv6() {
        println!("SKIPPED: this kernel has no IPv6");
        return;
    }
    let addresses = [1, 2].map(|number: u16| Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, 1));
    for (number, node) in site.nodes.iter().enumerate() {
        let (own, other) = (addresses[number], addresses[1 - number]);
        let mut desired = node.desired.clone();
        for tunnel in desired.tunnels.values_mut() {
            tunnel.address6 = Some(own);
            let mac = *tunnel.neighbours.values().next().expect("the other node");
            tunnel.neighbours.insert(other.into(), mac);
        }
        let learned = LearnedChange {
            prefix: prefix(&format!("fd00:{}::/64", 2 - number)),
            route: Some(Arc::new(Route::via(
                Hop {
                    gateway: other.into(),
                    device: "caracal-vxlan".into(),
                },
                Some(own.into()),
            ))),
        };
        node.host.block_on(async || {
            let mut dataplane = node.open().await;
            for report in [
                dataplane.apply(&desired).await,
                dataplane.apply_learned(vec![learned]).await,
            ] {
                assert!(report.failed.is_empty(), "{report:?}");
            }
            let before = dataplane.writes().await;
            dataplane.request_resync().await;
            let report = dataplane.apply(&desired).await;
            assert!(report.failed.is_empty(), "{report:?}");
            assert_eq!(dataplane.writes().await, before, "it is as it should be");
        });
    }
    let mut capture = Capture::start(&site.router);
    let [one, two] = &site.nodes;
    wait_until(
        "both reach each other",
        DEADLINE,
        || {
            let (from, to) = (addresses[0], addresses[1]);
            one.host.can_ping(&to.to_string()) && two.host.can_ping(&from.to_string())
        },
        || one.host.ip("-6 route show") + &one.host.ip("addr show caracal-vxlan"),
    );
    let inner: Vec<[u8; 2]> = capture
        .packets()
        .iter()
        .filter_map(vxlan)
        .map(|bytes| [bytes[20], bytes[21]])
        .collect();
    assert!(
        !inner.is_empty() && inner.iter().all(|ether| *ether == [0x86, 0xdd]),
        "{inner:?}"
    );
}
