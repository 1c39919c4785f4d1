//! Traffic between workloads of a lab, and the way it takes.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::product::{TIMEOUT, eventually};
use agent::lab::{Lab, Namespace, machine};
use anyhow::{Context, Result};

/// The carrier's device, or the kernel's.
pub const IPIP: &str = "caracal-tun or caracal-ipip";

/// Of a workload.
pub fn address(lab: &Lab, workload: &str) -> Result<Ipv4Addr> {
    let mut workloads = lab.workloads().iter();
    let found = workloads.find(|one| one.name == workload);
    Ok(found.with_context(|| format!("no {workload}"))?.address)
}

/// Writes the only pool anew.
pub fn set_mode(lab: &Lab, mode: &str) -> Result<()> {
    let pool = format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: default}}\nspec: \
         {{cidr: 172.17.0.0/16, {mode}}}\n"
    );
    // Whole or not at all: the agents watch.
    let new = lab.store().join(".pool.new");
    fs::write(&new, pool)?;
    fs::rename(new, lab.store().join("pool.yaml"))?;
    Ok(())
}

/// Waits until the routes, by node and prefix, go by `device`.
pub fn wait_for_device(lab: &Lab, ways: &[(&str, &str)], device: &str) -> Result<()> {
    eventually(&format!("routes by {device}"), TIMEOUT, || {
        for (node, prefix) in ways {
            let route = machine::ip(lab.namespace(node)?, &["route", "show", prefix])?;
            let mut words = route.split(' ').skip_while(|word| *word != "dev");
            let used = words.nth(1).unwrap_or_default();
            if !device.split(" or ").any(|name| name == used) {
                return Ok(Some(format!("{node}: {route}")));
            }
        }
        Ok(None)
    })
}

/// What `bind` makes in the namespace, as soon as its port is free: a program that another test is
/// just starting has a copy of a socket that was closed here, until it runs.
pub fn bound<T: Send>(
    namespace: &Namespace,
    bind: impl Fn() -> std::io::Result<T> + Sync,
) -> Result<T> {
    let mut made = None;
    eventually("the port is free", TIMEOUT, || {
        made = Some(namespace.enter(&bind)?);
        Ok(None)
    })?;
    made.context("it is bound")
}

/// Where workloads listen for streams.
pub const PORT: u16 = 7000;

/// One connection over which numbers flow and come back.
pub struct Stream {
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Stream {
    pub fn start(lab: &Lab, from: &str, to: &str) -> Result<Stream> {
        let target = SocketAddr::from((address(lab, to)?, PORT));
        Stream::start_to(lab, from, to, target)
    }

    /// To a service at `target` that leads to `to`.
    pub fn start_to(lab: &Lab, from: &str, to: &str, target: SocketAddr) -> Result<Stream> {
        let listens = (address(lab, to)?, PORT);
        let listener = bound(lab.namespace(to)?, || TcpListener::bind(listens))?;
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = [0; 8192];
            while stream.read_exact(&mut buffer).is_ok() {
                stream.write_all(&buffer)?;
            }
            std::io::Result::Ok(())
        });
        let mut stream = lab.namespace(from)?.enter(|| TcpStream::connect(target))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&turns));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let turn = counted.fetch_add(1, Ordering::Relaxed);
                let sent = [turn as u8; 8192];
                stream.write_all(&sent)?;
                let mut received = [0; 8192];
                stream.read_exact(&mut received)?;
                if received != sent {
                    return Err(std::io::Error::other("other octets came back"));
                }
            }
            Ok(())
        });
        Ok(Stream {
            stop,
            turns,
            thread,
        })
    }

    /// How many numbers were sent; all but the last have come back.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Waits until so many numbers have come back.
    pub fn wait_turns(&self, count: u64) -> Result<()> {
        eventually(&format!("{count} turns of the stream"), TIMEOUT, || {
            let turns = self.turns();
            Ok((turns <= count).then(|| format!("{turns} turns")))
        })
    }

    /// # Errors
    /// If the connection broke.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the stream panicked"))??;
        Ok(self.turns.load(Ordering::Relaxed))
    }
}
