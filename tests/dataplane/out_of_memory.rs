//! The kernel has no memory left for routes: what does not fit is said, tried again, and goes in when
//! there is memory; everything else works on.
//!
//! Memory that the kernel takes for a thread counts for the thread's group, and with the group's
//! killing off the kernel says ENOMEM and ENOBUFS as if it had no more. Only groups of version 1 hold
//! single threads, so that the agent's own memory does not count.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::api::schema::{FailedItem, Status};
use agent::lab::{Process, machine};
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::PeerStatus;
use harness::crossing::Crossing;
use harness::product::{TIMEOUT, eventually, kill, succeeded};
use harness::{needs_root, report};

const GROUPS: &str = "/sys/fs/cgroup/memory";
/// Some thousand routes.
const LIMIT: &str = "128K";
const ENOUGH: &str = "256M";
const ROUTES: u16 = 3000;
/// Said before.
const FIRST: &str = "198.51.100.0/24";
const REASONS: [&str; 2] = ["cannot allocate memory", "no buffer space available"];

/// A group of threads whose kernel memory is limited; it goes with this.
struct Group {
    path: PathBuf,
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
        let group = Group { path };
        group.limit(LIMIT)?;
        fs::write(group.path.join("memory.oom_control"), "1")?;
        Ok(Some(group))
    }

    fn limit(&self, octets: &str) -> Result<()> {
        Ok(fs::write(self.path.join("memory.limit_in_bytes"), octets)?)
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

impl Drop for Group {
    fn drop(&mut self) {
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
    let Some(group) = Group::make()? else {
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
