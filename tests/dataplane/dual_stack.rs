//! Nodes of both families: their workloads reach each other by IPv6 as by IPv4.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use agent::lab::machine::{self, COMMAND_TIMEOUT};
use agent::lab::{Lab, Mounts, Namespace, Scenario, process};
use anyhow::{Context, Result, ensure};
use harness::product::{TIMEOUT, eventually, kill, program, status, wired_lab};
use harness::{needs_root, product};

/// Node, host address, number of its podCIDRs. b1 is in another subnet.
const NODES: [(&str, &str, &str, u8); 3] = [
    ("a1", "192.168.100.100", "fd00:100::100", 8),
    ("a2", "192.168.100.101", "fd00:100::101", 9),
    ("b1", "192.168.200.101", "fd00:200::101", 10),
];

const POOLS: &str = "
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: four}
spec: {cidr: 172.17.0.0/16, vxlanMode: CrossSubnet}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: six}
spec: {cidr: 'fd00:17::/32', vxlanMode: CrossSubnet}
";

fn node(name: &str, ipv4: &str, ipv6: &str, number: u8) -> String {
    format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {{name: {name}}}\n\
         spec:\n  bgp: {{ipv4Address: {ipv4}/24, ipv6Address: '{ipv6}/64'}}\n  \
         podCIDRs: [172.17.{number}.0/24, 'fd00:17:{number}::/64']\n"
    )
}

/// A workload, with the addresses that the plugin said.
struct Workload {
    namespace: Namespace,
    addresses: Vec<IpAddr>,
}

fn dual_stack_lab() -> Result<(Lab, Vec<Workload>)> {
    let mut lab = wired_lab(Scenario::Mesh)?;
    let link = |machine: &str, lines: &str| -> Result<()> {
        Ok(machine::ip_batch(lab.namespace(machine)?, lines)?)
    };
    link("router", "address add fd00:100::1/64 dev eth0 nodad\n")?;
    link("router", "address add fd00:200::1/64 dev eth1 nodad\n")?;
    let forward = || fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    lab.namespace("router")?.enter(forward)?;
    fs::create_dir_all(lab.store())?;
    fs::write(lab.store().join("pools.yaml"), POOLS)?;
    for (name, ipv4, ipv6, number) in NODES {
        let subnet = ipv6.split("::").next().context("a subnet")?;
        let lines = format!(
            "address add {ipv6}/64 dev eth0 nodad\nroute add default via {subnet}::1 dev eth0\n"
        );
        link(name, &lines)?;
        let file = lab.store().join(format!("{name}.yaml"));
        fs::write(file, node(name, ipv4, ipv6, number))?;
    }
    for (name, ..) in NODES {
        lab.start_agent(name)?;
    }
    let mut workloads = Vec::new();
    for (name, ..) in NODES {
        let synced = lab.caracal(name, &["wait", "synced", "--timeout", "30"])?;
        product::succeeded(synced)?;
        workloads.push(attach(&mut lab, name, &format!("{name}-1"))?);
    }
    Ok((lab, workloads))
}

fn attach(lab: &mut Lab, node: &str, name: &str) -> Result<Workload> {
    let namespace = lab.add_namespace(name, Mounts::default())?;
    let said: serde_json::Value = serde_json::from_str(&lab.cni("ADD", node, name)?)?;
    let ips = said["ips"].as_array().context("ips")?;
    let address = |ip: &serde_json::Value| {
        let text = ip["address"].as_str()?.split('/').next()?;
        text.parse().ok()
    };
    let gateways: Vec<_> = said["routes"]
        .as_array()
        .context("routes")?
        .iter()
        .map(|route| (route["dst"].as_str(), route["gw"].as_str()))
        .collect();
    let expected = [
        (Some("0.0.0.0/0"), Some("169.254.1.1")),
        (Some("::/0"), Some("fe80::ecee:eeff:feee:eeee")),
    ];
    ensure!(gateways == expected, "{said}");
    Ok(Workload {
        namespace,
        addresses: ips.iter().filter_map(address).collect(),
    })
}

/// One echo, which has so many seconds for its answer.
fn can_ping(from: &Namespace, target: &IpAddr, seconds: &str) -> Result<Option<String>> {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", "1", "-W", seconds, &target.to_string()]);
    let done = process::run(Some(from), &mut command, "", COMMAND_TIMEOUT)?;
    Ok((!done.status.success()).then_some(done.stdout))
}

fn expect_ping(lab: &Lab, from: &Namespace, target: &IpAddr) -> Result<()> {
    let what = format!("{} reaches {target}", from.name);
    let reached = eventually(&what, TIMEOUT, || can_ping(from, target, "1"));
    reached.with_context(|| NODES.map(|(name, ..)| lab.last_lines(name)).join("\n"))
}

fn expect_all_pings(lab: &Lab, workloads: &[Workload]) -> Result<()> {
    let hosts = [lab.namespace("a1")?, lab.namespace("b1")?];
    let inside = workloads.iter().map(|workload| &workload.namespace);
    for from in inside.chain(hosts) {
        for target in workloads.iter().flat_map(|one| &one.addresses) {
            expect_ping(lab, from, target)?;
        }
    }
    Ok(())
}

fn routes(lab: &Lab, node: &str) -> Result<String> {
    let said = machine::ip(lab.namespace(node)?, &["-6", "route", "show"])?;
    // The kernel's own of each link.
    let lines = said.lines().filter(|line| !line.contains("proto kernel"));
    Ok(lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect())
}

#[test]
fn workloads_of_both_families_reach_each_other_on_link_and_by_vxlan() -> Result<()> {
    needs_root!();
    let (lab, workloads) = dual_stack_lab()?;
    for workload in &workloads {
        let families: Vec<bool> = workload.addresses.iter().map(IpAddr::is_ipv6).collect();
        ensure!(families == [false, true], "{:?}", workload.addresses);
    }
    expect_all_pings(&lab, &workloads)?;
    let held = routes(&lab, "a1")?;
    for route in [
        "blackhole fd00:17:8::/64 dev lo proto caracal metric 202",
        "fd00:17:9::/64 via fd00:100::101 dev eth0 proto caracal-bgp metric 202",
        "fd00:17:10::/64 via fd00:17:10::1 dev caracal-vxlan proto caracal-bgp src fd00:17:8::1 \
         metric 202",
    ] {
        ensure!(held.contains(route), "{route} is not in\n{held}");
    }
    for (name, ..) in NODES {
        let status = status(&lab, name)?;
        ensure!(status.failed.is_empty(), "{:?}", status.failed);
        ensure!(status.repairs.is_empty(), "{:?}", status.repairs);
    }
    Ok(())
}

#[test]
fn restarted_agent_keeps_ipv6_and_deleted_workload_leaves_nothing_of_it() -> Result<()> {
    needs_root!();
    let (mut lab, workloads) = dual_stack_lab()?;
    expect_all_pings(&lab, &workloads)?;
    let before = routes(&lab, "a1")?;
    kill(&program(&lab, "a1")?)?;
    ensure!(routes(&lab, "a1")? == before, "kept while no agent runs");
    lab.start_agent("a1")?;
    let back = eventually("routes as before", Duration::from_secs(60), || {
        let synced = lab.caracal("a1", &["wait", "synced", "--timeout", "1"])?;
        let now = routes(&lab, "a1")?;
        let is_back = synced.status.success() && now == before;
        Ok((!is_back).then_some(format!("{now}\nnot\n{before}")))
    });
    back.with_context(|| lab.last_lines("a1"))?;
    expect_all_pings(&lab, &workloads)?;

    let brief = attach(&mut lab, "a1", "brief")?;
    let [_, address] = brief.addresses.as_slice() else {
        anyhow::bail!("{:?}", brief.addresses);
    };
    // One echo, so a lost first packet is a failure; one that is late on a busy machine is not.
    let lost = can_ping(&brief.namespace, &workloads[0].addresses[1], "10")?;
    ensure!(lost.is_none(), "{lost:?}");
    ensure!(routes(&lab, "a1")?.contains(&format!("{address} dev cara")));
    for _ in ["first", "again"] {
        lab.cni("DEL", "a1", "brief")?;
        ensure!(routes(&lab, "a1")? == before);
        let neighbours = ["-6", "neigh", "show", "nud", "permanent"];
        let neighbours = machine::ip(lab.namespace("a1")?, &neighbours)?;
        ensure!(!neighbours.contains(&address.to_string()), "{neighbours}");
    }
    Ok(())
}
