//! States, inputs and actions of one peer's session, and the transitions between them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::types::{Asn, Family, HoldTime, RouterId};
use crate::wire::capability::{Capability, GracefulRestart};
use crate::wire::open::Open;
use crate::wire::refresh::RouteRefresh;
use crate::wire::{Notification, ProtocolError};

/// RFC 4271 §8.2.2. What a peer is shown to be in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

/// One TCP connection of this peer, named by the driver. Never reused within a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnectionId(pub u64);

/// Who opened the TCP connection; decides collisions (RFC 4271 §6.8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    Outgoing,
    Incoming,
}

/// What our side of the session is set to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConfig {
    pub local_asn: Asn,
    /// `None` for listen ranges without an AS: any AS the peer says, checked by the driver's policy.
    pub remote_asn: Option<Asn>,
    pub router_id: RouterId,
    pub hold_time: HoldTime,
    /// Overrides a third of the negotiated hold time, never above it.
    pub keepalive_time: Option<Duration>,
    pub connect_retry_time: Duration,
    /// First wait after an error, doubled with each further one.
    pub idle_hold_time: Duration,
    /// Upper bound of the wait; zero switches the back-off off.
    pub idle_hold_max: Duration,
    /// How long a write may be stuck (RFC 9687); the driver reports it, this is only negotiated up.
    pub send_hold_time: Option<Duration>,
    /// Never dial.
    pub passive: bool,
    /// Families to announce, at least one.
    pub families: Vec<Family>,
    /// `None`: graceful restart is not offered.
    pub graceful_restart: Option<GracefulRestart>,
}

/// Everything that can happen to a session except time passing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// ManualStart / AutomaticStart (events 1, 3-7).
    Start,
    /// ManualStop (event 2): every connection is closed, with this NOTIFICATION where OPEN was sent.
    /// `None` closes TCP silently so that the peer keeps our routes (graceful restart).
    Stop { notification: Option<Notification> },
    /// TcpConnectionConfirmed for the dial asked by [`Action::Dial`], or an accepted connection (events 16, 17).
    Connected {
        connection: ConnectionId,
        direction: Direction,
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// The dial failed (event 18 for a connection that never was).
    DialFailed,
    /// The peer closed or reset the connection (event 18).
    Closed { connection: ConnectionId },
    /// Event 19.
    OpenReceived {
        connection: ConnectionId,
        open: Open,
    },
    /// Event 26.
    KeepaliveReceived { connection: ConnectionId },
    /// Event 27. The body goes from the connection to the RIB; the session only restarts its hold timer.
    UpdateReceived { connection: ConnectionId },
    /// A ROUTE-REFRESH; an FSM error before Established.
    RefreshReceived {
        connection: ConnectionId,
        refresh: RouteRefresh,
    },
    /// Events 24, 25.
    NotificationReceived {
        connection: ConnectionId,
        notification: Notification,
    },
    /// Events 20-22 and 28: framing or decoding failed, this must be answered.
    Malformed {
        connection: ConnectionId,
        error: ProtocolError,
    },
    /// The RIB or an operator ends the session with this Cease (maximum prefixes, configuration change).
    Cease { notification: Notification },
    /// Nothing could be written for the send hold time (RFC 9687).
    SendHoldExpired { connection: ConnectionId },
}

/// What the driver must do. Carried out in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open a TCP connection; answered by `Connected` or `DialFailed`.
    Dial,
    /// Give up a dial that is under way; it is not answered any more.
    AbortDial,
    SendOpen {
        connection: ConnectionId,
        open: Open,
    },
    SendKeepalive {
        connection: ConnectionId,
    },
    /// Write this, then close. Nothing is read from the connection any more.
    SendNotification {
        connection: ConnectionId,
        notification: Notification,
    },
    /// Close without a word.
    Close {
        connection: ConnectionId,
    },
    /// The session is up: the RIB may use it.
    Established {
        connection: ConnectionId,
        negotiated: Negotiated,
    },
    /// The session was up and is not any more. Comes before the `StateChanged` that follows from it.
    Down {
        connection: ConnectionId,
        reason: DownReason,
    },
    /// Resend (a family of) what was advertised.
    RefreshRequested {
        connection: ConnectionId,
        refresh: RouteRefresh,
    },
    /// For display and logs.
    StateChanged {
        from: State,
        to: State,
    },
    /// An error worth keeping as the peer's last one, whether or not the session was up.
    ErrorNoted {
        error: LastError,
    },
}

/// Why an established session ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownReason {
    /// TCP ended without NOTIFICATION: the case graceful restart is for.
    ConnectionLost,
    /// A new connection of a peer that restarted replaced this one (RFC 4724 §5).
    Replaced,
    NotificationSent(Notification),
    NotificationReceived(Notification),
    HoldTimerExpired,
    SendHoldTimerExpired,
    /// `Stop` without a NOTIFICATION.
    StoppedSilently,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastError {
    pub notification: Notification,
    pub sent: bool,
    pub reason: String,
}

/// What both OPENs agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Negotiated {
    pub direction: Direction,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub remote_asn: Asn,
    pub remote_router_id: RouterId,
    /// The smaller of both.
    pub hold_time: HoldTime,
    pub keepalive_time: Duration,
    /// Families both sides announced; IPv4 where the peer sent no multiprotocol capability at all (RFC 4760 §8).
    pub families: Vec<Family>,
    pub four_octet_as: bool,
    pub route_refresh: bool,
    /// As the peer sent it; `None` if either side did not offer it.
    pub graceful_restart: Option<GracefulRestart>,
    /// All the peer sent, for display.
    pub capabilities: Vec<Capability>,
}
