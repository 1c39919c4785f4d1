//! `caracal-agent`: the node agent, its set-up, and the userspace tunnel's process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent::carrier::{self, CarrierOptions};
use agent::cni::install;
use agent::config::{
    Cli, CniDirectories, Command, InstallCniArgs, LogArgs, LogFormat, LogLevel, RunArgs, Settings,
    UninstallArgs, logging,
};
use agent::host_daemons;
use agent::installed_file::{InstalledFileError, place, remove};
use agent::names::{PROTOCOL_LEARNED, PROTOCOL_LOCAL};
use agent::privileges;
use anyhow::Context;
use clap::Parser;

/// Where iproute2 looks for names of route protocols.
const ROUTE_PROTOCOLS: &str = "/etc/iproute2/rt_protos.d/caracal.conf";
/// Of the host's files, which a container sees where they are mounted.
const ROOT: &str = "/";

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) if args.dry_run => return dry_run(&args),
        Command::Run(args) => run(&args),
        Command::InstallCni(args) => install_cni(&args),
        Command::Install => install(),
        Command::Uninstall(args) => uninstall(&args),
        Command::Carrier(args) => {
            let options = CarrierOptions {
                run_dir: args.run_dir,
                local: args.local,
                encapsulation: args.encapsulation,
                takes_over: args.take_over,
            };
            run_carrier(&args.logging, options)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("caracal-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &RunArgs) -> anyhow::Result<()> {
    agent::crash::arm();
    let settings = Settings::load(args)?;
    begin_log(&settings.log_level, settings.log_format)?;
    agent::memory::share_one_heap();
    block_on(agent::run::run(settings))
}

/// 0: nothing would change, 1: something would, 2: that could not be found out.
fn dry_run(args: &RunArgs) -> ExitCode {
    let compare = || {
        let settings = Settings::load(args)?;
        begin_log(&settings.log_level, settings.log_format)?;
        block_on(agent::dry_run::run(settings))
    };
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("caracal-agent: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn begin_log(level: &LogLevel, format: LogFormat) -> anyhow::Result<()> {
    logging::init(level, format)
        .map_err(|error| anyhow::anyhow!("failed to set up logging: {error}"))
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let outcome = runtime.block_on(future);
    // Threads that are still busy with the kernel do not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    outcome
}

fn run_carrier(logging: &LogArgs, options: CarrierOptions) -> anyhow::Result<()> {
    let level = logging.log_level.clone().unwrap_or_default();
    begin_log(&level, logging.log_format.unwrap_or_default())?;
    Ok(carrier::run(&options)?)
}

fn install_cni(args: &InstallCniArgs) -> anyhow::Result<()> {
    let plugin = match &args.plugin {
        Some(plugin) => plugin.clone(),
        None => beside_us("caracal-cni")?,
    };
    let socket = args.run_dir.join("agent.sock");
    let directories = CniDirectories::load(&args.cni)?;
    for path in install::install(&plugin, &directories.bin, &directories.conf, &socket)? {
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn beside_us(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("failed to find this program")?;
    Ok(own.with_file_name(name))
}

fn install() -> anyhow::Result<()> {
    let names = install_route_protocols(Path::new(ROUTE_PROTOCOLS));
    if matches!(names, Ok(true)) {
        println!("wrote {ROUTE_PROTOCOLS}");
    }
    let root = Path::new(ROOT);
    let (written, mut problems) = host_daemons::install(root);
    for drop_in in written {
        let path = drop_in.path(root);
        println!("wrote {}; to use it: {}", path.display(), drop_in.read_by);
    }
    problems.extend(names.err());
    all_or_error(problems.into_iter().map(shown).collect())
}

/// Lets `ip route` show our protocols by name. Returns whether the file had to be written.
fn install_route_protocols(path: &Path) -> Result<bool, InstalledFileError> {
    let text = format!("{PROTOCOL_LOCAL}\tcaracal\n{PROTOCOL_LEARNED}\tcaracal-bgp\n");
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(false);
    }
    place(path, |temporary| fs::write(temporary, &text)).map(|()| true)
}

fn shown(error: InstalledFileError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

fn all_or_error(problems: Vec<String>) -> anyhow::Result<()> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(anyhow::anyhow!(problems.join("\n")))
    }
}

fn uninstall(args: &UninstallArgs) -> anyhow::Result<()> {
    agent::crash::arm();
    privileges::ensure_network_admin()?;
    let cni = CniDirectories::load(&args.cni)?;
    // Half of it beside a running agent would be worse than nothing.
    block_on(agent::run::ensure_stopped(args.directories.run_dir.clone()))?;
    let mut left = install::uninstall(&cni.bin, &cni.conf);
    left.extend(host_daemons::uninstall(Path::new(ROOT)));
    left.extend(remove(Path::new(ROUTE_PROTOCOLS)).err());
    let mut problems: Vec<String> = left.into_iter().map(shown).collect();
    let directories = &args.directories;
    if let Err(error) = block_on(agent::run::uninstall(
        &directories.run_dir,
        &directories.state_dir,
    )) {
        problems.push(format!("{error:#}"));
    }
    all_or_error(problems)
}
