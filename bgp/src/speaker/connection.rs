//! One TCP connection: a reader that frames and decodes, and a writer (`writer`).
//!
//! Everything but routes goes to the peer task. Routes go straight to the core, once the peer task
//! says that the session is established; until then the reader stops at the first UPDATE.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::clock;
use super::input::CoreInput;
use super::outbox::Outbox;
use super::read_buffer::ReadBuffer;
use super::socket;
use super::traffic::Traffic;
use super::writer::Writer;
use crate::fsm::session::ConnectionId;
use crate::rib::PeerId;
use crate::types::{Family, PathPrefix};
use crate::wire::attribute::PathAttributes;
use crate::wire::frame::{self, Frame, MAX_EXTENDED_LEN, MAX_LEN, MessageKind};
use crate::wire::open::Open;
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::update::{self, AttributeError, UpdateContext};
use crate::wire::{Notification, ProtocolError};

/// Batches of one connection that may wait for the core: one is worked off while the next is read.
/// More would let a single busy peer fill the core's queue, and delay everyone else's routes.
const IN_FLIGHT: usize = 2;
/// Octets of messages that make a batch. Decoded they take several times the room, and more at once
/// is no faster.
const BATCH: usize = 16 * 1024;
/// Octets after which a reader steps back.
const LONG_READ: usize = 16 * 1024;
/// Octets of a malformed UPDATE that are kept.
const SHOWN_MALFORMED: usize = 4096;

/// What the peer task hears of a connection. Small: room for all that may wait is there from the
/// start.
#[derive(Debug)]
pub enum Inbound {
    Open(Box<Open>),
    Keepalive,
    Notification(Box<Notification>),
    Refresh(RouteRefresh),
    /// At least one UPDATE since the last of these.
    Update,
    Malformed(Box<ProtocolError>),
    Closed,
    /// No message could be written for the send hold time.
    SendHoldExpired,
}

/// What happened to routes, in the order of arrival.
#[derive(Debug)]
pub enum RouteOperation {
    Withdraw(Vec<PathPrefix>),
    Announce(Arc<PathAttributes>, Vec<PathPrefix>),
    EndOfRib(Family),
    /// BoRR and EoRR (RFC 7313).
    BeginRefresh(Family),
    EndRefresh(Family),
    /// Faults of one UPDATE that did not end the session, with its body (RFC 7606 §8: what is wrong
    /// must be there to be looked at).
    Errors(Vec<AttributeError>, Bytes),
}

/// How far the peer task got with what the reader sent, and whether routes may flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gate {
    pub processed: u64,
    pub established: Option<UpdateContext>,
}

/// Sending half of the peer task's queue, marked with the connection.
#[derive(Clone)]
pub struct InboundSender {
    pub connection: ConnectionId,
    pub queue: mpsc::Sender<(ConnectionId, Inbound)>,
}

impl InboundSender {
    pub async fn send(&self, inbound: Inbound) {
        // The peer task is gone only while everything shuts down.
        let _ = self.queue.send((self.connection, inbound)).await;
    }
}

/// The peer task's side of a connection. Dropping it ends the reader.
pub struct Connection {
    pub outbox: Arc<Outbox>,
    pub gate: watch::Sender<Gate>,
    /// Set by the reader for each UPDATE, cleared by the peer task.
    pub has_update: Arc<AtomicBool>,
    /// Gone when the writer is, which ends with the connection.
    socket: Weak<OwnedWriteHalf>,
    reader: JoinHandle<()>,
    /// `None` once it was handed out.
    writer: Option<JoinHandle<()>>,
}

impl Connection {
    pub fn spawn(
        stream: TcpStream,
        peer: PeerId,
        inbound: InboundSender,
        core: mpsc::Sender<CoreInput>,
        core_wakeup: Arc<tokio::sync::Notify>,
        send_hold: Option<Duration>,
        traffic: Arc<Traffic>,
    ) -> Connection {
        let (read, write) = stream.into_split();
        let socket = Arc::new(write);
        let outbox = Arc::new(Outbox::new(&socket, traffic.clone()));
        let (gate, gate_watch) = watch::channel(Gate::default());
        let has_update = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            peer,
            read,
            inbound: inbound.clone(),
            core,
            gate: gate_watch,
            has_update: has_update.clone(),
            traffic,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            sent: 0,
            max_len: MAX_LEN,
        };
        let writer = Writer {
            socket: socket.clone(),
            outbox: outbox.clone(),
            inbound,
            core_wakeup,
            send_hold,
        };
        Connection {
            outbox,
            gate,
            has_update,
            socket: Arc::downgrade(&socket),
            reader: tokio::spawn(reader.run()),
            writer: Some(tokio::spawn(writer.run())),
        }
    }

    /// Whether it is over for the kernel, so that [`Inbound::Closed`], or the like, is on its way
    /// behind what the peer sent before.
    pub fn has_ended(&self) -> bool {
        let socket = self.socket.upgrade();
        socket.is_none_or(|socket| socket::has_ended((*socket).as_ref()))
    }

    /// Stops reading and, after `last` is written, closes. Nothing of the reader reaches the core
    /// after this returns. What it returns ends when all is written, or nothing more can be.
    pub async fn close(mut self, last: Option<Bytes>) -> Option<JoinHandle<()>> {
        self.reader.abort();
        // Only a cancellation error can come back.
        let _ = (&mut self.reader).await;
        self.outbox.close_with(last);
        self.writer.take()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.outbox.close_with(None);
    }
}

/// Of the messages that were read.
#[derive(PartialEq, Eq)]
enum Taken {
    /// There is no whole one more.
    All,
    /// There may be more.
    Enough,
}

struct Reader {
    peer: PeerId,
    read: OwnedReadHalf,
    inbound: InboundSender,
    core: mpsc::Sender<CoreInput>,
    gate: watch::Receiver<Gate>,
    has_update: Arc<AtomicBool>,
    traffic: Arc<Traffic>,
    /// One permit per batch that the core has not worked off.
    in_flight: Arc<Semaphore>,
    /// Messages sent to the peer task.
    sent: u64,
    /// Of a message; grows with the peer's OPEN.
    max_len: usize,
}

impl Reader {
    async fn run(mut self) {
        let end = match self.read_messages().await {
            Ok(()) => Inbound::Closed,
            Err(error) => Inbound::Malformed(Box::new(error)),
        };
        self.inbound.send(end).await;
    }

    /// Until the connection ends.
    async fn read_messages(&mut self) -> Result<(), ProtocolError> {
        let mut buffer = ReadBuffer::default();
        let mut read_at = clock::now();
        loop {
            let mut routes = Vec::new();
            let outcome = self.take_frames(&mut buffer.octets, &mut routes).await;
            if !routes.is_empty() {
                // The semaphore is never closed.
                let Ok(turn) = self.in_flight.clone().acquire_owned().await else {
                    return Ok(());
                };
                let batch = CoreInput::Routes {
                    peer: self.peer,
                    operations: routes,
                    read_at,
                    turn,
                };
                if self.core.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            if outcome? == Taken::Enough {
                continue;
            }
            let is_established = self.gate.borrow().established.is_some();
            match buffer.fill(&self.read, is_established).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(octets) => {
                    read_at = clock::now();
                    self.traffic.received.add(0, octets);
                    if octets > LONG_READ {
                        // There may be more at once, and without end: others have their turn first.
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    async fn take_frames(
        &mut self,
        buffer: &mut BytesMut,
        routes: &mut Vec<RouteOperation>,
    ) -> Result<Taken, ProtocolError> {
        let octets = buffer.len();
        while let Some(frame) = frame::next_frame(buffer, self.max_len)? {
            self.traffic.received.add(1, 0);
            self.take_frame(frame, routes).await?;
            if octets - buffer.len() >= BATCH {
                return Ok(Taken::Enough);
            }
        }
        Ok(Taken::All)
    }

    async fn take_frame(
        &mut self,
        frame: Frame,
        routes: &mut Vec<RouteOperation>,
    ) -> Result<(), ProtocolError> {
        match frame.kind {
            MessageKind::Update => match self.established().await {
                Some(context) => {
                    decode_routes(&frame.body, &context, routes)?;
                    if !self.has_update.swap(true, Ordering::AcqRel) {
                        self.send(Inbound::Update).await;
                    }
                }
                None => self.send(Inbound::Update).await,
            },
            MessageKind::Open => {
                let open = Open::decode(&frame.body)?;
                // RFC 8654 §4: our own OPEN always offers it. Known here and not from the peer
                // task, because the next message may be behind this one in the buffer.
                if open.extended_message() {
                    self.max_len = MAX_EXTENDED_LEN;
                }
                self.send(Inbound::Open(Box::new(open))).await;
                // So that one OPEN at most waits with the peer task.
                self.processed().await;
            }
            MessageKind::Keepalive => self.send(Inbound::Keepalive).await,
            MessageKind::Notification => {
                let notification = Notification::decode(&frame.body)?;
                self.send(Inbound::Notification(Box::new(notification)))
                    .await;
            }
            MessageKind::RouteRefresh => {
                if let Some(refresh) = RouteRefresh::decode(&frame.body)? {
                    let operation = match refresh.kind {
                        RefreshKind::Request => None,
                        RefreshKind::Begin => Some(RouteOperation::BeginRefresh(refresh.family)),
                        RefreshKind::End => Some(RouteOperation::EndRefresh(refresh.family)),
                    };
                    if operation.is_some() && self.established().await.is_some() {
                        routes.extend(operation);
                    }
                    self.send(Inbound::Refresh(refresh)).await;
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, inbound: Inbound) {
        self.sent += 1;
        self.inbound.send(inbound).await;
    }

    /// Whether routes may flow, when the peer task has dealt with all that was sent before.
    async fn established(&mut self) -> Option<UpdateContext> {
        let now = self.gate.borrow().established;
        if now.is_some() {
            return now;
        }
        self.processed().await?.established
    }

    /// Waits until the peer task has dealt with all that was sent; `None` if it never will.
    async fn processed(&mut self) -> Option<Gate> {
        let sent = self.sent;
        let gate = self.gate.wait_for(|gate| gate.processed >= sent).await;
        gate.ok().map(|gate| *gate)
    }
}

fn decode_routes(
    body: &Bytes,
    context: &UpdateContext,
    routes: &mut Vec<RouteOperation>,
) -> Result<(), ProtocolError> {
    let update = update::decode_update(body, context)?;
    if !update.errors.is_empty() {
        // A copy: the body is a part of the read buffer, which must not be kept for it.
        let shown = Bytes::copy_from_slice(body.get(..SHOWN_MALFORMED).unwrap_or(body));
        routes.push(RouteOperation::Errors(update.errors, shown));
    }
    for nlri in &update.withdrawn {
        match routes.last_mut() {
            Some(RouteOperation::Withdraw(paths)) => paths.extend(nlri.paths()),
            _ => routes.push(RouteOperation::Withdraw(nlri.paths().collect())),
        }
    }
    for announcement in update.announced {
        let paths = announcement.nlri.paths();
        match routes.last_mut() {
            Some(RouteOperation::Announce(attributes, known))
                if **attributes == announcement.attributes =>
            {
                known.extend(paths);
            }
            _ => {
                let mut known = Vec::with_capacity(announcement.nlri.len());
                known.extend(paths);
                let attributes = Arc::new(announcement.attributes);
                routes.push(RouteOperation::Announce(attributes, known));
            }
        }
    }
    routes.extend(update.end_of_rib.map(RouteOperation::EndOfRib));
    Ok(())
}
