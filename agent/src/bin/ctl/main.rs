//! `caracal`, the operator's command line.

mod lab;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Lab(lab::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Lab(args) => lab::run(args),
    }
}
