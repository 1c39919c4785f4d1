//! A dry run: one pass of which nothing is written, and what it would have done.

use serde::Serialize;

use super::Reconciler;
use super::show::finding;
use crate::api::schema::{FailedItem, Finding, SCHEMA_VERSION, StoreError, TunnelStatus};
use crate::dataplane::rehearsal::Difference;
use crate::datastore::passwords;
use crate::resolve::peering;

/// What a dry run found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsed {
    pub schema_version: u32,
    pub node: String,
    pub store_errors: Vec<StoreError>,
    pub tunnels: Vec<TunnelStatus>,
    /// Sessions that an agent would keep, and a dry run does not open: address, port and name.
    pub peers: Vec<String>,
    /// Routes by BGP in the kernel, of which nothing is said.
    pub learned_routes: usize,
    pub differences: Vec<Difference>,
    /// What could not be as it should, such as a route that a foreign one blocks.
    pub failed: Vec<FailedItem>,
    /// What could be, and would not carry packets: routes that foreign ones shadow, host firewalls.
    pub findings: Vec<Finding>,
}

impl Rehearsed {
    /// Whether an agent would find everything as it should be.
    pub fn is_right(&self) -> bool {
        self.store_errors.is_empty()
            && self.differences.is_empty()
            && self.failed.is_empty()
            && self.findings.is_empty()
    }
}

impl Reconciler {
    /// Reads the store, makes one pass, and tells what it would have done. The dataplane must have
    /// been opened for a rehearsal.
    ///
    /// # Errors
    /// Why there was nothing to compare with.
    pub async fn rehearse(mut self) -> Result<Rehearsed, String> {
        let update = self.store.next().await;
        self.take_store(update);
        if let Err(reason) = self.try_pass().await {
            let errors = self.show_status().await.store.errors;
            let errors = errors.iter().map(ToString::to_string);
            let lines: Vec<String> = std::iter::once(reason).chain(errors).collect();
            return Err(lines.join("\n"));
        }
        let told = |error| format!("{:#}", anyhow::Error::from(error));
        let differences = self.dataplane.rehearsed().await.map_err(told)?;
        let shadowed = self.dataplane.shadowed().await;
        let shadowed = shadowed.into_iter();
        let shadowed = shadowed.map(finding);
        let findings = shadowed.chain(self.findings_of_pass()).collect();
        let status = self.show_status().await;
        let mut rehearsed = Rehearsed {
            schema_version: SCHEMA_VERSION,
            node: status.node,
            store_errors: status.store.errors,
            tunnels: status.tunnels,
            peers: Vec::new(),
            learned_routes: self.dataplane.learned_routes().await,
            differences,
            failed: status.failed,
            findings,
        };
        if let Some(snapshot) = self.snapshot()
            && let Some(node) = snapshot.node(&self.settings.node)
        {
            let (config, errors) =
                peering::speaker_config(&snapshot, &passwords::read(&snapshot), node);
            rehearsed.store_errors.extend(errors);
            let peers = config.peers.iter();
            rehearsed.peers = peers
                .map(|(key, peer)| format!("{key} {}", peer.name))
                .collect();
        }
        Ok(rehearsed)
    }
}
