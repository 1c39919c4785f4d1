//! Caracal leaves a machine as it found it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent::lab::{Namespace, Scenario, machine, process};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{lab, program, succeeded};
use nix::sys::signal::Signal;

use crate::host_daemons::{install, own_configuration};

/// Of others, and as near to ours as can be: in our prefixes, on names almost ours, and of a name of
/// ours but another kind.
const FOREIGN: &str = "link add name carastrange type veth peer name peer0\n\
    link add name cara00000000000 type vxlan id 77 dstport 4777\n\
    link add name caracal-vxlan1 type vxlan id 78 dstport 4778\n\
    link set carastrange up\n\
    address add 10.77.0.1/24 dev carastrange\n\
    route add 198.51.100.0/24 via 192.168.100.1\n\
    route add 172.17.8.128/25 via 192.168.100.1 proto static metric 202\n\
    route add blackhole 172.17.9.128/25 proto bird\n\
    route add blackhole 172.17.10.0/24 table 202\n\
    route add 172.17.8.77 dev carastrange proto static\n\
    rule add to 172.17.0.0/16 lookup 202 priority 30000\n\
    neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 nud permanent dev carastrange\n\
    neigh add 192.168.100.77 lladdr 02:00:00:00:00:07 nud permanent dev eth0\n";

const EXPECTED: [&str; 11] = [
    "carastrange",
    "cara00000000000",
    "caracal-vxlan1",
    "10.77.0.1/24",
    "198.51.100.0/24 via 192.168.100.1",
    "172.17.8.128/25",
    "172.17.9.128/25",
    "172.17.8.77",
    "30000:",
    "10.77.0.9 lladdr",
    "192.168.100.77 lladdr",
];

/// All that is not ours.
fn foreign(namespace: &Namespace) -> Result<String> {
    let mut text = String::new();
    for arguments in [
        &["route", "show", "proto", "3"][..],
        &["route", "show", "proto", "4"],
        &["route", "show", "proto", "12"],
        &["route", "show", "proto", "2"],
        &["route", "show", "table", "202"],
        &["rule", "show"],
        &["neigh", "show", "nud", "permanent", "dev", "carastrange"],
        &["neigh", "show", "nud", "permanent", "dev", "eth0"],
        &["addr", "show", "dev", "carastrange"],
        &["-d", "link", "show", "dev", "cara00000000000"],
        &["-d", "link", "show", "dev", "caracal-vxlan1"],
        &["addr", "show", "dev", "eth0"],
    ] {
        text += &machine::ip(namespace, arguments)?;
    }
    let tables = nft(namespace, &["list", "tables"])?;
    let others = tables.lines().filter(|line| *line != "table inet caracal");
    text += &others.collect::<Vec<_>>().join("\n");
    // Duplicate address detection may end in between.
    Ok(text.replace(" tentative", ""))
}

#[test]
fn uninstall_removes_every_route_device_and_process_of_ours() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let a1 = lab.namespace("a1")?;
    machine::ip_batch(a1, FOREIGN)?;
    nft(a1, &["add", "table", "inet", "foreign"])?;
    let before = foreign(a1)?;
    for object in EXPECTED {
        ensure!(before.contains(object), "{object}: {before}");
    }
    let tables = nft(a1, &["list", "tables"])?;
    ensure!(tables.contains("table inet caracal"), "{tables}");
    let agent = program(&lab, "a1")?;
    agent.signal(Signal::SIGTERM);
    agent.wait_gone(Duration::from_secs(5))?;

    own_configuration(a1)?;
    install(&lab, a1)?;
    let theirs = Path::new("/etc/systemd/network/10-nic.network");
    a1.enter(|| fs::write(theirs, "[Match]\nName=eth0\n"))?;

    let mut command = Command::new(lab.program("caracal-agent"));
    command.arg("uninstall");
    command.arg("--run-dir").arg(lab.run_dir("a1"));
    command.arg("--state-dir").arg(lab.state_dir("a1"));
    // The plugin was never installed in the lab; the machine's own directories are not touched.
    let empty = tempfile::tempdir()?;
    command.arg("--cni-bin-dir").arg(empty.path());
    command.arg("--cni-conf-dir").arg(empty.path());
    succeeded(process::run(
        Some(a1),
        &mut command,
        "",
        Duration::from_secs(20),
    )?)?;

    let files = a1.enter(|| files_in("/etc/systemd"))?;
    ensure!(files == [theirs], "{files:?}");
    let routes = machine::ip(a1, &["-N", "route", "show", "table", "all"])?;
    let ours = ["proto 202", "proto 203", "dev caracal-"];
    ensure!(!ours.iter().any(|word| routes.contains(word)), "{routes}");
    let after = foreign(a1)?;
    ensure!(after == before, "{after}\nbefore:\n{before}");
    let links = machine::ip(a1, &["-br", "link"])?;
    let ours = [
        "caracal-ipip",
        "caracal-tun ",
        "caracal-vxlan ",
        "caracal-udp",
    ];
    let left = ours.iter().find(|name| links.contains(*name));
    ensure!(left.is_none(), "{links}");
    let is_workload = |line: &&str| line.starts_with("cara") && line.contains("ee:ee:ee:ee:ee:ee");
    ensure!(!links.lines().any(|line| is_workload(&line)), "{links}");
    let namespace = a1.kernel_name().into_iter().collect::<Vec<_>>();
    let left = process::in_namespaces(&namespace);
    let others: Vec<_> = left
        .iter()
        .filter(|left| left.pid != a1.holder.pid)
        .collect();
    ensure!(others.is_empty(), "{others:?}");
    Ok(())
}

/// All files below.
fn files_in(directory: impl AsRef<Path>) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_in(path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn nft(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("nft");
    let command = command.args(arguments);
    Ok(process::output(
        Some(namespace),
        command,
        "",
        machine::COMMAND_TIMEOUT,
    )?)
}
