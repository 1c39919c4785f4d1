//! Carriers that are told to stop before they listen.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use agent::carrier::supervise::{Supervisor, SupervisorOptions};
use agent::carrier::{CarrierError, CarrierOptions, Encapsulation, run};
use agent::names::CARRIER_DEVICE;

use crate::netns::{Namespace, wait_until};
use crate::site::{DEADLINE, options};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ROUNDS: u32 = 10;

fn has_device(host: &Namespace) -> bool {
    host.run(&format!("ip link show {CARRIER_DEVICE}")).0
}

/// The processes that were started with this run directory.
fn carriers(run_dir: &Path) -> Vec<String> {
    let run_dir = run_dir.to_str().expect("a name in UTF-8");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lines =
        processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(run_dir)).collect()
}

#[test]
fn carrier_whose_lock_file_was_taken_away_makes_no_device() {
    let Some(host) = Namespace::new() else { return };
    let run_dir = tempfile::tempdir().expect("a directory");
    let options = CarrierOptions {
        run_dir: run_dir.path().into(),
        local: LOCAL,
        encapsulation: Encapsulation::Ipip,
        takes_over: true,
    };
    let outcome = host.enter(|| run(&options));
    assert!(
        matches!(outcome, Err(CarrierError::Unwanted(_))),
        "{outcome:?}"
    );
    assert!(!has_device(&host));
}

#[test]
fn carrier_that_is_stopped_while_it_starts_leaves_no_device() {
    let Some(host) = Namespace::new() else { return };
    host.ip("link set lo up");
    let run_dir = tempfile::tempdir().expect("a directory");
    let (program, arguments) = options(run_dir.path()).carrier_program.expect("given");
    for round in 0..ROUNDS {
        host.block_on(async || {
            let supervisor = Supervisor::start(SupervisorOptions {
                run_dir: run_dir.path().into(),
                local: LOCAL,
                encapsulation: Encapsulation::Ipip,
                program: program.clone(),
                arguments: arguments.clone(),
            });
            // In every other round its process may have come further.
            while !run_dir.path().join("carrier.lock").exists()
                || (round % 2 == 1 && carriers(run_dir.path()).is_empty())
            {
                tokio::task::yield_now().await;
            }
            supervisor.stop().await.expect("it ends");
        });
        // As the agent does.
        host.run(&format!("ip link del {CARRIER_DEVICE}"));
        wait_until(
            "the end of the carrier",
            DEADLINE.min(Duration::from_secs(5)),
            || carriers(run_dir.path()).is_empty(),
            || carriers(run_dir.path()).join("\n"),
        );
        assert!(!has_device(&host), "round {round}");
    }
}
