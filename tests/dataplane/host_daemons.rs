//! The real systemd-networkd beside an agent, with what `install` writes and without.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use agent::lab::{Lab, Namespace, Process, Scenario, machine, process};
use anyhow::{Result, ensure};
use harness::monitor::RouteMonitor;
use harness::product::{TIMEOUT, eventually, status, succeeded, wired_lab};
use harness::{needs_root, report};
use nix::sys::signal::Signal;

const NETWORKD: &str = "/lib/systemd/systemd-networkd";

/// Directories of the machine that are not the host's, for daemons that are not the host's.
const OWN_DIRECTORIES: &str = "
for directory in /etc/systemd /etc/NetworkManager; do
    [ ! -d $directory ] || mount -t tmpfs tmpfs $directory
done
mkdir -p /etc/systemd/network
";

/// A NIC as an operator has it, and a file for everything else as some distributions have it. The
/// NIC's address is networkd's from the beginning. Where the broadcast address is left to be
/// guessed, version 252 does not know its own address again after a restart and changes it, at which
/// the kernel drops all routes of the NIC.
const NETWORKS: [(&str, &str); 2] = [
    (
        "/etc/systemd/network/20-nic.network",
        "[Match]\nName=eth0\n\n\
         [Address]\nAddress=192.168.100.100/24\nBroadcast=192.168.100.255\n\n\
         [Route]\nGateway=192.168.100.1\n",
    ),
    (
        "/etc/systemd/network/90-all.network",
        "[Match]\nName=*\n\n[Network]\nAddress=10.0.0.1/24\n",
    ),
];

const DIRECTORIES_OF_NETWORKD: &str = "
mount -t sysfs sysfs /sys
mkdir -p /run/systemd/netif /run/udev/data
chown systemd-network: /run/systemd/netif
touch /run/udev/control
";

/// What udev says of every link that it is done with. networkd waits for that.
const UDEV: &str = "
for index in /sys/class/net/*/ifindex; do
    echo I:1 >/run/udev/data/n$(cat $index)
done
";

/// A line for each link of the machine: its name, and what networkd says of it.
const STATES: &str = "
cd /run/systemd/netif/links
for link in /sys/class/net/*; do
    echo ${link##*/} $(grep ADMIN_STATE $(cat $link/ifindex))
done
";

pub fn shell(namespace: &Namespace, script: &str) -> Result<String> {
    let mut command = Command::new("sh");
    let command = command.args(["-eu", "-c", script]);
    let timeout = machine::COMMAND_TIMEOUT;
    Ok(process::output(Some(namespace), command, "", timeout)?)
}

/// From now on the machine has configuration of its own in place of the host's.
pub fn own_configuration(namespace: &Namespace) -> Result<()> {
    shell(namespace, OWN_DIRECTORIES).map(drop)
}

/// `caracal-agent install`, and what it printed.
pub fn install(lab: &Lab, namespace: &Namespace) -> Result<String> {
    let mut command = Command::new(lab.program("caracal-agent"));
    let (command, timeout) = (command.arg("install"), machine::COMMAND_TIMEOUT);
    succeeded(process::run(Some(namespace), command, "", timeout)?)
}

/// Starts networkd on a1 and waits until it is done with every link there is.
fn start_networkd(lab: &mut Lab) -> Result<Process> {
    let a1 = lab.namespace("a1")?.clone();
    shell(&a1, UDEV)?;
    let networkd = lab.start_other("a1", &mut Command::new(NETWORKD))?;
    let waited = eventually("networkd to know all links", TIMEOUT, || {
        let states = shell(&a1, STATES)?;
        let is_done = |line: &str| match line.split_once(" ADMIN_STATE=") {
            Some(("eth0", state)) => state == "configured",
            // What the agent changes back keeps it busy.
            Some((_, state)) => !["pending", "initialized"].contains(&state),
            None => false,
        };
        Ok((!states.lines().all(is_done)).then_some(states))
    });
    waited.map_err(|error| error.context(lab.last_lines("a1")))?;
    Ok(networkd)
}

fn restart_networkd(lab: &mut Lab, running: &Process) -> Result<()> {
    running.signal(Signal::SIGTERM);
    running.wait_gone(Duration::from_secs(10))?;
    start_networkd(lab).map(drop)
}

/// A lab whose a1 has its NIC's address from networkd, which runs. `None` where there is none.
fn lab_with_networkd(is_installed: bool) -> Result<Option<(Lab, Process)>> {
    if !Path::new(NETWORKD).exists() {
        report::skip(&format!("there is no {NETWORKD}"));
        return Ok(None);
    }
    let mut lab = wired_lab(Scenario::Mesh)?;
    let a1 = lab.namespace("a1")?.clone();
    own_configuration(&a1)?;
    if is_installed {
        let said = install(&lab, &a1)?;
        for hint in ["networkctl reload", "systemctl restart systemd-networkd"] {
            ensure!(said.contains(hint), "{said}");
        }
        let said = install(&lab, &a1)?;
        ensure!(said.is_empty(), "written again: {said}");
    }
    a1.enter(|| {
        let mut files = NETWORKS.into_iter();
        files.try_for_each(|(path, text)| std::fs::write(path, text))
    })?;
    shell(&a1, DIRECTORIES_OF_NETWORKD)?;
    machine::ip(&a1, &["-4", "address", "flush", "dev", "eth0"])?;
    let networkd = start_networkd(&mut lab)?;
    lab.start_all()?;
    lab.attach_all()?;
    lab.wait_routes()?;
    Ok(Some((lab, networkd)))
}

/// Our routes and neighbours, and the addresses of our interfaces.
pub fn ours(a1: &Namespace) -> Result<String> {
    let mut text = String::new();
    for arguments in [
        &["route", "show", "table", "all", "proto", "202"][..],
        &["route", "show", "table", "all", "proto", "203"],
        &["neighbour", "show", "nud", "permanent"],
    ] {
        text += &machine::ip(a1, arguments)?;
    }
    let addresses = machine::ip(a1, &["-brief", "-4", "address"])?;
    for line in addresses.lines().filter(|line| line.starts_with("cara")) {
        // A tunnel that never was without its carrier is up, too.
        let words = line.split_whitespace();
        let words = words.map(|word| if word == "UNKNOWN" { "UP" } else { word });
        text += &format!("{}\n", words.collect::<Vec<_>>().join(" "));
    }
    Ok(text)
}

#[test]
fn networkd_leaves_ours_alone_after_install() -> Result<()> {
    needs_root!();
    let Some((mut lab, running)) = lab_with_networkd(true)? else {
        return Ok(());
    };
    let a1 = lab.namespace("a1")?.clone();
    let (before, repaired) = (ours(&a1)?, status(&lab, "a1")?.repairs);
    for route in [
        "172.17.8.2 dev cara",
        "172.17.9.0/24 via",
        "blackhole 172.17.8.0/24",
    ] {
        ensure!(before.contains(route), "{route}: {before}");
    }
    let monitor = RouteMonitor::start(&lab, "a1")?;
    restart_networkd(&mut lab, &running)?;
    let changes = monitor.stop_with_all()?;
    let is_ours = |line: &&String| line.contains("proto caracal") || line.contains("dev cara");
    let touched: Vec<_> = changes.iter().filter(is_ours).collect();
    ensure!(touched.is_empty(), "{touched:#?}");
    let after = ours(&a1)?;
    ensure!(after == before, "{after}\nbefore:\n{before}");
    let repairs = status(&lab, "a1")?.repairs;
    ensure!(repairs == repaired, "{repairs:?}, before {repaired:?}");
    let check = lab.caracal("a1", &["check"])?;
    ensure!(check.stdout == "nothing found\n", "{check:?}");
    Ok(())
}

#[test]
fn networkd_takes_ours_without_install_and_check_says_so() -> Result<()> {
    needs_root!();
    let Some((mut lab, running)) = lab_with_networkd(false)? else {
        return Ok(());
    };
    let a1 = lab.namespace("a1")?.clone();
    let check = lab.caracal("a1", &["check"])?;
    ensure!(check.status.code() == Some(1), "{check:?}");
    for words in [
        "/etc/systemd/network/90-all.network is the first file to match",
        "ManageForeignRoutes is yes unless a file says no",
        "caracal-agent install",
    ] {
        ensure!(check.stdout.contains(words), "{words}: {check:?}");
    }
    restart_networkd(&mut lab, &running)?;
    eventually(
        "networkd's address on a workload's interface",
        TIMEOUT,
        || {
            let addresses = machine::ip(&a1, &["-brief", "-4", "address"])?;
            let is_taken = |line: &str| line.starts_with("cara") && line.contains("10.0.0.1/24");
            Ok((!addresses.lines().any(is_taken)).then_some(addresses))
        },
    )?;
    // It does not last all the same: the agent writes them again. How many at a time, and so how often
    // each is counted, is up to the two.
    eventually("all six routes, repaired", TIMEOUT, || {
        let repairs = status(&lab, "a1")?.repairs;
        let routes = machine::ip(&a1, &["-N", "-4", "route", "show"])?;
        let is_ours = |line: &&str| line.contains("proto 202") || line.contains("proto 203");
        let is_whole = routes.lines().filter(is_ours).count() == 6;
        let is_repaired = is_whole && repairs.contains_key("route");
        Ok((!is_repaired).then(|| format!("{repairs:?}\n{routes}")))
    })?;
    lab.wait_routes()?;
    Ok(())
}
