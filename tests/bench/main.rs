//! Our reflector and agent, and those of others, under the same load, one after the other on the same machine.
//!
//! Everything is in a network namespace of its own.

mod contender;
mod daemons;
mod interrupt;
mod kernel;
mod load;
mod node;
mod packets;
mod place;
mod report;
mod routers;
mod scenarios;
mod usage;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::contender::{Contender, Test, by_daemon};
use crate::report::Row;

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
    /// Ways of packets between workloads of two nodes
    Packets(Choice),
    /// The byte relay that is the limit; runs until it is killed
    #[command(hide = true)]
    Relay,
    /// The plain carrier that is compared with; runs until it is killed
    #[command(hide = true)]
    PlainCarrier { local: Ipv4Addr, remote: Ipv4Addr },
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
    /// A hundredth of it, to see that it works: the figures mean nothing
    #[arg(long)]
    small: bool,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Relay => daemons::serve_relay(),
        What::PlainCarrier { local, remote } => packets::carry_plainly(local, remote),
        What::Reflector(choice) => {
            let tests = scenarios::ALL.iter().map(|scenario| Test {
                name: scenario.name,
                title: scenario.title,
                contenders: by_daemon(&daemons::ALL, |daemon| scenario.run(daemon)),
                note: "",
            });
            compare(tests.collect(), &choice)
        }
        What::Node(choice) => compare(node::tests(choice.small), &choice),
        What::Packets(choice) => compare(packets::tests(choice.small), &choice),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("caracal-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(tests: Vec<Test>, choice: &Choice) -> Result<()> {
    choice.newer.iter().cloned().for_each(daemons::set_newer);
    interrupt::watch()?;
    let names = tests.iter().map(|test| test.name);
    check(&choice.scenario, names)?;
    let contenders = || tests.iter().flat_map(|test| &test.contenders);
    check(&choice.daemon, contenders().map(|one| one.name))?;
    let is_chosen = |names: &[String], name: &str| {
        names.is_empty() || names.iter().any(|chosen| chosen == name)
    };

    let tests: Vec<&Test> = tests
        .iter()
        .filter(|test| is_chosen(&choice.scenario, test.name))
        .collect();
    let mut present: BTreeMap<&str, bool> = BTreeMap::new();
    for one in tests.iter().flat_map(|test| &test.contenders) {
        if is_chosen(&choice.daemon, one.name) && !present.contains_key(one.name) {
            let version = one.version();
            match &version {
                Ok(version) => println!("{:<12} {version}", one.name),
                Err(reason) => println!("{:<12} skipped: {reason}", one.name),
            }
            present.insert(one.name, version.is_ok());
        }
    }
    for test in tests {
        let is_present = |one: &&Contender| present.get(one.name) == Some(&true);
        let rows: Vec<Row> = test
            .contenders
            .iter()
            .filter(is_present)
            .map(|one| Row {
                name: one.name,
                role: one.role,
                runs: one.runs(choice.runs),
            })
            .collect();
        report::print(&format!("{}. {}", test.name, test.title), &rows);
        if !test.note.is_empty() {
            println!("  {}", test.note);
        }
    }
    Ok(())
}

/// Whether all that is chosen is there.
fn check<'a>(chosen: &[String], all: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut known: Vec<&str> = Vec::new();
    for name in all {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    for name in chosen {
        ensure!(
            known.contains(&name.as_str()),
            "{name} is none of {}",
            known.join(", ")
        );
    }
    Ok(())
}
