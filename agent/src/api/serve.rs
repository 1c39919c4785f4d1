//! What the socket answers: `/v1/status`, `/v1/peers`, `/v1/routes`, `/v1/why` and `/v1/endpoints`, and
//! what it takes: `/v1/drain`, HTTP/1.1 and JSON. An error is `{"error": "…"}` with a status of 400, 404, 500
//! or 503.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bgp::speaker::counters::Counters;
use bgp::speaker::status::{PeerStatus, RouteStatus, WhyStatus};
use bgp::types::Prefix;
use serde::Serialize;

use super::bounded::Bounded;
use super::listener::{Descriptors, PrivateSocket};
use super::schema::{
    Drain, EndpointStatus, ErrorBody, Items, RouteQuery, SCHEMA_VERSION, Status, Why, WhyQuery,
};
use crate::requests::{Handle, Request};

/// Whoever was asked is going down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("shutting down")]
pub struct ShuttingDown;

/// Where answers come from: the agent's loop, or the reflector's.
pub trait Source: Send + Sync + 'static {
    fn status(&self) -> impl Future<Output = Result<Status, ShuttingDown>> + Send;

    fn peers(&self) -> impl Future<Output = Result<Vec<PeerStatus>, ShuttingDown>> + Send;

    fn routes(
        &self,
        query: RouteQuery,
    ) -> impl Future<Output = Result<Vec<RouteStatus>, ShuttingDown>> + Send;

    /// The paths of a prefix and who hears of them.
    fn why(&self, prefix: Prefix) -> impl Future<Output = Result<WhyStatus, ShuttingDown>> + Send;

    /// What the speaker counted; nothing where none runs.
    fn counters(&self) -> impl Future<Output = Result<Counters, ShuttingDown>> + Send;

    /// Empty where there are no workloads.
    fn endpoints(&self) -> impl Future<Output = Result<Vec<EndpointStatus>, ShuttingDown>> + Send;

    /// Asks to drain, or not to any more; the answer is what came of it, or why it cannot be kept.
    fn drain(
        &self,
        asked: Drain,
    ) -> impl Future<Output = Result<Result<Drain, String>, ShuttingDown>> + Send;

    /// Best routes by the state of their kernel route, for the metrics. Counts what `routes` lists;
    /// a source with very many routes has a cheaper way.
    fn route_counts(
        &self,
    ) -> impl Future<Output = Result<BTreeMap<String, u64>, ShuttingDown>> + Send {
        async {
            let mut counts = BTreeMap::new();
            for route in self.routes(RouteQuery::default()).await? {
                if route.best {
                    let state = route.kernel.map_or(String::from("none"), |one| one.state);
                    *counts.entry(state).or_default() += 1;
                }
            }
            Ok(counts)
        }
    }
}

impl Source for Handle {
    async fn status(&self) -> Result<Status, ShuttingDown> {
        let asked = self.ask(|reply| Request::Status { reply });
        asked.await.ok_or(ShuttingDown)
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, ShuttingDown> {
        let asked = self.ask(|reply| Request::Peers { reply });
        asked.await.ok_or(ShuttingDown)
    }

    async fn routes(&self, query: RouteQuery) -> Result<Vec<RouteStatus>, ShuttingDown> {
        let asked = self.ask(|reply| Request::Routes { query, reply });
        asked.await.ok_or(ShuttingDown)
    }

    async fn why(&self, prefix: Prefix) -> Result<WhyStatus, ShuttingDown> {
        let asked = self.ask(|reply| Request::Why { prefix, reply });
        asked.await.ok_or(ShuttingDown)
    }

    async fn counters(&self) -> Result<Counters, ShuttingDown> {
        let asked = self.ask(|reply| Request::Counters { reply });
        asked.await.ok_or(ShuttingDown)
    }

    async fn endpoints(&self) -> Result<Vec<EndpointStatus>, ShuttingDown> {
        let asked = self.ask(|reply| Request::Endpoints { reply });
        asked.await.ok_or(ShuttingDown)
    }

    async fn drain(&self, asked: Drain) -> Result<Result<Drain, String>, ShuttingDown> {
        let asked = self.ask(|reply| Request::Drain { asked, reply });
        asked.await.ok_or(ShuttingDown)
    }
}

/// The routes of the socket. The agent merges `cni::server::router` into it.
pub fn router<S: Source>(source: Arc<S>) -> Router {
    Router::new()
        .route("/v1/status", get(status::<S>))
        .route("/v1/peers", get(peers::<S>))
        .route("/v1/routes", get(routes::<S>))
        .route("/v1/why", get(why::<S>))
        .route("/v1/endpoints", get(endpoints::<S>))
        .route("/v1/drain", post(drain::<S>))
        .fallback(not_found)
        .with_state(source)
}

/// Serves `router` on `socket` until `stop` resolves; then answers what was asked and returns.
///
/// # Errors
/// None in practice: failing to accept is logged and retried.
pub async fn serve(
    socket: PrivateSocket,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let service = router.into_make_service_with_connect_info::<Descriptors>();
    axum::serve(Bounded::waiting(socket), service)
        .with_graceful_shutdown(stop)
        .await
}

async fn status<S: Source>(State(source): State<Arc<S>>) -> Response {
    match source.status().await {
        Ok(status) => Json(status).into_response(),
        Err(error) => unavailable(error),
    }
}

async fn peers<S: Source>(State(source): State<Arc<S>>) -> Response {
    items(source.peers().await)
}

async fn routes<S: Source>(
    State(source): State<Arc<S>>,
    query: Result<Query<RouteQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return failed(StatusCode::BAD_REQUEST, error.body_text()),
    };
    if query.received.is_some() && query.advertised.is_some() {
        let reason = "received and advertised exclude each other";
        return failed(StatusCode::BAD_REQUEST, reason);
    }
    items(source.routes(query).await)
}

async fn why<S: Source>(
    State(source): State<Arc<S>>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Response {
    let prefix = match query {
        Ok(Query(WhyQuery { prefix })) => prefix,
        Err(error) => return failed(StatusCode::BAD_REQUEST, error.body_text()),
    };
    match source.why(prefix).await {
        Ok(known) => Json(Why {
            schema_version: SCHEMA_VERSION,
            prefix,
            known,
        })
        .into_response(),
        Err(error) => unavailable(error),
    }
}

async fn endpoints<S: Source>(State(source): State<Arc<S>>) -> Response {
    items(source.endpoints().await)
}

async fn drain<S: Source>(
    State(source): State<Arc<S>>,
    asked: Result<Json<Drain>, JsonRejection>,
) -> Response {
    let asked = match asked {
        Ok(Json(asked)) => asked,
        Err(error) => return failed(StatusCode::BAD_REQUEST, error.body_text()),
    };
    match source.drain(asked).await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(reason)) => failed(StatusCode::INTERNAL_SERVER_ERROR, reason),
        Err(error) => unavailable(error),
    }
}

async fn not_found() -> Response {
    failed(StatusCode::NOT_FOUND, "no such path")
}

fn items<T: Serialize>(answer: Result<Vec<T>, ShuttingDown>) -> Response {
    match answer {
        Ok(list) => Json(Items::new(list)).into_response(),
        Err(error) => unavailable(error),
    }
}

fn unavailable(error: ShuttingDown) -> Response {
    failed(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

fn failed(status: StatusCode, error: impl Into<String>) -> Response {
    let error = error.into();
    (status, Json(ErrorBody { error })).into_response()
}
