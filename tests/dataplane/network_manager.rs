//! The real NetworkManager beside an agent, with what `install` writes and without.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent::lab::{Lab, Namespace, Process, Scenario, machine, process};
use anyhow::{Context, Result, ensure};
use harness::monitor::{RouteMonitor, wait_detected};
use harness::product::{TIMEOUT, eventually, programs, status, wired_lab};
use harness::{needs_root, report};
use nix::sys::signal::Signal;

use crate::host_daemons::{install, ours, shell};

/// The machine has directories, a bus and a /sys of its own, without udev, and no radio to switch.
const OWN_DIRECTORIES: &str = "
mkdir -p /run/own/names
[ ! -d /etc/iproute2 ] || mount --bind /etc/iproute2 /run/own/names
for directory in etc var/lib; do
    mkdir -p /run/own/$directory/upper /run/own/$directory/work
    own=/run/own/$directory
    mount -t overlay -o lowerdir=/$directory,upperdir=$own/upper,workdir=$own/work overlay /$directory
done
[ ! -d /etc/iproute2 ] || mount --bind /run/own/names /etc/iproute2
rm -rf /etc/NetworkManager
mkdir -p /etc/NetworkManager/conf.d /etc/NetworkManager/system-connections /run/dbus
mount -t sysfs -o ro sysfs /sys
[ ! -e /dev/rfkill ] || mount --bind /dev/null /dev/rfkill
";

const BUS: &str = "<busconfig>
<type>system</type>
<listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context=\"default\">
<allow user=\"*\"/><allow own=\"*\"/><allow eavesdrop=\"true\"/>
<allow send_destination=\"*\" eavesdrop=\"true\"/>
</policy>
</busconfig>";

/// The NIC as an operator has it; nothing of NetworkManager's that is not about links.
const FILES: [(&str, &str); 3] = [
    ("/run/dbus/bus.conf", BUS),
    (
        "/etc/NetworkManager/NetworkManager.conf",
        "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\nhostname-mode=none\n\
         auth-polkit=false\nsystemd-resolved=false\n",
    ),
    (
        "/etc/NetworkManager/system-connections/nic.nmconnection",
        "[connection]\nid=nic\nuuid=11111111-2222-3333-4444-555555555555\ntype=ethernet\n\
         interface-name=eth0\n\n[ipv4]\nmethod=manual\naddress1=192.168.100.100/24,192.168.100.1\n\n\
         [ipv6]\nmethod=disabled\n",
    ),
];

/// Installed, or unpacked by tests/run.
struct Programs {
    root: PathBuf,
}

impl Programs {
    fn find() -> Result<Option<Programs>> {
        let target = programs()?;
        let unpacked = target.parent().context("no target directory")?;
        let roots = [PathBuf::from("/"), unpacked.join("network-manager")];
        let mut found = roots.into_iter().map(|root| Programs { root });
        Ok(found.find(|one| one.path("usr/sbin/NetworkManager").exists()))
    }

    fn path(&self, program: &str) -> PathBuf {
        self.root.join(program)
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.path(program));
        if self.root != Path::new("/") {
            let place = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
            let places = [self.path("usr").join(&place), self.path(&place)];
            command.env("LD_LIBRARY_PATH", std::env::join_paths(places)?);
        }
        Ok(command)
    }

    fn dbus_daemon(&self) -> Result<Command> {
        if self.path("usr/bin/dbus-daemon").exists() {
            return self.command("usr/bin/dbus-daemon");
        }
        Ok(Command::new("dbus-daemon"))
    }

    fn nmcli(&self, namespace: &Namespace, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("usr/bin/nmcli")?;
        let (command, timeout) = (command.args(arguments), machine::COMMAND_TIMEOUT);
        Ok(process::output(Some(namespace), command, "", timeout)?)
    }

    /// (interface, state), of all that NetworkManager knows.
    fn states(&self, namespace: &Namespace) -> Result<Vec<(String, String)>> {
        let said = self.nmcli(namespace, &["-t", "-f", "DEVICE,STATE", "device"])?;
        let pairs = said.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect())
    }

    /// Starts it on a1, and waits until the NIC is as its file says.
    fn start(&self, lab: &mut Lab) -> Result<Process> {
        let a1 = lab.namespace("a1")?.clone();
        let mut command = self.command("usr/sbin/NetworkManager")?;
        let running = lab.start_other("a1", command.arg("--no-daemon"))?;
        let waited = eventually("NetworkManager to have the NIC", TIMEOUT, || {
            let states = self.states(&a1)?;
            let is_done = |(name, state): &(String, String)| name == "eth0" && state == "connected";
            Ok((!states.iter().any(is_done)).then(|| format!("{states:?}")))
        });
        waited.map_err(|error| error.context(lab.last_lines("a1")))?;
        Ok(running)
    }

    /// Waits until it knows every interface of ours, and manages none.
    fn wait_unmanaged(&self, a1: &Namespace) -> Result<()> {
        eventually("NetworkManager to manage none of ours", TIMEOUT, || {
            let states = self.states(a1)?;
            let links = machine::ip(a1, &["-brief", "link"])?;
            let ours = links.lines().filter(|line| line.starts_with("cara"));
            let is_unmanaged = |line: &str| {
                let name = line.split([' ', '@']).next().unwrap_or_default();
                let mut states = states.iter();
                states.any(|(known, state)| known == name && state == "unmanaged")
            };
            let managed: Vec<&str> = ours.filter(|line| !is_unmanaged(line)).collect();
            Ok((!managed.is_empty()).then(|| format!("{managed:?}: {states:?}")))
        })
    }
}

/// A lab whose a1 has its NIC's address from NetworkManager, which runs.
fn lab_with_network_manager(programs: &Programs, is_installed: bool) -> Result<(Lab, Process)> {
    let mut lab = wired_lab(Scenario::Mesh)?;
    let a1 = lab.namespace("a1")?.clone();
    shell(&a1, OWN_DIRECTORIES)?;
    a1.enter(|| {
        let mut files = FILES.into_iter();
        files.try_for_each(|(path, text)| std::fs::write(path, text))
    })?;
    shell(&a1, "chmod 600 /etc/NetworkManager/system-connections/*")?;
    if is_installed {
        let said = install(&lab, &a1)?;
        ensure!(said.contains("systemctl reload NetworkManager"), "{said}");
    }
    let mut bus = programs.dbus_daemon()?;
    let bus = bus.args([
        "--config-file=/run/dbus/bus.conf",
        "--nofork",
        "--nopidfile",
    ]);
    lab.start_other("a1", bus)?;
    eventually("the bus", TIMEOUT, || {
        Ok(shell(&a1, "test -S /run/dbus/system_bus_socket")
            .err()
            .map(|error| format!("{error:#}")))
    })?;
    machine::ip(&a1, &["-4", "address", "flush", "dev", "eth0"])?;
    let running = programs.start(&mut lab)?;
    lab.start_all()?;
    lab.attach_all()?;
    lab.wait_routes()?;
    Ok((lab, running))
}

fn wait_nothing_found(lab: &Lab) -> Result<()> {
    eventually("nothing to be found", TIMEOUT, || {
        let check = lab.caracal("a1", &["check"])?;
        Ok((check.stdout != "nothing found\n").then(|| format!("{check:?}")))
    })
}

macro_rules! needs_network_manager {
    () => {
        match Programs::find()? {
            Some(programs) => programs,
            None => {
                report::skip("there is no NetworkManager");
                return Ok(());
            }
        }
    };
}

#[test]
fn network_manager_leaves_ours_alone_after_install() -> Result<()> {
    needs_root!();
    let programs = needs_network_manager!();
    let (mut lab, running) = lab_with_network_manager(&programs, true)?;
    let a1 = lab.namespace("a1")?.clone();
    programs.wait_unmanaged(&a1)?;
    let (before, repaired) = (ours(&a1)?, status(&lab, "a1")?.repairs);
    wait_detected(&a1)?;
    let monitor = RouteMonitor::of_everything(&a1)?;
    running.signal(Signal::SIGTERM);
    running.wait_gone(Duration::from_secs(10))?;
    programs.start(&mut lab)?;
    programs.nmcli(&a1, &["general", "reload"])?;
    programs.wait_unmanaged(&a1)?;
    let touched = monitor.stop_with_devices()?;
    ensure!(touched.is_empty(), "{touched:#?}");
    let after = ours(&a1)?;
    ensure!(after == before, "{after}\nbefore:\n{before}");

    // Workloads come and go, and the tunnel comes again.
    let names: Vec<String> = (0..20).map(|number| format!("w{number}")).collect();
    for name in &names {
        lab.attach("a1", name)?;
    }
    programs.wait_unmanaged(&a1)?;
    for name in &names {
        lab.cni("DEL", "a1", name)?;
    }
    let repairs = status(&lab, "a1")?.repairs;
    ensure!(repairs == repaired, "{repairs:?}, before {repaired:?}");
    let tunnel = status(&lab, "a1")?.tunnel.context("no tunnel")?.device;
    machine::ip(&a1, &["link", "delete", &tunnel])?;
    eventually("everything of ours as before", TIMEOUT, || {
        let now = ours(&a1)?;
        // A new interface changes the order.
        let is_there = |line: &str| now.lines().any(|one| one == line);
        let missing: Vec<&str> = before.lines().filter(|line| !is_there(line)).collect();
        Ok((!missing.is_empty()).then(|| format!("{missing:#?}")))
    })?;
    programs.wait_unmanaged(&a1)?;
    // The carrier finds the device that it served for a moment still busy.
    wait_nothing_found(&lab)
}

#[test]
fn network_manager_manages_ours_until_it_has_read_what_install_wrote() -> Result<()> {
    needs_root!();
    let programs = needs_network_manager!();
    let (lab, _running) = lab_with_network_manager(&programs, false)?;
    let a1 = lab.namespace("a1")?.clone();
    let wait_found = |words: &str| {
        eventually(words, TIMEOUT, || {
            let check = lab.caracal("a1", &["check"])?;
            let is_found = check.status.code() == Some(1) && check.stdout.contains(words);
            Ok((!is_found).then(|| format!("{check:?}")))
        })
    };
    wait_found("no file keeps it off our interfaces")?;
    install(&lab, &a1)?;
    wait_found("it manages cara")?;
    programs.nmcli(&a1, &["general", "reload"])?;
    programs.wait_unmanaged(&a1)?;
    // It sets them down as it lets go of them.
    lab.wait_routes()?;
    wait_nothing_found(&lab)
}
