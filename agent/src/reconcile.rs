//! The loop: one closed enum of inputs, a snapshot, desired state, the dataplane and the speaker.

use tokio::sync::{mpsc, oneshot};

use crate::cni::attachment::Attachment;

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
        reply: oneshot::Sender<crate::api::schema::Status>,
    },
    Endpoints {
        reply: oneshot::Sender<Vec<crate::api::schema::EndpointStatus>>,
    },
    /// Speaker's routes with the kernel's side filled in. `prefix`: that one only.
    Routes {
        query: crate::api::schema::RouteQuery,
        reply: oneshot::Sender<Vec<bgp::speaker::status::RouteStatus>>,
    },
    Peers {
        reply: oneshot::Sender<Vec<bgp::speaker::status::PeerStatus>>,
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
