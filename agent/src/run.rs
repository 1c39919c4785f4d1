//! `caracal-agent run`: puts the parts together.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::api::health;
use crate::api::listener::PrivateSocket;
use crate::api::serve;
use crate::claim::Claim;
use crate::cni::links::{LinkError, NewLink, WorkloadLinks};
use crate::cni::server;
use crate::cni::verbs::Verbs;
use crate::config::{HostFirewallChoice, NextHopObjects, Settings, StoreLocation};
use crate::crash::crash_point;
use crate::dataplane::{self, Dataplane, DataplaneOptions, WorkloadSpec};
use crate::datastore::FileStore;
use crate::descriptors;
use crate::drain::DrainMark;
use crate::privileges;
use crate::reconcile::Reconciler;
use crate::requests::{Handle, REQUEST_QUEUE};

/// How long an agent that is being replaced may take to end.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(5);
/// How long a program that a killed agent was just starting may hold its sockets.
const KILLED_AGENT_ENDS: Duration = Duration::from_secs(1);

/// Runs the agent until SIGTERM or SIGINT. Kernel state stays.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let StoreLocation::Directory(directory) = &settings.store else {
        bail!("--store kubernetes is not supported yet; use --store dir:PATH");
    };
    privileges::ensure_network_admin()?;
    descriptors::raise_limit();
    for dir in [&settings.run_dir, &settings.state_dir] {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("failed to make {}", dir.display()))?;
    }
    // Before anything else: two agents would undo each other's work.
    let socket = PrivateSocket::bind_when_free(&settings.socket(), PREDECESSOR_ENDS).await?;
    let _claim = Claim::take_when_free(PREDECESSOR_ENDS).await?;
    let options = DataplaneOptions {
        opens_host_firewall: settings.host_firewall == HostFirewallChoice::Insert,
        uses_next_hop_objects: settings.next_hop_objects == NextHopObjects::Auto,
        ..DataplaneOptions::new(settings.run_dir.clone())
    };
    let dataplane = Dataplane::open(options)
        .await
        .context("failed to read the kernel")?;
    let store = FileStore::open(directory, &settings.state_dir);
    let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
    let handle = Handle::new(requests);
    let (node_state, node_watch) = watch::channel(Err("the agent has just started".to_owned()));
    let verbs = Verbs::open(&settings.state_dir, Veths, handle.clone(), node_watch)?;
    let reconciler = Reconciler::new(
        settings.clone(),
        store,
        dataplane,
        request_queue,
        node_state,
        verbs.attached(),
    );
    info!(
        node = settings.node,
        version = env!("CARGO_PKG_VERSION"),
        "agent started"
    );

    let (stop, stop_watch) = watch::channel(false);
    let mut tasks = Vec::new();
    tasks.push(tokio::spawn(reconciler.run(stopped(stop_watch.clone()))));
    let router = serve::router(Arc::new(handle.clone())).merge(server::router(verbs.clone()));
    let api_stop = stopped(stop_watch.clone());
    tasks.push(tokio::spawn(async move {
        // Calls cut short by the end of the last agent first, then new ones.
        if let Err(error) = verbs.recover().await {
            warn!(%error, "leftovers of the last agent could not be removed");
        }
        if let Err(error) = serve::serve(socket, router, api_stop).await {
            warn!(%error, "the socket is not served any more");
        }
    }));
    if let Some(address) = settings.http_listen {
        match health::bind(address).await {
            Ok(listener) => {
                let health = health::serve(listener, Arc::new(handle), stopped(stop_watch));
                tasks.push(tokio::spawn(async move {
                    if let Err(error) = health.await {
                        warn!(%error, "health and metrics are not served any more");
                    }
                }));
            }
            Err(error) => warn!(
                %address,
                %error,
                "cannot listen for health and metrics; give another address as httpListen, or none"
            ),
        }
    }
    wait_for_signal().await?;
    info!("stopping; kernel state stays");
    stop.send_replace(true);
    let ended = async {
        for task in tasks {
            if let Err(error) = task.await {
                warn!(%error, "a task did not end well");
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(4), ended)
        .await
        .is_err()
    {
        warn!("not everything ended in time");
    }
    Ok(())
}

/// # Errors
/// If an agent answers in the run directory, or works on this network namespace from another one.
pub async fn ensure_stopped(run_dir: PathBuf) -> anyhow::Result<()> {
    take_agents_place(&run_dir).await.map(drop)
}

/// No agent can start while this is held.
async fn take_agents_place(run_dir: &Path) -> anyhow::Result<(PrivateSocket, Claim)> {
    let path = run_dir.join("agent.sock");
    let socket = PrivateSocket::bind_when_free(&path, KILLED_AGENT_ENDS)
        .await
        .context("stop the agent first")?;
    let claim = Claim::take_when_free(KILLED_AGENT_ENDS).await?;
    Ok((socket, claim))
}

/// Removes everything of ours from this machine.
///
/// # Errors
/// If an agent still runs, or something could not be removed.
pub async fn uninstall(run_dir: &Path, state_dir: &Path) -> anyhow::Result<()> {
    let place = take_agents_place(run_dir).await?;
    let dataplane = Dataplane::open(DataplaneOptions::new(run_dir.to_owned())).await?;
    let report = dataplane.uninstall().await;
    drop(place);
    for dir in ["accepted", "attachments", "ipam"] {
        let path = state_dir.join(dir);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("failed to remove {}: {error}", path.display());
            }
            _ => crash_point(format_args!("{dir} removed")),
        }
    }
    if let Err(error) = DrainMark::new(state_dir, "agent").set(false) {
        eprintln!("failed to remove the drain mark: {error}");
    }
    for (object, error) in &report.failed {
        eprintln!("{object}: {error}");
    }
    if !report.failed.is_empty() {
        bail!("not everything could be removed");
    }
    Ok(())
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as `run`.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether it is the network namespace of this process, whatever it is called.
fn is_our_namespace(netns: OwnedFd) -> std::io::Result<bool> {
    let theirs = std::fs::File::from(netns).metadata()?;
    let ours = std::fs::metadata("/proc/self/ns/net")?;
    Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

/// The dataplane's veths as CNI asks for them.
struct Veths;

impl WorkloadLinks for Veths {
    async fn attach(&self, link: NewLink) -> Result<[u8; 6], LinkError> {
        // A workload's default route would take the place of the node's.
        if is_our_namespace(link.netns.try_clone()?)? {
            return Err("CNI_NETNS is the node's own network namespace".into());
        }
        let spec = WorkloadSpec {
            netns: link.netns,
            container_interface: link.container_interface,
            host_interface: link.host_interface,
            addresses: link.addresses,
            mtu: link.mtu,
        };
        Ok(dataplane::attach_workload(spec).await?.mac)
    }

    async fn wait_until_running(&self, netns: OwnedFd, container_interface: &str) {
        dataplane::wait_until_running(netns, container_interface.to_owned()).await;
    }

    async fn detach(&self, host_interface: &str) -> Result<(), LinkError> {
        Ok(dataplane::detach_workload(host_interface.to_owned()).await?)
    }
}
