//! `caracal-reflector`: a rack's BGP route reflector. No dataplane, no cluster; one file.

mod config;
mod file;
mod memory;
mod observe;
mod rack;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::config::{HttpListen, LogFormat, LogLevel, logging};
use anyhow::Context;
use clap::Parser;

use crate::config::Loaded;

/// Reflects routes between the nodes of a rack, and to the reflectors of other racks.
#[derive(Clone, Debug, Parser)]
#[command(name = "caracal-reflector", version)]
pub struct Args {
    /// Resources: BGPConfiguration, BGPPeer, BGPFilter, IPPool, Rack, as one YAML stream; watched
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Directory of reflector.sock
    #[arg(long, value_name = "DIR", default_value = agent::config::DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
    /// Directory of what survives a restart: the peers of ranges
    #[arg(long, value_name = "DIR", default_value = agent::config::DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// Check the file, print a line per problem, and exit: 0 if there is none, else 1
    #[arg(long)]
    check: bool,
    /// Address of /livez, /readyz and /metrics, or none [default: 127.0.0.1:9178]
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<HttpListen>,
    /// error, warn, info, debug, trace, or filters such as info,bgp=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// How a log line is written [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Args {
    fn http_listen(&self) -> Option<SocketAddr> {
        self.http_listen
            .map_or(Some(SocketAddr::from(([127, 0, 0, 1], 9178))), |listen| {
                listen.0
            })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.check {
        return check(&args);
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("caracal-reflector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(args: &Args) -> ExitCode {
    let problems = match config::load(&args.config) {
        Ok(Loaded { errors, .. }) => errors.iter().map(ToString::to_string).collect(),
        Err(error) => vec![format!("{}: -: -: {error:#}", args.config.display())],
    };
    let mut output = std::io::stdout().lock();
    for problem in &problems {
        // Who reads no further has seen enough; the exit code tells the rest.
        if writeln!(output, "{problem}").is_err() {
            break;
        }
    }
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let level = args.log_level.clone().unwrap_or_default();
    logging::init(&level, args.log_format.unwrap_or_default())
        .map_err(|error| anyhow::anyhow!("failed to set up logging: {error}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let outcome = runtime.block_on(rack::run(args));
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    outcome
}
