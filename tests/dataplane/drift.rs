//! What others change of ours is put right by itself, and what is theirs stays as it is.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use agent::lab::machine;
use agent::lab::process::{self, Process};
use anyhow::{Context, Result, ensure};
use harness::crossing::Crossing;
use harness::monitor::RouteMonitor;
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, succeeded};
use nix::sys::signal::Signal;

const IFACE: &str = "cara0123456789a";
/// Long before the resync, which comes after 90 s.
const SOON: Duration = Duration::from_secs(20);

/// A workload on a veth, a node behind a router, and equal paths to a prefix of each family.
const STORE: &str = "---\napiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\n\
     metadata: {name: node.n1}\nspec: {multipath: {ibgp: 2}}\n\
     ---\napiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {name: default}\n\
     spec: {cidr: 172.17.0.0/16, vxlanMode: CrossSubnet}\n\
     ---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: n2}\n\
     spec: {bgp: {ipv4Address: 10.99.0.2/24}, podCIDRs: [172.17.9.0/24]}\n\
     ---\napiVersion: caracal.dev/v1alpha1\nkind: WorkloadEndpoint\n\
     metadata: {name: w, namespace: default}\nspec: {node: n1, interfaceName: cara0123456789a, \
     addresses: [172.17.8.9/32], mac: '02:00:00:00:00:01'}\n";

/// `config`: the agent's configuration file.
fn crossing(config: &str) -> Result<(Crossing, Process)> {
    let mut crossing = Crossing::wired(2)?;
    crossing.configure(config)?;
    machine::ip_batch(
        &crossing.node,
        &format!(
            "link add {IFACE} type veth peer name peer0\n\
             link set peer0 up\n\
             route add default via 10.0.1.2\n"
        ),
    )?;
    let agent = crossing.start_agent(STORE)?;
    let (direct, direct6) = ("198.51.100.0/24", "2001:db8:51::/48");
    let tunnelled = ("172.17.9.0/24", "10.99.0.2");
    crossing.announce(
        1,
        &[tunnelled, (direct, "10.0.1.2"), (direct6, "fd00:1::2")],
    )?;
    crossing.announce(2, &[(direct, "10.0.2.2"), (direct6, "fd00:2::2")])?;
    let expected = [
        "172.17.8.9 dev cara0123456789a",
        "blackhole 172.17.8.0/24",
        "172.17.9.0/24 via 172.17.9.1 dev caracal-vxlan",
        "nexthop via 10.0.1.2 dev eth1",
        "nexthop via 10.0.2.2 dev eth2",
        "nexthop via fd00:1::2 dev eth1",
        "nexthop via fd00:2::2 dev eth2",
        "172.17.8.9 dev cara0123456789a lladdr 02:00:00:00:00:01",
        "172.17.9.1 dev caracal-vxlan lladdr",
        "dst 10.99.0.2",
        "172.17.8.1/32 scope global caracal-vxlan",
        "mtu 1450",
    ];
    eventually("everything of ours", TIMEOUT, || {
        let all = ours(&crossing)?;
        let missing = expected.iter().find(|part| !all.contains(*part));
        Ok(missing.map(|part| format!("{part} is missing in\n{all}\n{}", crossing.last_lines())))
    })?;
    Ok((crossing, agent))
}

fn run(crossing: &Crossing, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().context("a program")?);
    command.args(words);
    let finished = process::run(Some(&crossing.node), &mut command, "", TIMEOUT)?;
    succeeded(finished)
}

/// Everything of ours that the kernel shows, but for what a device made anew has of its own.
fn ours(crossing: &Crossing) -> Result<String> {
    let mut lines = Vec::new();
    for command in [
        "ip -4 route show proto 202",
        "ip -4 route show proto 203",
        "ip -6 route show proto 202",
        "ip -6 route show proto 203",
        "ip -4 neigh show nud permanent",
        "bridge fdb show dev caracal-vxlan",
        "ip -o -d link show dev cara0123456789a",
        "ip -o -d link show dev caracal-vxlan",
        "ip -o -4 addr show dev caracal-vxlan",
    ] {
        let text = run(crossing, command).unwrap_or_else(|error| format!("{error:#}"));
        for line in text.lines() {
            let (index, rest) = line.split_once(": ").unwrap_or(("", line));
            let is_index = index.bytes().all(|octet| octet.is_ascii_digit());
            lines.push(if is_index { rest } else { line }.trim().to_owned());
        }
    }
    for (path, _) in PARAMETERS.iter().chain(&SILENT_PARAMETERS) {
        lines.push(format!("{path} = {}", parameter(crossing, path)?));
    }
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

/// Parameters of which the kernel tells changes, with another value each.
const PARAMETERS: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/cara0123456789a/forwarding", "0"),
    ("ipv4/conf/cara0123456789a/proxy_arp", "0"),
    ("ipv4/conf/cara0123456789a/rp_filter", "1"),
    ("ipv4/conf/caracal-vxlan/rp_filter", "1"),
];
/// Of these it does not: the resync finds them.
const SILENT_PARAMETERS: [(&str, &str); 2] = [
    ("ipv4/neigh/cara0123456789a/proxy_delay", "70"),
    ("ipv6/conf/cara0123456789a/accept_ra", "2"),
];

fn parameter(crossing: &Crossing, path: &str) -> Result<String> {
    let file = format!("/proc/sys/net/{path}");
    let value = crossing.node.enter(|| fs::read_to_string(&file));
    Ok(value.with_context(|| path.to_owned())?.trim().to_owned())
}

fn set_parameter(crossing: &Crossing, path: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/net/{path}");
    let written = crossing.node.enter(|| fs::write(&file, value));
    written.with_context(|| path.to_owned())
}

fn repairs(crossing: &Crossing, kind: &str) -> Result<u64> {
    let said = succeeded(crossing.caracal(&["status", "-o", "json"])?)?;
    let status: serde_json::Value = serde_json::from_str(&said)?;
    Ok(status["repairs"][kind].as_u64().unwrap_or_default())
}

/// Spoils something, and waits until all is as before and the repair counted.
fn expect_repair(
    crossing: &Crossing,
    name: &str,
    kind: &str,
    spoil: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = ours(crossing)?;
    let count = repairs(crossing, kind)?;
    let started = Instant::now();
    spoil().with_context(|| name.to_owned())?;
    let right = eventually(name, SOON, || {
        let now = ours(crossing)?;
        let differs: Vec<&str> = before.lines().filter(|line| !now.contains(line)).collect();
        let added: Vec<&str> = now.lines().filter(|line| !before.contains(line)).collect();
        Ok((now != before).then(|| format!("missing {differs:#?}, more {added:#?}")))
    });
    let took = started.elapsed();
    right.with_context(|| crossing.last_lines())?;
    eventually(&format!("{name}: count of {kind}"), SOON, || {
        let now = repairs(crossing, kind)?;
        Ok((now <= count).then(|| format!("{now}\n{}", crossing.last_lines())))
    })?;
    println!("{name}: right again after {took:?}");
    Ok(())
}

#[test]
fn what_others_change_is_right_again_long_before_the_resync() -> Result<()> {
    needs_root!();
    let (crossing, _agent) = crossing("")?;
    let vtep = run(&crossing, "bridge fdb show dev caracal-vxlan")?;
    let vtep = vtep
        .split_whitespace()
        .next()
        .context("an entry")?
        .to_owned();
    let no_entry = format!("bridge fdb del {vtep} dev caracal-vxlan");
    let other_entry = format!("bridge fdb replace {vtep} dev caracal-vxlan dst 10.99.0.7");
    for (name, kind, command) in [
        (
            "workload's route deleted",
            "route",
            "ip route del 172.17.8.9",
        ),
        (
            "workload's route to elsewhere",
            "route",
            "ip route change 172.17.8.9 dev eth1 proto 202 metric 202 scope link",
        ),
        (
            "blackhole deleted",
            "route",
            "ip route del blackhole 172.17.8.0/24",
        ),
        (
            "learned route deleted",
            "route",
            "ip route del 172.17.9.0/24",
        ),
        (
            "learned route changed",
            "route",
            "ip route change 172.17.9.0/24 via 10.0.1.7 dev eth1 onlink proto 203 metric 202",
        ),
        (
            "IPv4 multipath without a hop",
            "route",
            "ip route change 198.51.100.0/24 via 10.0.1.2 dev eth1 onlink proto 203 metric 202",
        ),
        (
            "IPv6 route deleted",
            "route",
            "ip -6 route del 2001:db8:51::/48",
        ),
        (
            "IPv6 multipath without a hop",
            "route",
            "ip -6 route del 2001:db8:51::/48 via fd00:1::2 dev eth1 metric 202",
        ),
        (
            "tunnel's neighbour deleted",
            "neighbour",
            "ip neigh del 172.17.9.1 dev caracal-vxlan",
        ),
        (
            "tunnel's neighbour changed",
            "neighbour",
            "ip neigh replace 172.17.9.1 lladdr 02:00:00:00:00:09 nud permanent dev caracal-vxlan",
        ),
        (
            "workload's neighbour deleted",
            "neighbour",
            "ip neigh del 172.17.8.9 dev cara0123456789a",
        ),
        (
            "workload's neighbour changed",
            "neighbour",
            "ip neigh replace 172.17.8.9 lladdr 02:00:00:00:00:09 nud permanent dev cara0123456789a",
        ),
        ("forwarding entry deleted", "forwarding", no_entry.as_str()),
        (
            "forwarding entry to elsewhere",
            "forwarding",
            other_entry.as_str(),
        ),
        (
            "tunnel's address deleted",
            "tunnel",
            "ip addr del 172.17.8.1/32 dev caracal-vxlan",
        ),
        (
            "another address on the tunnel",
            "tunnel",
            "ip addr add 172.17.8.7/32 dev caracal-vxlan",
        ),
        (
            "tunnel's MTU",
            "tunnel",
            "ip link set caracal-vxlan mtu 1300",
        ),
        ("tunnel down", "tunnel", "ip link set caracal-vxlan down"),
        ("tunnel deleted", "tunnel", "ip link del caracal-vxlan"),
        (
            "workload's link with another MAC",
            "link",
            "ip link set cara0123456789a address 02:00:00:00:00:08",
        ),
        (
            "workload's link down",
            "link",
            "ip link set cara0123456789a down",
        ),
    ] {
        expect_repair(&crossing, name, kind, || run(&crossing, command).map(drop))?;
    }
    for (path, value) in PARAMETERS {
        let kind = match path.contains("vxlan") {
            true => "tunnel",
            false => "sysctl",
        };
        expect_repair(&crossing, path, kind, || {
            set_parameter(&crossing, path, value)
        })?;
    }
    Ok(())
}

#[test]
fn parameters_of_which_the_kernel_does_not_tell_are_right_after_the_resync() -> Result<()> {
    needs_root!();
    let (crossing, _agent) = crossing("resyncSeconds: 2\n")?;
    for (path, value) in SILENT_PARAMETERS {
        expect_repair(&crossing, path, "sysctl", || {
            set_parameter(&crossing, path, value)
        })?;
    }
    Ok(())
}

/// How many messages the kernel could not deliver to the netlink sockets of the namespace.
fn dropped(crossing: &Crossing) -> Result<u64> {
    let read = || fs::read_to_string("/proc/thread-self/net/netlink");
    let text = crossing.node.enter(read)?;
    let drops = text.lines().skip(1).filter_map(|line| {
        let field = line.split_whitespace().nth(8)?;
        field.parse::<u64>().ok()
    });
    Ok(drops.sum())
}

#[test]
fn what_changed_while_notifications_were_lost_is_right_long_before_the_resync() -> Result<()> {
    needs_root!();
    const FOREIGN: u32 = 40_000;
    let (crossing, agent) = crossing("")?;
    let mut lines = String::new();
    for number in 0..FOREIGN {
        let [_, _, high, low] = number.to_be_bytes();
        lines += &format!("route add blackhole 10.200.{high}.{low} table 77 proto static\n");
    }
    let spoil = || -> Result<()> {
        agent.signal(Signal::SIGSTOP);
        machine::ip_batch(&crossing.node, &lines)?;
        run(&crossing, "ip route flush table 77")?;
        ensure!(dropped(&crossing)? > 0, "nothing was lost");
        for command in [
            "ip route del 172.17.8.9",
            "ip route del 172.17.9.0/24",
            "ip -6 route del 2001:db8:51::/48",
            "ip neigh del 172.17.9.1 dev caracal-vxlan",
            "ip link set caracal-vxlan mtu 1300",
            "ip link set cara0123456789a address 02:00:00:00:00:08",
        ] {
            run(&crossing, command)?;
        }
        set_parameter(&crossing, "ipv4/conf/cara0123456789a/proxy_arp", "0")?;
        set_parameter(&crossing, "ipv4/neigh/cara0123456789a/proxy_delay", "70")?;
        agent.signal(Signal::SIGCONT);
        Ok(())
    };
    expect_repair(&crossing, "lost notifications", "route", spoil)?;
    // And what comes after is heard again.
    expect_repair(&crossing, "after it", "route", || {
        run(&crossing, "ip route del 172.17.8.9").map(drop)
    })
}

/// What belongs to others, in places where ours is too.
const FOREIGN: [(&str, &str); 7] = [
    (
        "ip route add",
        "172.17.8.77 dev cara0123456789a proto static",
    ),
    ("ip route add", "172.17.8.78 dev cara0123456789a"),
    ("ip route add", "172.17.8.128/25 via 10.0.1.9 proto bird"),
    (
        "ip route add",
        "blackhole 172.17.9.128/25 proto static metric 202",
    ),
    (
        "ip route add",
        "172.17.9.0/24 via 10.0.2.9 proto static metric 900",
    ),
    (
        "ip route add",
        "172.17.9.77 dev caracal-vxlan proto static metric 202",
    ),
    (
        "ip -6 route add",
        "2001:db8:51:1::/64 via fd00:1::9 proto static",
    ),
];

fn foreign(crossing: &Crossing) -> Result<String> {
    let mut text = String::new();
    for command in [
        "ip -4 route show proto 4",
        "ip -4 route show proto 3",
        "ip -4 route show proto 12",
        "ip -6 route show proto 4",
        "ip -4 addr show dev cara0123456789a",
        "ip route show table 202",
        "ip rule show",
        "nft list ruleset inet foreign",
    ] {
        text += &run(crossing, command).unwrap_or_default();
    }
    Ok(text)
}

#[test]
fn foreign_objects_beside_and_on_ours_stay_as_they_are() -> Result<()> {
    needs_root!();
    let (crossing, _agent) = crossing("resyncSeconds: 1\n")?;
    let mine = ours(&crossing)?;
    for (command, route) in FOREIGN {
        run(&crossing, &format!("{command} {route}"))?;
    }
    for command in [
        "ip addr add 10.77.0.1/32 dev cara0123456789a",
        "ip route add blackhole 172.17.8.0/24 proto 202 table 202",
        "ip rule add to 172.17.8.0/24 lookup 202 priority 30000",
        "nft add table inet foreign",
    ] {
        run(&crossing, command)?;
    }
    let theirs = foreign(&crossing)?;
    ensure!(theirs.lines().count() >= FOREIGN.len(), "{theirs}");
    // Repairs, and resyncs, one after the other.
    for command in [
        "ip route del 172.17.8.9",
        "ip route del 172.17.9.0/24 metric 202",
    ] {
        for _ in 0..3 {
            expect_repair(&crossing, command, "route", || {
                run(&crossing, command).map(drop)
            })?;
        }
    }
    set_parameter(&crossing, SILENT_PARAMETERS[0].0, "70")?;
    eventually("a resync", SOON, || {
        let value = parameter(&crossing, SILENT_PARAMETERS[0].0)?;
        Ok((value != "0").then_some(value))
    })?;
    ensure!(
        foreign(&crossing)? == theirs,
        "{}\nnot\n{theirs}",
        foreign(&crossing)?
    );
    ensure!(
        ours(&crossing)? == mine,
        "{}\nnot\n{mine}",
        ours(&crossing)?
    );
    Ok(())
}

#[test]
fn foreign_routes_that_come_and_go_by_thousands_cost_us_no_route() -> Result<()> {
    needs_root!();
    const ROUNDS: usize = 8;
    const BATCH: u32 = 2_000;
    let (crossing, _agent) = crossing("")?;
    let monitor = RouteMonitor::in_namespace(&crossing.node)?;
    let (mut add, mut remove) = (String::new(), String::new());
    for number in 0..BATCH {
        let [_, _, high, low] = number.to_be_bytes();
        for route in [
            format!("blackhole 10.200.{high}.{low} proto static"),
            format!("blackhole 2001:db8:{high:x}:{low:x}::/64 proto static"),
        ] {
            add += &format!("route add {route}\n");
            remove += &format!("route del {route}\n");
        }
    }
    let started = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let churn = scope.spawn(|| -> Result<()> {
            for _ in 0..ROUNDS {
                machine::ip_batch(&crossing.node, &add)?;
                machine::ip_batch(&crossing.node, &remove)?;
            }
            Ok(())
        });
        expect_repair(&crossing, "in the middle of it", "link", || {
            run(
                &crossing,
                "ip link set cara0123456789a address 02:00:00:00:00:08",
            )
            .map(drop)
        })?;
        churn.join().expect("the churn ends")
    })?;
    println!(
        "{} foreign changes in {:?}",
        4 * BATCH * ROUNDS as u32,
        started.elapsed()
    );
    let changes = monitor.stop()?;
    ensure!(
        changes.is_empty(),
        "{}\n{}",
        changes.join("\n"),
        crossing.last_lines()
    );
    Ok(())
}
