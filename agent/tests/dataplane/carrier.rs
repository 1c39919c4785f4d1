//! The userspace tunnel between two nodes whose router knows only the host subnets.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::carrier::{CarrierError, CarrierOptions, Encapsulation, run};
use agent::dataplane::desired::{Desired, LearnedChange, TunnelDriver};
use agent::names::CARRIER_DEVICE;

use crate::capture::{Capture, Packet};
use crate::crafted::{send_tunnelled, unfinished};
use crate::netns::wait_until;
use crate::site::{self, DEADLINE, PROTOCOL_ICMP, PROTOCOL_IPIP, Site, running, running_driver};

const USERSPACE: [TunnelDriver; 2] = [TunnelDriver::Userspace; 2];

fn site() -> Option<Site> {
    crate::site::site(USERSPACE)
}

/// Not a test: what the supervisor starts. The test program stands for `caracal-agent carrier`.
#[test]
#[ignore = "the carrier's program, started by the other tests"]
fn as_program() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments
            .iter()
            .position(|argument| argument == name)
            .expect("given");
        arguments[at + 1].clone()
    };
    let local = value("--local").parse().expect("an address");
    let encapsulation = match value("--encapsulation").as_str() {
        "udp" => Encapsulation::Udp,
        _ => Encapsulation::Ipip,
    };
    let options = CarrierOptions {
        run_dir: value("--run-dir").into(),
        local,
        encapsulation,
        takes_over: arguments.iter().any(|argument| argument == "--take-over"),
    };
    if let Err(error) = run(&options) {
        eprintln!("{error:?}");
        std::process::exit(1);
    }
}

#[test]
fn workloads_reach_each_other_through_the_tunnel() {
    let Some(site) = site() else { return };
    let mut capture = Capture::start(&site.router);
    site.wait_for_ping();
    let [one, two] = &site.nodes;
    assert!(two.workload.can_ping("172.17.1.2"));
    assert!(
        one.host.can_ping("172.17.2.2"),
        "from the host too, with the tunnel's address"
    );
    let outer: Vec<_> = capture
        .packets()
        .iter()
        .filter(|packet| packet.protocol == PROTOCOL_IPIP)
        .cloned()
        .collect();
    for (from, to) in [(one.local, two.local), (two.local, one.local)] {
        assert!(
            outer
                .iter()
                .any(|packet| (packet.source, packet.destination) == (from, to)),
            "{from} to {to}"
        );
    }
    for packet in &outer {
        // TTL 64 less the router's one, or as it came in; header without options; DF as inside.
        assert!(
            matches!(packet.bytes[8], 63 | 64),
            "TTL {}",
            packet.bytes[8]
        );
        assert_eq!(packet.bytes[0], 0x45);
        assert_eq!(packet.bytes[20] >> 4, 4, "IPv4 inside");
        assert_eq!(packet.bytes[6] & 0x40, packet.bytes[26] & 0x40, "DF");
    }
    let inside = Ipv4Addr::new(172, 17, 1, 2);
    assert!(
        capture
            .packets()
            .iter()
            .all(|packet| packet.source != inside && packet.destination != inside),
        "the router sees no workload address outside of a tunnel"
    );
    if !site::makes_ipip(&site.router) {
        // With the module the kernel complains of packets that none of its tunnels takes; peers
        // take no notice.
        assert!(
            capture
                .packets()
                .iter()
                .all(|packet| packet.protocol != PROTOCOL_ICMP),
            "no ICMP protocol unreachable from the kernel"
        );
    }
}

#[test]
fn killed_carrier_is_back_within_a_second() {
    let Some(site) = site() else { return };
    site.wait_for_ping();
    let [one, _] = &site.nodes;
    one.host.block_on(async || {
        let dataplane = one.open().await;
        let (first, is_adopted) = running(&dataplane).await;
        assert!(is_adopted);
        let before = (
            one.host.ip("route show"),
            one.host.ip("neigh show nud permanent"),
        );
        let kill = Instant::now();
        kill_pid(first);
        let routes = one.host.ip("route show");
        assert_eq!(
            routes.replace(" linkdown", ""),
            before.0.replace(" linkdown", ""),
            "routes stay without a carrier"
        );
        loop {
            let (pid, is_adopted) = running(&dataplane).await;
            if pid != first {
                println!("carrier is back after {:?}", kill.elapsed());
                assert!(
                    kill.elapsed() < Duration::from_secs(1),
                    "{:?}",
                    kill.elapsed()
                );
                assert!(!is_adopted);
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(
            (
                one.host.ip("route show"),
                one.host.ip("neigh show nud permanent")
            ),
            before
        );
    });
    site.wait_for_ping();
}

#[test]
fn next_agent_adopts_the_carrier_and_writes_nothing() {
    let Some(site) = site() else { return };
    let [one, _] = &site.nodes;
    let pids: Vec<_> = (0..2)
        .map(|_| {
            one.host.block_on(async || {
                let dataplane = one.open().await;
                let running = running(&dataplane).await;
                assert_eq!(dataplane.writes().await, 0, "everything was in place");
                running
            })
        })
        .collect();
    assert!(
        pids.iter()
            .all(|(pid, is_adopted)| *is_adopted && *pid == pids[0].0),
        "{pids:?}"
    );
    site.wait_for_ping();
}

#[test]
fn spoilt_tunnel_device_is_put_right() {
    let Some(site) = site() else { return };
    let [one, _] = &site.nodes;
    let evidence = || {
        let device = one.host.ip("addr show caracal-tun");
        // The index changes when the device is made anew, and with it the neighbours' order.
        let device = device.split_once(':').expect("index").1;
        let others = one.host.ip("neigh show nud permanent") + &one.host.ip("route show");
        let mut lines: Vec<_> = device
            .lines()
            .chain(others.lines())
            .map(str::to_owned)
            .collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    let right = evidence();
    for (name, spoil) in [
        ("mtu", "ip link set caracal-tun mtu 1400"),
        ("address", "ip addr del 172.17.1.1/32 dev caracal-tun"),
        (
            "another address",
            "ip addr add 172.17.1.9/32 dev caracal-tun",
        ),
        ("down", "ip link set caracal-tun down"),
        ("MAC", "ip link set caracal-tun address 02:00:00:00:00:01"),
        ("ARP", "ip link set caracal-tun arp on"),
        (
            "rp_filter",
            "sysctl -qw net.ipv4.conf.caracal-tun.rp_filter=1",
        ),
        ("gone", "ip link del caracal-tun"),
    ] {
        one.host.block_on(async || {
            let mut dataplane = one.open().await;
            running(&dataplane).await;
            let (is_ok, output) = one.host.run(spoil);
            assert!(is_ok, "{name}: {output}");
            let mut repaired = 0;
            let deadline = Instant::now() + DEADLINE;
            while repaired == 0 || evidence() != right {
                assert!(
                    Instant::now() < deadline,
                    "{name}: {}\nnot\n{right}",
                    evidence()
                );
                let report = dataplane.apply(&one.desired).await;
                repaired += report.repairs.get("tunnel").copied().unwrap_or_default();
            }
        });
        site.wait_for_ping();
    }
}

#[test]
fn only_one_carrier_per_run_directory() {
    let Some(site) = site() else { return };
    let [one, _] = &site.nodes;
    let options = CarrierOptions {
        run_dir: one.run_dir.path().into(),
        local: one.local,
        encapsulation: Encapsulation::Ipip,
        takes_over: false,
    };
    let second = one.host.enter(|| run(&options));
    assert!(
        matches!(second, Err(CarrierError::AlreadyRunning(_))),
        "{second:?}"
    );
    site.wait_for_ping();
}

#[test]
fn changed_address_replaces_the_carrier_and_no_tunnel_stops_it() {
    let Some(site) = site() else { return };
    let [one, _] = &site.nodes;
    one.host.ip("addr add 192.168.1.101/24 dev eth0");
    one.host.block_on(async || {
        let mut dataplane = one.open().await;
        let (first, _) = running(&dataplane).await;
        let mut moved = one.desired.clone();
        for tunnel in moved.tunnels.values_mut() {
            tunnel.local = Ipv4Addr::new(192, 168, 1, 101);
        }
        let report = dataplane.apply(&moved).await;
        assert!(report.failed.is_empty(), "{report:?}");
        let (second, is_adopted) = running(&dataplane).await;
        assert!(second != first && !is_adopted);

        let without = Desired {
            tunnels: [].into(),
            ..moved
        };
        let report = dataplane.apply(&without).await;
        assert!(report.failed.is_empty(), "{report:?}");
        let (still, _) = running(&dataplane).await;
        assert_eq!(still, second, "a route uses it");
        let learned = LearnedChange {
            route: None,
            ..one.learned.clone()
        };
        let report = dataplane.apply_learned(vec![learned]).await;
        assert!(report.failed.is_empty(), "{report:?}");
        assert_eq!(dataplane.carrier_status(TunnelDriver::Userspace), None);
        assert!(
            !one.host.run(&format!("ip link show {CARRIER_DEVICE}")).0,
            "its device is gone"
        );
        assert!(
            !PathBuf::from(format!("/proc/{second}/exe")).exists(),
            "its process is gone"
        );
    });
}

#[test]
fn smaller_path_mtu_is_told_to_the_workload() {
    for driver in [TunnelDriver::Userspace, TunnelDriver::Udp] {
        let Some(site) = crate::site::site([driver; 2]) else {
            return;
        };
        site.wait_for_ping();
        let [one, two] = &site.nodes;
        // Between the racks: neither node's NIC says so.
        site.router
            .ip("route replace 192.168.2.0/24 dev rack2 mtu lock 1400");
        site.router
            .ip("route replace 192.168.1.0/24 dev rack1 mtu lock 1400");
        let fits = 1400 - driver.overhead();
        for (from, to) in [(&one.workload, "172.17.2.2"), (&two.workload, "172.17.1.2")] {
            // Unfragmentable: the first makes the router complain to the node, a later one reaches
            // the node's carrier, which tells the workload.
            let mut told = String::new();
            wait_until(
                "the workload learns the MTU",
                DEADLINE,
                || {
                    told = from
                        .run(&format!("ping -n -M do -s 1400 -c 2 -i 0.2 -W 1 {to}"))
                        .1;
                    told.contains(&format!("mtu = {fits}")) || told.contains(&format!("mtu={fits}"))
                },
                || one.host.ip("route get 192.168.2.100"),
            );
            let largest = fits - 28;
            assert!(
                from.run(&format!("ping -n -M do -s {largest} -c 1 -W 1 {to}"))
                    .0,
                "{driver:?} to {to}: what fits passes"
            );
            assert!(
                from.run(&format!("ping -n -M dont -s 1400 -c 5 -i 0.2 -W 1 {to}"))
                    .0,
                "{driver:?} to {to}: what may be fragmented passes"
            );
        }
    }
}

/// Sends `inner` to node 1 as node 2 would, from the router.
fn inject(site: &Site, inner: &[u8]) {
    let [one, two] = &site.nodes;
    send_tunnelled(&site.router, two.local, one.local, inner);
}

/// A sender on the same machine leaves checksums to hardware that is never reached.
#[test]
fn packet_with_unfinished_checksum_arrives() {
    let Some(site) = site() else { return };
    site.wait_for_ping();
    let socket = site.nodes[0]
        .workload
        .enter(|| UdpSocket::bind("172.17.1.2:7000"))
        .expect("binds");
    socket.set_read_timeout(Some(DEADLINE)).expect("settable");
    let datagram = |text: &[u8; 4]| [&[0x1b, 0x58, 0x1b, 0x58, 0, 12, 0, 0], &text[..]].concat();
    inject(&site, &unfinished(17, &datagram(b"bad "), 6, 1));
    inject(&site, &unfinished(17, &datagram(b"good"), 6, 0));
    let mut buffer = [0; 16];
    let length = socket.recv(&mut buffer).expect("arrives");
    assert_eq!(
        &buffer[..length],
        b"good",
        "a wrong checksum is still found out"
    );
}

/// GRO joins TCP segments before a raw socket sees them.
#[test]
fn joined_segments_arrive_although_larger_than_the_link() {
    const DATA: usize = 5000;
    let Some(site) = site() else { return };
    site.wait_for_ping();
    let [one, two] = &site.nodes;
    // Room for what no wire would carry in one piece, and the path's true MTU.
    site.router.ip("link set rack1 mtu 9000");
    one.host.ip("link set eth0 mtu 9000");
    one.host
        .ip(&format!("route add {} via 192.168.1.1 mtu 1500", two.local));
    let mut at_workload = Capture::start(&one.workload);
    let mut at_router = Capture::start(&site.router);
    let mut segment = vec![0; 20 + DATA];
    segment[..13].copy_from_slice(&[0x1b, 0x58, 0x1b, 0x58, 0, 0, 0, 1, 0, 0, 0, 1, 5 << 4]);
    segment[13] = 0x10;
    inject(&site, &unfinished(6, &segment, 16, 0));
    wait_until(
        "all data arrives",
        DEADLINE,
        || {
            let tcp = at_workload
                .packets()
                .iter()
                .filter(|packet| packet.protocol == 6);
            let data: usize = tcp
                .filter(|packet| packet.destination == Ipv4Addr::new(172, 17, 1, 2))
                .map(|packet| packet.bytes.len() - 40)
                .sum();
            data == DATA
        },
        || one.host.ip("-s link show") + &one.host.run("nstat -az").1,
    );
    let is_frag_needed =
        |packet: &Packet| packet.protocol == PROTOCOL_ICMP && packet.bytes[20..22] == [3, 4];
    assert!(!at_router.packets().iter().any(is_frag_needed));
}

/// Sequence numbers in the order of their arrival, of datagrams sent at once.
fn burst(site: &Site, count: u32) -> Vec<u32> {
    let [one, two] = &site.nodes;
    let receiver = two
        .workload
        .enter(|| UdpSocket::bind("172.17.2.2:7001"))
        .expect("binds");
    let buffer = socket2::SockRef::from(&receiver);
    buffer.set_recv_buffer_size(1 << 25).expect("settable");
    let sender = one
        .workload
        .enter(|| UdpSocket::bind("172.17.1.2:0"))
        .expect("binds");
    let sending = std::thread::spawn(move || {
        for number in 0..count {
            let mut datagram = vec![0; 600];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            sender.send_to(&datagram, "172.17.2.2:7001").expect("sends");
        }
        // Until one arrives: it says that nothing comes after it.
        move || {
            let last = u32::MAX.to_be_bytes();
            sender.send_to(&last, "172.17.2.2:7001").expect("sends");
        }
    });
    let mut numbers = Vec::new();
    let mut receive = |wait: Duration| {
        receiver.set_read_timeout(Some(wait)).expect("settable");
        let mut datagram = [0; 1024];
        receiver.recv(&mut datagram).ok()?;
        let number = datagram
            .first_chunk()
            .map(|bytes| u32::from_be_bytes(*bytes));
        numbers.extend(number.filter(|number| *number != u32::MAX));
        number
    };
    while !sending.is_finished() {
        receive(Duration::from_millis(10));
    }
    let send_last = sending.join().expect("sends");
    let deadline = Instant::now() + DEADLINE;
    send_last();
    while !matches!(receive(Duration::from_millis(100)), Some(u32::MAX)) {
        assert!(Instant::now() < deadline, "the last one arrives");
        send_last();
    }
    numbers
}

#[test]
fn a_burst_arrives_without_duplicates_and_in_order() {
    const COUNT: u32 = 10_000;
    for driver in [TunnelDriver::Userspace, TunnelDriver::Udp] {
        let Some(site) = crate::site::site([driver; 2]) else {
            return;
        };
        site.wait_for_ping();
        let numbers = burst(&site, COUNT);
        println!("{driver:?}: {} of {COUNT} arrived", numbers.len());
        assert!(!numbers.is_empty(), "{driver:?}");
        let wrong = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
        assert_eq!(wrong, None, "{driver:?}");
    }
}

/// Octets that show where in the stream they belong.
fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn a_stream_arrives_whole_through_cut_and_joined_segments() {
    use std::io::{Read, Write};
    const LENGTH: usize = 20 << 20;
    const PIECE: usize = 100_003;
    for driver in [TunnelDriver::Userspace, TunnelDriver::Udp] {
        let Some(site) = crate::site::site([driver; 2]) else {
            return;
        };
        site.wait_for_ping();
        let [one, two] = &site.nodes;
        let target = "172.17.2.2:7000";
        let listener = two
            .workload
            .enter(|| std::net::TcpListener::bind(target))
            .expect("binds");
        let sink = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("reads");
            all
        });
        let mut stream = one
            .workload
            .enter(|| std::net::TcpStream::connect(target))
            .expect("connects");
        for start in (0..LENGTH).step_by(PIECE) {
            let piece = pattern(start, PIECE.min(LENGTH - start));
            stream.write_all(&piece).expect("writes");
        }
        drop(stream);
        let all = sink.join().expect("reads");
        assert_eq!(all.len(), LENGTH, "{driver:?}");
        let expected = pattern(0, LENGTH);
        let wrong = all
            .iter()
            .zip(&expected)
            .position(|(got, want)| got != want);
        assert_eq!(wrong, None, "{driver:?}");
        let (_, counters) = two.workload.run("nstat -asz TcpInCsumErrors");
        let errors = counters
            .lines()
            .find_map(|line| line.strip_prefix("TcpInCsumErrors"))
            .and_then(|rest| rest.split_whitespace().next());
        assert_eq!(errors, Some("0"), "{driver:?}: {counters}");
    }
}

#[test]
fn udp_mode_puts_ip_packets_into_datagrams_to_port_8285() {
    let Some(site) = crate::site::site([TunnelDriver::Udp; 2]) else {
        return;
    };
    let mut capture = Capture::start(&site.router);
    site.wait_for_ping();
    let [one, two] = &site.nodes;
    assert!(two.workload.can_ping("172.17.1.2"));
    assert!(one.host.can_ping("172.17.2.2"), "from the host too");
    let device = one.host.ip("addr show caracal-udp");
    assert!(
        device.contains("mtu 1472") && device.contains("172.17.1.1/32"),
        "{device}"
    );
    for (from, to) in [(one.local, two.local), (two.local, one.local)] {
        let outer: Vec<&Packet> = capture
            .packets()
            .iter()
            .filter(|packet| (packet.source, packet.destination) == (from, to))
            .collect();
        assert!(!outer.is_empty(), "{from} to {to}");
        for packet in outer {
            assert_eq!(packet.protocol, 17, "nothing but UDP");
            assert_eq!(packet.bytes[20..24], [0x20, 0x5d, 0x20, 0x5d], "ports 8285");
            assert_eq!(
                packet.bytes[28], 0x45,
                "an IPv4 packet and nothing before it"
            );
        }
    }
}

#[test]
fn killed_carrier_of_udp_mode_is_back() {
    let Some(site) = crate::site::site([TunnelDriver::Udp; 2]) else {
        return;
    };
    site.wait_for_ping();
    let [one, _] = &site.nodes;
    one.host.block_on(async || {
        let dataplane = one.open().await;
        let (first, is_adopted) = running_driver(&dataplane, TunnelDriver::Udp).await;
        assert!(is_adopted);
        kill_pid(first);
        let deadline = Instant::now() + DEADLINE;
        while running_driver(&dataplane, TunnelDriver::Udp).await.0 == first {
            assert!(Instant::now() < deadline, "{}", one.log());
            tokio::task::yield_now().await;
        }
    });
    site.wait_for_ping();
}

fn kill_pid(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("own carrier");
}

/// Not a test: prints the throughput of one TCP connection. Build with --release.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    const TIME: Duration = Duration::from_secs(3);
    for driver in [
        TunnelDriver::Userspace,
        TunnelDriver::Udp,
        TunnelDriver::Vxlan,
    ] {
        measure(driver, TIME);
    }
}

/// User and system time of the carriers, in clock ticks.
fn carrier_ticks(site: &Site) -> u64 {
    let mut ticks = 0;
    for node in &site.nodes {
        for stem in ["carrier", "carrier-udp"] {
            let pid = std::fs::read_to_string(node.run_dir.path().join(format!("{stem}.pid")));
            let stat =
                pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())));
            let stat = stat.unwrap_or_default();
            let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            ticks += fields
                .skip(11)
                .take(2)
                .filter_map(|text| text.parse::<u64>().ok())
                .sum::<u64>();
        }
    }
    ticks
}

fn measure(driver: TunnelDriver, time: Duration) {
    use std::io::{Read, Write};
    let Some(site) = crate::site::site([driver; 2]) else {
        return;
    };
    site.wait_for_ping();
    let [one, two] = &site.nodes;
    for (name, from, to, target) in [
        ("tunnel", &one.workload, &two.workload, "172.17.2.2:7000"),
        ("router only", &one.host, &two.host, "192.168.2.100:7000"),
    ] {
        let listener = to
            .enter(|| std::net::TcpListener::bind(target))
            .expect("binds");
        let sink = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            let mut buffer = vec![0; 1 << 18];
            let mut total = 0_u64;
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                total += length as u64;
            }
            total
        });
        let mut stream = from
            .enter(|| std::net::TcpStream::connect(target))
            .expect("connects");
        let start = Instant::now();
        let ticks = carrier_ticks(&site);
        let buffer = vec![0; 1 << 18];
        while start.elapsed() < time {
            stream.write_all(&buffer).expect("writes");
        }
        drop(stream);
        let total = sink.join().expect("reads");
        let rate = total as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6;
        let cpu = (carrier_ticks(&site) - ticks) as f64 / 100.0 / (total as f64 / 1e9);
        println!("{driver:?} {name}: {rate:.0} Mbit/s, carriers {cpu:.1} CPU s/GB");
    }
}
