//! The core: one task that owns the RIB and knows every peer.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{info, warn};

use super::clock;
use super::config::SpeakerConfig;
use super::connection::RouteOperation;
use super::control::Control;
use super::convergence::{Convergence, Round};
use super::departed::Departed;
use super::input::{Command, CoreInput};
use super::limits::Limits;
use super::listener::Listener;
use super::md5;
use super::outbox::Outbox;
use super::outboxes::Outboxes;
use super::peer::sleep_until;
use super::quiet::Quiet;
use super::router_ids;
use super::slot::{Established, PeerSlot};
use super::{Event, Stop};
use crate::fsm::refresh::RefreshState;
use crate::fsm::restart::{Decision, Deferral};
use crate::fsm::session::{DownReason, Negotiated, State};
use crate::rib::{PeerId, Rib, RibConfig};
use crate::types::{Asn, Family, RouterId};
use crate::wire::Notification;
use crate::wire::attribute::Aggregator;
use crate::wire::notification::cease;
use crate::wire::refresh::RefreshKind;

/// Inputs worked off before what they changed is said: large enough to pack messages well, small
/// enough that nobody waits long.
const TURN: usize = 256;
/// So many prefixes that changed end a turn before: what is needed to say them stays small, and the
/// first are on their way while the rest is decided.
const CHANGES: usize = 16 * 1024;
/// Learned routes per event.
const LEARNED_PER_EVENT: usize = 1024;

/// Words for the operators of our peers (RFC 9003).
const RESTARTING: &str = "the speaker restarts";
const FOR_GOOD: &str = "the speaker stops for good";

pub struct Core {
    pub(super) config: SpeakerConfig,
    pub(super) has_consumer: bool,
    /// The receiver of `events` is there.
    has_reader: bool,
    pub(super) rib: Rib,
    pub(super) peers: Vec<Option<Box<PeerSlot>>>,
    pub(super) departed: Departed,
    pub(super) inputs: mpsc::WeakSender<CoreInput>,
    pub(super) wakeup: Arc<Notify>,
    events: mpsc::Sender<Event>,
    pub(super) listeners: BTreeMap<SocketAddr, Listener>,
    pub(super) problems: BTreeMap<SocketAddr, Vec<String>>,
    /// As they were at the start.
    limits: Limits,
    /// What is too low for the present configuration, as last logged.
    shortfalls: Vec<String>,
    /// Peers of ranges for whom there was no place.
    pub(super) placeless: Quiet,
    /// Until it is over some peers hear no End-of-RIB, and for a while they and the owner nothing.
    pub(super) deferral: Deferral<IpAddr>,
    /// The same wait with a longer bound: as long as a peer is absent, routes that the owner kept
    /// over the restart may be right although nobody has repeated them.
    pub(super) adopted: Deferral<IpAddr>,
    /// Until when nothing is told or said while the deferral goes on; `None` afterwards.
    pub(super) silent_until: Option<Instant>,
    pub(super) is_settled: bool,
    has_told_settled: bool,
    /// The dynamic peers as last told.
    told_dynamic: Vec<IpAddr>,
    /// When what was worked off since the last turn had been read. Bounded by the inputs of a turn.
    reads: Vec<Instant>,
    pub(super) convergence: Arc<Convergence>,
    pub(super) stopping: Option<oneshot::Sender<()>>,
}

impl Core {
    pub fn new(
        config: SpeakerConfig,
        has_consumer: bool,
        inputs: mpsc::WeakSender<CoreInput>,
        events: mpsc::Sender<Event>,
    ) -> Core {
        let restart = &config.graceful_restart;
        let awaited: BTreeSet<IpAddr> = config
            .peers
            .keys()
            .map(|key| key.address)
            .chain(restart.remembered_peers.iter().copied())
            .filter(|_| restart.enabled && restart.restarting)
            .collect();
        let now = clock::now();
        let deadline = now + restart.selection_deferral;
        let adopted_until = now + restart.selection_deferral.max(restart.restart_time);
        Core {
            silent_until: Some(now + restart.silence),
            rib: Rib::new(rib_config(&config, has_consumer)),
            adopted: Deferral::new(awaited.iter().copied(), &Family::ALL, adopted_until),
            deferral: Deferral::new(awaited, &Family::ALL, deadline),
            config,
            has_consumer,
            has_reader: true,
            peers: Vec::new(),
            departed: Departed::default(),
            inputs,
            wakeup: Arc::new(Notify::new()),
            events,
            listeners: BTreeMap::new(),
            problems: BTreeMap::new(),
            limits: Limits::observe(),
            shortfalls: Vec::new(),
            placeless: Quiet::default(),
            is_settled: false,
            has_told_settled: false,
            told_dynamic: Vec::new(),
            reads: Vec::new(),
            convergence: Arc::default(),
            stopping: None,
        }
    }

    /// Runs until stopped or until all handles are gone.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<CoreInput>,
        mut handles: mpsc::Receiver<Infallible>,
    ) {
        self.rib.set_deferring(!self.deferral.is_over());
        let config = self.config.clone();
        self.rib.set_originated(config.originated.clone());
        self.rib
            .set_aggregates(&config.aggregates, aggregator(&config));
        info!(
            descriptors = self.limits.descriptors,
            sessions = self.limits.sessions(),
            backlog = self.limits.backlog,
            md5_keys = self.limits.option_memory.map(md5::capacity),
            "what the machine allows"
        );
        self.follow_listen(&config);
        self.follow_peers(&config);
        loop {
            self.settle_if_over();
            self.break_silence();
            self.release_held();
            // While stopping, peers leave one by one; the others are not to hear that as withdrawals.
            if self.stopping.is_none() {
                self.turn();
            }
            if self.stopping.is_some() && self.peers.iter().all(Option::is_none) {
                break;
            }
            let wake_at = self.next_timeout();
            let has_event = self.has_event();
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => {
                        self.handle(input).await;
                        for _ in 0..TURN {
                            if self.rib.changes() >= CHANGES {
                                break;
                            }
                            match inputs.try_recv() {
                                Ok(input) => self.handle(input).await,
                                Err(_) => break,
                            }
                        }
                    }
                    None => break,
                },
                permit = self.events.clone().reserve_owned(), if has_event => match permit {
                    Ok(permit) => {
                        permit.send(self.next_event());
                    }
                    Err(_) => self.forget_consumer(),
                },
                None = handles.recv() => break,
                () = self.wakeup.clone().notified_owned() => {}
                () = sleep_until(wake_at) => self.handle_timeout(),
            }
        }
        if let Some(done) = self.stopping.take() {
            let _ = done.send(());
        }
    }

    /// Says what changed, which is observed where peers caused it, then what joining and lagging
    /// members miss, which is not.
    fn turn(&mut self) {
        let reads = std::mem::take(&mut self.reads);
        let round = Round::begin(reads, &self.convergence, clock::now());
        let peers = &self.peers;
        let mut changes = Outboxes::new(peers, round.as_ref());
        self.rib.say_changes(&mut changes);
        changes.finish();
        let mut missed = Outboxes::new(peers, None);
        self.rib.catch_up(&mut missed);
        missed.finish();
    }

    async fn handle(&mut self, input: CoreInput) {
        match input {
            CoreInput::Accepted { stream, remote } => self.handle_accepted(stream, remote),
            CoreInput::Listening { address, problems } => {
                // Else it is a late word of a listener that is gone.
                if self.listeners.contains_key(&address) {
                    self.problems.insert(address, problems);
                }
            }
            CoreInput::StateChanged { peer, to } => self.handle_state_changed(peer, to),
            CoreInput::ErrorNoted { peer, error } => {
                if let Some(slot) = self.slot(peer) {
                    slot.last_error = Some((error, SystemTime::now()));
                }
            }
            CoreInput::ConnectFailed { peer, reason } => {
                if let Some(slot) = self.slot(peer) {
                    slot.last_connect_error = Some((reason, SystemTime::now()));
                    if slot.state < State::OpenSent {
                        self.drop_dynamic_without_routes(peer);
                    }
                }
            }
            CoreInput::Established {
                peer,
                negotiated,
                outbox,
            } => {
                self.handle_established(peer, negotiated, outbox);
            }
            CoreInput::Down { peer, reason } => self.handle_down(peer, &reason),
            CoreInput::Routes {
                peer,
                operations,
                read_at,
                turn,
            } => {
                self.reads.push(read_at);
                self.handle_routes(peer, operations);
                drop(turn);
            }
            CoreInput::Refresh { peer, refresh } => {
                if refresh.kind == RefreshKind::Request {
                    self.rib.refresh(peer, refresh.family);
                }
            }
            CoreInput::Finished { peer } => {
                self.rib.remove_peer(peer);
                let entry = self.peers.get_mut(peer.0 as usize);
                let Some(slot) = entry.and_then(Option::take) else {
                    return;
                };
                // A peer that left with one configuration may be back in the present one.
                self.add_if_listed(slot.key);
                let left = slot.control.left();
                self.keep_departed(slot);
                // They came while the task was ending.
                for stream in left {
                    if let Ok(remote) = stream.peer_addr() {
                        self.handle_accepted(stream, remote);
                    }
                }
            }
            CoreInput::Command(command) => self.handle_command(command),
        }
    }

    fn handle_state_changed(&mut self, id: PeerId, to: State) {
        let Some(slot) = self.slot(id) else { return };
        let was = std::mem::replace(&mut slot.state, to);
        slot.since = SystemTime::now();
        // The last connection is gone. Strangers that never have a session must not use up the
        // places of a range.
        if was >= State::OpenSent && to < State::OpenSent {
            self.drop_dynamic_without_routes(id);
        }
    }

    /// Those that are up: address, AS, and identifier.
    fn internal_peers(&self) -> impl Iterator<Item = (IpAddr, Asn, RouterId)> {
        let up = self.peers.iter().flatten().filter_map(|slot| {
            let session = slot.session.as_ref()?;
            Some((slot.key.address, session))
        });
        up.filter(|(_, session)| !session.setup.ebgp)
            .map(|(address, session)| {
                let negotiated = &session.negotiated;
                (address, negotiated.remote_asn, negotiated.remote_router_id)
            })
    }

    /// Looks whether the machine allows what `config` asks for, and says once what it does not.
    pub(super) fn follow_limits(&mut self, config: &SpeakerConfig) {
        let shortfalls = self.limits.shortfalls(config);
        for shortfall in &shortfalls {
            if !self.shortfalls.contains(shortfall) {
                warn!(problem = shortfall, "the machine allows too little");
            }
        }
        self.shortfalls = shortfalls;
    }

    fn handle_command(&mut self, command: Command) {
        // A dropped receiver means that the asker does not want the answer any more.
        match command {
            Command::Configure(config) => self.configure(*config),
            Command::Peers(reply) => {
                let _ = reply.send(self.show_peers());
            }
            Command::Routes(selection, reply) => {
                let _ = reply.send(self.show_routes(selection));
            }
            Command::Why(prefix, reply) => {
                let _ = reply.send(self.show_why(prefix));
            }
            Command::Counters(reply) => {
                let _ = reply.send(self.count());
            }
            Command::Problems(reply) => {
                let of_listeners = self.problems.values().flatten().cloned();
                let of_limits = self.shortfalls.iter().cloned();
                let problems = of_listeners
                    .chain(of_limits)
                    .chain(md5::conflicts(&self.config))
                    .chain(router_ids::duplicates(self.internal_peers()));
                let _ = reply.send(problems.collect());
            }
            Command::NextHopCosts(next_hops) => {
                self.rib.set_next_hop_costs(next_hops.into_iter().collect());
            }
            Command::TellAgain(None) => self.rib.tell_all_again(),
            Command::TellAgain(Some(prefixes)) => self.rib.tell_again(&prefixes),
            Command::BfdDown(address) => self.handle_bfd_down(address),
            Command::Stop(how, reply) => self.stop(how, reply),
        }
    }

    /// RFC 9384 §3: the path to the peer is gone, whatever TCP still believes.
    fn handle_bfd_down(&mut self, address: IpAddr) {
        for slot in self.peers.iter().flatten() {
            if slot.key.address == address && slot.session.is_some() {
                warn!(peer = %slot.key, "BFD says the peer is unreachable");
                let cease = Control::Cease {
                    notification: Notification::cease(cease::BFD_DOWN),
                    hold_down: None,
                };
                slot.control.send(cease);
            }
        }
    }

    fn stop(&mut self, how: Stop, reply: oneshot::Sender<()>) {
        // Who drained is meant to go: peers that kept its routes would send packets after it.
        let how = match how {
            Stop::Restarting if self.config.is_draining => Stop::ForGood,
            how => how,
        };
        self.listeners.clear();
        self.stopping = Some(reply);
        for index in 0..self.peers.len() {
            let Some(slot) = &self.peers[index] else {
                continue;
            };
            let last_word = last_word(
                how,
                slot.session.as_ref().map(|session| &*session.negotiated),
            );
            self.leave(index, last_word);
        }
    }

    fn handle_established(&mut self, id: PeerId, negotiated: Box<Negotiated>, outbox: Arc<Outbox>) {
        let Some(slot) = self.peers.get(id.0 as usize).and_then(Option::as_ref) else {
            return;
        };
        let setup = self.peer_setup(slot, &negotiated);
        let address = slot.key.address;
        self.deferral.handle_established(&address, &negotiated);
        self.adopted.handle_established(&address, &negotiated);
        self.rib.peer_up(id, setup.clone());
        if !self.is_settled {
            self.rib.hold(id);
        }
        let stale_time = self.config.graceful_restart.stale_time;
        let Some(slot) = self.slot(id) else { return };
        let decisions = slot.helper.handle_established(&negotiated);
        let refresh = RefreshState::new(&negotiated, stale_time);
        slot.session = Some(Established {
            negotiated,
            setup,
            outbox,
            refresh,
        });
        self.carry_out(id, &decisions);
    }

    fn handle_down(&mut self, id: PeerId, reason: &DownReason) {
        let Some(slot) = self.slot(id) else { return };
        slot.flaps += 1;
        let Some(session) = slot.session.take() else {
            return;
        };
        // The peer may have closed before it read our Cease. It had too many prefixes all the same.
        let too_many = slot.held_until.map(|_| {
            let cease = Notification::cease(cease::MAXIMUM_PREFIXES);
            DownReason::NotificationSent(Notification::hard_reset(&cease))
        });
        let decisions = slot.helper.handle_down(
            too_many.as_ref().unwrap_or(reason),
            &session.negotiated,
            clock::now(),
        );
        let kept: Vec<Family> = decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::KeepStale { family } | Decision::KeepLongLived { family } => {
                    Some(*family)
                }
                Decision::FlushStale { .. } | Decision::FlushAll { .. } => None,
            })
            .collect();
        info!(peer = %slot.key, ?reason, ?kept, "session down");
        // First what was stale before: now everything becomes so.
        let (of_before, of_now): (Vec<Decision>, Vec<Decision>) = decisions
            .into_iter()
            .partition(|decision| matches!(decision, Decision::FlushStale { .. }));
        self.carry_out(id, &of_before);
        self.rib.peer_down(id, &kept);
        self.carry_out(id, &of_now);
        self.drop_dynamic_without_routes(id);
    }

    fn handle_routes(&mut self, id: PeerId, operations: Vec<RouteOperation>) {
        for operation in operations {
            match operation {
                RouteOperation::Withdraw(prefixes) => self.rib.withdraw(id, prefixes.into_iter()),
                RouteOperation::Announce(attributes, prefixes) => {
                    self.rib.announce(id, attributes, prefixes.into_iter());
                }
                RouteOperation::EndOfRib(family) => {
                    if let Some(slot) = self.slot(id) {
                        let decisions = slot.helper.handle_end_of_rib(family);
                        if let Some(session) = &mut slot.session {
                            session.refresh.handle_end_of_rib(family);
                        }
                        let address = slot.key.address;
                        self.deferral.handle_end_of_rib(&address, family);
                        self.adopted.handle_end_of_rib(&address, family);
                        self.carry_out(id, &decisions);
                    }
                }
                RouteOperation::BeginRefresh(family) => {
                    let now = clock::now();
                    if self
                        .refresh_of(id)
                        .is_some_and(|r| r.handle_begin(family, now))
                    {
                        self.rib.mark_stale(id, family);
                    }
                }
                RouteOperation::EndRefresh(family) => {
                    if self.refresh_of(id).is_some_and(|r| r.handle_end(family)) {
                        self.rib.flush_stale(id, family);
                    }
                }
                RouteOperation::Errors(errors, body) => {
                    if let Some(slot) = self.slot(id) {
                        slot.faults.note(&slot.key, &errors, body);
                    }
                }
            }
        }
        self.enforce_max_prefixes(id);
    }

    fn carry_out(&mut self, id: PeerId, decisions: &[Decision]) {
        for decision in decisions {
            match decision {
                // Done by `peer_down`.
                Decision::KeepStale { .. } | Decision::FlushAll { .. } => {}
                Decision::KeepLongLived { family } => self.rib.keep_long_lived(id, *family),
                Decision::FlushStale { family } => self.rib.flush_stale(id, *family),
            }
        }
    }

    /// A peer of a range exists as long as it is connected, called back, or its routes are kept.
    pub(super) fn drop_dynamic_without_routes(&mut self, id: PeerId) {
        let slot = self.peers.get(id.0 as usize).and_then(Option::as_ref);
        let Some(slot) = slot else { return };
        let is_needed = slot.is_needed() || self.is_called_back(&slot.key.address);
        if slot.is_dynamic && !is_needed && !slot.is_leaving {
            slot.control.send(Control::Retire);
        }
    }

    fn handle_timeout(&mut self) {
        let now = clock::now();
        self.deferral.handle_timeout(now);
        self.adopted.handle_timeout(now);
        if self.silent_until.take_if(|until| *until <= now).is_some() {
            self.dial_remembered();
        }
        for index in 0..self.peers.len() {
            let Some(slot) = self.peers[index].as_mut() else {
                continue;
            };
            let unfinished = slot
                .session
                .as_mut()
                .map(|session| session.refresh.handle_timeout(now));
            for family in unfinished.into_iter().flatten() {
                warn!(peer = %slot.key, %family, "stale routes flushed: the refresh was not ended in time");
                self.rib.flush_stale(PeerId(index as u32), family);
            }
            if slot.held_until.take_if(|until| *until <= now).is_some() {
                self.drop_dynamic_without_routes(PeerId(index as u32));
            }
            let Some(slot) = self.peers[index].as_mut() else {
                continue;
            };
            let decisions = slot.helper.handle_timeout(now);
            if !decisions.is_empty() {
                info!(peer = %slot.key, ?decisions, "the peer did not come back in time");
                self.carry_out(PeerId(index as u32), &decisions);
                self.drop_dynamic_without_routes(PeerId(index as u32));
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let helpers = self.peers.iter().flatten().flat_map(|slot| {
            slot.helper
                .next_timeout()
                .into_iter()
                .chain(slot.held_until)
        });
        let refreshes = self
            .peers
            .iter()
            .flatten()
            .filter_map(|slot| slot.session.as_ref()?.refresh.next_timeout());
        helpers
            .chain(refreshes)
            .chain(self.deferral.next_timeout())
            .chain(self.adopted.next_timeout())
            .chain(self.silent_until)
            .min()
    }

    fn settle_if_over(&mut self) {
        if self.is_settled || !self.deferral.is_over() {
            return;
        }
        self.is_settled = true;
        self.rib.set_deferring(false);
        if self.config.graceful_restart.restarting {
            let slots = self.peers.iter().flatten();
            let sessions = slots.filter(|slot| slot.session.is_some()).count();
            info!(sessions, "the restart is over, peers are told all routes");
        }
        // From now on OPENs say that we are not restarting, and that we forward.
        for index in 0..self.peers.len() {
            if let Some(config) = self.peers[index].as_ref().map(|slot| slot.config.clone()) {
                self.change_peer(index, config);
                // It was called back and did not come.
                if self.peers[index]
                    .as_ref()
                    .is_some_and(|slot| slot.state < State::OpenSent)
                {
                    self.drop_dynamic_without_routes(PeerId(index as u32));
                }
            }
        }
    }

    /// Nobody reads events any more, now or later.
    fn forget_consumer(&mut self) {
        self.has_reader = false;
        self.has_consumer = false;
        self.rib.forget_consumer();
    }

    fn has_event(&self) -> bool {
        if !self.has_reader {
            return false;
        }
        let is_settled_due =
            self.is_convergence_over() && !self.has_told_settled && !self.rib.has_untold();
        self.rib.has_next_hop_question()
            || self.rib.has_learned()
            || is_settled_due
            || self.has_dynamic_news()
    }

    fn next_event(&mut self) -> Event {
        if self.has_dynamic_news() {
            self.told_dynamic = self.dynamic_peers();
            return Event::DynamicPeers(self.told_dynamic.clone());
        }
        if self.rib.has_next_hop_question() {
            return Event::NextHops(self.rib.next_hop_question());
        }
        if self.rib.has_learned() {
            return Event::Learned(self.rib.learned(LEARNED_PER_EVENT));
        }
        self.has_told_settled = true;
        Event::Settled
    }

    /// Those that are to be remembered over a restart.
    fn dynamic_peers(&self) -> Vec<IpAddr> {
        let mut dynamic: Vec<IpAddr> = self
            .peers
            .iter()
            .flatten()
            .filter(|slot| slot.is_dynamic && !slot.is_leaving && slot.is_up_or_kept())
            .map(|slot| slot.key.address)
            .collect();
        if !self.is_settled {
            // Those that are not back yet must be remembered over a second restart, too.
            dynamic.extend(&self.config.graceful_restart.remembered_peers);
        }
        dynamic.sort_unstable();
        dynamic.dedup();
        dynamic
    }

    fn has_dynamic_news(&self) -> bool {
        self.stopping.is_none() && self.dynamic_peers() != self.told_dynamic
    }

    pub(super) fn find(&self, is_it: impl Fn(&PeerSlot) -> bool) -> Option<usize> {
        self.peers
            .iter()
            .position(|slot| slot.as_deref().is_some_and(&is_it))
    }

    pub(super) fn slot(&mut self, id: PeerId) -> Option<&mut PeerSlot> {
        self.peers
            .get_mut(id.0 as usize)
            .and_then(Option::as_deref_mut)
    }

    fn refresh_of(&mut self, id: PeerId) -> Option<&mut RefreshState> {
        Some(&mut self.slot(id)?.session.as_mut()?.refresh)
    }

    pub(super) fn is_restarting(&self) -> bool {
        self.config.graceful_restart.restarting && !self.is_settled
    }

    /// Whether forwarding state survives a loss of session: what F says.
    pub(super) fn preserves_forwarding(&self) -> bool {
        self.config.graceful_restart.forwarding_preserved || self.is_settled
    }
}

/// What a peer is told when the speaker stops; `None`: nothing, so that it keeps our routes.
fn last_word(how: Stop, session: Option<&Negotiated>) -> Option<Notification> {
    let has_restart = session.is_some_and(|session| session.graceful_restart.is_some());
    let said = Notification::cease_with_message;
    match how {
        // RFC 8538 §3: with N the peer keeps our routes although it is told.
        Stop::Restarting if session.is_some_and(Negotiated::has_graceful_notification) => {
            Some(said(cease::ADMINISTRATIVE_RESET, RESTARTING))
        }
        // RFC 4724 §4: without N any NOTIFICATION would cost the routes.
        Stop::Restarting if has_restart => None,
        Stop::Restarting => Some(said(cease::ADMINISTRATIVE_SHUTDOWN, RESTARTING)),
        Stop::ForGood => Some(said(cease::ADMINISTRATIVE_SHUTDOWN, FOR_GOOD)),
    }
}

pub(super) fn rib_config(config: &SpeakerConfig, has_consumer: bool) -> RibConfig {
    RibConfig {
        router_id: config.router_id,
        cluster_id: config.effective_cluster_id(),
        local_addresses: config.local_addresses.clone(),
        has_consumer,
        decision: config.decision,
        local_pref: config.local_pref,
    }
}

/// RFC 4271 §5.1.7: by whom aggregates are made.
pub(super) fn aggregator(config: &SpeakerConfig) -> Aggregator {
    Aggregator {
        asn: config.asn,
        address: config.router_id.0,
    }
}
