//! What the sockets ask of the reconcile loop, and what the loop tells CNI: the seam between them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp::speaker::counters::Counters;
use bgp::speaker::status::{PeerStatus, RouteStatus, WhyStatus};
use bgp::types::Prefix;
use tokio::sync::{mpsc, oneshot};

use crate::api::schema::{Drain, EndpointStatus, RouteQuery, Status};
use crate::cni::attachment::Attachment;

/// Requests that may wait for the loop.
pub const REQUEST_QUEUE: usize = 64;
/// What others ask of the loop.
#[derive(Debug)]
pub enum Request {
    /// A workload's veth exists and its attachment is on disk. Answered when the host side is
    /// programmed and packets flow, or with the reason why not.
    Attach {
        attachment: Attachment,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Answered when policy, route and neighbour are gone.
    Detach {
        container_id: String,
        container_interface: String,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Status {
        reply: oneshot::Sender<Status>,
    },
    Endpoints {
        reply: oneshot::Sender<Vec<EndpointStatus>>,
    },
    /// Speaker's routes with the kernel's side filled in.
    Routes {
        query: RouteQuery,
        reply: oneshot::Sender<Vec<RouteStatus>>,
    },
    Peers {
        reply: oneshot::Sender<Vec<PeerStatus>>,
    },
    /// The paths with the kernel's side, and who hears of them.
    Why {
        prefix: Prefix,
        reply: oneshot::Sender<WhyStatus>,
    },
    Counters {
        reply: oneshot::Sender<Counters>,
    },
    /// Answered when it is on disk and the speaker knows; an error says why it is as before.
    Drain {
        asked: Drain,
        reply: oneshot::Sender<Result<Drain, String>>,
    },
}

/// A cheap handle to the loop. Requests wait in a bounded queue; a full queue makes the caller wait.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

impl Handle {
    pub fn new(requests: mpsc::Sender<Request>) -> Handle {
        Handle { requests }
    }

    /// Sends a request and waits for its answer; `None` if the loop is gone (shutting down).
    pub async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// What this node gives its workloads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeNetwork {
    pub pod_cidrs: Vec<Prefix>,
    /// Of the workloads' interfaces.
    pub mtu: u32,
    /// Addresses inside the podCIDRs that are in use without CNI.
    pub reserved: BTreeSet<IpAddr>,
}

/// The reason if workloads cannot be attached yet.
pub type NodeState = Result<NodeNetwork, String>;
