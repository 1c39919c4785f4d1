//! `caracal-agent run --dry-run`: what an agent would change on this machine, on standard output.
//!
//! The same code as an agent's, of which nothing is written: not to the kernel, not to the
//! directories, no socket is bound and no session is opened. So it can be run beside an agent, ours or
//! another.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};

use crate::cni::attachments::Attachments;
use crate::config::{HostFirewallChoice, OutputFormat, Settings, StoreLocation};
use crate::dataplane::rehearsal::Rehearsal;
use crate::dataplane::{Dataplane, DataplaneOptions};
use crate::datastore::FileStore;
use crate::names::PROTOCOL_LEARNED;
use crate::reconcile::{Reconciler, Rehearsed};

/// Returns whether all is as it should be.
///
/// # Errors
/// Why it could not be found out.
pub async fn run(settings: Settings) -> anyhow::Result<bool> {
    let StoreLocation::Directory(directory) = &settings.store else {
        bail!("--store kubernetes is not supported yet; use --store dir:PATH");
    };
    let options = DataplaneOptions {
        opens_host_firewall: settings.host_firewall == HostFirewallChoice::Insert,
        rehearsal: Rehearsal::begin(),
        // What is to go in the end is to be shown now.
        tunnel_linger: Duration::ZERO,
        ..DataplaneOptions::new(settings.run_dir.clone())
    };
    let dataplane = Dataplane::open(options)
        .await
        .context("failed to read the kernel")?;
    let store = FileStore::open_read_only(directory, &settings.state_dir);
    let attached = Attachments::read(&settings.state_dir.join("attachments"))?;
    // Nobody asks, and nobody waits for the node's state.
    let (_, requests) = mpsc::channel(1);
    let (node_state, _) = watch::channel(Err(String::new()));
    let output = settings.output;
    let reconciler = Reconciler::new(settings, store, dataplane, requests, node_state, attached);
    let rehearsed = reconciler.rehearse().await.map_err(anyhow::Error::msg)?;
    let text = match output {
        OutputFormat::Text => text(&rehearsed),
        OutputFormat::Json => serde_json::to_string(&rehearsed)? + "\n",
    };
    print!("{text}");
    Ok(rehearsed.is_right())
}

fn text(rehearsed: &Rehearsed) -> String {
    let mut lines = vec![format!(
        "node {}: what an agent would change; nothing was written",
        rehearsed.node
    )];
    for tunnel in &rehearsed.tunnels {
        let device = match tunnel.device.as_str() {
            "" => "none",
            device => device,
        };
        lines.push(format!(
            "tunnel {}: {device}, {}",
            tunnel.kind, tunnel.reason
        ));
    }
    let peers = match rehearsed.peers.as_slice() {
        [] => "none".to_owned(),
        peers => peers.join(", "),
    };
    lines.push(format!(
        "sessions not opened: {peers}; so nothing is known of routes by BGP, and those of protocol \
         {PROTOCOL_LEARNED} in the kernel ({}) are not judged",
        rehearsed.learned_routes
    ));
    let errors = rehearsed.store_errors.iter();
    lines.extend(errors.map(|error| format!("! store: {error}")));
    lines.extend(rehearsed.differences.iter().map(ToString::to_string));
    let failed = rehearsed.failed.iter();
    lines.extend(failed.map(|item| format!("! {}: {}", item.object, item.error)));
    let findings = rehearsed.findings.iter();
    lines.extend(findings.map(|finding| format!("! {}: {}", finding.object, finding.reason)));
    lines.push(match rehearsed.is_right() {
        true => "all is as it should be".to_owned(),
        false => format!(
            "differences: {}, problems: {}",
            rehearsed.differences.len(),
            rehearsed.store_errors.len() + rehearsed.failed.len() + rehearsed.findings.len()
        ),
    });
    let mut text = String::new();
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}
