//! What is measured of a node, and how.

mod attach;
mod fib;
mod resync;
mod withdraw;
mod workloads;

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::contender::{Test, by_daemon};
use crate::daemons::{Daemon, Running};
use crate::routers;
use crate::scenarios::Figure;

/// Behind the uplink.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

/// How much there is of everything.
struct Size {
    /// Of the peer.
    routes: u32,
    /// Single ones beside the table.
    changes: u32,
    workloads: u32,
    /// One after the other.
    singles: u32,
    withdrawals: u32,
    passes: u32,
}

const FULL: Size = Size {
    routes: 100_000,
    changes: 3000,
    workloads: 500,
    singles: 50,
    withdrawals: 200,
    passes: 5,
};

const SMALL: Size = Size {
    routes: 1000,
    changes: 30,
    workloads: 20,
    singles: 3,
    withdrawals: 3,
    passes: 2,
};

#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    title: &'static str,
    note: &'static str,
    daemons: &'static [&'static dyn Daemon],
    measure: fn(&Running, &Size) -> Result<Vec<Figure>>,
    /// What the kernel needs without anybody deciding; nothing where it says nothing.
    limit: fn(&Running, &Size) -> Result<Vec<Figure>>,
}

const ALL: &[Scenario] = &[
    Scenario {
        name: "fib",
        title: "one peer's 100,000 routes into the kernel and out again",
        note: "",
        daemons: &routers::ALL,
        measure: fib::table,
        limit: fib::raw_table,
    },
    Scenario {
        name: "change",
        title: "single changes, 1,000/s, beside 100,000 routes, until the kernel has them",
        note: "",
        daemons: &routers::ALL,
        measure: fib::changes,
        limit: no_limit,
    },
    Scenario {
        name: "resync",
        title: "100,000 routes, all of them right, are compared with the kernel",
        note: "",
        daemons: &routers::RESYNCING,
        measure: resync::measure,
        limit: resync::dump,
    },
    Scenario {
        name: "workloads",
        title: "500 workloads of the store, whose veths are there, until the kernel has the last /32",
        note: FELIX,
        daemons: &routers::NODES,
        measure: workloads::measure,
        limit: workloads::raw,
    },
    Scenario {
        name: "attach",
        title: "500 ADDs over the socket, 32 at a time, into namespaces that are there",
        note: "",
        daemons: &routers::NODES,
        measure: attach::measure,
        limit: attach::raw,
    },
    Scenario {
        name: "withdraw",
        title: "a podCIDR, or a kernel route that is passed on, goes until the peer hears of it",
        note: "",
        daemons: &routers::ORIGINATING,
        measure: withdraw::measure,
        limit: no_limit,
    },
];

/// It is not in Debian, so it is not measured beside us.
const FELIX: &str = "Felix of August 2026 on such a machine, nftables, etcd: median 3.7 ms one by one, \
                     500 at once in 1.6-4.2 s, gone in 9-11 s, 78 MB at start and 101 MB after";

/// `is_small`: a hundredth of it.
pub fn tests(is_small: bool) -> Vec<Test> {
    let size = if is_small { &SMALL } else { &FULL };
    let tests = ALL.iter().map(|scenario| Test {
        name: scenario.name,
        title: scenario.title,
        contenders: by_daemon(scenario.daemons, move |daemon| scenario.run(daemon, size)),
        note: scenario.note,
    });
    tests.collect()
}

impl Scenario {
    /// One run with a fresh process.
    fn run(&self, daemon: &dyn Daemon, size: &Size) -> Result<Vec<Figure>> {
        let running = Running::start(daemon, 1)?;
        if daemon.is_relay() {
            return running
                .namespace()
                .enter(|| Ok((self.limit)(&running, size)))?;
        }
        running.wait_listening()?;
        let measured = running
            .namespace()
            .enter(|| Ok((self.measure)(&running, size)))?;
        measured.with_context(|| format!("it said: {}", running.last_words()))
    }
}

fn no_limit(_: &Running, _: &Size) -> Result<Vec<Figure>> {
    Ok(Vec::new())
}
