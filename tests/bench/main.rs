//! Our reflector and those of others under the same load, one after the other on the same machine.
//!
//! Everything is in a network namespace of its own, on its loopback interface.

mod daemons;
mod interrupt;
mod load;
mod report;
mod scenarios;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::daemons::Daemon;
use crate::report::Row;
use crate::scenarios::Scenario;

#[derive(Debug, Parser)]
#[command(name = "caracal-bench", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Route reflectors: ours, and those of others that are installed
    Reflector {
        /// Only these scenarios
        #[arg(long, value_delimiter = ',', value_name = "NAME")]
        scenario: Vec<String>,
        /// Only these daemons
        #[arg(long, value_delimiter = ',', value_name = "NAME")]
        daemon: Vec<String>,
        /// How often each is run; figures are medians
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        runs: u32,
        /// Root directory with newer versions of the others
        #[arg(long, value_name = "DIR")]
        newer: Option<PathBuf>,
    },
    /// The byte relay that is the limit; runs until it is killed
    #[command(hide = true)]
    Relay,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Relay => daemons::serve_relay(),
        What::Reflector {
            scenario,
            daemon,
            runs,
            newer,
        } => {
            newer.into_iter().for_each(daemons::set_newer);
            compare(&scenario, &daemon, runs)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("caracal-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(scenarios: &[String], daemons: &[String], runs: u32) -> Result<()> {
    interrupt::watch()?;
    let scenarios: Vec<&Scenario> = chosen(scenarios, scenarios::ALL.iter(), |s| s.name)?;
    let mut present = Vec::new();
    for daemon in chosen(daemons, daemons::ALL.into_iter(), Daemon::name)? {
        match daemon.version() {
            Some(version) => {
                println!("{:<12} {version}", daemon.name());
                present.push(daemon);
            }
            None => println!("{:<12} skipped: not installed", daemon.name()),
        }
    }
    for scenario in scenarios {
        let rows: Vec<Row> = present
            .iter()
            .map(|daemon| Row {
                daemon: daemon.name(),
                is_relay: daemon.is_relay(),
                is_ours: daemon.name() == "caracal",
                runs: run(scenario, *daemon, runs),
            })
            .collect();
        report::print(&format!("{}. {}", scenario.name, scenario.title), &rows);
    }
    Ok(())
}

/// A daemon that cannot do it once is not asked again.
fn run(
    scenario: &Scenario,
    daemon: &dyn Daemon,
    runs: u32,
) -> Vec<Result<Vec<scenarios::Figure>, String>> {
    let mut all = Vec::new();
    for _ in 0..runs {
        let run = scenario.run(daemon).map_err(|error| format!("{error:#}"));
        let has_failed = run.is_err();
        all.push(run);
        if has_failed {
            break;
        }
    }
    all
}

/// Those of `all` whose names are in `names`, or all of them if there are none.
fn chosen<T: Copy>(
    names: &[String],
    all: impl Iterator<Item = T>,
    name_of: impl Fn(T) -> &'static str,
) -> Result<Vec<T>> {
    let all: Vec<T> = all.collect();
    for name in names {
        let known: Vec<&str> = all.iter().map(|item| name_of(*item)).collect();
        ensure!(
            known.contains(&name.as_str()),
            "{name} is none of {}",
            known.join(", ")
        );
    }
    Ok(all
        .into_iter()
        .filter(|item| names.is_empty() || names.iter().any(|name| name == name_of(*item)))
        .collect())
}
