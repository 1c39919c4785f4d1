//! The speaker on tokio: sockets and tasks around the pure parts.
//!
//! ```text
//!              accept                  frames, decodes        one per peer: fsm::Session
//!  listener ───────────┐   ┌─ reader ──────────┬───────────> peer task ─┐
//!                      v   │                   │ routes          ^      │ Established, Down, …
//!               core (owns the RIB) <──────────┴─────────────────│──────┘
//!                      │  encoded messages                       │ accepted sockets, stop, …
//!                      ├────> outbox ──> writer (one per connection), or written by the core at
//!                      │      once, if it is little for few
//!                      └────> events (learned routes) to the owner
//! ```
//! Queues and what happens when they are full: inputs of the core (1024): senders wait, so a reader
//! stops reading and TCP pushes back; what a peer's task is told: void words are dropped (`control`),
//! connections beyond 16 refused; an outbox: its peer is skipped and catches up from the table;
//! events: the RIB remembers which prefixes are untold.

mod admission;
mod batch;
mod capability_name;
mod clock;
pub mod config;
mod connection;
mod control;
pub mod convergence;
mod core;
pub mod counters;
mod departed;
mod faults;
mod input;
mod limits;
mod listener;
mod md5;
mod membership;
mod outbox;
mod outboxes;
mod peer;
mod prefix_limit;
mod quiet;
mod read_buffer;
mod restart;
mod router_ids;
pub mod secret;
mod show;
mod slot;
mod socket;
pub mod status;
pub mod traffic;
mod why;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;

use tokio::sync::{mpsc, oneshot};

use self::config::SpeakerConfig;
use self::core::Core;
use self::counters::Counters;
use self::input::{Command, CoreInput};
use self::status::{PeerStatus, RouteStatus, WhyStatus};
pub use crate::rib::LearnedRoute;
pub use crate::rib::next_hop::{NextHopInfo, Reach};
use crate::types::Prefix;

/// Inputs of the core that may wait.
const CORE_QUEUE: usize = 1024;
/// Events that may wait for the owner. Few: what has not been told takes less room in the RIB, and
/// what changes meanwhile is told once.
const EVENT_QUEUE: usize = 2;

/// What a speaker tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Best routes that changed; of one prefix the last one counts.
    Learned(Vec<LearnedRoute>),
    /// The first convergence is over: every peer that was waited for sent its End-of-RIB, or the
    /// wait is over. Said once, after the routes that belong to it.
    Settled,
    /// The next hops of learned routes, all of them, whenever one came or many went. Only where
    /// [`Speaker::set_next_hop_costs`] was called once, which is how to answer: until then no route
    /// is told as learned.
    NextHops(BTreeSet<IpAddr>),
    /// The dynamic peers that are up or whose routes are kept, in order; to be remembered over a
    /// restart.
    DynamicPeers(Vec<IpAddr>),
}

/// Which routes [`Speaker::routes`] returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RouteSelection {
    pub prefix: Option<Prefix>,
    /// What this peer sent, before policy.
    pub received: Option<IpAddr>,
    /// What this peer is told, after policy.
    pub advertised: Option<IpAddr>,
}

/// How sessions end when the speaker stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// As `ForGood` for a speaker that drains. Else peers with graceful restart keep our routes: TCP
    /// is closed without a word, or with Cease, administrative reset, where both sides have RFC 8538.
    Restarting,
    /// For good: Cease, administrative shutdown, with a word for the peer's operator (RFC 9003); a
    /// hard reset where both sides have RFC 8538.
    ForGood,
}

/// A handle to a running speaker. It runs until [`Speaker::stop`], or until all handles are gone:
/// then TCP is closed without a word, so that peers with graceful restart keep its routes. It goes
/// on without one who reads its events.
#[derive(Clone, Debug)]
pub struct Speaker {
    inputs: mpsc::Sender<CoreInput>,
    /// Nothing is ever sent. `inputs` does not show that all handles are gone: peers have it, too.
    _handle: mpsc::Sender<Infallible>,
}

impl Speaker {
    /// Starts a speaker on the current tokio runtime. Addresses that cannot be listened on are
    /// retried and shown by [`Speaker::problems`].
    ///
    /// `has_consumer`: whether learned routes are reported as events.
    pub fn start(config: SpeakerConfig, has_consumer: bool) -> (Speaker, mpsc::Receiver<Event>) {
        let (inputs, input_queue) = mpsc::channel(CORE_QUEUE);
        let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
        let (handle, handles) = mpsc::channel(1);
        let core = Core::new(config, has_consumer, inputs.downgrade(), events);
        tokio::spawn(core.run(input_queue, handles));
        let speaker = Speaker {
            inputs,
            _handle: handle,
        };
        (speaker, event_queue)
    }

    /// Makes the speaker what `config` says; only what differs is touched. The graceful restart
    /// part counts at the start only.
    pub async fn configure(&self, config: SpeakerConfig) {
        self.tell(Command::Configure(Box::new(config))).await;
    }

    pub async fn peers(&self) -> Vec<PeerStatus> {
        self.ask(Command::Peers).await.unwrap_or_default()
    }

    pub async fn routes(&self, selection: RouteSelection) -> Vec<RouteStatus> {
        self.ask(|reply| Command::Routes(selection, reply))
            .await
            .unwrap_or_default()
    }

    /// The paths of a prefix and who hears of them, each with its reason.
    pub async fn why(&self, prefix: Prefix) -> WhyStatus {
        self.ask(|reply| Command::Why(prefix, reply))
            .await
            .unwrap_or_default()
    }

    /// What was counted since the start; cheap however many routes there are.
    pub async fn counters(&self) -> Counters {
        self.ask(Command::Counters).await.unwrap_or_default()
    }

    /// How next hops are reached from now on; those that are not in the map, at cost 0 by an unknown
    /// interface. Routes over one that is not reached at all are not used. Who has called this is
    /// asked about new ones by [`Event::NextHops`].
    pub async fn set_next_hop_costs(&self, next_hops: BTreeMap<IpAddr, NextHopInfo>) {
        self.tell(Command::NextHopCosts(next_hops)).await;
    }

    /// Asks for the best routes of these prefixes, or of all, by [`Event::Learned`] once more: for an
    /// owner that makes something else of them now, and need not remember them for it.
    pub async fn tell_again(&self, prefixes: Option<Vec<Prefix>>) {
        self.tell(Command::TellAgain(prefixes)).await;
    }

    /// BFD lost the peer at this address (RFC 5882 §4.1): its sessions end at once with Cease 6/10,
    /// which graceful restart covers like any other NOTIFICATION where both sides have RFC 8538.
    pub async fn bfd_down(&self, peer: IpAddr) {
        self.tell(Command::BfdDown(peer)).await;
    }

    /// What does not work at the moment: addresses that cannot be listened on, TCP MD5 keys that
    /// cannot be had, limits of the machine that were too low at the start, peers with one router id.
    pub async fn problems(&self) -> Vec<String> {
        self.ask(Command::Problems).await.unwrap_or_default()
    }

    /// Ends all sessions; returns when the last one is closed.
    pub async fn stop(&self, how: Stop) {
        self.ask(|reply| Command::Stop(how, reply)).await;
    }

    async fn tell(&self, command: Command) {
        // The core is gone only while everything shuts down.
        let _ = self.inputs.send(CoreInput::Command(command)).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await;
        answer.await.ok()
    }
}
