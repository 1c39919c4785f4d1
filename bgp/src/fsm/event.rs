//! What a session is told and what it asks for: the values that cross the seam to the driver.

use std::net::SocketAddr;
use std::time::Duration;

use super::negotiate::Negotiated;
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
    /// A ROUTE-REFRESH; an FSM error before Established. BoRR and EoRR go from the connection to the
    /// RIB, in order with the routes; here they restart the hold timer.
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
    /// The RIB or an operator ends the session with this Cease (maximum prefixes, loss of the path).
    ///
    /// With `hold_down` the peer stays Idle for as long, whatever the back-off allows: nothing is
    /// dialled, and what the peer opens is closed before an OPEN goes out. RFC 4271 §6.7 ends a
    /// session that brought too many prefixes; one that came back at once would bring them again, and
    /// each round costs both sides a table. Idle refuses connections (§8.2.2), and a NOTIFICATION in
    /// place of the OPEN (6/5, RFC 4486 §4) is left out because the peer was told the reason by this
    /// Cease. [`Input::Release`] and [`Input::Start`] end it early, a further one can only prolong it.
    Cease {
        notification: Notification,
        hold_down: Option<Duration>,
    },
    /// A change of configuration needs a new session. With Cease 6/6, or without a word where graceful
    /// restart covers that and would not cover a NOTIFICATION (RFC 4724 §4, RFC 8538 §2): the routes
    /// of both sides outlive it.
    Reset,
    /// What the peer is held down for does not hold any more: it begins again at once. Otherwise
    /// nothing changes.
    Release,
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
