//! The kernel has no memory left for routes: what does not fit is said, tried again, and goes in when
//! there is memory; everything else works on.
//!
//! Memory that the kernel takes for a thread counts for the thread's group, and with the group's
//! killing off the kernel says ENOMEM and ENOBUFS as if it had no more. Only groups of version 1 hold
//! single threads, so that the agent's own memory does not count; except for pages of its page table:
//! a thread that needs one sleeps until the group has room, as it would not where the machine has no
//! memory. It is given that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use agent::api::schema::{FailedItem, Status};
use agent::lab::{Process, machine};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::PeerStatus;
use harness::crossing::Crossing;
use harness::product::{TIMEOUT, eventually, kill, succeeded};
use harness::{needs_root, report};

const GROUPS: &str = "/sys/fs/cgroup/memory";
const LIMIT_FILE: &str = "memory.limit_in_bytes";
/// Some thousand routes.
const LIMIT: &str = "128K";
const ENOUGH: &str = "256M";
/// A few pages, for a thread that sleeps.
const ROOM: u64 = 16 << 10;
/// Between looks at whether one does.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const ROUTES: u16 = 3000;
/// Said before.
const FIRST: &str = "198.51.100.0/24";
const REASONS: [&str; 2] = ["cannot allocate memory", "no buffer space available"];

/// A group of threads whose kernel memory is limited; it goes with this.
struct Group {
    path: PathBuf,
    /// Gives room to those that sleep, until `end` is dropped.
    keeper: Option<JoinHandle<Result<()>>>,
    end: Option<Sender<()>>,
}

impl Group {
    /// `None` where there are no such groups.
    fn make() -> Result<Option<Group>> {
        let named = tempfile::Builder::new().prefix("caracal-").tempfile()?;
        let name = named.path().file_name().context("a name")?;
        let path = Path::new(GROUPS).join(name);
        if !Path::new(GROUPS).join("memory.oom_control").exists() || fs::create_dir(&path).is_err()
        {
            return Ok(None);
        }
        let mut group = Group {
            path,
            keeper: None,
            end: None,
        };
        group.limit(LIMIT)?;
        fs::write(group.path.join("memory.oom_control"), "1")?;
        let (end, ended) = channel();
        let path = group.path.clone();
        group.keeper = Some(thread::spawn(move || keep_awake(&path, &ended)));
        group.end = Some(end);
        Ok(Some(group))
    }

    fn limit(&self, octets: &str) -> Result<()> {
        Ok(fs::write(self.path.join(LIMIT_FILE), octets)?)
    }

    /// From now on nobody is given anything.
    fn end_keeper(&mut self) -> Result<()> {
        self.end = None;
        let Some(keeper) = self.keeper.take() else {
            return Ok(());
        };
        keeper
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Puts the agent's thread in that writes to the kernel.
    fn take(&self, agent: &Process) -> Result<()> {
        for task in fs::read_dir(format!("/proc/{}/task", agent.pid))? {
            let task = task?;
            if fs::read_to_string(task.path().join("comm"))?.trim() == "dataplane" {
                let thread = task.file_name();
                let thread = thread.to_str().context("a thread's number")?;
                return Ok(fs::write(self.path.join("tasks"), thread)?);
            }
        }
        anyhow::bail!("the agent has no thread named dataplane")
    }
}

/// Gives room to the group at `path` whenever a thread sleeps for want of it.
fn keep_awake(path: &Path, ended: &Receiver<()>) -> Result<()> {
    while ended.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let state = fs::read_to_string(path.join("memory.oom_control"))?;
        if state.lines().any(|line| line == "under_oom 1") {
            let limit: u64 = fs::read_to_string(path.join(LIMIT_FILE))?.trim().parse()?;
            let more = limit + ROOM;
            println!("a thread sleeps: {more} octets instead of {limit}");
            fs::write(path.join(LIMIT_FILE), more.to_string())?;
        }
    }
    Ok(())
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.end_keeper() {
            println!("nobody was given room any more: {error:#}");
        }
        // The last thread in it may just be ending.
        let removed = eventually("the end of the group", Duration::from_secs(5), || {
            fs::remove_dir(&self.path)?;
            Ok(None)
        });
        if let Err(error) = removed {
            println!("{} is left: {error:#}", self.path.display());
        }
    }
}

fn failed(crossing: &Crossing) -> Result<Vec<FailedItem>> {
    // Exit status 1 says that something failed.
    let said = crossing.caracal(&["status", "-o", "json"])?.stdout;
    let status: Status = serde_json::from_str(&said).context(said)?;
    Ok(status.failed)
}

fn learned(crossing: &Crossing) -> Result<usize> {
    let routes = machine::ip(&crossing.node, &["-N", "route", "show", "proto", "203"])?;
    Ok(routes.lines().count())
}

#[test]
fn routes_that_find_no_memory_are_named_and_tried_again_and_the_rest_works() -> Result<()> {
    needs_root!();
    let Some(mut group) = Group::make()? else {
        report::skip("no memory groups of version 1, which hold single threads");
        return Ok(());
    };
    let mut crossing = Crossing::wired(1)?;
    let agent = crossing.start_agent("")?;
    crossing.announce(1, &[(FIRST, "10.0.1.2")])?;
    let is_there = |_: &[_], kernel: &str| kernel.contains("dev eth1");
    crossing.expect("a route", FIRST, is_there)?;

    group.take(&agent)?;
    let prefixes: Vec<String> = (0..ROUTES)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            format!("10.64.{high}.{low}/32")
        })
        .collect();
    let mut routes: Vec<(&str, &str)> = (prefixes.iter())
        .map(|prefix| (prefix.as_str(), "10.0.1.2"))
        .collect();
    crossing.announce(1, &routes)?;
    eventually("the reason, and another attempt", TIMEOUT, || {
        let failed = failed(&crossing)?;
        let is_said = |item: &FailedItem| {
            let error = item.error.to_lowercase();
            let is_reason = REASONS.iter().any(|reason| error.contains(reason));
            item.object.starts_with("route ") && is_reason && item.attempts > 1
        };
        let first = failed.first();
        Ok((!failed.iter().any(is_said)).then(|| format!("{} items, {first:?}", failed.len())))
    })?;
    let held = learned(&crossing)?;
    println!("{held} of {ROUTES} routes found memory");
    ensure!((100..usize::from(ROUTES)).contains(&held), "{held} routes");
    let log = fs::read_to_string(crossing.path("log"))?;
    let told = (log.lines().filter(|line| line.contains("not applied"))).count();
    ensure!((1..50).contains(&told), "{told} lines of the log");
    let peers: Vec<PeerStatus> = crossing.items(&["peers"])?;
    ensure!(
        peers.iter().all(|peer| peer.state == "established"),
        "{peers:?}"
    );
    // What needs no memory is done at once: FIRST is not announced any more.
    crossing.expect("the end of a route", FIRST, |_, kernel| kernel.is_empty())?;

    group.end_keeper()?;
    group.limit(ENOUGH)?;
    eventually("all routes", TIMEOUT, || {
        let held = learned(&crossing)?;
        let failed = failed(&crossing)?;
        let is_whole = held == usize::from(ROUTES) && failed.is_empty();
        Ok((!is_whole).then(|| format!("{held} routes, {:?}", failed.first())))
    })?;
    succeeded(crossing.caracal(&["status"])?)?;
    routes.clear();
    crossing.announce(1, &routes)?;
    eventually("no route", TIMEOUT, || {
        let held = learned(&crossing)?;
        Ok((held != 0).then(|| format!("{held} routes")))
    })?;
    Ok(kill(&agent)?)
}
