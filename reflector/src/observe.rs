//! What the reflector shows: status, peers and routes on its socket, health and metrics over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent::api::schema::{
    Drain, EndpointStatus, FailedItem, RouteQuery, SCHEMA_VERSION, Status, StoreError, StoreStatus,
};
use agent::api::serve::{ShuttingDown, Source};
use bgp::speaker::counters::Counters;
use bgp::speaker::status::{PeerStatus, RouteStatus, WhyStatus};
use bgp::speaker::{RouteSelection, Speaker};
use bgp::types::Prefix;
use tokio::sync::{mpsc, oneshot, watch};

/// What is known of the configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileState {
    /// The newest version of the file is in use.
    pub is_current: bool,
    pub errors: Vec<StoreError>,
}

#[derive(Clone)]
pub struct Observer {
    pub name: Arc<str>,
    pub speaker: Speaker,
    pub file: watch::Receiver<FileState>,
    pub draining: watch::Receiver<bool>,
    pub drains: mpsc::Sender<DrainAsked>,
}

/// What `caracal drain` asks of the reflector's loop.
#[derive(Debug)]
pub struct DrainAsked {
    pub asked: Drain,
    pub reply: oneshot::Sender<Result<Drain, String>>,
}

impl Source for Observer {
    async fn status(&self) -> Result<Status, ShuttingDown> {
        let file = self.file.borrow().clone();
        let problems = self.speaker.problems().await;
        Ok(Status {
            schema_version: SCHEMA_VERSION,
            node: self.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // The running configuration serves on while a bad file waits to be mended.
            ready: true,
            store: StoreStatus {
                synced: file.is_current,
                errors: file.errors,
            },
            tunnel: None,
            tunnels: Vec::new(),
            failed: problems
                .into_iter()
                .map(|error| FailedItem {
                    object: "bgp".to_owned(),
                    error,
                    attempts: 0,
                })
                .collect(),
            findings: Vec::new(),
            repairs: BTreeMap::new(),
            last_repairs: Vec::new(),
            draining: *self.draining.borrow(),
        })
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, ShuttingDown> {
        Ok(self.speaker.peers().await)
    }

    async fn routes(&self, query: RouteQuery) -> Result<Vec<RouteStatus>, ShuttingDown> {
        let selection = RouteSelection {
            prefix: query.prefix,
            received: query.received,
            advertised: query.advertised,
        };
        Ok(self.speaker.routes(selection).await)
    }

    async fn why(&self, prefix: Prefix) -> Result<WhyStatus, ShuttingDown> {
        Ok(self.speaker.why(prefix).await)
    }

    async fn counters(&self) -> Result<Counters, ShuttingDown> {
        Ok(self.speaker.counters().await)
    }

    async fn endpoints(&self) -> Result<Vec<EndpointStatus>, ShuttingDown> {
        Ok(Vec::new())
    }

    async fn drain(&self, asked: Drain) -> Result<Result<Drain, String>, ShuttingDown> {
        let (reply, answer) = oneshot::channel();
        let request = DrainAsked { asked, reply };
        self.drains.send(request).await.map_err(|_| ShuttingDown)?;
        answer.await.map_err(|_| ShuttingDown)
    }

    /// No kernel routes here; listing a million routes for each scrape would cost more than it says.
    async fn route_counts(&self) -> Result<BTreeMap<String, u64>, ShuttingDown> {
        let counters = self.speaker.counters().await;
        let accepted = counters
            .peers
            .iter()
            .map(|peer| peer.accepted.ipv4 + peer.accepted.ipv6)
            .sum();
        Ok(BTreeMap::from([("none".to_owned(), accepted)]))
    }
}
