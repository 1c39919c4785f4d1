//! Workloads as a container runtime asks for them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use ::agent::api::client::Client;
use ::agent::cni::protocol::{CALL_PATH, Call, Command, PROTOCOL_VERSION, Reply};
use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::Size;
use super::workloads::{monitor, wait};
use crate::daemons::Running;
use crate::kernel::workload::{self, Workload};
use crate::routers::agent;
use crate::scenarios::{Figure, megabytes, percentile};

/// Calls at once.
const AT_ONCE: usize = 32;

pub fn measure(running: &Running, size: &Size) -> Result<Vec<Figure>> {
    let namespaces = namespaces(size.workloads)?;
    let runtime = Runtime {
        client: Client::new(&agent::socket(running.directory())),
        socket: agent::socket(running.directory()),
    };
    let mut monitor = monitor()?;
    let before = running.usage()?;
    let start = Instant::now();
    let mut adds = runtime.all(Command::Add, &namespaces, AT_ONCE)?;
    wait(&mut monitor, size.workloads)?;
    let added = start.elapsed().as_secs_f64();
    let full = running.usage()?;
    let start = Instant::now();
    runtime.all(Command::Del, &namespaces, AT_ONCE)?;
    wait(&mut monitor, 0)?;
    let deleted = start.elapsed().as_secs_f64();
    let after = running.usage()?;
    let some = &namespaces[..size.singles as usize];
    let mut one_add = runtime.all(Command::Add, some, 1)?;
    let mut one_del = runtime.all(Command::Del, some, 1)?;
    Ok(vec![
        ("ADD all s", added),
        ("ADD p50 ms", percentile(&mut adds, 50)),
        ("its CPU s", (full.cpu - before.cpu).as_secs_f64()),
        ("DEL all s", deleted),
        ("its CPU s ", (after.cpu - full.cpu).as_secs_f64()),
        ("one ADD p50 ms", percentile(&mut one_add, 50)),
        ("one DEL p50 ms", percentile(&mut one_del, 50)),
        ("MB with all", megabytes(full.resident)),
        ("peak MB", megabytes(after.peak)),
    ])
}

/// What the kernel takes for veths and their host's side. The workload's own side and what is kept
/// on disk are not in it.
pub fn raw(_: &Running, size: &Size) -> Result<Vec<Figure>> {
    workload::forward()?;
    let namespaces = namespaces(size.workloads)?;
    let attach = |number: usize, namespace: &OwnedFd| {
        workload::attach(Workload(u32::try_from(number)?), namespace.as_fd())
    };
    let detach = |number: usize, _: &OwnedFd| workload::detach(Workload(u32::try_from(number)?));
    let start = Instant::now();
    each(&namespaces, AT_ONCE, attach)?;
    let added = start.elapsed().as_secs_f64();
    let start = Instant::now();
    each(&namespaces, AT_ONCE, detach)?;
    let deleted = start.elapsed().as_secs_f64();
    let some = &namespaces[..size.singles as usize];
    let mut one_add = each(some, 1, attach)?;
    let mut one_del = each(some, 1, detach)?;
    Ok(vec![
        ("ADD all s", added),
        ("DEL all s", deleted),
        ("one ADD p50 ms", percentile(&mut one_add, 50)),
        ("one DEL p50 ms", percentile(&mut one_del, 50)),
    ])
}

/// Network namespaces, which end with their descriptors.
fn namespaces(number: u32) -> Result<Vec<OwnedFd>> {
    let make = || -> Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    };
    thread::scope(|scope| {
        let made = scope.spawn(|| (0..number).map(|_| make()).collect());
        made.join()
            .unwrap_or_else(|_| Err(anyhow!("the namespaces' thread panicked")))
    })
}

/// Does it for each workload, so many at once, and says how long each took in milliseconds.
fn each(
    namespaces: &[OwnedFd],
    at_once: usize,
    call: impl Fn(usize, &OwnedFd) -> Result<()> + Sync,
) -> Result<Vec<f64>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut times = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(namespace) = namespaces.get(number) else {
                return Ok(times);
            };
            let start = Instant::now();
            call(number, namespace)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            let times: Result<Vec<f64>> = worker
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a caller panicked")));
            all.extend(times?);
        }
        Ok(all)
    })
}

struct Runtime {
    client: Client,
    socket: PathBuf,
}

impl Runtime {
    fn all(&self, command: Command, namespaces: &[OwnedFd], at_once: usize) -> Result<Vec<f64>> {
        each(namespaces, at_once, |number, namespace| {
            self.call(command, number, namespace)
        })
    }

    /// As the plugin passes it on.
    fn call(&self, command: Command, number: usize, namespace: &OwnedFd) -> Result<()> {
        let descriptor = namespace.as_raw_fd();
        let call = Call {
            protocol_version: PROTOCOL_VERSION,
            command,
            container_id: format!("{number:064x}"),
            ifname: "eth0".to_owned(),
            netns: format!("/proc/{}/fd/{descriptor}", std::process::id()),
            args: format!("K8S_POD_NAMESPACE=bench;K8S_POD_NAME=w{number}"),
            config: json!({
                "cniVersion": "1.0.0",
                "name": "caracal",
                "type": "caracal-cni",
                "socket": self.socket,
            }),
        };
        let passed = (command == Command::Add).then(|| namespace.as_fd());
        let body = serde_json::to_vec(&call)?;
        let answer = self.client.post(CALL_PATH, &body, passed)?;
        let text = String::from_utf8_lossy(&answer.body);
        let reply: Reply =
            serde_json::from_slice(&answer.body).with_context(|| text.into_owned())?;
        match reply.error {
            Some(error) => bail!("{command:?} of w{number}: {}: {}", error.msg, error.details),
            None => Ok(()),
        }
    }
}
