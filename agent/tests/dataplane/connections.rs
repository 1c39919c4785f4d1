//! Connections that were tracked to a workload end with it, or with its place.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use agent::dataplane::desired::{Desired, WorkloadLink};
use agent::dataplane::{WorkloadSpec, attach_workload};
use agent::names::host_interface;

use crate::netns::Namespace;
use crate::routes::open;

const DEADLINE: Duration = Duration::from_secs(10);
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 17, 8, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 17, 8, 3);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const PORT: u16 = 7000;

/// A host that translates its own port 7000 to a workload's, and a client beside it.
pub struct Scene {
    pub host: Namespace,
    pub client: Namespace,
    /// One per attached workload; they end with this.
    pub workloads: Vec<Namespace>,
    pub desired: Desired,
}

pub fn scene() -> Option<Scene> {
    let (host, client) = (Namespace::new()?, Namespace::new()?);
    host.connect("eth0", "10.1.0.1/24", &client, "eth0", "10.1.0.2/24");
    client.ip("route add 172.17.0.0/16 via 10.1.0.1");
    let mut scene = Scene {
        host,
        client,
        workloads: Vec::new(),
        desired: Desired::default(),
    };
    scene.attach("first", FIRST);
    scene.attach("second", SECOND);
    scene.nft("add table ip service");
    scene.nft("add chain ip service prerouting { type nat hook prerouting priority -100; }");
    scene.serve_by(FIRST);
    Some(scene)
}

impl Scene {
    pub fn nft(&self, command: &str) {
        let (is_ok, output) = self.host.run(&format!("nft {command}"));
        assert!(is_ok, "nft {command}: {output}");
    }

    /// As a service does when one of its workloads takes the place of another.
    fn serve_by(&self, address: Ipv4Addr) {
        self.nft("flush chain ip service prerouting");
        self.nft(&format!(
            "add rule ip service prerouting ip daddr {HOST} udp dport {PORT} dnat to {address}"
        ));
    }

    /// A veth and a namespace of its own; wanted, and not yet applied.
    fn attach(&mut self, name: &str, address: Ipv4Addr) {
        let workload = Namespace::new().expect("one more namespace");
        let iface = host_interface(name);
        let spec = WorkloadSpec {
            netns: workload.descriptor(),
            container_interface: "eth0".into(),
            host_interface: iface.clone(),
            addresses: vec![address.into()],
            mtu: 0,
        };
        let attached = self.host.block_on(async || attach_workload(spec).await);
        let link = WorkloadLink {
            addresses: vec![IpAddr::V4(address)],
            mac: Some(attached.expect("attaches").mac),
        };
        self.desired.workloads.insert(iface, link);
        self.workloads.push(workload);
    }

    /// The veth goes, and with it the workload.
    fn remove(&mut self, name: &str) {
        let iface = host_interface(name);
        self.host.ip(&format!("link del {iface}"));
        self.desired.workloads.remove(&iface);
    }

    fn bind(&self, workload: usize, address: Ipv4Addr) -> UdpSocket {
        bind(&self.workloads[workload], address)
    }

    /// Tracked connections with this address.
    fn tracked(&self, address: Ipv4Addr) -> usize {
        let file = "/proc/thread-self/net/nf_conntrack";
        let text = self.host.enter(|| std::fs::read_to_string(file));
        let text = text.expect("this kernel shows what it tracks");
        let word = format!("={address} ");
        text.lines().filter(|line| line.contains(&word)).count()
    }
}

fn bind(namespace: &Namespace, address: Ipv4Addr) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind((address, PORT)));
    let socket = socket.expect("binds");
    socket.set_read_timeout(Some(DEADLINE)).expect("settable");
    socket
}

#[test]
fn flow_to_a_workload_that_is_gone_reaches_the_one_that_serves_now() {
    let Some(mut scene) = scene() else { return };
    let client = bind(&scene.client, Ipv4Addr::new(10, 1, 0, 2));
    let first = scene.bind(0, FIRST);
    let second = scene.bind(1, SECOND);
    let mut buffer = [0; 16];
    let wanted = scene.desired.clone();
    let mut dataplane = scene.host.block_on(async || {
        let mut dataplane = open().await;
        let report = dataplane.apply(&wanted).await;
        assert_eq!(report.failed, []);
        dataplane
    });
    client.send_to(b"one", (HOST, PORT)).expect("sends");
    let length = first.recv(&mut buffer).expect("arrives");
    assert_eq!(&buffer[..length], b"one");

    scene.remove("first");
    scene.serve_by(SECOND);
    let wanted = scene.desired.clone();
    scene.host.block_on(async || {
        let report = dataplane.apply(&wanted).await;
        assert_eq!(report.failed, []);
    });
    client.send_to(b"two", (HOST, PORT)).expect("sends");
    let length = second.recv(&mut buffer).expect("arrives at the other");
    assert_eq!(&buffer[..length], b"two");
}

#[test]
fn connections_end_with_the_place_of_their_address_and_others_stay() {
    type Change = fn(&mut Scene);
    let cases: [(&str, bool, bool, Change); 5] = [
        ("nothing changed", false, false, |_| {}),
        ("nothing changed while no agent ran", true, false, |_| {}),
        ("workload gone", false, true, |scene| scene.remove("first")),
        ("address on another interface", false, true, |scene| {
            scene.remove("first");
            scene.attach("third", FIRST);
        }),
        (
            "another workload came while no agent ran",
            true,
            true,
            |scene| {
                scene.remove("first");
                scene.attach("first", FIRST);
            },
        ),
    ];
    for (name, is_restarted, are_forgotten, change) in cases {
        let Some(mut scene) = scene() else { return };
        let client = bind(&scene.client, Ipv4Addr::new(10, 1, 0, 2));
        let apply = |scene: &Scene, dataplane| {
            let wanted = scene.desired.clone();
            scene.host.block_on(async move || {
                let mut dataplane = match dataplane {
                    Some(dataplane) => dataplane,
                    None => open().await,
                };
                let report = dataplane.apply(&wanted).await;
                assert_eq!(report.failed, [], "{name}");
                dataplane
            })
        };
        let dataplane = apply(&scene, None);
        let mut buffer = [0; 16];
        for (workload, address) in [(0, FIRST), (1, SECOND)] {
            let socket = scene.bind(workload, address);
            client.send_to(b"packet", (address, PORT)).expect("sends");
            socket.recv(&mut buffer).expect("arrives");
            assert_eq!(scene.tracked(address), 1, "{name}");
        }
        change(&mut scene);
        apply(&scene, (!is_restarted).then_some(dataplane));
        assert_eq!(
            (scene.tracked(FIRST), scene.tracked(SECOND)),
            (usize::from(!are_forgotten), 1),
            "{name}"
        );
    }
}
