//! Workloads that the store declares, with veths that are there.

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use ::agent::lab::{Mounts, Namespace, machine};
use anyhow::{Result, ensure};

use super::Size;
use crate::daemons::Running;
use crate::kernel::RouteMonitor;
use crate::kernel::workload::{self, Workload};
use crate::place::Place;
use crate::routers::agent;
use crate::scenarios::{Figure, PATIENCE, megabytes, percentile};
use crate::usage::Usage;

pub fn measure(running: &Running, size: &Size) -> Result<Vec<Figure>> {
    let pods = Pods::make(running.namespace(), size.workloads)?;
    let mut monitor = monitor()?;
    let store = running.directory().join(agent::STORE);
    let file = store.join("workloads.yaml");
    let put = |workloads: u32| -> Result<()> {
        // Whole or not at all: the agent watches.
        let new = store.join(".new");
        fs::write(&new, resources(workloads)?)?;
        Ok(fs::rename(new, &file)?)
    };
    let before = running.usage()?;
    let start = Instant::now();
    put(size.workloads)?;
    wait(&mut monitor, size.workloads)?;
    let programmed = start.elapsed().as_secs_f64();
    let full = running.usage()?;
    let start = Instant::now();
    fs::remove_file(&file)?;
    wait(&mut monitor, 0)?;
    let gone = start.elapsed().as_secs_f64();
    let after = running.usage()?;

    let mut singles = Vec::new();
    for one in 1..=size.singles {
        let start = Instant::now();
        put(one)?;
        wait(&mut monitor, one)?;
        singles.push(start.elapsed().as_secs_f64() * 1e3);
    }
    drop(pods);
    let cpu = |from: Usage, to: Usage| (to.cpu - from.cpu).as_secs_f64();
    Ok(vec![
        ("all s", programmed),
        ("its CPU s", cpu(before, full)),
        ("gone s", gone),
        ("its CPU s ", cpu(full, after)),
        ("one p50 ms", percentile(&mut singles, 50)),
        ("MB before", megabytes(before.resident)),
        ("MB with all", megabytes(full.resident)),
        ("peak MB", megabytes(after.peak)),
    ])
}

/// What the kernel takes for the same. Rules of nftables are not in it.
pub fn raw(running: &Running, size: &Size) -> Result<Vec<Figure>> {
    workload::forward()?;
    let pods = Pods::make(running.namespace(), size.workloads)?;
    let start = Instant::now();
    workload::write_all_host_sides(size.workloads)?;
    let programmed = start.elapsed().as_secs_f64();
    let start = Instant::now();
    workload::remove_all_host_sides(size.workloads)?;
    let gone = start.elapsed().as_secs_f64();
    drop(pods);
    Ok(vec![("all s", programmed), ("gone s", gone)])
}

/// Of the /32s of workloads.
pub fn monitor() -> Result<RouteMonitor> {
    RouteMonitor::start(1 << 16, workload::number)
}

/// Until the kernel has so many.
pub fn wait(monitor: &mut RouteMonitor, routes: u32) -> Result<()> {
    let start = Instant::now();
    while monitor.count() != routes {
        let count = monitor.count();
        ensure!(
            start.elapsed() < PATIENCE,
            "{count} of {routes} routes after {PATIENCE:?}"
        );
        monitor.wait(100)?;
    }
    Ok(())
}

/// Where the other ends of a node's veths are. They end with it.
struct Pods(Place);

impl Pods {
    /// All links are up.
    fn make(node: &Namespace, workloads: u32) -> Result<Pods> {
        let pods = Pods(Place::create(
            "caracal-bench",
            "workloads",
            &Mounts::default(),
        )?);
        let holder = pods.0.namespace.holder.pid;
        let (mut outside, mut inside) = (String::new(), String::new());
        for one in (0..workloads).map(Workload) {
            let (name, number, mac) = (one.interface(), one.0, shown(one.mac()));
            writeln!(
                outside,
                "link add {name} type veth peer name p{number} address {mac} netns {holder}\n\
                 link set {name} up"
            )?;
            writeln!(inside, "link set p{number} up")?;
        }
        machine::ip_batch(node, &outside)?;
        machine::ip_batch(&pods.0.namespace, &inside)?;
        Ok(pods)
    }
}

fn shown(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn resources(workloads: u32) -> Result<String> {
    let mut text = String::new();
    for one in (0..workloads).map(Workload) {
        let [a, b, c, d] = one.address();
        let mac = shown(one.mac());
        writeln!(
            text,
            "---\napiVersion: caracal.dev/v1alpha1\nkind: WorkloadEndpoint\n\
             metadata: {{name: w{}, namespace: bench}}\n\
             spec: {{node: n, interfaceName: {}, addresses: [{a}.{b}.{c}.{d}/32], mac: '{mac}'}}",
            one.0,
            one.interface()
        )?;
    }
    Ok(text)
}
