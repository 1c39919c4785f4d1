//! The core: one task that owns the RIB and knows every peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{debug, info, warn};

use super::config::{PeerConfig, PeerKey, SpeakerConfig};
use super::connection::RouteOperation;
use super::listener::Listener;
use super::outbox::Outbox;
use super::peer::{CONTROL_QUEUE, Control, PeerTask, sleep_until};
use super::status::{PeerStatus, RouteStatus};
use super::{Event, RouteSelection, Stop};
use crate::fsm::restart::{Decision, Deferral, HelperConfig, HelperState};
use crate::fsm::session::{DownReason, LastError, Negotiated, State};
use crate::rib::{PeerId, Rib, RibConfig, Sink};
use crate::types::Family;
use crate::wire::Notification;
use crate::wire::notification::cease;
use crate::wire::refresh::{RefreshKind, RouteRefresh};

/// Inputs worked off before what they changed is said: large enough to pack messages well, small
/// enough that nobody waits long.
const TURN: usize = 256;
/// Learned routes per event.
const LEARNED_PER_EVENT: usize = 4096;

/// Everything that can wake the core.
#[derive(Debug)]
pub enum CoreInput {
    Accepted {
        stream: TcpStream,
        remote: SocketAddr,
    },
    Listening {
        address: SocketAddr,
        problem: Option<String>,
    },
    StateChanged {
        peer: PeerId,
        to: State,
    },
    ErrorNoted {
        peer: PeerId,
        error: LastError,
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
    Problems(oneshot::Sender<Vec<String>>),
    Stop(Stop, oneshot::Sender<()>),
}

/// What the core keeps of a peer.
pub struct PeerSlot {
    pub key: PeerKey,
    pub config: PeerConfig,
    /// Came from a listen range.
    pub is_dynamic: bool,
    /// Told to stop; its id is free once its task finished.
    pub is_leaving: bool,
    pub control: mpsc::Sender<Control>,
    /// Set while established.
    pub session: Option<Established>,
    pub helper: HelperState,
    /// Of the last session, for what is kept of it.
    pub state: State,
    pub since: SystemTime,
    pub last_error: Option<(LastError, SystemTime)>,
    pub flaps: u64,
    /// Malformed attributes that cost a route or an attribute, not the session.
    pub attribute_errors: u64,
}

pub struct Established {
    pub negotiated: Box<Negotiated>,
    pub outbox: Arc<Outbox>,
}

pub struct Core {
    pub(super) config: SpeakerConfig,
    has_consumer: bool,
    pub(super) rib: Rib,
    pub(super) peers: Vec<Option<PeerSlot>>,
    inputs: mpsc::WeakSender<CoreInput>,
    wakeup: Arc<Notify>,
    events: mpsc::Sender<Event>,
    listeners: BTreeMap<SocketAddr, Listener>,
    problems: BTreeMap<SocketAddr, String>,
    deferral: Deferral<IpAddr>,
    is_settled: bool,
    has_told_settled: bool,
    /// The dynamic peers as last told.
    told_dynamic: Vec<IpAddr>,
    stopping: Option<oneshot::Sender<()>>,
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
        let deadline = Instant::now() + restart.selection_deferral;
        Core {
            rib: Rib::new(rib_config(&config, has_consumer)),
            deferral: Deferral::new(awaited, &Family::ALL, deadline),
            config,
            has_consumer,
            peers: Vec::new(),
            inputs,
            wakeup: Arc::new(Notify::new()),
            events,
            listeners: BTreeMap::new(),
            problems: BTreeMap::new(),
            is_settled: false,
            has_told_settled: false,
            told_dynamic: Vec::new(),
            stopping: None,
        }
    }

    /// Runs until stopped or until all handles are gone.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<CoreInput>) {
        self.rib.set_deferring(!self.deferral.is_over());
        let config = self.config.clone();
        self.rib.set_originated(config.originated.clone());
        self.follow_listen(&config);
        self.follow_peers(&config);
        loop {
            self.settle_if_over();
            self.rib.turn(&mut Outboxes { peers: &self.peers });
            self.tell_dynamic();
            if self.stopping.is_some() && self.peers.iter().all(Option::is_none) {
                break;
            }
            let wake_at = self.next_timeout();
            let has_event = self.rib.has_learned() || (self.is_settled && !self.has_told_settled);
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => {
                        self.handle(input).await;
                        for _ in 0..TURN {
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
                    // Nobody listens any more.
                    Err(_) => self.has_told_settled = true,
                },
                () = self.wakeup.clone().notified_owned() => {}
                () = sleep_until(wake_at) => self.handle_timeout(),
            }
        }
        if let Some(done) = self.stopping.take() {
            let _ = done.send(());
        }
    }

    async fn handle(&mut self, input: CoreInput) {
        match input {
            CoreInput::Accepted { stream, remote } => self.handle_accepted(stream, remote),
            CoreInput::Listening { address, problem } => match problem {
                Some(problem) => {
                    self.problems.insert(address, problem);
                }
                None => {
                    self.problems.remove(&address);
                }
            },
            CoreInput::StateChanged { peer, to } => {
                if let Some(slot) = self.slot(peer) {
                    slot.state = to;
                    slot.since = SystemTime::now();
                }
            }
            CoreInput::ErrorNoted { peer, error } => {
                if let Some(slot) = self.slot(peer) {
                    slot.last_error = Some((error, SystemTime::now()));
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
            CoreInput::Routes { peer, operations } => self.handle_routes(peer, operations),
            CoreInput::Refresh { peer, refresh } => {
                if refresh.kind == RefreshKind::Request {
                    self.rib.refresh(peer, refresh.family);
                }
            }
            CoreInput::Finished { peer } => {
                self.rib.remove_peer(peer);
                if let Some(entry) = self.peers.get_mut(peer.0 as usize) {
                    *entry = None;
                }
                // A peer that left with one configuration may be back in the present one.
                let config = self.config.clone();
                self.follow_peers(&config);
            }
            CoreInput::Command(command) => self.handle_command(command),
        }
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
            Command::Problems(reply) => {
                let _ = reply.send(self.problems.values().cloned().collect());
            }
            Command::Stop(how, reply) => self.stop(how, reply),
        }
    }

    fn stop(&mut self, how: Stop, reply: oneshot::Sender<()>) {
        self.listeners.clear();
        self.stopping = Some(reply);
        for index in 0..self.peers.len() {
            let Some(slot) = &self.peers[index] else {
                continue;
            };
            let has_restart = slot
                .session
                .as_ref()
                .is_some_and(|session| session.negotiated.graceful_restart.is_some());
            let notification = (how == Stop::ForGood || !has_restart)
                .then(|| Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN));
            self.leave(index, notification);
        }
    }

    fn configure(&mut self, config: SpeakerConfig) {
        if self.stopping.is_some() {
            return;
        }
        let was = std::mem::replace(&mut self.config, config.clone());
        // Restart parameters are those of the start.
        self.config.graceful_restart = was.graceful_restart.clone();
        self.rib.reconfigure(rib_config(&config, self.has_consumer));
        if was.listen != config.listen {
            self.follow_listen(&config);
        }
        self.rib.set_originated(config.originated.clone());
        self.follow_peers(&config);
    }

    fn follow_listen(&mut self, config: &SpeakerConfig) {
        let wanted: BTreeSet<SocketAddr> = config.listen.iter().copied().collect();
        self.listeners.retain(|address, _| wanted.contains(address));
        self.problems.retain(|address, _| wanted.contains(address));
        for address in wanted {
            let inputs = self.inputs.clone();
            self.listeners
                .entry(address)
                .or_insert_with(|| Listener::spawn(address, inputs));
        }
    }

    /// Starts, changes and ends peers until they are those of `config`.
    fn follow_peers(&mut self, config: &SpeakerConfig) {
        if self.stopping.is_some() {
            return;
        }
        for index in 0..self.peers.len() {
            let Some(slot) = &self.peers[index] else {
                continue;
            };
            if slot.is_leaving {
                continue;
            }
            let wanted = if slot.is_dynamic
                && !config
                    .peers
                    .keys()
                    .any(|key| key.address == slot.key.address)
            {
                range_of(config, slot.key.address).map(|(_, template)| template)
            } else {
                config.peers.get(&slot.key)
            };
            match wanted {
                Some(wanted) => {
                    let wanted = wanted.clone();
                    self.change_peer(index, wanted);
                }
                None => {
                    self.deferral.handle_peer_gone(&slot.key.address);
                    self.leave(index, Some(Notification::cease(cease::PEER_DECONFIGURED)));
                }
            }
        }
        for (key, peer) in &config.peers {
            if self.find(|slot| slot.key == *key).is_none() {
                self.add_peer(*key, peer.clone(), false);
            }
        }
    }

    fn change_peer(&mut self, index: usize, wanted: PeerConfig) {
        let Some(slot) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let was = std::mem::replace(&mut slot.config, wanted.clone());
        let session = Box::new(self.session_config(&wanted));
        let Some(slot) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        slot.helper
            .reconfigure(helper_config(&self.config, &wanted));
        let transport = transport(slot.key, &wanted);
        send_control(slot, Control::Reconfigure { session, transport });
        let policy_changed = was.filters != wanted.filters
            || was.import_default != wanted.import_default
            || was.export_default != wanted.export_default
            || was.next_hop_mode != wanted.next_hop_mode
            || was.route_reflector_client != wanted.route_reflector_client
            || was.allow_own_as != wanted.allow_own_as;
        if policy_changed {
            self.change_policy(index);
        }
    }

    /// A new policy holds for what is said at once, and for what was heard after a refresh.
    fn change_policy(&mut self, index: usize) {
        let id = PeerId(index as u32);
        let Some(slot) = self.peers.get(index).and_then(Option::as_ref) else {
            return;
        };
        let Some(session) = &slot.session else { return };
        let families = session.negotiated.families.clone();
        let setup = self.peer_setup(slot, &session.negotiated);
        for family in families {
            let refresh = RouteRefresh {
                family,
                kind: RefreshKind::Request,
            };
            send_control(slot, Control::RequestRefresh(refresh));
        }
        self.rib.set_policy(id, setup);
    }

    fn handle_accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        if self.stopping.is_some() {
            return;
        }
        let address = remote.ip().to_canonical();
        let existing = self.find(|slot| slot.key.address == address && !slot.is_leaving);
        let index = match existing {
            Some(index) => index,
            None => {
                let Some((_, template)) = range_of(&self.config, address) else {
                    debug!(%remote, "connection from an unknown address refused");
                    return;
                };
                let dynamic = self
                    .peers
                    .iter()
                    .flatten()
                    .filter(|slot| slot.is_dynamic)
                    .count();
                if dynamic >= self.config.max_dynamic_peers {
                    warn!(%remote, limit = self.config.max_dynamic_peers, "too many peers over listen ranges");
                    return;
                }
                let template = template.clone();
                self.add_peer(PeerKey { address, port: 179 }, template, true)
            }
        };
        if let Some(slot) = self.peers.get(index).and_then(Option::as_ref)
            && slot.control.try_send(Control::Incoming(stream)).is_err()
        {
            debug!(%remote, "connection dropped: the peer's task is busy");
        }
    }

    fn add_peer(&mut self, key: PeerKey, config: PeerConfig, is_dynamic: bool) -> usize {
        let index = match self.peers.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.peers.push(None);
                self.peers.len() - 1
            }
        };
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
        let mut session = self.session_config(&config);
        session.passive |= is_dynamic;
        if let Some(core) = self.inputs.upgrade() {
            let task = PeerTask::new(
                PeerId(index as u32),
                key.to_string(),
                session,
                transport(key, &config),
                core,
                self.wakeup.clone(),
                control_queue,
            );
            tokio::spawn(task.run());
        }
        info!(peer = %key, name = config.name, "peer added");
        self.peers[index] = Some(PeerSlot {
            key,
            helper: HelperState::new(helper_config(&self.config, &config)),
            config,
            is_dynamic,
            is_leaving: false,
            control,
            session: None,
            state: State::Idle,
            since: SystemTime::now(),
            last_error: None,
            flaps: 0,
            attribute_errors: 0,
        });
        index
    }

    /// Tells a peer's task to end; `Finished` follows.
    fn leave(&mut self, index: usize, notification: Option<Notification>) {
        let Some(slot) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if !slot.is_leaving {
            slot.is_leaving = true;
            send_control(slot, Control::Stop(notification));
        }
    }

    fn handle_established(&mut self, id: PeerId, negotiated: Box<Negotiated>, outbox: Arc<Outbox>) {
        let Some(slot) = self.peers.get(id.0 as usize).and_then(Option::as_ref) else {
            return;
        };
        let setup = self.peer_setup(slot, &negotiated);
        let address = slot.key.address;
        self.deferral.handle_established(&address, &negotiated);
        self.rib.peer_up(id, setup);
        let Some(slot) = self.slot(id) else { return };
        let decisions = slot.helper.handle_established(&negotiated);
        slot.session = Some(Established { negotiated, outbox });
        self.carry_out(id, &decisions);
    }

    fn handle_down(&mut self, id: PeerId, reason: &DownReason) {
        let Some(slot) = self.slot(id) else { return };
        slot.flaps += 1;
        let Some(session) = slot.session.take() else {
            return;
        };
        let decisions = slot
            .helper
            .handle_down(reason, &session.negotiated, Instant::now());
        let kept: Vec<Family> = decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::KeepStale { family } => Some(*family),
                Decision::FlushStale { .. } | Decision::FlushAll { .. } => None,
            })
            .collect();
        info!(peer = %slot.key, ?reason, ?kept, "session down");
        self.rib.peer_down(id, &kept);
        self.carry_out(id, &decisions);
        self.drop_dynamic_without_routes(id);
    }

    fn handle_routes(&mut self, id: PeerId, operations: Vec<RouteOperation>) {
        for operation in operations {
            match operation {
                RouteOperation::Withdraw(prefixes) => self.rib.withdraw(id, prefixes.into_iter()),
                RouteOperation::Announce(attributes, prefixes) => {
                    self.rib.announce(id, *attributes, prefixes.into_iter());
                }
                RouteOperation::EndOfRib(family) => {
                    if let Some(slot) = self.slot(id) {
                        let decisions = slot.helper.handle_end_of_rib(family);
                        let address = slot.key.address;
                        self.deferral.handle_end_of_rib(&address, family);
                        self.carry_out(id, &decisions);
                    }
                }
                RouteOperation::Errors(errors) => {
                    if let Some(slot) = self.slot(id) {
                        slot.attribute_errors += errors.len() as u64;
                        warn!(peer = %slot.key, first = ?errors.first(), count = errors.len(), "malformed attributes");
                    }
                }
            }
        }
        self.enforce_max_prefixes(id);
    }

    fn enforce_max_prefixes(&mut self, id: PeerId) {
        let Some(slot) = self.peers.get(id.0 as usize).and_then(Option::as_ref) else {
            return;
        };
        let Some(limit) = slot.config.max_prefixes else {
            return;
        };
        for family in Family::ALL {
            if self.rib.counts(id, family).received > u64::from(limit) {
                send_control(
                    slot,
                    Control::Cease(Notification::maximum_prefixes(family, limit)),
                );
                return;
            }
        }
    }

    fn carry_out(&mut self, id: PeerId, decisions: &[Decision]) {
        for decision in decisions {
            match decision {
                // Done by `peer_down`.
                Decision::KeepStale { .. } | Decision::FlushAll { .. } => {}
                Decision::FlushStale { family } => self.rib.flush_stale(id, *family),
            }
        }
    }

    /// A peer of a range exists as long as it is connected or its routes are kept.
    fn drop_dynamic_without_routes(&mut self, id: PeerId) {
        let Some(slot) = self.slot(id) else { return };
        let keeps_routes = Family::ALL
            .iter()
            .any(|family| slot.helper.is_stale(*family));
        if slot.is_dynamic && slot.session.is_none() && !keeps_routes {
            self.leave(id.0 as usize, None);
        }
    }

    fn handle_timeout(&mut self) {
        let now = Instant::now();
        self.deferral.handle_timeout(now);
        for index in 0..self.peers.len() {
            let Some(slot) = self.peers[index].as_mut() else {
                continue;
            };
            let decisions = slot.helper.handle_timeout(now);
            if !decisions.is_empty() {
                info!(peer = %slot.key, "stale routes flushed: the peer did not come back in time");
                self.carry_out(PeerId(index as u32), &decisions);
                self.drop_dynamic_without_routes(PeerId(index as u32));
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let helpers = self
            .peers
            .iter()
            .flatten()
            .filter_map(|slot| slot.helper.next_timeout());
        helpers.chain(self.deferral.next_timeout()).min()
    }

    fn settle_if_over(&mut self) {
        if self.is_settled || !self.deferral.is_over() {
            return;
        }
        self.is_settled = true;
        self.rib.set_deferring(false);
        // From now on OPENs say that we are not restarting, and that we forward.
        for index in 0..self.peers.len() {
            if let Some(config) = self.peers[index].as_ref().map(|slot| slot.config.clone()) {
                self.change_peer(index, config);
            }
        }
    }

    fn next_event(&mut self) -> Event {
        if self.rib.has_learned() {
            return Event::Learned(self.rib.learned(LEARNED_PER_EVENT));
        }
        self.has_told_settled = true;
        Event::Settled
    }

    fn tell_dynamic(&mut self) {
        let mut dynamic: Vec<IpAddr> = self
            .peers
            .iter()
            .flatten()
            .filter(|slot| slot.is_dynamic && !slot.is_leaving)
            .map(|slot| slot.key.address)
            .collect();
        if !self.is_settled {
            // Those that are not back yet must be remembered over a second restart, too.
            dynamic.extend(&self.config.graceful_restart.remembered_peers);
        }
        dynamic.sort_unstable();
        dynamic.dedup();
        // A full queue means that the owner is busy: it is told at the next turn.
        if self.stopping.is_none()
            && dynamic != self.told_dynamic
            && self
                .events
                .try_send(Event::DynamicPeers(dynamic.clone()))
                .is_ok()
        {
            self.told_dynamic = dynamic;
        }
    }

    pub(super) fn find(&self, is_it: impl Fn(&PeerSlot) -> bool) -> Option<usize> {
        self.peers
            .iter()
            .position(|slot| slot.as_ref().is_some_and(&is_it))
    }

    fn slot(&mut self, id: PeerId) -> Option<&mut PeerSlot> {
        self.peers.get_mut(id.0 as usize).and_then(Option::as_mut)
    }

    pub(super) fn is_restarting(&self) -> bool {
        self.config.graceful_restart.restarting && !self.is_settled
    }

    /// Whether forwarding state survives a loss of session: what F says.
    pub(super) fn preserves_forwarding(&self) -> bool {
        self.config.graceful_restart.forwarding_preserved || self.is_settled
    }
}

fn send_control(slot: &PeerSlot, control: Control) {
    let sender = slot.control.clone();
    if let Err(mpsc::error::TrySendError::Full(control)) = sender.try_send(control) {
        // A busy task; order among what waits here does not matter, the last configuration is
        // sent again by the next change.
        tokio::spawn(async move {
            let _ = sender.send(control).await;
        });
    }
}

fn range_of(
    config: &SpeakerConfig,
    address: IpAddr,
) -> Option<(crate::types::Prefix, &PeerConfig)> {
    config
        .ranges
        .iter()
        .filter(|(prefix, _)| prefix.contains(address))
        .max_by_key(|(prefix, _)| prefix.length())
        .map(|(prefix, template)| (*prefix, template))
}

fn rib_config(config: &SpeakerConfig, has_consumer: bool) -> RibConfig {
    RibConfig {
        router_id: config.router_id,
        cluster_id: config.effective_cluster_id(),
        local_addresses: config.local_addresses.clone(),
        has_consumer,
    }
}

fn helper_config(speaker: &SpeakerConfig, peer: &PeerConfig) -> HelperConfig {
    HelperConfig {
        max_restart_time: speaker.graceful_restart.stale_time,
        stale_time: speaker.graceful_restart.stale_time,
        strict_consecutive_restart: peer.strict_consecutive_restart,
        notification: false,
    }
}

fn transport(key: PeerKey, config: &PeerConfig) -> super::socket::Transport {
    super::socket::Transport {
        remote: SocketAddr::new(key.address, key.port),
        local: config.local_address,
        ttl: config.ttl,
        ttl_security_hops: config.ttl_security_hops,
    }
}

/// The RIB's way to the connections.
struct Outboxes<'a> {
    peers: &'a [Option<PeerSlot>],
}

impl Outboxes<'_> {
    fn get(&self, id: PeerId) -> Option<&Outbox> {
        let slot = self.peers.get(id.0 as usize)?.as_ref()?;
        slot.session.as_ref().map(|session| &*session.outbox)
    }
}

impl Sink for Outboxes<'_> {
    fn has_room(&self, peer: PeerId) -> bool {
        self.get(peer).is_some_and(Outbox::has_room)
    }

    fn send(&mut self, peer: PeerId, message: &bytes::Bytes) {
        if let Some(outbox) = self.get(peer) {
            outbox.push_routes(message);
        }
    }
}
