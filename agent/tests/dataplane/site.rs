//! Two nodes, each in its rack, and a router between that knows only the host subnets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::carrier::Encapsulation;
use agent::carrier::supervise::{self, CarrierStatus};
use agent::dataplane::desired::{
    Desired, Hop, LearnedChange, Route, Tunnel, TunnelDriver, WorkloadLink,
};
use agent::dataplane::{Dataplane, DataplaneOptions, WorkloadSpec, attach_workload};
use agent::names::{host_interface, vtep_mac};

use crate::netns::{Namespace, wait_until};
use crate::routes::{open, prefix};

pub const DEADLINE: Duration = Duration::from_secs(10);
pub const PROTOCOL_IPIP: u8 = 4;
pub const PROTOCOL_ICMP: u8 = 1;

pub fn options(run_dir: &Path) -> DataplaneOptions {
    let program = std::env::current_exe().expect("own path");
    let arguments = [
        "--ignored",
        "--exact",
        "carrier::as_program",
        "--nocapture",
        "--",
    ];
    DataplaneOptions {
        carrier_program: Some((program, arguments.map(str::to_owned).to_vec())),
        tunnel_linger: Duration::ZERO,
        ..DataplaneOptions::new(run_dir.into())
    }
}

pub struct Node {
    pub host: Namespace,
    pub workload: Namespace,
    pub run_dir: tempfile::TempDir,
    pub local: Ipv4Addr,
    pub desired: Desired,
    pub learned: LearnedChange,
}

pub struct Site {
    pub nodes: [Node; 2],
    pub router: Namespace,
}

impl Drop for Node {
    fn drop(&mut self) {
        let run_dir = self.run_dir.path();
        for encapsulation in [Encapsulation::Ipip, Encapsulation::Udp] {
            let stop = async || supervise::stop(run_dir, encapsulation).await;
            if let Err(error) = self.host.block_on(stop) {
                eprintln!("carrier of {} is left: {error}", self.local);
            }
        }
    }
}

impl Node {
    fn new(driver: TunnelDriver, number: u8, other: u8) -> Option<Node> {
        let host = Namespace::new()?;
        let workload = Namespace::new()?;
        let local = Ipv4Addr::new(192, 168, number, 100);
        let remote = Ipv4Addr::new(192, 168, other, 100);
        let address = Ipv4Addr::new(172, 17, number, 1);
        let tunnel = tunnel(driver, local, number, Some((remote, other)));
        let learned = LearnedChange {
            prefix: prefix(&format!("172.17.{other}.0/24")),
            route: Some(Arc::new(Route::via(
                Hop {
                    gateway: gateway(driver, remote, other),
                    device: driver.device().into(),
                },
                Some(address.into()),
            ))),
        };
        Some(Node {
            host,
            workload,
            run_dir: tempfile::tempdir().expect("temporary directory"),
            local,
            desired: Desired {
                routes: BTreeMap::from([(
                    prefix(&format!("172.17.{number}.0/24")),
                    Route::Blackhole,
                )]),
                tunnels: [(driver, tunnel)].into(),
                ..Desired::default()
            },
            learned,
        })
    }

    fn mtu(&self) -> u32 {
        let mtus = self.desired.tunnels.values().map(|tunnel| tunnel.mtu);
        mtus.min().unwrap_or(1500)
    }

    fn attach(&mut self) {
        let name = host_interface("default.w");
        let address = Ipv4Addr::new(172, 17, self.local.octets()[2], 2);
        let spec = WorkloadSpec {
            netns: self.workload.descriptor(),
            container_interface: "eth0".into(),
            host_interface: name.clone(),
            addresses: vec![address.into()],
            mtu: self.mtu(),
        };
        let attached = self
            .host
            .block_on(async || attach_workload(spec).await)
            .expect("attaches");
        let link = WorkloadLink {
            addresses: vec![address.into()],
            mac: Some(attached.mac),
        };
        self.desired.workloads.insert(name, link);
    }

    pub async fn open(&self) -> Dataplane {
        let mut dataplane = Dataplane::open(options(self.run_dir.path()))
            .await
            .expect("opens");
        let report = dataplane.apply(&self.desired).await;
        assert_eq!(report.failed, []);
        let report = dataplane.apply_learned(vec![self.learned.clone()]).await;
        assert_eq!(report.failed, []);
        dataplane
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.run_dir.path().join("carrier.log")).unwrap_or_default()
    }
}

/// The pid of the running carrier and whether it was adopted.
pub async fn running(dataplane: &Dataplane) -> (u32, bool) {
    running_driver(dataplane, TunnelDriver::Userspace).await
}

pub async fn running_driver(dataplane: &Dataplane, driver: TunnelDriver) -> (u32, bool) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match dataplane.carrier_status(driver) {
            Some(CarrierStatus::Running {
                pid, is_adopted, ..
            }) => return (pid, is_adopted),
            status => assert!(
                Instant::now() < deadline,
                "carrier does not run: {status:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Two nodes with a workload each, tunnels ready, no agent. `None`, reported as skipped, where the
/// kernel lacks what it takes.
pub fn site(drivers: [TunnelDriver; 2]) -> Option<Site> {
    let router = Namespace::new()?;
    let has_carrier = drivers.iter().any(|driver| driver.carrier().is_some());
    if has_carrier && !Path::new("/dev/net/tun").exists() {
        println!("SKIPPED: no /dev/net/tun");
        return None;
    }
    if drivers.contains(&TunnelDriver::Kernel) && !has_kernel_ipip(&router) {
        return None;
    }
    router.set_sysctl("ipv4/ip_forward", "1");
    let mut nodes = [Node::new(drivers[0], 1, 2)?, Node::new(drivers[1], 2, 1)?];
    for (node, driver) in nodes.iter_mut().zip(drivers) {
        let number = node.local.octets()[2];
        node.host.connect(
            "eth0",
            &format!("{}/24", node.local),
            &router,
            &format!("rack{number}"),
            &format!("192.168.{number}.1/24"),
        );
        node.host
            .ip(&format!("route add default via 192.168.{number}.1"));
        node.attach();
        node.host.block_on(async || {
            let dataplane = node.open().await;
            if driver.carrier().is_some() {
                running_driver(&dataplane, driver).await;
            }
        });
    }
    Some(Site { nodes, router })
}

/// Reports as skipped if not.
pub fn has_kernel_ipip(host: &Namespace) -> bool {
    let has_ipip = makes_ipip(host);
    if !has_ipip {
        println!("SKIPPED: this kernel has no ipip");
    }
    has_ipip
}

pub fn makes_ipip(host: &Namespace) -> bool {
    let view = host.block_on(async || open().await.observe_host().await);
    view.expect("host is read").has_kernel_ipip
}

/// Node `number`'s tunnel, with the address and number of the other node.
pub fn tunnel(
    driver: TunnelDriver,
    local: Ipv4Addr,
    number: u8,
    other: Option<(Ipv4Addr, u8)>,
) -> Tunnel {
    let mut tunnel = Tunnel {
        local,
        address: Ipv4Addr::new(172, 17, number, 1),
        address6: None,
        mtu: 1500 - driver.overhead(),
        mac: None,
        remotes: other.iter().map(|(remote, _)| *remote).collect(),
        neighbours: BTreeMap::new(),
        forwarding: BTreeMap::new(),
    };
    let mac_of = |node: Ipv4Addr, number: u8| match driver {
        TunnelDriver::Vxlan => vtep_mac(&number.to_string()),
        _ => agent::carrier::mac_of(node),
    };
    if driver != TunnelDriver::Kernel {
        tunnel.mac = Some(mac_of(local, number));
        if let Some((remote, other)) = other {
            let mac = mac_of(remote, other);
            let gateway = gateway(driver, remote, other);
            tunnel.neighbours.insert(gateway, mac);
            if driver == TunnelDriver::Vxlan {
                tunnel.forwarding.insert(mac, remote);
            }
        }
    }
    tunnel
}

pub fn gateway(driver: TunnelDriver, remote: Ipv4Addr, other: u8) -> IpAddr {
    match driver {
        TunnelDriver::Vxlan => Ipv4Addr::new(172, 17, other, 1).into(),
        _ => remote.into(),
    }
}

impl Site {
    pub fn wait_for_ping(&self) {
        let [one, two] = &self.nodes;
        wait_until(
            "workloads reach each other",
            DEADLINE,
            || one.workload.can_ping("172.17.2.2"),
            || {
                [&one.host, &two.host]
                    .map(|host| {
                        host.ip("route show") + &host.ip("neigh show") + &host.ip("-s link show")
                    })
                    .join("\n")
                    + &one.log()
                    + &two.log()
            },
        );
    }
}
