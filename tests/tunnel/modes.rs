//! Tunnels that change under traffic, and MTUs that follow.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use agent::lab::ping::{Probe, Target};
use agent::lab::{Lab, Scenario, machine};
use anyhow::{Context, Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab, status};

fn address(lab: &Lab, workload: &str) -> Result<Ipv4Addr> {
    let mut workloads = lab.workloads().iter();
    let found = workloads.find(|one| one.name == workload);
    Ok(found.with_context(|| format!("no {workload}"))?.address)
}

fn set_mode(lab: &Lab, mode: &str) -> Result<()> {
    let pool = format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: default}}\nspec: \
         {{cidr: 172.17.0.0/16, {mode}}}\n"
    );
    // Whole or not at all: the agents watch.
    let new = lab.store().join(".pool.new");
    fs::write(&new, pool)?;
    fs::rename(new, lab.store().join("pool.yaml"))?;
    Ok(())
}

/// Waits until every node's routes to the nodes named go by `device`.
fn wait_for_device(lab: &Lab, ways: &[(&str, &str)], device: &str) -> Result<()> {
    eventually(&format!("routes by {device}"), TIMEOUT, || {
        for (node, prefix) in ways {
            let route = machine::ip(lab.namespace(node)?, &["route", "show", prefix])?;
            if !route.contains(&format!("dev {device} ")) {
                return Ok(Some(format!("{node}: {route}")));
            }
        }
        Ok(None)
    })
}

/// One connection over which numbers flow and come back.
struct Stream {
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Stream {
    fn start(lab: &Lab, from: &str, to: &str) -> Result<Stream> {
        let target = SocketAddr::from((address(lab, to)?, 7000));
        let listener = lab.namespace(to)?.enter(|| TcpListener::bind(target))?;
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = [0; 8192];
            while stream.read_exact(&mut buffer).is_ok() {
                stream.write_all(&buffer)?;
            }
            std::io::Result::Ok(())
        });
        let mut stream = lab.namespace(from)?.enter(|| TcpStream::connect(target))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&turns));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let turn = counted.fetch_add(1, Ordering::Relaxed);
                let sent = [turn as u8; 8192];
                stream.write_all(&sent)?;
                let mut received = [0; 8192];
                stream.read_exact(&mut received)?;
                if received != sent {
                    return Err(std::io::Error::other("other octets came back"));
                }
            }
            Ok(())
        });
        Ok(Stream {
            stop,
            turns,
            thread,
        })
    }

    /// # Errors
    /// If the connection broke.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the stream panicked"))??;
        Ok(self.turns.load(Ordering::Relaxed))
    }
}

#[test]
fn kinds_of_tunnel_change_under_traffic_without_loss() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let interval = Duration::from_millis(5);
    let target = |workload, identifier| -> Result<Target> {
        Ok(Target {
            address: address(&lab, workload)?,
            identifier,
        })
    };
    let far = Probe::start(lab.namespace("a1-1")?, target("b1-1", 1)?, interval)?;
    let near = Probe::start(lab.namespace("a1-1")?, target("a2-1", 2)?, interval)?;
    let stream = Stream::start(&lab, "a1-2", "b1-2")?;
    let far_ways = [("a1", "172.17.10.0/24"), ("b1", "172.17.8.0/24")];
    let near_ways = [("a1", "172.17.9.0/24"), ("a2", "172.17.8.0/24")];
    for (mode, far_device, near_device) in [
        ("vxlanMode: CrossSubnet", "caracal-vxlan", "eth0"),
        ("vxlanMode: Always", "caracal-vxlan", "caracal-vxlan"),
        ("udpMode: Always", "caracal-udp", "caracal-udp"),
        ("udpMode: CrossSubnet", "caracal-udp", "eth0"),
        ("ipipMode: Always", "caracal-tun", "caracal-tun"),
        ("vxlanMode: CrossSubnet", "caracal-vxlan", "eth0"),
    ] {
        let far_device = ipip_or(&lab, far_device)?;
        let near_device = ipip_or(&lab, near_device)?;
        set_mode(&lab, mode)?;
        wait_for_device(&lab, &far_ways, &far_device)?;
        wait_for_device(&lab, &near_ways, &near_device)?;
        println!("{mode}: by {far_device} and {near_device}");
    }
    // The old devices go when nobody sends through them any more.
    eventually("old devices gone", TIMEOUT, || {
        let links = machine::ip(lab.namespace("a1")?, &["-o", "link"])?;
        let mut old = ["caracal-udp", "caracal-tun", "caracal-ipip"].into_iter();
        Ok(old.find(|name| links.contains(name)).map(|_| links.clone()))
    })?;
    wait_for_device(&lab, &far_ways, "caracal-vxlan")?;
    let (far, near, turns) = (far.stop(), near.stop(), stream.stop()?);
    println!("{turns} turns; far {far:?}; near {near:?}");
    ensure!(far.lost.is_empty() && far.sent > 0, "{far:?}");
    ensure!(near.lost.is_empty() && near.sent > 0, "{near:?}");
    ensure!(far.duplicates == 0 && near.duplicates == 0);
    ensure!(turns > 0);
    Ok(())
}

/// Kernels that have ipip use it.
fn ipip_or(lab: &Lab, device: &str) -> Result<String> {
    if device != "caracal-tun" {
        return Ok(device.to_owned());
    }
    let mut found = device.to_owned();
    eventually("a device for IPIP", TIMEOUT, || {
        let tunnels = status(lab, "a1")?.tunnels;
        let ipip = tunnels.iter().find(|tunnel| tunnel.kind == "ipip");
        if let Some(tunnel) = ipip.filter(|tunnel| !tunnel.device.is_empty()) {
            found.clone_from(&tunnel.device);
        }
        Ok(None)
    })?;
    Ok(found)
}

#[test]
fn a_pool_that_needs_no_tunnel_any_more_goes_without_loss() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let near = Target {
        address: address(&lab, "a2-1")?,
        identifier: 3,
    };
    let probe = Probe::start(lab.namespace("a1-1")?, near, Duration::from_millis(5))?;
    let ways = [("a1", "172.17.9.0/24"), ("a2", "172.17.8.0/24")];
    for (mode, device) in [
        ("vxlanMode: Always", "caracal-vxlan"),
        ("vxlanMode: Never", "eth0"),
        ("udpMode: Always", "caracal-udp"),
        ("ipipMode: CrossSubnet", "eth0"),
    ] {
        set_mode(&lab, mode)?;
        wait_for_device(&lab, &ways, device)?;
    }
    let report = probe.stop();
    println!("{report:?}");
    ensure!(
        report.lost.is_empty() && report.duplicates == 0,
        "{report:?}"
    );
    Ok(())
}

/// MTU of a link in a namespace of the lab.
fn mtu(lab: &Lab, machine_name: &str, link: &str) -> Result<String> {
    let text = machine::ip(lab.namespace(machine_name)?, &["-o", "link", "show", link])?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "mtu");
    Ok(words.nth(1).unwrap_or_default().to_owned())
}

#[test]
fn tunnels_and_workloads_follow_the_mtu_of_the_nic() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    set_mode(&lab, "vxlanMode: Always")?;
    let host = lab.namespace("a1")?;
    let links = machine::ip(host, &["-o", "link"])?;
    let is_workload = |name: &&str| name.starts_with("cara") && !name.contains('-');
    let mut names = links
        .split_whitespace()
        .filter_map(|word| word.split('@').next());
    let veth = names.find(is_workload).context("a workload")?.to_owned();
    for nic in ["1500", "1400", "9000", "1450"] {
        machine::ip(host, &["link", "set", "eth0", "mtu", nic])?;
        let expected = (nic.parse::<u32>()? - 50).to_string();
        eventually(&format!("all at {expected}"), TIMEOUT, || {
            let seen = [
                mtu(&lab, "a1", "caracal-vxlan")?,
                mtu(&lab, "a1", &veth)?,
                mtu(&lab, "a1-1", "eth0")?,
                mtu(&lab, "a1-2", "eth0")?,
            ];
            Ok(seen
                .iter()
                .any(|mtu| *mtu != expected)
                .then(|| format!("{seen:?}")))
        })?;
    }
    Ok(())
}

#[test]
fn a_foreign_vxlan_device_of_ours_is_named_and_its_routes_are_not_programmed() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let host = lab.namespace("a1")?;
    let foreign = "link add theirs type vxlan id 4096 dstport 4789 local 192.168.100.100";
    machine::ip(host, &foreign.split(' ').collect::<Vec<_>>())?;
    set_mode(&lab, "vxlanMode: Always")?;
    eventually("the reason in status", TIMEOUT, || {
        let tunnels = status(&lab, "a1")?.tunnels;
        let is_said = |tunnel: &&agent::api::schema::TunnelStatus| {
            tunnel.kind == "vxlan" && tunnel.reason.contains("the foreign device theirs")
        };
        Ok(tunnels
            .iter()
            .find(is_said)
            .is_none()
            .then(|| format!("{tunnels:?}")))
    })?;
    eventually("no route", TIMEOUT, || {
        let route = machine::ip(host, &["route", "show", "172.17.10.0/24"])?;
        Ok((!route.is_empty()).then_some(route))
    })?;
    machine::ip(host, &["link", "show", "theirs"])?;
    machine::ip(host, &["link", "del", "theirs"])?;
    let ways = [("a1", "172.17.10.0/24")];
    wait_for_device(&lab, &ways, "caracal-vxlan")
}
