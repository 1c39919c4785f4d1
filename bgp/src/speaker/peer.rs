//! One peer's task: drives the session state machine with real connections and real time.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hashbrown::HashMap;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tracing::{debug, info};

use super::clock;
use super::connection::{Connection, Gate, Inbound, InboundSender};
use super::control::{Control, ControlReceiver};
use super::input::CoreInput;
use super::outbox::Outbox;
use super::socket::{self, Transport};
use super::traffic::Traffic;
use crate::fsm::session::{
    Action, ConfigChange, ConnectionId, Direction, Input, LastError, Session, SessionConfig, State,
};
use crate::fsm::timer::Jitter;
use crate::rib::PeerId;
use crate::wire::open::Open;
use crate::wire::update::UpdateContext;
use crate::wire::{Notification, frame};

/// Messages of all connections that may wait; a reader with more waits.
const INBOUND_QUEUE: usize = 32;
pub struct PeerTask {
    id: PeerId,
    label: String,
    session: Session,
    transport: Transport,
    core: mpsc::Sender<CoreInput>,
    core_wakeup: Arc<Notify>,
    control: ControlReceiver,
    inbound: mpsc::Receiver<(ConnectionId, Inbound)>,
    inbound_sender: mpsc::Sender<(ConnectionId, Inbound)>,
    traffic: Arc<Traffic>,
    connections: HashMap<ConnectionId, (Connection, u64)>,
    /// The writers of connections that are over for us and may have a last word to write.
    closing: Vec<JoinHandle<()>>,
    /// OPENs of those who ended another connection before, of which the end was not heard yet. One
    /// of a connection at most: its reader waits.
    early: Vec<(ConnectionId, Box<Open>)>,
    next_connection: u64,
    dial: Option<JoinHandle<io::Result<TcpStream>>>,
    random: RandomState,
    draws: u64,
}

impl PeerTask {
    pub fn new(
        id: PeerId,
        label: String,
        session: SessionConfig,
        transport: Transport,
        core: mpsc::Sender<CoreInput>,
        core_wakeup: Arc<Notify>,
        control: ControlReceiver,
    ) -> PeerTask {
        let (inbound_sender, inbound) = mpsc::channel(INBOUND_QUEUE);
        PeerTask {
            id,
            label,
            session: Session::new(session),
            transport,
            core,
            core_wakeup,
            control,
            inbound,
            inbound_sender,
            traffic: Arc::default(),
            connections: HashMap::new(),
            closing: Vec::new(),
            early: Vec::new(),
            next_connection: 0,
            dial: None,
            random: RandomState::new(),
            draws: 0,
        }
    }

    /// What goes over this peer's connections, now and later.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    /// Runs until stopped. `CoreInput::Finished` is the last thing the core hears of it.
    pub async fn run(mut self) {
        self.feed(Input::Start).await;
        loop {
            let wake_at = self.session.next_timeout();
            tokio::select! {
                control = self.control.receive() => match control {
                    Some(Control::Stop(notification)) => {
                        self.feed(Input::Stop { notification }).await;
                        break;
                    }
                    Some(Control::Retire) if self.connections.is_empty() => break,
                    Some(control) => self.handle_control(control).await,
                    None => {
                        self.feed(Input::Stop { notification: None }).await;
                        break;
                    }
                },
                Some((connection, inbound)) = self.inbound.recv() => {
                    match inbound {
                        Inbound::Open(open) => self.early.push((connection, open)),
                        inbound => self.handle_inbound(connection, inbound).await,
                    }
                }
                result = async { self.dial.as_mut().expect("guarded by the branch condition").await },
                    if self.dial.is_some() =>
                {
                    self.dial = None;
                    self.handle_dialed(result.unwrap_or_else(|error| Err(io::Error::other(error)))).await;
                }
                () = sleep_until(wake_at) => {
                    let dial = self.dial.as_ref().map(JoinHandle::id);
                    let jitter = self.jitter();
                    self.session.handle_timeout(clock::now(), jitter);
                    self.carry_out().await;
                    // No timer but ConnectRetry begins a dial in place of one.
                    let next = self.dial.as_ref().map(JoinHandle::id);
                    if dial.is_some() && next.is_some() && dial != next {
                        self.tell_connect_failed(self.no_answer()).await;
                    }
                }
            }
            self.take_opens().await;
        }
        // A process may end when all peers have finished, and it is the last word that decides
        // whether the peer keeps our routes. No writer is to wait for us meanwhile.
        self.inbound.close();
        for writer in self.closing.drain(..) {
            // It is never aborted; what it could not write it gave up.
            let _ = writer.await;
        }
        self.tell(CoreInput::Finished { peer: self.id }).await;
    }

    async fn handle_control(&mut self, control: Control) {
        match control {
            Control::Incoming(stream) => self.add_connection(stream, Direction::Incoming).await,
            Control::Reconfigure { session, transport } => {
                let jitter = self.jitter();
                let change = self.session.reconfigure(*session, clock::now(), jitter);
                let is_new_transport = transport != self.transport;
                let needs_reset = change == ConfigChange::NeedsReset || is_new_transport;
                self.transport = transport;
                if is_new_transport && let Some(dial) = self.dial.take() {
                    // It would come about as it was configured before.
                    dial.abort();
                    self.feed(Input::DialFailed).await;
                }
                if needs_reset {
                    self.feed(Input::Reset).await;
                }
                self.carry_out().await;
            }
            Control::Cease {
                notification,
                hold_down,
            } => {
                self.feed(Input::Cease {
                    notification,
                    hold_down,
                })
                .await;
            }
            Control::Release => self.feed(Input::Release).await,
            Control::RequestRefresh(refresh) => {
                let established = self
                    .session
                    .established()
                    .filter(|(_, negotiated)| negotiated.route_refresh);
                if let Some((connection, _)) = established
                    && let Some((connection, _)) = self.connections.get(&connection)
                {
                    connection.outbox.push_control(refresh.encode());
                }
            }
            // The loop ends by the one, and goes on where it does not by the other.
            Control::Stop(_) | Control::Retire => {}
        }
    }

    /// Hands on the OPENs that wait for nothing. A peer that ended a connection and opened another one
    /// is heard in that order, although each has a reader of its own: else it would lose a collision
    /// (RFC 4271 §6.8) with what it left, and what it said last there would be lost.
    async fn take_opens(&mut self) {
        for (connection, open) in std::mem::take(&mut self.early) {
            let mut others = self.connections.iter().filter(|(id, _)| **id != connection);
            if others.any(|(_, (other, _))| other.has_ended()) {
                self.early.push((connection, open));
            } else {
                self.handle_inbound(connection, Inbound::Open(open)).await;
            }
        }
    }

    async fn handle_inbound(&mut self, connection: ConnectionId, inbound: Inbound) {
        let input = match inbound {
            Inbound::Open(open) => Input::OpenReceived {
                connection,
                open: *open,
            },
            Inbound::Keepalive => Input::KeepaliveReceived { connection },
            Inbound::Notification(notification) => Input::NotificationReceived {
                connection,
                notification: *notification,
            },
            Inbound::Refresh(refresh) => Input::RefreshReceived {
                connection,
                refresh,
            },
            Inbound::Update => {
                if let Some((live, _)) = self.connections.get(&connection) {
                    live.has_update.store(false, Ordering::Release);
                }
                Input::UpdateReceived { connection }
            }
            Inbound::Malformed(error) => Input::Malformed {
                connection,
                error: *error,
            },
            Inbound::Closed => Input::Closed { connection },
            Inbound::SendHoldExpired => Input::SendHoldExpired { connection },
        };
        let is_over = matches!(input, Input::Closed { .. } | Input::SendHoldExpired { .. });
        self.feed(input).await;
        if is_over {
            self.close(connection, None).await;
        } else if let Some((live, processed)) = self.connections.get_mut(&connection) {
            *processed += 1;
            let processed = *processed;
            live.gate.send_modify(|gate| gate.processed = processed);
        }
    }

    async fn handle_dialed(&mut self, result: io::Result<TcpStream>) {
        match result {
            Ok(stream) => self.add_connection(stream, Direction::Outgoing).await,
            Err(error) => {
                debug!(peer = %self.label, %error, "dial failed");
                let reason = match error.kind() {
                    io::ErrorKind::TimedOut => self.no_answer(),
                    _ => error.to_string(),
                };
                self.tell_connect_failed(reason).await;
                self.feed(Input::DialFailed).await;
            }
        }
    }

    async fn add_connection(&mut self, stream: TcpStream, direction: Direction) {
        let endpoints = (|| {
            if direction == Direction::Incoming {
                socket::prepare(&stream, &self.transport)?;
            }
            Ok::<(SocketAddr, SocketAddr), io::Error>((stream.local_addr()?, stream.peer_addr()?))
        })();
        let (local, remote) = match endpoints {
            Ok(endpoints) => endpoints,
            Err(error) => {
                debug!(peer = %self.label, %error, "connection unusable");
                self.tell_connect_failed(error.to_string()).await;
                if direction == Direction::Outgoing {
                    self.feed(Input::DialFailed).await;
                }
                return;
            }
        };
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let inbound = InboundSender {
            connection: id,
            queue: self.inbound_sender.clone(),
        };
        let send_hold = self.session.config().send_hold_time;
        let connection = Connection::spawn(
            stream,
            self.id,
            inbound,
            self.core.clone(),
            self.core_wakeup.clone(),
            send_hold,
            self.traffic.clone(),
        );
        self.connections.insert(id, (connection, 0));
        self.feed(Input::Connected {
            connection: id,
            direction,
            local,
            remote,
        })
        .await;
    }

    /// Why a dial was given up, as far as this side can tell.
    fn no_answer(&self) -> String {
        let mut reason = String::from("no answer");
        if self.transport.password.is_some() {
            // RFC 2385 §4.1: a segment with a wrong digest is dropped without a word.
            reason.push_str("; a peer with another password, or none, gives none");
        }
        reason
    }

    async fn tell_connect_failed(&self, reason: String) {
        self.tell(CoreInput::ConnectFailed {
            peer: self.id,
            reason,
        })
        .await;
    }

    async fn feed(&mut self, input: Input) {
        let jitter = self.jitter();
        self.session.handle(input, clock::now(), jitter);
        self.carry_out().await;
    }

    async fn carry_out(&mut self) {
        while let Some(action) = self.session.poll_action() {
            // Seldom, and what it needs meanwhile would else be a part of each idle peer's task.
            Box::pin(self.carry_out_one(action)).await;
        }
    }

    async fn carry_out_one(&mut self, action: Action) {
        match action {
            Action::Dial => self.dial = Some(tokio::spawn(socket::dial(self.transport.clone()))),
            Action::AbortDial => {
                if let Some(dial) = self.dial.take() {
                    dial.abort();
                }
            }
            Action::SendOpen { connection, open } => self.push(connection, open.encode()),
            Action::SendKeepalive { connection } => self.push(connection, frame::keepalive()),
            Action::SendNotification {
                connection,
                notification,
            } => {
                self.close(connection, Some(&notification)).await;
            }
            Action::Close { connection } => self.close(connection, None).await,
            Action::Established {
                connection,
                negotiated,
            } => {
                let context = UpdateContext {
                    four_octet_as: negotiated.four_octet_as,
                    ebgp: negotiated.remote_asn != self.session.config().local_asn,
                    add_path: negotiated.add_path_receive,
                };
                if let Some(outbox) = self.outbox(connection) {
                    let negotiated = Box::new(negotiated);
                    self.tell(CoreInput::Established {
                        peer: self.id,
                        negotiated,
                        outbox,
                    })
                    .await;
                }
                // After the core knows the peer: its routes must not come first.
                if let Some((live, processed)) = self.connections.get(&connection) {
                    live.gate.send_replace(Gate {
                        processed: *processed,
                        established: Some(context),
                    });
                }
            }
            Action::Down { connection, reason } => {
                // The reader must be gone before the core hears of it, or routes could follow.
                self.close(connection, None).await;
                self.tell(CoreInput::Down {
                    peer: self.id,
                    reason,
                })
                .await;
            }
            Action::RefreshRequested { refresh, .. } => {
                self.tell(CoreInput::Refresh {
                    peer: self.id,
                    refresh,
                })
                .await;
            }
            Action::StateChanged { from, to } => self.show_state(from, to).await,
            Action::ErrorNoted { error } => self.note_error(error).await,
        }
    }

    async fn show_state(&mut self, from: State, to: State) {
        if from == State::Established || to == State::Established {
            info!(peer = %self.label, ?from, ?to, "session state changed");
        } else {
            debug!(peer = %self.label, ?from, ?to, "session state changed");
        }
        self.tell(CoreInput::StateChanged { peer: self.id, to })
            .await;
    }

    async fn note_error(&mut self, error: LastError) {
        info!(peer = %self.label, notification = %error.notification, sent = error.sent, reason = error.reason, "session error");
        self.tell(CoreInput::ErrorNoted {
            peer: self.id,
            error,
        })
        .await;
    }

    async fn close(&mut self, connection: ConnectionId, notification: Option<&Notification>) {
        if let Some((live, _)) = self.connections.remove(&connection) {
            let writer = live.close(notification.map(Notification::encode)).await;
            self.closing.retain(|writer| !writer.is_finished());
            self.closing.extend(writer);
        }
    }

    fn push(&self, connection: ConnectionId, message: bytes::Bytes) {
        if let Some((live, _)) = self.connections.get(&connection) {
            live.outbox.push_control(message);
        }
    }

    fn outbox(&self, connection: ConnectionId) -> Option<Arc<Outbox>> {
        self.connections
            .get(&connection)
            .map(|(live, _)| live.outbox.clone())
    }

    async fn tell(&self, input: CoreInput) {
        // The core is gone only while everything shuts down.
        let _ = self.core.send(input).await;
    }

    fn jitter(&mut self) -> Jitter {
        self.draws += 1;
        Jitter::from_random(self.random.hash_one(self.draws) as u32)
    }
}

/// Never, if there is no deadline.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
