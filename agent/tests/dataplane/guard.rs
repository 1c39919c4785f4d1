//! What a node does not take: packets under another's name, and tunnels that are not nodes'.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use agent::carrier::{Encapsulation, supervise};
use agent::dataplane::desired::{Desired, TunnelDriver};
use agent::dataplane::{Dataplane, DataplaneOptions};
use agent::names::vtep_mac;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

use crate::capture::{Capture, Packet};
use crate::crafted::{datagram, packet, send, send_tunnelled};
use crate::netns::{Namespace, wait_until};
use crate::site::{DEADLINE, PROTOCOL_ICMP, PROTOCOL_IPIP, Site, options, site};

const PROTOCOL_UDP: u8 = 17;
const PORT: u16 = 7000;
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const WORKLOAD: Ipv4Addr = Ipv4Addr::new(172, 17, 1, 2);
/// No address of the workload.
const OTHER: Ipv4Addr = Ipv4Addr::new(172, 17, 1, 3);
/// No node.
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

fn ready() -> Option<Site> {
    let site = site([TunnelDriver::Userspace; 2])?;
    site.wait_for_ping();
    Some(site)
}

/// Waits for a packet with this text, and returns all before it.
fn seen_before(capture: &mut Capture, text: &[u8]) -> Vec<Packet> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let packets = capture.packets();
        if let Some(at) = packets
            .iter()
            .position(|packet| packet.bytes.ends_with(text))
        {
            return packets[..at].to_vec();
        }
        assert!(
            Instant::now() < deadline,
            "no packet with {text:?}: {packets:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn has(packets: &[Packet], text: &[u8]) -> bool {
    packets.iter().any(|packet| packet.bytes.ends_with(text))
}

#[test]
fn workload_sends_with_its_own_source_only() {
    let Some(site) = ready() else { return };
    let [one, _] = &site.nodes;
    let mut at_router = Capture::start(&site.router);
    send(
        &one.workload,
        OTHER,
        ROUTER,
        PROTOCOL_UDP,
        &datagram(PORT, b"spoofed"),
    );
    send(
        &one.workload,
        one.local,
        ROUTER,
        PROTOCOL_UDP,
        &datagram(PORT, b"as the host"),
    );
    send(
        &one.workload,
        WORKLOAD,
        ROUTER,
        PROTOCOL_UDP,
        &datagram(PORT, b"right"),
    );
    let before = seen_before(&mut at_router, b"right");
    assert!(!has(&before, b"spoofed"), "{before:?}");
    assert!(!has(&before, b"as the host"), "{before:?}");

    // Without our table the host forwards it: it was the table.
    let (is_ok, output) = one.host.run("nft delete table inet caracal");
    assert!(is_ok, "{output}");
    send(
        &one.workload,
        OTHER,
        ROUTER,
        PROTOCOL_UDP,
        &datagram(PORT, b"unguarded"),
    );
    seen_before(&mut at_router, b"unguarded");
}

#[test]
fn workload_still_reaches_the_host_and_its_gateway() {
    let Some(site) = ready() else { return };
    let [one, two] = &site.nodes;
    for address in [
        one.local.to_string(),
        two.local.to_string(),
        "172.17.1.1".to_owned(),
    ] {
        assert!(one.workload.can_ping(&address), "{address}");
    }
    let neighbours = one.workload.ip("neigh show");
    assert!(neighbours.contains("169.254.1.1 dev eth0"), "{neighbours}");
}

/// Sends `inner` to node 1 as `driver` would on a node at `source`, from the router.
fn send_as(site: &Site, driver: TunnelDriver, source: Ipv4Addr, inner: &[u8]) {
    let (protocol, payload) = match driver {
        TunnelDriver::Kernel | TunnelDriver::Userspace => (PROTOCOL_IPIP, inner.to_vec()),
        TunnelDriver::Udp => (PROTOCOL_UDP, datagram(8285, inner)),
        TunnelDriver::Vxlan => (PROTOCOL_UDP, datagram(4789, &in_vxlan(0x10, inner))),
    };
    let local = site.nodes[0].local;
    send(&site.router, source, local, protocol, &payload);
}

/// Network `vni` times 256, between the VXLAN devices of the site's nodes.
fn in_vxlan(vni: u8, inner: &[u8]) -> Vec<u8> {
    let header = [8, 0, 0, 0, 0, vni, 0, 0];
    let (to, from) = (vtep_mac("1"), vtep_mac("2"));
    [&header[..], &to, &from, &[8, 0], inner].concat()
}

#[test]
fn tunnelled_packets_are_taken_from_nodes_only() {
    for driver in [
        TunnelDriver::Userspace,
        TunnelDriver::Udp,
        TunnelDriver::Vxlan,
    ] {
        expect_nodes_only(driver);
    }
}

pub fn expect_nodes_only(driver: TunnelDriver) {
    let Some(site) = site([driver; 2]) else {
        return;
    };
    site.wait_for_ping();
    let [one, two] = &site.nodes;
    let socket = bind(&one.workload, WORKLOAD, PORT);
    let inner = |text: &[u8]| packet(PROTOCOL_UDP, &datagram(PORT, text));
    send_as(&site, driver, STRANGER, &inner(b"no"));
    send_as(&site, driver, ROUTER, &inner(b"no"));
    send_as(&site, driver, two.local, &inner(b"yes"));
    assert_eq!(receive(&socket), b"yes", "{driver:?}");

    let (is_ok, output) = one.host.run("nft delete table inet caracal");
    assert!(is_ok, "{output}");
    send_as(&site, driver, STRANGER, &inner(b"unguarded"));
    assert_eq!(
        receive(&socket),
        b"unguarded",
        "{driver:?}: it was the table"
    );
}

/// A device of the user's beside ours, on the same port.
#[test]
fn other_networks_of_vxlan_are_not_touched() {
    let Some(site) = site([TunnelDriver::Vxlan; 2]) else {
        return;
    };
    let [one, _] = &site.nodes;
    let local = one.local;
    one.host.ip(&format!(
        "link add theirs type vxlan id 4352 local {local} dstport 4789 nolearning"
    ));
    one.host.ip("link set theirs up");
    let mut at_host = Capture::start(&one.host);
    let inner = packet(PROTOCOL_UDP, &datagram(PORT, b"theirs"));
    let payload = datagram(4789, &in_vxlan(0x11, &inner));
    send(&site.router, STRANGER, local, PROTOCOL_UDP, &payload);
    wait_until(
        "the packet out of their device",
        DEADLINE,
        || {
            let out = |packet: &Packet| {
                packet.destination == WORKLOAD && packet.bytes.ends_with(b"theirs")
            };
            at_host.packets().iter().any(out)
        },
        || one.host.run("nft list table inet caracal").1 + &one.host.ip("-s link show"),
    );
}

#[test]
fn device_that_waits_for_its_end_is_guarded_still() {
    let Some(site) = ready() else { return };
    let [one, _] = &site.nodes;
    let desired = Desired {
        tunnels: BTreeMap::new(),
        ..one.desired.clone()
    };
    one.host.block_on(async || {
        let options = DataplaneOptions {
            tunnel_linger: Duration::from_secs(3600),
            ..options(one.run_dir.path())
        };
        let mut dataplane = Dataplane::open(options).await.expect("opens");
        dataplane.apply(&one.desired).await;
        let before = one.host.run("nft -s list table inet caracal");
        let report = dataplane.apply(&desired).await;
        assert_eq!(report.failed, []);
        assert_eq!(one.host.run("nft -s list table inet caracal"), before);
    });
}

#[test]
fn node_that_joins_is_let_in_and_one_that_leaves_is_not() {
    let Some(site) = ready() else { return };
    let [one, _] = &site.nodes;
    let socket = bind(&one.workload, WORKLOAD, PORT);
    let inner = |text: &[u8]| packet(PROTOCOL_UDP, &datagram(PORT, text));
    let with = |more: &[Ipv4Addr]| {
        let mut desired = one.desired.clone();
        for tunnel in desired.tunnels.values_mut() {
            tunnel.remotes.extend(more);
        }
        desired
    };
    one.host.block_on(async || {
        let mut dataplane = one.open().await;
        dataplane.apply(&with(&[STRANGER])).await;
        send_tunnelled(&site.router, STRANGER, one.local, &inner(b"joined"));
        assert_eq!(receive(&socket), b"joined");
        dataplane.apply(&with(&[])).await;
        send_tunnelled(&site.router, STRANGER, one.local, &inner(b"left"));
    });
    let two = site.nodes[1].local;
    send_tunnelled(&site.router, two, one.local, &inner(b"node"));
    assert_eq!(receive(&socket), b"node");
}

/// The user's own, at an address that is not the node's; and what only passes through.
#[test]
fn foreign_tunnels_are_not_touched() {
    let Some(site) = ready() else { return };
    let [one, _] = &site.nodes;
    let own = Ipv4Addr::new(10, 9, 9, 9);
    one.host.ip(&format!("addr add {own}/32 dev lo"));
    site.router
        .ip(&format!("route add {own} via {}", one.local));
    let socket = one.host.enter(|| {
        let protocol = Protocol::from(i32::from(PROTOCOL_IPIP));
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).expect("raw");
        let address: SocketAddr = (own, 0).into();
        socket.bind(&address.into()).expect("binds");
        socket.set_read_timeout(Some(DEADLINE)).expect("settable");
        socket
    });
    send_tunnelled(&site.router, ROUTER, own, b"theirs");
    let mut buffer = [0; 64];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("arrives");
    assert!(buffer[..length].ends_with(b"theirs"));

    let vxlan = bind(&one.host, one.local, 4789);
    send(
        &site.router,
        ROUTER,
        one.local,
        PROTOCOL_UDP,
        &datagram(4789, &[8, 0, 0, 0, 0, 0x10, 0, 0]),
    );
    receive(&vxlan);
}

fn bind(namespace: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind((address, port)));
    let socket = socket.expect("binds");
    socket.set_read_timeout(Some(DEADLINE)).expect("settable");
    socket
}

/// The next datagram, at most 64 octets of it.
fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => return buffer[..length].to_vec(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("nothing arrives: {error}"),
        }
    }
}

#[test]
fn workload_is_no_tunnel() {
    let Some(site) = ready() else { return };
    let [one, two] = &site.nodes;
    let mut at_router = Capture::start(&site.router);
    let vxlan = |vni: u8| [&[8, 0, 0, 0, 0, vni, 0, 0], &b"encapsulated"[..]].concat();
    let as_workload = |to, protocol, payload: &[u8]| {
        send(&one.workload, WORKLOAD, to, protocol, payload);
    };
    as_workload(two.local, PROTOCOL_IPIP, b"encapsulated");
    as_workload(two.local, PROTOCOL_UDP, &datagram(8285, b"encapsulated"));
    as_workload(two.local, PROTOCOL_UDP, &datagram(4789, &vxlan(0x10)));
    as_workload(two.local, PROTOCOL_UDP, &datagram(PORT, b"datagram"));
    let before = seen_before(&mut at_router, b"datagram");
    assert!(!has(&before, b"encapsulated"), "{before:?}");

    // Its own business: another network, or hosts that are no nodes.
    as_workload(two.local, PROTOCOL_UDP, &datagram(4789, &vxlan(0x11)));
    seen_before(&mut at_router, b"encapsulated");
    let mut at_router = Capture::start(&site.router);
    as_workload(ROUTER, PROTOCOL_IPIP, b"encapsulated");
    seen_before(&mut at_router, b"encapsulated");
}

#[test]
fn host_reaches_remote_workloads_under_any_of_its_addresses() {
    let Some(site) = ready() else { return };
    let [one, two] = &site.nodes;
    let mut at_workload = Capture::start(&two.workload);
    let ping = format!("ping -n -c 1 -W 5 -I {} 172.17.2.2", one.local);
    let (is_ok, output) = one.host.run(&ping);
    assert!(is_ok, "{output}");
    let to_workload = at_workload
        .packets()
        .iter()
        .filter(|packet| packet.destination == Ipv4Addr::new(172, 17, 2, 2));
    let sources: Vec<Ipv4Addr> = to_workload.map(|packet| packet.source).collect();
    assert!(
        !sources.is_empty()
            && sources
                .iter()
                .all(|source| *source == Ipv4Addr::new(172, 17, 1, 1)),
        "{sources:?}"
    );
    // A workload keeps its own.
    assert!(one.workload.can_ping("172.17.2.2"));
    let has_workload = |packet: &Packet| packet.source == WORKLOAD;
    assert!(at_workload.packets().iter().any(has_workload));
}

/// Protocol and destination port of what was complained of with ICMP unreachable.
fn complained_of(capture: &mut Capture) -> Vec<(u8, u16)> {
    let is_unreachable =
        |packet: &&Packet| packet.protocol == PROTOCOL_ICMP && packet.bytes.get(20) == Some(&3);
    let complaints = capture.packets().iter().filter(is_unreachable);
    complaints
        .filter_map(|packet| {
            let inner = packet.bytes.get(28..)?;
            let port = inner.get(22..24)?.try_into().ok()?;
            Some((*inner.get(9)?, u16::from_be_bytes(port)))
        })
        .collect()
}

#[test]
fn node_without_carrier_for_a_moment_does_not_complain_to_nodes() {
    const CLOSED: u16 = 9;
    for (driver, encapsulation) in [
        (TunnelDriver::Userspace, Encapsulation::Ipip),
        (TunnelDriver::Udp, Encapsulation::Udp),
    ] {
        let Some(site) = site([driver; 2]) else {
            return;
        };
        site.wait_for_ping();
        let [one, two] = &site.nodes;
        let run_dir = one.run_dir.path();
        let stop = async || supervise::stop(run_dir, encapsulation).await;
        one.host.block_on(stop).expect("stops");
        for is_guarded in [true, false] {
            if !is_guarded {
                let (is_ok, output) = one.host.run("nft delete table inet caracal");
                assert!(is_ok, "{output}");
            }
            let mut at_router = Capture::start(&site.router);
            send_as(&site, driver, two.local, b"nobody takes these octets");
            // Answered after it: a port that is closed is still complained of.
            let closed = datagram(CLOSED, b"nor this");
            send(&site.router, two.local, one.local, PROTOCOL_UDP, &closed);
            wait_until(
                "complaints",
                DEADLINE,
                || complained_of(&mut at_router).contains(&(PROTOCOL_UDP, CLOSED)),
                || one.host.run("nft list table inet caracal").1,
            );
            let first = complained_of(&mut at_router).remove(0);
            let is_of_closed = first == (PROTOCOL_UDP, CLOSED);
            assert_eq!(is_of_closed, is_guarded, "{driver:?}: {first:?}");
        }
    }
}
