//! The HTTP listener for probes and Prometheus: `/livez`, `/readyz`, `/metrics`.
//!
//! Liveness says only that the process answers: it never depends on peers, the store or the
//! kernel, for a restart mends none of these.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::bounded::Bounded;
use super::metrics::registry;
use super::schema::{Status, StoreError};
use super::serve::Source;

/// Below what probes and scrapers usually wait.
const ANSWER_DEADLINE: Duration = Duration::from_secs(4);
/// Problems that `/readyz` lists; `caracal status` has them all.
const SHOWN_ERRORS: usize = 20;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    axum::serve(Bounded::making_way(listener), router(source))
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
        Ok(Ok(status)) if status.ready => ready(&status).into_response(),
        Ok(Ok(status)) => unavailable(why_not_ready(&status)),
        Ok(Err(error)) => unavailable(error.to_string()),
        Err(_) => unavailable("busy"),
    }
}

/// What is not in use although all that is goes on: a file that waits to be mended, and what of the
/// file or the store was left out.
fn ready(status: &Status) -> String {
    let mut text = String::from("ok\n");
    if !status.store.synced {
        text.push_str("the newest configuration is not in use; the one before goes on\n");
    }
    let errors = &status.store.errors;
    for error in errors.iter().take(SHOWN_ERRORS) {
        text.push_str(&format!("{error}\n"));
    }
    if let Some(more) = errors.len().checked_sub(SHOWN_ERRORS).filter(|n| *n > 0) {
        text.push_str(&format!("and {more} more\n"));
    }
    text
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

fn unavailable(reason: impl Into<String>) -> Response {
    let text = format!("{}\n", reason.into());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
