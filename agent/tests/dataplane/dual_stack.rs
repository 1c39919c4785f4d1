//! Workloads with IPv6 addresses: what their host and they get for it, and what is kept from them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use agent::dataplane::desired::{Desired, Route, WorkloadLink};
use agent::dataplane::{AttachError, WorkloadSpec, attach_workload};
use agent::names::host_interface;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::{Namespace, wait_until};
use crate::routes::{has_ipv6, host, open, prefix};

const DEADLINE: Duration = Duration::from_secs(10);
const GATEWAY: &str = "fe80::ecee:eeff:feee:eeee";
const HOST: &str = "fd00:1::1";
const WORKLOADS: [(&str, [&str; 2]); 2] = [
    ("default.one", ["172.17.8.2", "fd00:8::2"]),
    ("default.two", ["172.17.8.3", "fd00:8::3"]),
];

/// A host of both families with two such workloads.
struct Scene {
    host: Namespace,
    workloads: Vec<Namespace>,
    desired: Desired,
}

fn scene() -> Option<Scene> {
    let mut scene = empty_scene()?;
    for (name, addresses) in WORKLOADS {
        scene.attach(name, &addresses);
    }
    Some(scene)
}

fn empty_scene() -> Option<Scene> {
    if !has_ipv6() {
        println!("SKIPPED: this kernel has no IPv6");
        return None;
    }
    let host = host()?;
    host.ip(&format!("addr add {HOST}/64 dev eth0 nodad"));
    Some(Scene {
        host,
        workloads: Vec::new(),
        desired: Desired {
            routes: ["172.17.8.0/24", "fd00:8::/64"]
                .map(|text| (prefix(text), Route::Blackhole))
                .into(),
            ..Desired::default()
        },
    })
}

impl Scene {
    fn attach(&mut self, name: &str, addresses: &[&str]) {
        let workload = Namespace::new().expect("one more namespace");
        self.attach_namespace(workload, name, addresses);
    }

    fn attach_namespace(&mut self, workload: Namespace, name: &str, addresses: &[&str]) {
        let spec = spec(&workload, name, addresses);
        let addresses: Vec<IpAddr> = spec.addresses.clone();
        let attached = self.host.block_on(async || attach_workload(spec).await);
        let link = WorkloadLink {
            addresses,
            mac: Some(attached.expect("attaches").mac),
        };
        self.desired.workloads.insert(host_interface(name), link);
        self.workloads.push(workload);
    }

    /// Everything as wanted.
    fn apply(&self) {
        self.host.block_on(async || {
            let report = open().await.apply(&self.desired).await;
            assert_eq!(report.failed, []);
            let states = &report.workload_states;
            assert!(states.values().all(Result::is_ok), "{report:?}");
        });
    }

    /// Everything the host's kernel shows of ours.
    fn evidence(&self) -> String {
        let iface = host_interface("default.one");
        let addresses = format!("-6 -o addr show {iface}");
        // The kernel makes the gateway's in its own time, although it looks for no duplicates.
        wait_until(
            "the gateway's address",
            DEADLINE,
            || !self.host.ip(&addresses).contains("tentative"),
            || self.host.ip(&addresses),
        );
        [
            self.host.ip("-6 route show"),
            self.host.ip("-6 neigh show nud permanent"),
            // Whether the kernel or the agent made it.
            self.host.ip(&addresses).replace(" nodad", ""),
            self.host.sysctl("ipv6/conf/all/forwarding"),
            self.host.sysctl(&format!("ipv6/conf/{iface}/forwarding")),
            self.host.sysctl(&format!("ipv6/conf/{iface}/accept_ra")),
            self.host.sysctl(&format!("ipv6/conf/{iface}/accept_dad")),
        ]
        .join("\n")
    }
}

fn spec(workload: &Namespace, name: &str, addresses: &[&str]) -> WorkloadSpec {
    let address = |text: &&str| text.parse().expect("an address");
    WorkloadSpec {
        netns: workload.descriptor(),
        container_interface: "eth0".into(),
        host_interface: host_interface(name),
        addresses: addresses.iter().map(address).collect(),
        mtu: 1480,
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

fn expect_ping(from: &Namespace, target: &str, host: &Namespace) {
    wait_until(
        target,
        DEADLINE,
        || from.can_ping(target),
        || from.ip("-6 neigh") + &host.ip("-6 route") + &host.ip("-6 neigh") + &host.ip("addr"),
    );
}

#[test]
fn workload_has_both_families_and_reaches_everybody() {
    let Some(scene) = scene() else { return };
    scene.apply();
    let [one, two] = scene.workloads.as_slice() else {
        unreachable!()
    };
    for target in ["172.17.8.3", "fd00:8::3", HOST, "10.0.0.1"] {
        expect_ping(one, target, &scene.host);
    }
    expect_ping(two, "fd00:8::2", &scene.host);
    expect_ping(&scene.host, "fd00:8::2", &scene.host);

    let addresses = one.ip("-6 -o addr show eth0 scope global");
    assert!(addresses.contains("fd00:8::2/128"), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
    let default = one.ip("-6 route show default");
    assert!(
        default.starts_with(&format!("default via {GATEWAY} dev eth0")),
        "{default}"
    );
    let neighbours = one.ip("-6 neigh show nud permanent");
    let gateway = format!("{GATEWAY} dev eth0 lladdr ee:ee:ee:ee:ee:ee");
    assert!(neighbours.contains(&gateway), "{neighbours}");
    for (path, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
        assert_eq!(one.sysctl(&format!("ipv6/conf/eth0/{path}")), value);
    }
}

#[test]
fn host_side_of_ipv6_is_as_specified() {
    let Some(scene) = scene() else { return };
    scene.apply();
    let (host, iface) = (&scene.host, host_interface("default.one"));
    let routes = host.ip("-6 route show proto 202");
    for route in [
        format!("fd00:8::2 dev {iface} metric 202"),
        String::from("blackhole fd00:8::/64 dev lo metric 202"),
    ] {
        assert!(routes.contains(&route), "{route}: {routes}");
    }
    let neighbours = host.ip(&format!("-6 neigh show dev {iface} nud permanent"));
    assert!(neighbours.contains("fd00:8::2 lladdr"), "{neighbours}");
    let addresses = host.ip(&format!("-6 -o addr show {iface}"));
    assert!(addresses.contains(&format!("{GATEWAY}/64 scope link")));
    assert_eq!(lines(&addresses).len(), 1, "{addresses}");
    assert_eq!(host.sysctl("ipv6/conf/all/forwarding"), "1");
    for (path, value) in [("forwarding", "1"), ("accept_ra", "0")] {
        assert_eq!(host.sysctl(&format!("ipv6/conf/{iface}/{path}")), value);
    }
}

#[test]
fn restart_writes_nothing() {
    let Some(scene) = scene() else { return };
    scene.apply();
    let before = scene.evidence();
    scene.host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane.apply(&scene.desired).await;
        assert_eq!((report.failed.len(), report.repairs.len()), (0, 0));
        assert_eq!(dataplane.writes().await, 0);
    });
    assert_eq!(scene.evidence(), before);
}

#[test]
fn what_others_spoil_of_ipv6_is_put_right_and_counted() {
    let Some(scene) = scene() else { return };
    scene.apply();
    let iface = host_interface("default.one");
    let right = scene.evidence();
    for (name, kind, spoil) in [
        (
            "route gone",
            "route",
            format!("ip -6 route del fd00:8::2 dev {iface}"),
        ),
        (
            "blackhole gone",
            "route",
            "ip -6 route del blackhole fd00:8::/64".into(),
        ),
        (
            "neighbour gone",
            "neighbour",
            format!("ip -6 neigh del fd00:8::2 dev {iface}"),
        ),
        (
            "another neighbour",
            "neighbour",
            format!(
                "ip -6 neigh replace fd00:8::2 lladdr 02:00:00:00:00:09 dev {iface} nud permanent"
            ),
        ),
        (
            "gateway gone",
            "address",
            format!("ip addr del {GATEWAY}/64 dev {iface}"),
        ),
        ("down", "link", format!("ip link set {iface} down")),
        (
            "no forwarding",
            "sysctl",
            "sysctl -qw net.ipv6.conf.all.forwarding=0".into(),
        ),
        (
            "routers heard",
            "sysctl",
            format!("sysctl -qw net.ipv6.conf.{iface}.accept_ra=2"),
        ),
    ] {
        scene.host.block_on(async || {
            let mut dataplane = open().await;
            dataplane.apply(&scene.desired).await;
            let (is_ok, output) = scene.host.run(&spoil);
            assert!(is_ok, "{name}: {output}");
            dataplane.request_resync().await;
            let report = dataplane.apply(&scene.desired).await;
            assert_eq!(report.failed, [], "{name}");
            assert!(report.repairs.contains_key(kind), "{name}: {report:?}");
        });
        // The kernel makes some of its own in its own time.
        let is_right = || scene.evidence() == right;
        wait_until(name, DEADLINE, is_right, || {
            format!("{}\nnot\n{right}", scene.evidence())
        });
    }
}

#[test]
fn workload_sends_with_its_own_ipv6_source_only() {
    let Some(scene) = scene() else { return };
    scene.apply();
    let [one, _] = scene.workloads.as_slice() else {
        unreachable!()
    };
    expect_ping(one, HOST, &scene.host);
    // The answer would find its way back: only the source is wrong.
    let iface = host_interface("default.one");
    one.ip("addr add fd00:8::bad/128 dev eth0 nodad");
    scene
        .host
        .ip(&format!("-6 route add fd00:8::bad dev {iface}"));
    let spoofed = format!("ping -n -c 1 -W 1 -I fd00:8::bad {HOST}");
    assert!(!one.run(&spoofed).0);
    assert!(scene.host.run("nft delete table inet caracal").0);
    wait_until(
        "without our table it is answered: it was the table",
        DEADLINE,
        || one.run(&spoofed).0,
        || scene.host.ip("-6 route"),
    );
}

/// RFC 4861 §4.2: a router for half an hour, and nothing else.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

/// Sends nothing while the router has no address to send from: it comes soon after its link is up.
fn advertise(router: &Namespace, device: &str) {
    let index = router.ip(&format!("-o link show {device}"));
    let index = index.split(':').next().and_then(|text| text.parse().ok());
    router.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("raw");
        socket.set_multicast_hops_v6(255).expect("settable");
        let index = index.expect("an index");
        socket.set_multicast_if_v6(index).expect("settable");
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let target = SocketAddrV6::new(all_nodes, 0, 0, index);
        let sent = socket.send_to(&ADVERTISEMENT, &target.into());
        match sent.map_err(|error| error.kind()) {
            Ok(_) | Err(ErrorKind::AddrNotAvailable) => {}
            Err(error) => panic!("failed to advertise on {device}: {error}"),
        }
    });
}

#[test]
fn host_keeps_the_router_that_it_learned_by_advertisement() {
    let Some(mut scene) = empty_scene() else {
        return;
    };
    let Some(router) = Namespace::new() else {
        return;
    };
    router.set_sysctl("ipv6/conf/default/accept_dad", "0");
    scene
        .host
        .connect("eth1", "10.9.0.1/24", &router, "eth0", "10.9.0.2/24");
    let has_router = || scene.host.ip("-6 route show default").contains("proto ra");
    let is_learned = || {
        advertise(&router, "eth0");
        has_router()
    };
    wait_until("a router is learned", DEADLINE, is_learned, || {
        scene.host.ip("-6 route") + &scene.host.ip("addr")
    });
    scene.host.set_sysctl("ipv6/conf/eth0/accept_ra", "0");

    scene.attach("default.one", &["fd00:8::2"]);
    scene.apply();
    let has_router = || scene.host.ip("-6 route show default").contains("proto ra");
    assert!(has_router(), "{}", scene.host.ip("-6 route"));
    for (device, expected) in [("eth1", "2"), ("eth0", "0"), ("default", "2")] {
        let path = format!("ipv6/conf/{device}/accept_ra");
        assert_eq!(scene.host.sysctl(&path), expected, "{device}");
    }
    scene.host.ip("-6 route flush proto ra");
    let is_learned = || {
        advertise(&router, "eth0");
        has_router()
    };
    wait_until("and learned again", DEADLINE, is_learned, || {
        scene.host.ip("-6 route")
    });
}

#[test]
fn host_without_ipv6_says_so_and_serves_ipv4() {
    let Some(mut scene) = empty_scene() else {
        return;
    };
    scene.host.set_sysctl("ipv6/conf/default/disable_ipv6", "1");
    let (name, addresses) = WORKLOADS[0];
    scene.attach(name, &addresses);
    let iface = host_interface(name);
    scene.host.block_on(async || {
        let report = open().await.apply(&scene.desired).await;
        let reason = format!(
            "IPv6 is disabled on {iface}; set net.ipv6.conf.all.disable_ipv6 to 0, or remove the \
             node's IPv6 podCIDR"
        );
        assert_eq!(report.workload_states[&iface], Err(reason), "{report:?}");
    });
    expect_ping(&scene.workloads[0], "10.0.0.1", &scene.host);
}

#[test]
fn workload_whose_runtime_disabled_ipv6_has_it() {
    let Some(mut scene) = empty_scene() else {
        return;
    };
    let Some(workload) = Namespace::new() else {
        return;
    };
    for scope in ["all", "default"] {
        workload.set_sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    let (name, addresses) = WORKLOADS[0];
    scene.attach_namespace(workload, name, &addresses);
    scene.apply();
    expect_ping(&scene.workloads[0], HOST, &scene.host);
}

#[test]
fn mtu_too_small_for_ipv6_is_refused() {
    let Some(scene) = empty_scene() else { return };
    let Some(workload) = Namespace::new() else {
        return;
    };
    let small = WorkloadSpec {
        mtu: 1279,
        ..spec(&workload, "default.one", &["fd00:8::2"])
    };
    let error = scene.host.block_on(async || attach_workload(small).await);
    assert!(
        matches!(error, Err(AttachError::SmallMtu { mtu: 1279 })),
        "{error:?}"
    );
    assert!(!scene.host.ip("-br link show").contains("cara"));
}

#[test]
fn connections_of_a_workload_that_is_gone_are_forgotten() {
    let Some(mut scene) = scene() else { return };
    scene.apply();
    let file = "/proc/thread-self/net/nf_conntrack";
    let read = || scene.host.enter(|| std::fs::read_to_string(file));
    let tracked = |text: String| text.contains("fd00:0008:0000:0000:0000:0000:0000:0002");
    for command in [
        "add table ip6 tracked",
        "add chain ip6 tracked input { type filter hook input priority 0; }",
        "add rule ip6 tracked input ct state new accept",
    ] {
        let (is_ok, output) = scene.host.run(&format!("nft {command}"));
        assert!(is_ok, "nft {command}: {output}");
    }
    if read().is_err() {
        println!("SKIPPED: this kernel does not show what it tracks");
        return;
    }
    expect_ping(&scene.workloads[0], HOST, &scene.host);
    assert!(tracked(read().expect("read above")));
    let mut without = scene.desired.clone();
    without.workloads.remove(&host_interface("default.one"));
    scene.host.block_on(async || {
        let mut dataplane = open().await;
        dataplane.apply(&scene.desired).await;
        dataplane.apply(&without).await;
    });
    assert!(!tracked(read().expect("read above")));
    scene.desired = without;
}

/// A veth that others made and set up: nothing in it knows the gateway's MAC.
#[test]
fn gateways_answer_on_a_host_without_default_route() {
    let Some(mut scene) = empty_scene() else {
        return;
    };
    let Some(workload) = Namespace::new() else {
        return;
    };
    let iface = host_interface("default.foreign");
    scene.host.ip(&format!(
        "link add {iface} type veth peer name eth0 netns {}",
        workload.path()
    ));
    workload.set_sysctl("ipv6/conf/eth0/accept_dad", "0");
    for command in [
        "addr add 172.17.8.2/32 dev eth0",
        "addr add fd00:8::2/128 dev eth0 nodad",
        "link set eth0 up",
        "route add 169.254.1.1 dev eth0",
        "route add default via 169.254.1.1",
    ] {
        workload.ip(command);
    }
    workload.ip(&format!("-6 route add default via {GATEWAY} dev eth0"));
    let link = WorkloadLink {
        addresses: WORKLOADS[0].1.map(|text| text.parse().expect("one")).into(),
        mac: None,
    };
    scene.desired.workloads = BTreeMap::from([(iface.clone(), link)]);
    let view = scene
        .host
        .block_on(async || open().await.observe_host().await);
    let route = agent::resolve::gateway::gateway_route(&view.expect("host is read"));
    scene.desired.routes.extend(route);
    scene.apply();
    for target in ["10.0.0.1", HOST] {
        expect_ping(&workload, target, &scene.host);
    }
    let neighbours = workload.ip("neigh show dev eth0");
    for gateway in ["169.254.1.1", GATEWAY] {
        let known = format!("{gateway} lladdr ee:ee:ee:ee:ee:ee");
        assert!(neighbours.contains(&known), "{neighbours}");
    }
    let (_, output) = workload.run("ping -n -c 1 -W 1 169.254.1.1");
    assert!(
        !output.contains("Time to live exceeded"),
        "it circles in the host: {output}"
    );
    let right = scene.host.ip("route show");
    scene.host.ip("route del 169.254.1.1 dev lo");
    scene.apply();
    assert_eq!(scene.host.ip("route show"), right);
}
