//! The kernel's ipip device, where the kernel has it, and its agreement with the carrier.

use std::net::Ipv4Addr;

use agent::carrier::{Encapsulation, supervise};
use agent::dataplane::desired::{Desired, TunnelDriver};
use agent::dataplane::rehearsal::Rehearsal;
use agent::dataplane::{Dataplane, DataplaneOptions};
use agent::names::IPIP_DEVICE;

use crate::capture::{Capture, Packet};
use crate::guard;
use crate::netns::Namespace;
use crate::routes::{host, open};
use crate::site::{PROTOCOL_IPIP, has_kernel_ipip, site, tunnel};

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn host_with_ipip() -> Option<Namespace> {
    let host = host()?;
    has_kernel_ipip(&host).then_some(host)
}

fn desired(local: Ipv4Addr) -> Desired {
    let driver = TunnelDriver::Kernel;
    Desired {
        tunnels: [(driver, tunnel(driver, local, 8, None))].into(),
        ..Desired::default()
    }
}

fn evidence(host: &Namespace) -> String {
    host.ip(&format!("-d addr show {IPIP_DEVICE}"))
}

#[test]
fn ipip_device_is_as_specified_and_stays_so() {
    let Some(host) = host_with_ipip() else { return };
    let first = host.block_on(async || open().await.apply(&desired(LOCAL)).await);
    assert_eq!(first.failed, []);
    let device = evidence(&host);
    for part in [
        "NOARP,UP",
        "mtu 1480",
        "172.17.8.1/32",
        "remote any local 10.0.0.1",
        "ttl inherit",
        "tos inherit",
        "nopmtudisc",
    ] {
        assert!(device.contains(part), "{part}: {device}");
    }
    assert_eq!(host.sysctl("ipv4/conf/caracal-ipip/rp_filter"), "2");
    for (name, spoil) in [
        ("mtu", "ip link set caracal-ipip mtu 1400"),
        ("address", "ip addr del 172.17.8.1/32 dev caracal-ipip"),
        (
            "another address",
            "ip addr add 172.17.8.9/32 dev caracal-ipip",
        ),
        ("down", "ip link set caracal-ipip down"),
        (
            "ttl",
            "ip link set caracal-ipip type ipip local 10.0.0.1 ttl 7 pmtudisc",
        ),
        ("gone", "ip link del caracal-ipip"),
    ] {
        host.block_on(async || {
            let mut dataplane = open().await;
            dataplane.apply(&desired(LOCAL)).await;
            assert_eq!(
                dataplane.writes().await,
                0,
                "{name}: a restart writes nothing"
            );
            let (is_ok, output) = host.run(spoil);
            assert!(is_ok, "{name}: {output}");
            let report = dataplane.apply(&desired(LOCAL)).await;
            assert_eq!(report.repairs.get("tunnel"), Some(&1), "{name}: {report:?}");
        });
        assert_eq!(
            without_index(&evidence(&host)),
            without_index(&device),
            "{name}"
        );
    }
}

/// The index changes when a device is made anew.
fn without_index(text: &str) -> String {
    text.split_once(':')
        .map_or(text, |(_, rest)| rest)
        .to_owned()
}

#[test]
fn node_address_can_change() {
    let Some(host) = host_with_ipip() else { return };
    host.ip("addr add 10.0.0.7/24 dev eth0");
    host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&desired(LOCAL)).await;
        let report = dataplane.apply(&desired(Ipv4Addr::new(10, 0, 0, 7))).await;
        assert_eq!(report.failed, []);
        assert!(report.repairs.is_empty(), "{report:?}");
        assert!(
            evidence(&host).contains("local 10.0.0.7"),
            "{}",
            evidence(&host)
        );
        dataplane.apply(&Desired::default()).await;
    });
    assert!(!host.run(&format!("ip link show {IPIP_DEVICE}")).0);
}

/// What a dry run says of the tunnel, or why there can be none.
fn rehearsed(host: &Namespace) -> Result<Vec<String>, String> {
    host.block_on(async || {
        let options = DataplaneOptions {
            rehearsal: Rehearsal::begin(),
            ..DataplaneOptions::new("/nonexistent".into())
        };
        let mut dataplane = Dataplane::open(options).await.expect("kernel can be read");
        let mut report = dataplane.apply(&desired(LOCAL)).await;
        if let Some((_, reason)) = report.failed.pop() {
            return Err(reason);
        }
        let found = dataplane.rehearsed().await.expect("kernel can be read");
        let tunnel = found.iter().map(ToString::to_string);
        Ok(tunnel.filter(|line| line.contains(IPIP_DEVICE)).collect())
    })
}

#[test]
fn dry_run_says_how_the_device_would_be_and_makes_none() {
    let Some(host) = host_with_ipip() else { return };
    // The kernel's own, as another agent uses it.
    host.ip("addr add 172.17.8.1/32 dev tunl0");
    host.ip("link set tunl0 up");
    // The kernel finds out by itself that nobody else has its link-local addresses.
    let everything = || host.ip("-d addr show").replace(" tentative", "");
    let before = everything();
    let said = rehearsed(&host).expect("can be");
    let device = said.last().map(String::as_str);
    assert_eq!(
        device,
        Some(
            "+ link caracal-ipip: kind ipip, mtu 1480, up, noarp, local 10.0.0.1, remote 0.0.0.0, \
             ttl 0, tos 1, pmtudisc false, addresses 172.17.8.1/32"
        ),
        "{said:?}"
    );
    assert_eq!(everything(), before);
    host.block_on(async || open().await.apply(&desired(LOCAL)).await);
    assert_eq!(rehearsed(&host), Ok(vec![]));
    host.ip("link set caracal-ipip type ipip local 10.0.0.1 tos 0x8");
    let line = "~ link caracal-ipip: tos 8, would be tos 1";
    assert_eq!(rehearsed(&host), Ok(vec![line.to_owned()]));
}

#[test]
fn foreign_device_in_the_way_is_named() {
    let Some(host) = host_with_ipip() else { return };
    host.ip("link add theirs type ipip local 10.0.0.1");
    let reason = rehearsed(&host).expect_err("cannot be");
    assert!(
        reason.starts_with("device theirs has the parameters"),
        "{reason}"
    );
    host.block_on(async || {
        let mut dataplane = open().await;
        let view = dataplane.observe_host().await.expect("host is read");
        assert_eq!(
            view.foreign_ipip.get(&LOCAL).map(String::as_str),
            Some("theirs")
        );
        let report = dataplane.apply(&desired(LOCAL)).await;
        let failed = &report.failed;
        assert_eq!(failed.len(), 1, "{report:?}");
        assert!(
            failed[0].1.starts_with("device theirs has the parameters"),
            "{report:?}"
        );
    });
    assert!(host.run("ip link show theirs").0);
}

#[test]
fn kernel_and_carrier_understand_each_other() {
    use TunnelDriver::{Kernel, Userspace};
    for drivers in [[Kernel, Kernel], [Kernel, Userspace], [Userspace, Kernel]] {
        let Some(site) = site(drivers) else { return };
        site.wait_for_ping();
        assert!(site.nodes[1].workload.can_ping("172.17.1.2"), "{drivers:?}");
        assert!(site.nodes[0].host.can_ping("172.17.2.2"), "{drivers:?}");
    }
}

/// As people make tunnels without us, with two fixed ends or with one. Where the kernel has ipip and
/// the carrier receives, the kernel would complain to the sender that none of its tunnels takes the
/// packet, and one with two ends then refuse some of its own: the table in nftables keeps that back.
#[test]
fn tunnels_made_by_hand_are_understood() {
    let Some(host) = host_with_ipip() else { return };
    drop(host);
    let two_ends = (
        "tunnel add hand mode ipip local 192.168.2.100 remote 192.168.1.100 ttl 64",
        "route add 172.17.1.0/24 dev hand src 172.17.2.1",
    );
    let one_end = (
        "tunnel add hand mode ipip local 192.168.2.100 ttl 64",
        "route add 172.17.1.0/24 via 192.168.1.100 dev hand onlink src 172.17.2.1",
    );
    for (driver, (tunnel, route)) in [
        (TunnelDriver::Kernel, two_ends),
        (TunnelDriver::Kernel, one_end),
        (TunnelDriver::Userspace, two_ends),
        (TunnelDriver::Userspace, one_end),
    ] {
        let Some(site) = site([driver; 2]) else {
            return;
        };
        let [one, two] = &site.nodes;
        let run_dir = two.run_dir.path();
        let stop = async || supervise::stop(run_dir, Encapsulation::Ipip).await;
        two.host.block_on(stop).expect("its carrier stops");
        for words in [
            &format!("link del {}", driver.device()),
            tunnel,
            "addr add 172.17.2.1/32 dev hand",
            "link set hand up",
            route,
        ] {
            two.host.ip(words);
        }
        site.wait_for_ping();
        let mut at_router = Capture::start(&site.router);
        for (from, to) in [
            (&two.workload, "172.17.1.2"),
            (&two.host, "172.17.1.2"),
            (&one.host, "172.17.2.2"),
        ] {
            let (is_ok, output) = from.run(&format!("ping -n -c 5 -i 0.2 -W 1 {to}"));
            let is_whole = is_ok && output.contains(" 0% packet loss");
            let evidence = || two.host.ip("-s link show hand") + &two.host.ip("route show");
            assert!(is_whole, "{driver:?} to {to}: {output}{}", evidence());
            assert!(
                !output.contains("duplicates"),
                "{driver:?} to {to}: {output}"
            );
        }
        let is_tunnelled = |packet: &Packet| packet.protocol == PROTOCOL_IPIP;
        let packets = at_router.packets();
        assert!(packets.iter().all(is_tunnelled), "{driver:?}: {packets:?}");
    }
}

#[test]
fn kernels_tunnel_takes_packets_from_nodes_only() {
    if host_with_ipip().is_some() {
        guard::expect_nodes_only(TunnelDriver::Kernel);
    }
}
