//! A lab being brought up, worked with and taken down.

mod attach;
mod converge;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;

use super::error::{LabError, Result};
use super::frr;
use super::machine;
use super::netns::{LAB_VARIABLE, Mounts, Namespace};
use super::process::{self, Process};
use super::record::{self, Record, Workload};
use super::texts;
use super::topology::{self, LAB_ROUTER, NODES, Options, ROUTER, Rack, Scenario};
use crate::names::{PROTOCOL_LEARNED, PROTOCOL_LOCAL};

/// How long sessions, routes and FRR may take to come about. Seconds are usual; guest kernels and
/// loaded machines need more.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(60);
const SWITCH: &str = "switch";

/// A lab. Dropping it takes it down, unless `keep` was called.
pub struct Lab {
    record: Record,
    /// Where caracal-agent and the others are.
    programs: PathBuf,
    is_kept: bool,
}

impl Lab {
    /// An empty lab: its directory and record. Leftovers of dead labs are removed first.
    ///
    /// # Errors
    /// `NotRoot`, `MissingTool`, and what can go wrong with files.
    pub fn new(options: Options, programs: &Path) -> Result<Lab> {
        if !geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        check_tools(options.scenario, programs)?;
        record::remove_leftovers()?;
        let lab = Lab {
            record: Record::create(options)?,
            programs: programs.to_owned(),
            is_kept: false,
        };
        lab.write_route_protocols()?;
        Ok(lab)
    }

    /// A lab from machines to packets: everything attached and every route in place.
    pub fn up(options: Options, programs: &Path) -> Result<Lab> {
        let mut lab = Lab::new(options, programs)?;
        lab.wire()?;
        lab.start_all()?;
        lab.attach_all()?;
        lab.wait_routes()?;
        Ok(lab)
    }

    /// A lab that `up` of another process left running.
    pub fn open(record: Record, programs: &Path) -> Lab {
        Lab {
            record,
            programs: programs.to_owned(),
            is_kept: true,
        }
    }

    /// Leaves it running when this process ends.
    pub fn keep(&mut self) -> Result<()> {
        self.record.owner = None;
        self.is_kept = true;
        self.record.save()
    }

    /// Takes it down and says what could not be removed.
    pub fn down(mut self) -> Result<()> {
        self.is_kept = true; // nothing left for Drop
        self.record.remove()
    }

    pub fn id(&self) -> &str {
        &self.record.id
    }

    pub fn directory(&self) -> &Path {
        &self.record.directory
    }

    pub fn options(&self) -> &Options {
        &self.record.options
    }

    pub fn scenario(&self) -> Scenario {
        self.record.options.scenario
    }

    pub fn workloads(&self) -> &[Workload] {
        &self.record.workloads
    }

    /// The processes this lab started, agents under their node's name.
    pub fn processes(&self) -> &[Process] {
        &self.record.processes
    }

    /// A node, reflector, router or workload.
    pub fn namespace(&self, name: &str) -> Result<&Namespace> {
        self.record.namespace(name)
    }

    /// The directory of resources that all nodes read.
    pub fn store(&self) -> PathBuf {
        self.directory().join("store")
    }

    pub fn run_dir(&self, machine: &str) -> PathBuf {
        self.directory().join(machine).join("run")
    }

    pub fn state_dir(&self, machine: &str) -> PathBuf {
        self.directory().join(machine).join("state")
    }

    pub fn log(&self, machine: &str) -> PathBuf {
        self.directory().join(machine).join("log")
    }

    /// Where a program of the product is.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The names of caracal's route protocols, for all machines of the lab: a copy of iproute2's
    /// files with ours beside them.
    fn write_route_protocols(&self) -> Result<()> {
        let target = self.directory().join("iproute2");
        let names = target.join("rt_protos.d");
        fs::create_dir_all(&names).map_err(LabError::io("make a directory"))?;
        if let Some(source) = iproute2_files() {
            for entry in fs::read_dir(source).map_err(LabError::io("read iproute2's files"))? {
                let path = entry.map_err(LabError::io("read iproute2's files"))?.path();
                if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                    fs::copy(&path, target.join(name)).map_err(LabError::io("copy a file"))?;
                }
            }
        }
        let text = format!("{PROTOCOL_LOCAL}\tcaracal\n{PROTOCOL_LEARNED}\tcaracal-bgp\n");
        write(&names.join("caracal.conf"), &text)
    }

    /// Makes a namespace of this lab.
    pub fn add_namespace(&mut self, name: &str, mut mounts: Mounts) -> Result<Namespace> {
        if let Some(target) = iproute2_files() {
            let source = self.directory().join("iproute2");
            mounts.binds.push((source, target.to_owned()));
        }
        let namespace = Namespace::create(self.id(), name, &mounts)?;
        self.record.namespaces.push(namespace.clone());
        self.record.save()?;
        Ok(namespace)
    }

    fn add_machine(&mut self, name: &str) -> Result<Namespace> {
        let run = self.run_dir(name);
        for directory in [&run, &self.state_dir(name)] {
            fs::create_dir_all(directory)
                .map_err(LabError::io(format!("make {}", directory.display())))?;
        }
        let mut mounts = Mounts {
            run: vec![(run, "caracal".to_owned())],
            binds: Vec::new(),
        };
        if self.runs_frr(name) {
            frr::prepare(&self.directory().join(name), self.scenario(), &mut mounts)?;
        }
        self.add_namespace(name, mounts)
    }

    fn runs_frr(&self, machine: &str) -> bool {
        frr_machine(self.scenario()) == Some(machine)
    }

    /// Makes every machine and the links between them. No program runs yet.
    pub fn wire(&mut self) -> Result<()> {
        let scenario = self.scenario();
        let mut links: Vec<(String, String)> =
            vec![(ROUTER.to_owned(), texts::router_links(scenario))];
        for node in &NODES {
            links.push((node.name.to_owned(), texts::node_links(node)));
        }
        if scenario.has_reflectors() {
            for rack in &Rack::ALL {
                links.push((rack.reflector_name(), texts::reflector_links(rack)));
            }
        }
        if scenario.has_lab_router() {
            links.push((LAB_ROUTER.to_owned(), texts::lab_router_links()));
        }
        for (name, _) in &links {
            self.add_machine(name)?;
        }
        let switch = self.add_namespace(SWITCH, Mounts::default())?;
        let holder_of = |name: &str| {
            let namespace = self.record.namespace(name);
            namespace.map_or(0, |namespace| namespace.holder.pid)
        };
        machine::ip_batch(&switch, &texts::switch(scenario, holder_of))?;
        in_parallel(&links, |(name, lines)| {
            let namespace = self.namespace(name)?;
            machine::ip_batch(namespace, lines)?;
            namespace.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        })?;
        Ok(())
    }

    /// Writes the configuration and starts FRR, the reflectors and the agents.
    pub fn start_all(&mut self) -> Result<()> {
        let scenario = self.scenario();
        fs::create_dir_all(self.store()).map_err(LabError::io("make the store"))?;
        for (name, text) in texts::store(scenario) {
            write(&self.store().join(name), &text)?;
        }
        self.start_frr()?;
        if scenario.has_reflectors() {
            for rack in &Rack::ALL {
                write(
                    &self.reflector_file(rack),
                    &texts::reflector(scenario, rack),
                )?;
                self.start_reflector(rack)?;
            }
        }
        for node in &NODES {
            self.start_agent(node.name)?;
        }
        Ok(())
    }

    /// Starts FRR where the lab has it.
    pub fn start_frr(&mut self) -> Result<()> {
        ["zebra", "bgpd"]
            .into_iter()
            .try_for_each(|daemon| self.start_frr_daemon(daemon))
    }

    /// Starts zebra or bgpd where the lab has FRR, for the first time or again.
    pub fn start_frr_daemon(&mut self, daemon: &str) -> Result<()> {
        let Some(machine) = frr_machine(self.scenario()) else {
            return Ok(());
        };
        let namespace = self.namespace(machine)?.clone();
        let directory = self.directory().join(machine);
        let process = frr::start(&namespace, self.id(), &directory, daemon)?;
        self.record_process(process)
    }

    pub fn reflector_file(&self, rack: &Rack) -> PathBuf {
        self.configuration_of(&rack.reflector_name())
    }

    /// The file of the reflector that runs on `machine`.
    pub fn configuration_of(&self, machine: &str) -> PathBuf {
        self.directory().join(machine).join("reflector.yaml")
    }

    pub fn start_reflector(&mut self, rack: &Rack) -> Result<Process> {
        self.start_reflector_on(&rack.reflector_name())
    }

    /// Starts a reflector on `machine`, with its file there.
    pub fn start_reflector_on(&mut self, machine: &str) -> Result<Process> {
        let mut command = Command::new(self.program("caracal-reflector"));
        command.arg("--config").arg(self.configuration_of(machine));
        self.start(machine, &mut command)
    }

    pub fn start_agent(&mut self, node: &str) -> Result<Process> {
        let mut command = Command::new(self.program("caracal-agent"));
        command.args(["run", "--node", node, "--http-listen", "none", "--store"]);
        command.arg(format!("dir:{}", self.store().display()));
        if let Some(driver) = self.options().drivers.get(node) {
            command.args(["--tunnel-driver", driver.as_str()]);
        }
        self.start(node, &mut command)
    }

    /// Makes one more machine on a rack's subnet, with a route to the other rack.
    pub fn plug(&mut self, rack: &Rack, name: &str, address: Ipv4Addr) -> Result<Namespace> {
        let namespace = self.add_machine(name)?;
        let port = texts::port(rack, name, topology::NIC, namespace.holder.pid);
        machine::ip_batch(self.namespace(SWITCH)?, &port)?;
        let to = rack.other().subnet();
        machine::ip_batch(&namespace, &texts::host_links(address, &to, rack))?;
        Ok(namespace)
    }

    /// Starts a program that is not the product's on `machine`.
    pub fn start_other(&mut self, machine: &str, command: &mut Command) -> Result<Process> {
        command.env(LAB_VARIABLE, self.id());
        let namespace = self.namespace(machine)?;
        let process = process::start(machine, namespace, command, &self.log(machine))?;
        self.record_process(process.clone())?;
        Ok(process)
    }

    /// Starts a program of the product on `machine`, under its name and with its directories.
    fn start(&mut self, machine: &str, command: &mut Command) -> Result<Process> {
        command.arg("--run-dir").arg(self.run_dir(machine));
        command.arg("--state-dir").arg(self.state_dir(machine));
        command.env(LAB_VARIABLE, self.id());
        let namespace = self.namespace(machine)?;
        let process = process::start(machine, namespace, command, &self.log(machine));
        let process = process.map_err(|error| self.with_log(machine, error))?;
        self.record_process(process.clone())?;
        Ok(process)
    }

    fn with_log(&self, machine: &str, error: LabError) -> LabError {
        LabError::Command {
            command: format!("the program of {machine}"),
            reason: format!("{error}\n{}", self.last_lines(machine)),
        }
    }

    fn record_process(&mut self, process: Process) -> Result<()> {
        self.record.processes.push(process);
        self.record.save()
    }

    /// Runs `caracal` against the socket of `machine`, waits for its end and returns what it said.
    pub fn caracal(&self, machine: &str, arguments: &[&str]) -> Result<process::Finished> {
        let name = if machine.starts_with("reflector") {
            "reflector.sock"
        } else {
            "agent.sock"
        };
        let mut command = Command::new(self.program("caracal"));
        command
            .arg("--socket")
            .arg(self.run_dir(machine).join(name));
        command.args(arguments);
        process::run(None, &mut command, "", CONVERGENCE_TIMEOUT)
    }

    /// The end of a machine's log, for messages.
    pub fn last_lines(&self, machine: &str) -> String {
        const LINES: usize = 20;
        let text = fs::read_to_string(self.log(machine)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LINES);
        let shown = lines.get(from..).unwrap_or_default().join("\n");
        format!("last lines of {machine}'s log:\n{shown}")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = self.record.remove() {
            eprintln!("caracal lab: {error}");
        }
    }
}

/// The machine that runs FRR.
pub fn frr_machine(scenario: Scenario) -> Option<&'static str> {
    match scenario {
        Scenario::Racks | Scenario::Mesh => None,
        Scenario::Routed => Some(ROUTER),
        Scenario::Frr | Scenario::FrrUnfiltered => Some(LAB_ROUTER),
    }
}

/// Runs `work` for each item in a thread of its own. The results are in the items' order.
///
/// # Errors
/// The first item's that failed.
pub(super) fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let started: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(|| work(item)))
            .collect();
        let join = |handle: thread::ScopedJoinHandle<'_, Result<T>>| match handle.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        started.into_iter().map(join).collect()
    })
}

fn check_tools(scenario: Scenario, programs: &Path) -> Result<()> {
    let mut needed = vec![("ip", "iproute2"), ("sleep", "coreutils")];
    if scenario.needs_frr() {
        needed.push(("vtysh", "frr"));
    }
    for (tool, package) in needed {
        if !machine::has_tool(tool) {
            return Err(LabError::MissingTool {
                tool: tool.to_owned(),
                package: package.to_owned(),
            });
        }
    }
    for program in [
        "caracal",
        "caracal-agent",
        "caracal-cni",
        "caracal-reflector",
    ] {
        if !programs.join(program).is_file() {
            return Err(LabError::Command {
                command: programs.join(program).display().to_string(),
                reason: "it is not built: cargo build".to_owned(),
            });
        }
    }
    Ok(())
}

/// Where this version of iproute2 keeps its names.
fn iproute2_files() -> Option<&'static Path> {
    ["/etc/iproute2", "/usr/share/iproute2"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.is_dir())
}

pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(LabError::io(format!("write {}", path.display())))
}
