//! The session state machine of one peer (RFC 4271 §8). Pure: time and jitter are arguments.
//!
//! The driver feeds [`Input`](session::Input)s to `handle` and calls `handle_timeout` when
//! `next_timeout` has come. After each of both it carries out the
//! [`Action`](session::Action)s that `poll_action` yields, in order, until it yields `None`, and
//! asks for `next_timeout` again.
//!
//! ```text
//!              inputs                              actions
//!   driver ──────────────► Session ────────────────────────► driver
//!                            │  when to dial, back-off, which connection is the session
//!                            ├─ connection   one TCP connection: OpenSent, OpenConfirm, Established
//!                            ├─ negotiate    what two OPENs agree on, or the NOTIFICATION for it
//!                            ├─ collision    which of two connections stays
//!                            └─ back_off     how long to wait after errors
//! ```
//!
//! A peer can have a dial under way and several connections at once. The state it is shown in is
//! that of its most advanced connection; without any it tells what the dialling side does.
//!
//! Where this differs from RFC 4271 §8.2.2:
//! - A connection whose peer has not sent an OPEN keeps nothing else from happening: dialling
//!   goes on and further connections are accepted. Otherwise one silent connection would hold
//!   off the real peer for four minutes. At most two such incoming connections are kept; a third
//!   one replaces the oldest.
//! - Idle after an error still accepts connections, so that a peer that comes back is taken at
//!   once. Only a peer whose messages were wrong twice in a row is refused until the wait ends, and
//!   one that a Cease holds down.
//! - A dial that has not become a connection is given up as soon as another connection received
//!   a valid OPEN.
//! - The hold timer is restarted by ROUTE-REFRESH too, which shows the same as a KEEPALIVE.

mod back_off;
pub mod collision;
mod connection;
mod event;
mod negotiate;
mod notifications;
pub mod refresh;
pub mod restart;
pub mod session;
pub mod timer;
