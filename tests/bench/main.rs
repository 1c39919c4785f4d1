//! Our reflector and agent, and those of others, under the same load, one after the other on the same machine.
//!
//! Everything is in a network namespace of its own.

mod daemons;
mod fib;
mod interrupt;
mod load;
mod report;
mod routers;
mod scenarios;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::daemons::Daemon;
use crate::report::Row;
use crate::scenarios::Figure;

#[derive(Debug, Parser)]
#[command(name = "caracal-bench", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Route reflectors: ours, and those of others that are installed
    Reflector(Choice),
    /// Routers that write what BGP says to the kernel: our agent, and others that are installed
    Node(Choice),
    /// The byte relay that is the limit; runs until it is killed
    #[command(hide = true)]
    Relay,
}

#[derive(Debug, clap::Args)]
struct Choice {
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
}

/// One run of a daemon that is started anew.
type Run = dyn Fn(&dyn Daemon) -> Result<Vec<Figure>>;

/// What is run with each daemon.
struct Test {
    name: &'static str,
    title: &'static str,
    run: Box<Run>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Relay => daemons::serve_relay(),
        What::Reflector(choice) => {
            let tests = scenarios::ALL.iter().map(|scenario| Test {
                name: scenario.name,
                title: scenario.title,
                run: Box::new(|daemon| scenario.run(daemon)),
            });
            compare(tests.collect(), &daemons::ALL, &choice)
        }
        What::Node(choice) => {
            let tests = fib::ALL.iter().map(|scenario| Test {
                name: scenario.name,
                title: scenario.title,
                run: Box::new(|daemon| scenario.run(daemon)),
            });
            compare(tests.collect(), &routers::ALL, &choice)
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

fn compare(tests: Vec<Test>, daemons: &[&dyn Daemon], choice: &Choice) -> Result<()> {
    choice.newer.iter().cloned().for_each(daemons::set_newer);
    interrupt::watch()?;
    let tests = chosen(&choice.scenario, tests, |test| test.name)?;
    let mut present = Vec::new();
    for daemon in chosen(&choice.daemon, daemons.to_vec(), |daemon| daemon.name())? {
        match daemon.version() {
            Some(version) => {
                println!("{:<12} {version}", daemon.name());
                present.push(daemon);
            }
            None => println!("{:<12} skipped: not installed", daemon.name()),
        }
    }
    for test in tests {
        let rows: Vec<Row> = present
            .iter()
            .map(|daemon| Row {
                daemon: daemon.name(),
                is_relay: daemon.is_relay(),
                is_ours: daemon.name() == "caracal",
                runs: run(&test, *daemon, choice.runs),
            })
            .collect();
        report::print(&format!("{}. {}", test.name, test.title), &rows);
    }
    Ok(())
}

/// A daemon that cannot do it once is not asked again.
fn run(test: &Test, daemon: &dyn Daemon, runs: u32) -> Vec<Result<Vec<Figure>, String>> {
    let mut all = Vec::new();
    for _ in 0..runs {
        let run = (test.run)(daemon).map_err(|error| format!("{error:#}"));
        let has_failed = run.is_err();
        all.push(run);
        if has_failed {
            break;
        }
    }
    all
}

/// Those of `all` whose names are in `names`, or all of them if there are none.
fn chosen<T>(
    names: &[String],
    all: Vec<T>,
    name_of: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>> {
    for name in names {
        let known: Vec<&str> = all.iter().map(&name_of).collect();
        ensure!(
            known.contains(&name.as_str()),
            "{name} is none of {}",
            known.join(", ")
        );
    }
    let is_chosen = |item: &T| names.is_empty() || names.iter().any(|name| name == name_of(item));
    Ok(all.into_iter().filter(is_chosen).collect())
}
