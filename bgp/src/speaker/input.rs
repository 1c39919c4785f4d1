//! What the core is told: the one list of all that can wake it, besides time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::config::SpeakerConfig;
use super::connection::RouteOperation;
use super::counters::Counters;
use super::outbox::Outbox;
use super::status::{PeerStatus, RouteStatus, WhyStatus};
use super::{NextHopInfo, RouteSelection, Stop};
use crate::fsm::session::{DownReason, LastError, Negotiated, State};
use crate::rib::PeerId;
use crate::types::Prefix;
use crate::wire::refresh::RouteRefresh;

/// Everything that can wake the core.
#[derive(Debug)]
pub enum CoreInput {
    Accepted {
        stream: TcpStream,
        remote: SocketAddr,
    },
    Listening {
        address: SocketAddr,
        /// What does not work there; replaces what was said before.
        problems: Vec<String>,
    },
    StateChanged {
        peer: PeerId,
        to: State,
    },
    ErrorNoted {
        peer: PeerId,
        error: LastError,
    },
    ConnectFailed {
        peer: PeerId,
        reason: String,
    },
    Established {
        peer: PeerId,
        negotiated: Box<Negotiated>,
        outbox: Arc<Outbox>,
    },
    Down {
        peer: PeerId,
        reason: DownReason,
    },
    Routes {
        peer: PeerId,
        operations: Vec<RouteOperation>,
        /// When the socket gave the last octet of them.
        read_at: Instant,
        /// Given back when the operations are done: the connection may send the next batch.
        turn: OwnedSemaphorePermit,
    },
    Refresh {
        peer: PeerId,
        refresh: RouteRefresh,
    },
    /// The peer's task ended, as it was told to.
    Finished {
        peer: PeerId,
    },
    Command(Command),
}

#[derive(Debug)]
pub enum Command {
    Configure(Box<SpeakerConfig>),
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    Routes(RouteSelection, oneshot::Sender<Vec<RouteStatus>>),
    Why(Prefix, oneshot::Sender<WhyStatus>),
    Counters(oneshot::Sender<Counters>),
    Problems(oneshot::Sender<Vec<String>>),
    NextHopCosts(BTreeMap<IpAddr, NextHopInfo>),
    /// `None`: all.
    TellAgain(Option<Vec<Prefix>>),
    BfdDown(IpAddr),
    Stop(Stop, oneshot::Sender<()>),
}
