//! The agent's side of the plugin's call: `POST /v1/cni` on the agent's socket, with the network
//! namespace's descriptor passed beside it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use super::links::WorkloadLinks;
use super::protocol::{
    CALL_PATH, Call, CniError, CniVersion, ErrorCode, MAX_CONFIG_BYTES, NetworkConfig,
    PROTOCOL_VERSION, Reply, invalid_environment,
};
use super::result::CniResult;
use super::verbs::Verbs;
use crate::api::listener::Descriptors;
use crate::crash::crash_point;
use crate::dataplane::netns;

/// Room for the call around the network configuration.
const MAX_CALL_BYTES: usize = MAX_CONFIG_BYTES + 64 * 1024;

/// The route of the call, to be merged into the agent's `api::serve::router`.
pub fn router<L: WorkloadLinks>(verbs: Arc<Verbs<L>>) -> Router {
    Router::new()
        .route(CALL_PATH, post(answer::<L>))
        .layer(DefaultBodyLimit::max(MAX_CALL_BYTES))
        .with_state(verbs)
}

async fn answer<L: WorkloadLinks>(
    State(verbs): State<Arc<Verbs<L>>>,
    ConnectInfo(descriptors): ConnectInfo<Descriptors>,
    body: Bytes,
) -> impl IntoResponse {
    let netns = descriptors.take();
    // A task of its own: a runtime that hangs up must not leave half a workload behind.
    let answer = tokio::spawn(call(verbs, body, netns)).await;
    Json(answer.unwrap_or_else(|_| {
        let error = CniError::new(ErrorCode::TryAgainLater, "the call was interrupted");
        reply(CniVersion::NEWEST, Err(error))
    }))
}

async fn call<L: WorkloadLinks>(
    verbs: Arc<Verbs<L>>,
    body: Bytes,
    netns: Option<OwnedFd>,
) -> Reply {
    let call = match parse(&body) {
        Ok(call) => call,
        Err(error) => return reply(CniVersion::NEWEST, Err(error)),
    };
    let version = NetworkConfig::version_of(&call.config).unwrap_or(CniVersion::NEWEST);
    if let Err(error) = check_namespace(netns.as_ref(), &call.netns) {
        return reply(version, Err(error));
    }
    let answer = verbs.call(call, netns).await;
    crash_point(format_args!("call done, not answered"));
    reply(version, answer)
}

fn parse(body: &[u8]) -> Result<Call, CniError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        protocol_version: u32,
    }
    let unreadable = |error: serde_json::Error| {
        CniError::new(ErrorCode::Decode, "the agent cannot read the call").caused_by(&error)
    };
    let versioned: Versioned = serde_json::from_slice(body).map_err(unreadable)?;
    if versioned.protocol_version != PROTOCOL_VERSION {
        // In the middle of an upgrade; the runtime's next attempt finds both of one age.
        return Err(CniError::new(
            ErrorCode::TryAgainLater,
            format!(
                "the plugin speaks protocol {}, the agent {PROTOCOL_VERSION}",
                versioned.protocol_version
            ),
        ));
    }
    serde_json::from_slice(body).map_err(unreadable)
}

/// A mount namespace, say, would be found out only when half of the work is done.
fn check_namespace(netns: Option<&OwnedFd>, path: &str) -> Result<(), CniError> {
    let Some(netns) = netns else { return Ok(()) };
    let filesystem = fstatfs(netns).map_err(|error| {
        invalid_environment(format!("CNI_NETNS {path:?} is unusable")).caused_by(&error)
    })?;
    // Entering tells the kind before it asks for privileges (setns(2)). What the descriptor's link in
    // /proc says does not: of a namespace that is bound to a name, as runtimes do, it is the name.
    let is_network = filesystem.filesystem_type() == NSFS_MAGIC
        && netns::run_in(netns.as_fd(), || ())
            .err()
            .and_then(|error| error.raw_os_error())
            != Some(Errno::EINVAL as i32);
    if is_network {
        Ok(())
    } else {
        Err(invalid_environment(format!(
            "CNI_NETNS {path:?} is not a network namespace"
        )))
    }
}

fn reply(version: CniVersion, answer: Result<Option<CniResult>, CniError>) -> Reply {
    let (result, error) = match answer {
        Ok(result) => (result, None),
        Err(error) => (None, Some(error.to_object(version))),
    };
    Reply {
        protocol_version: PROTOCOL_VERSION,
        result,
        error,
    }
}
