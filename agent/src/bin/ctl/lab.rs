//! `caracal lab`: two racks on one machine, shown, measured and taken down.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use agent::lab::record::{self, Record};
use agent::lab::topology::{Driver, Options, Scenario};
use agent::lab::{Lab, LabError, Result, interrupt, matrix, show};
use clap::Subcommand;

/// Two racks on one machine: brings them up, shows routes and peers, pings every pair, checks
/// which way the packets went, and leaves nothing behind
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    options: OptionArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring a lab up and leave it running
    Up(OptionArgs),
    /// Run a command on a machine of a running lab
    Exec {
        /// Which, if several are up
        #[arg(long, value_name = "ID")]
        lab: Option<String>,
        /// a1 a2 b1 b2 router reflector-a reflector-b frr, or a workload: a1-1 …
        machine: String,
        /// The command and its arguments; its exit code is ours
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Show a running lab and ping every pair
    Show {
        /// Which, if several are up
        #[arg(long, value_name = "ID")]
        lab: Option<String>,
    },
    /// Take a running lab down
    Down {
        /// Which, if several are up
        #[arg(long, value_name = "ID")]
        lab: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct OptionArgs {
    /// No reflectors: one AS, every node peers with every other
    #[arg(long, group = "scenario")]
    mesh: bool,
    /// No tunnel: FRR is the router in the middle and learns the pod routes
    #[arg(long, group = "scenario")]
    routed: bool,
    /// FRR as a lab router in rack a that announces 203.0.113.0/24
    #[arg(long, group = "scenario")]
    frr: bool,
    /// Without the BGPFilter that admits the lab router's prefix
    #[arg(long, requires = "frr")]
    no_filter: bool,
    /// Force the tunnel driver of a node, kernel or userspace; may be given again
    #[arg(long, value_name = "NODE=DRIVER", value_parser = parse_driver)]
    driver: Vec<(String, Driver)>,
    /// Where the other programs are [default: beside this one]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

impl OptionArgs {
    fn options(self) -> Options {
        let scenario = match (self.mesh, self.routed, self.frr, self.no_filter) {
            (true, ..) => Scenario::Mesh,
            (_, true, ..) => Scenario::Routed,
            (_, _, true, false) => Scenario::Frr,
            (_, _, true, true) => Scenario::FrrUnfiltered,
            (false, false, false, _) => Scenario::Racks,
        };
        Options {
            scenario,
            drivers: self.driver.into_iter().collect(),
        }
    }
}

fn parse_driver(text: &str) -> std::result::Result<(String, Driver), String> {
    let (node, driver) = text.split_once('=').ok_or("want NODE=DRIVER")?;
    if agent::lab::topology::node(node).is_none() {
        return Err(format!("no node {node}; there are a1, a2, b1, b2"));
    }
    let driver = match driver {
        "kernel" => Driver::Kernel,
        "userspace" => Driver::Userspace,
        other => return Err(format!("no driver {other}; there are kernel, userspace")),
    };
    Ok((node.to_owned(), driver))
}

/// Exit status: 0 if everything held, 1 with the reasons if not, 130 if interrupted.
pub fn run(args: Args) -> ExitCode {
    let done = match args.action {
        None => whole(args.options),
        Some(Action::Up(options)) => up(options),
        Some(Action::Exec {
            lab,
            machine,
            command,
        }) => return exec(lab.as_deref(), &machine, &command),
        Some(Action::Show { lab }) => open(lab.as_deref()).and_then(|lab| report(&lab)),
        Some(Action::Down { lab }) => open(lab.as_deref()).and_then(Lab::down),
    };
    exit(done)
}

fn exit(done: Result<()>) -> ExitCode {
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    eprintln!("caracal lab: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        eprintln!("  because {inner}");
        cause = inner.source();
    }
    match error {
        LabError::Interrupted => ExitCode::from(130),
        _ => ExitCode::FAILURE,
    }
}

/// From nothing to nothing.
fn whole(options: OptionArgs) -> Result<()> {
    let mut clock = Clock::start();
    let lab = bring_up(options, &mut clock)?;
    let held = report(&lab);
    clock.lap("look and ping");
    let removed = lab.down();
    clock.lap("take down");
    held.and(removed)?;
    say(&clock.summary());
    Ok(())
}

fn up(options: OptionArgs) -> Result<()> {
    let mut clock = Clock::start();
    let mut lab = bring_up(options, &mut clock)?;
    lab.keep()?;
    say(&format!(
        "lab {} is up; caracal lab exec a1 ip route, caracal lab show, caracal lab down\n{}",
        lab.id(),
        clock.summary()
    ));
    Ok(())
}

fn bring_up(arguments: OptionArgs, clock: &mut Clock) -> Result<Lab> {
    interrupt::watch()?;
    let programs = arguments.programs.clone().map_or_else(programs, Ok)?;
    let options = arguments.options();
    let scenario = options.scenario;
    let mut lab = Lab::new(options, &programs)?;
    say(&format!("lab {}: {scenario}\n", lab.id()));
    lab.wire()?;
    clock.lap("wire");
    lab.start_all()?;
    lab.attach_all()?;
    clock.lap("start and attach");
    lab.wait_routes()?;
    if scenario == Scenario::FrrUnfiltered {
        let reason = lab.wait_refused()?;
        say(&format!("a1 refuses 203.0.113.0/24: {reason}\n"));
    }
    clock.lap("converge");
    Ok(lab)
}

/// Shows the lab, pings every pair and judges.
fn report(lab: &Lab) -> Result<()> {
    say(&show::machines(lab)?);
    let matrix = matrix::measure(lab)?;
    say(&format!(
        "\n-- pings: path seen on the wires, quickest of 3 round trips\n{}",
        show::matrix(&matrix)
    ));
    let mut findings = lab.route_findings()?;
    findings.extend(matrix.findings());
    if findings.is_empty() {
        say(&format!(
            "\n{} pairs, none lost, every path as expected\n",
            matrix.cells.len()
        ));
        return Ok(());
    }
    Err(LabError::Findings(findings))
}

fn exec(lab: Option<&str>, machine: &str, command: &[String]) -> ExitCode {
    let run = || -> Result<u8> {
        let lab = open(lab)?;
        let namespace = lab.namespace(machine)?;
        let [program, arguments @ ..] = command else {
            return Ok(2);
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::iter::once(programs()?).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(places).unwrap_or(path.clone());
        let mut command = Command::new(program);
        let mut child = namespace
            .spawn(command.args(arguments).env("PATH", path))
            .map_err(|error| match error {
                LabError::Io { source, .. } => {
                    LabError::io(format!("run {program} on {machine}"))(source)
                }
                other => other,
            })?;
        let status = child
            .wait()
            .map_err(LabError::io(format!("wait for {program}")))?;
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    };
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit(Err(error)),
    }
}

/// The running lab with this id, or the only one.
fn open(id: Option<&str>) -> Result<Lab> {
    let mut records: Vec<Record> = record::all();
    match id {
        Some(id) => records.retain(|record| record.id == id),
        None => records.retain(|record| record.owner.is_none()),
    }
    if records.len() > 1 {
        let ids: Vec<String> = records.into_iter().map(|record| record.id).collect();
        return Err(LabError::SeveralLabs(ids.join(" ")));
    }
    match records.pop() {
        Some(record) => Ok(Lab::open(record, &programs()?)),
        None => Err(LabError::NoSuchLab(id.map(str::to_owned))),
    }
}

/// The other programs lie beside this one.
fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(LabError::io("find the own program"))?;
    Ok(own.parent().map(PathBuf::from).unwrap_or_default())
}

/// A closed pipe must not keep the lab from being taken down.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

struct Clock {
    start: Instant,
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn start() -> Clock {
        let now = Instant::now();
        Clock {
            start: now,
            last: now,
            laps: Vec::new(),
        }
    }

    fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.laps.push((name, now - self.last));
        self.last = now;
    }

    fn summary(&self) -> String {
        let shown = |(name, took): &(&str, Duration)| format!("{name} {:.2} s", took.as_secs_f64());
        let laps: Vec<String> = self.laps.iter().map(shown).collect();
        format!(
            "{:.2} s in all: {}\n",
            self.start.elapsed().as_secs_f64(),
            laps.join(", ")
        )
    }
}
