//! The HTTP listener for probes and Prometheus: `/livez`, `/readyz`, `/metrics`.
//!
//! Liveness says only that the process answers: it never depends on peers, the store or the
//! kernel, for a restart mends none of these.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::listener::Bounded;
use super::schema::{Status, StoreError};
use super::serve::{ShuttingDown, Source};

/// Below what probes and scrapers usually wait.
const ANSWER_DEADLINE: Duration = Duration::from_secs(4);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Session states as `PeerStatus.state` spells them: each has a sample, so that none appears or
/// vanishes.
const PEER_STATES: [&str; 6] = [
    "idle",
    "connect",
    "active",
    "openSent",
    "openConfirm",
    "established",
];
/// Kernel route states as `KernelStatus.state` spells them.
const ROUTE_STATES: [&str; 4] = ["installed", "pending", "failed", "none"];

/// Listens on `address`.
///
/// # Errors
/// If the address is in use or not of this host.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop` resolves.
///
/// # Errors
/// None in practice: failing to accept is logged and retried.
pub async fn serve<S: Source>(
    listener: TcpListener,
    source: Arc<S>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(Bounded::new(listener), router(source))
        .with_graceful_shutdown(stop)
        .await
}

pub fn router<S: Source>(source: Arc<S>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz::<S>))
        .route("/metrics", get(metrics::<S>))
        .with_state(source)
}

async fn readyz<S: Source>(State(source): State<Arc<S>>) -> Response {
    match timeout(ANSWER_DEADLINE, source.status()).await {
        Ok(Ok(status)) if status.ready => "ok\n".into_response(),
        Ok(Ok(status)) => unavailable(why_not_ready(&status)),
        Ok(Err(error)) => unavailable(error.to_string()),
        Err(_) => unavailable("busy"),
    }
}

/// Without its Node an agent does nothing, which is the reason then.
fn own_node_problem(status: &Status) -> Option<&StoreError> {
    let own = format!("Node/{}", status.node);
    let errors = &status.store.errors;
    errors.iter().find(|error| error.object == own)
}

/// The reason for people; empty if ready.
pub fn why_not_ready(status: &Status) -> String {
    match (status.ready, status.store.synced) {
        (true, _) => String::new(),
        (false, false) => match status.store.errors.first() {
            Some(error) => format!(
                "store not synced: {}: {}: {}: {}",
                error.file, error.object, error.field, error.reason
            ),
            None => String::from("store not synced"),
        },
        (false, true) => match status.failed.first() {
            Some(item) => format!("first pass not done: {}: {}", item.object, item.error),
            None => match own_node_problem(status) {
                Some(error) => format!("{}: {}", error.object, error.reason),
                None => String::from("first pass not done"),
            },
        },
    }
}

async fn metrics<S: Source>(State(source): State<Arc<S>>) -> Response {
    match timeout(ANSWER_DEADLINE, registry(&*source)).await {
        Ok(Ok(registry)) => {
            let mut text = String::new();
            match encode(&mut text, &registry) {
                Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
                Err(error) => unavailable(error.to_string()),
            }
        }
        Ok(Err(error)) => unavailable(error.to_string()),
        Err(_) => unavailable("busy"),
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

/// The present, as metrics. Made anew for each scrape: the numbers live with those who count.
async fn registry<S: Source>(source: &S) -> Result<Registry, ShuttingDown> {
    let status = source.status().await?;
    let peers = source.peers().await?;
    let route_counts = source.route_counts().await?;
    let mut registry = Registry::with_prefix("caracal");

    registry.register(
        "build",
        "Version of this program",
        Info::new([("version", status.version.clone())]),
    );
    let ready = Gauge::<i64>::default();
    ready.set(i64::from(status.ready));
    registry.register("ready", "Store synced and first kernel pass done", ready);

    let by_state = Family::<StateLabel, Gauge>::default();
    for state in PEER_STATES {
        let count = peers.iter().filter(|peer| peer.state == state).count();
        set(&by_state, state, count as u64);
    }
    registry.register("bgp_peers", "BGP peers by session state", by_state);

    let by_state = Family::<StateLabel, Gauge>::default();
    for state in ROUTE_STATES {
        set(
            &by_state,
            state,
            route_counts.get(state).copied().unwrap_or(0),
        );
    }
    registry.register(
        "routes",
        "Best routes by state of the kernel route",
        by_state,
    );

    let repairs = Family::<KindLabel, Counter<u64, AtomicU64>>::default();
    for (kind, count) in &status.repairs {
        let label = KindLabel { kind: kind.clone() };
        repairs.get_or_create(&label).inc_by(*count);
    }
    registry.register("repairs", "Drifted kernel objects repaired", repairs);

    let store_errors = Gauge::<i64>::default();
    store_errors.set(clamp(status.store.errors.len() as u64));
    registry.register(
        "store_errors",
        "Objects of the store now rejected",
        store_errors,
    );
    let failed = Gauge::<i64>::default();
    failed.set(clamp(status.failed.len() as u64));
    registry.register("failed_objects", "Kernel objects now failing", failed);
    Ok(registry)
}

fn set(family: &Family<StateLabel, Gauge>, state: &'static str, count: u64) {
    family
        .get_or_create(&StateLabel { state })
        .set(clamp(count));
}

fn clamp(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unavailable(reason: impl Into<String>) -> Response {
    let text = format!("{}\n", reason.into());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
