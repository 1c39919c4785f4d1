//! `caracal`: what an operator asks of an agent or a reflector on this machine.
//!
//! Exit codes: 0 fine, 1 a finding or nothing found, 2 usage, 3 the socket is unreachable, 4 a wait
//! timed out. A module per command; `target` is whom to ask, `output` how the answer is shown.

mod check;
mod drain;
mod endpoints;
mod lab;
mod output;
mod peers;
mod routes;
mod status;
mod target;
mod wait;
mod why;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::api::client::ClientError;
use clap::{Parser, Subcommand};

use output::Format;
use target::Target;

/// Look into a Caracal agent or reflector.
#[derive(Debug, Parser)]
#[command(name = "caracal", version)]
struct Cli {
    /// Socket to ask [default: agent.sock, else reflector.sock, in /run/caracal]
    #[arg(long, value_name = "PATH", global = true, display_order = 100)]
    socket: Option<PathBuf>,
    /// How to show the answer
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        global = true,
        display_order = 101,
        default_value = "table"
    )]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Whether all is well; exit code 1 if not
    Status,
    /// Everything that is wrong or in the way, a line each; exit code 1 if there is anything
    Check,
    /// BGP peers and their sessions; with PEER all about one
    Peers(peers::Args),
    /// Routes: which are best, why, and what the kernel has; > best, = used beside it, s stale, x refused
    Routes(routes::Args),
    /// One prefix: its paths, which is best and why, who hears of it and why others do not
    Why(why::Args),
    /// Workloads of this node
    Endpoints,
    /// Ask everybody to use the routes of this node or reflector last, before it goes
    Drain(drain::Args),
    /// Wait for a state; exit code 4 if it is not reached in time
    Wait(wait::Args),
    /// Two racks of nodes on this machine, with everything real
    Lab(lab::Args),
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Exit {
    Fine,
    /// Something is wrong, or what was asked for does not exist.
    Finding,
    Usage,
    Unreachable,
    TimedOut,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Finding => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::TimedOut => 4,
        })
    }
}

fn main() -> ExitCode {
    // A usage error ends here, with clap's own exit code 2.
    let cli = Cli::parse();
    let target = Target::new(cli.socket);
    let done = match cli.command {
        Command::Status => status::run(&target, cli.output),
        Command::Check => check::run(&target, cli.output),
        Command::Peers(args) => peers::run(&target, cli.output, &args),
        Command::Routes(args) => routes::run(&target, cli.output, &args),
        Command::Why(args) => why::run(&target, cli.output, &args),
        Command::Endpoints => endpoints::run(&target, cli.output),
        Command::Drain(args) => drain::run(&target, cli.output, &args),
        Command::Wait(args) => wait::run(&target, &args),
        Command::Lab(args) => return lab::run(args),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            let (exit, hint) = (exit_for(&error), hint_for(&error));
            eprintln!("caracal: {:#}{hint}", anyhow::Error::from(error));
            exit.into()
        }
    }
}

/// What to do about it.
fn hint_for(error: &ClientError) -> &'static str {
    let ClientError::Unreachable { source, .. } = error else {
        return "";
    };
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            "; no agent or reflector runs on it: start one, or name the socket with --socket"
        }
        ErrorKind::PermissionDenied => "; only root and the user it runs as may ask",
        _ => "",
    }
}

fn exit_for(error: &ClientError) -> Exit {
    match error {
        ClientError::Refused { status: 400, .. } => Exit::Usage,
        ClientError::Refused {
            status: 404 | 500, ..
        } => Exit::Finding,
        ClientError::Refused { .. }
        | ClientError::Unreachable { .. }
        | ClientError::Broken { .. }
        | ClientError::TimedOut { .. }
        | ClientError::Unintelligible { .. } => Exit::Unreachable,
    }
}
