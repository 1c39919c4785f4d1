//! Whom to ask.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::api::client::{Client, ClientError};
use agent::api::schema::{Drain, EndpointStatus, Items, RouteQuery, Status, Why};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use bgp::types::Prefix;

const AGENT: &str = "/run/caracal/agent.sock";
const REFLECTOR: &str = "/run/caracal/reflector.sock";

/// A socket, looked for anew with each question: `wait` may be there before it.
#[derive(Debug)]
pub(crate) struct Target {
    socket: Option<PathBuf>,
    deadline: Option<Duration>,
}

impl Target {
    pub(crate) fn new(socket: Option<PathBuf>) -> Target {
        Target {
            socket,
            deadline: None,
        }
    }

    /// The same, with less patience.
    pub(crate) fn within(&self, deadline: Duration) -> Target {
        Target {
            socket: self.socket.clone(),
            deadline: Some(deadline),
        }
    }

    pub(crate) fn status(&self) -> Result<Status, ClientError> {
        self.client().get("/v1/status")
    }

    pub(crate) fn drain(&self, asked: Drain) -> Result<Drain, ClientError> {
        let body = serde_json::to_vec(&asked).expect("a flag can be written");
        let client = self.client();
        client.read(&client.post("/v1/drain", &body, None)?)
    }

    pub(crate) fn peers(&self) -> Result<Items<PeerStatus>, ClientError> {
        self.client().get("/v1/peers")
    }

    pub(crate) fn endpoints(&self) -> Result<Items<EndpointStatus>, ClientError> {
        self.client().get("/v1/endpoints")
    }

    pub(crate) fn routes(&self, query: &RouteQuery) -> Result<Items<RouteStatus>, ClientError> {
        // Prefixes and addresses consist of what a query may hold as it is.
        let mut parts = Vec::new();
        if let Some(prefix) = query.prefix {
            parts.push(format!("prefix={prefix}"));
        }
        if let Some(peer) = query.received {
            parts.push(format!("received={peer}"));
        }
        if let Some(peer) = query.advertised {
            parts.push(format!("advertised={peer}"));
        }
        self.client()
            .get(&format!("/v1/routes?{}", parts.join("&")))
    }

    pub(crate) fn why(&self, prefix: Prefix) -> Result<Why, ClientError> {
        self.client().get(&format!("/v1/why?prefix={prefix}"))
    }

    fn client(&self) -> Client {
        let client = Client::new(match &self.socket {
            Some(socket) => socket,
            None => default_socket(),
        });
        match self.deadline {
            Some(deadline) => client.deadline(deadline),
            None => client,
        }
    }
}

fn default_socket() -> &'static Path {
    let (agent, reflector) = (Path::new(AGENT), Path::new(REFLECTOR));
    if !agent.exists() && reflector.exists() {
        return reflector;
    }
    agent
}
