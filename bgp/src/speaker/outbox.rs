//! What waits to be written to one connection.
//!
//! Holds pointers to shared messages. The limit is in bytes; who sends routes asks for room first,
//! so it is passed by one turn's messages at most. KEEPALIVE and NOTIFICATION always fit, and go
//! before routes that wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use super::batch::Batch;
use super::clock;
use super::convergence::Round;
use super::traffic::Traffic;

/// Above this a peer is lagging: it gets no new routes until it is below [`LOW`].
const HIGH: usize = 1 << 20;
const LOW: usize = 1 << 18;
/// Messages of one gathered write.
const BATCH: usize = 64;

#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    bytes: AtomicUsize,
    /// Someone was refused room and wants to know when there is some.
    wants_room: AtomicBool,
    ready: Notify,
    closing: Notify,
    /// Gone when the writer is.
    socket: Weak<OwnedWriteHalf>,
    traffic: Arc<Traffic>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The writer has a batch in hand: what waits has to wait for it.
    is_writing: bool,
    /// A batch of which the socket did not take all at once.
    begun: Option<Batch>,
    control: VecDeque<Bytes>,
    routes: VecDeque<Bytes>,
    /// How many of `routes` came and left.
    routes_pushed: u64,
    routes_taken: u64,
    /// What of `routes` is observed: up to which number it is of this round. At most one per message.
    rounds: VecDeque<(u64, Arc<Round>)>,
    /// No more will be added: close when empty.
    is_closing: bool,
}

/// What the writer is to do next.
pub enum Next {
    Write(Batch),
    Close,
}

impl Outbox {
    pub fn new(socket: &Arc<OwnedWriteHalf>, traffic: Arc<Traffic>) -> Outbox {
        Outbox {
            socket: Arc::downgrade(socket),
            traffic,
            ..Outbox::default()
        }
    }

    pub fn has_room(&self) -> bool {
        if self.bytes.load(Ordering::SeqCst) < HIGH {
            return true;
        }
        self.wants_room.store(true, Ordering::SeqCst);
        // The writer may have drained it between the two lines above.
        self.bytes.load(Ordering::SeqCst) < LOW
    }

    /// Takes the wish for room if there is room now.
    pub fn take_has_room_again(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) < LOW && self.wants_room.swap(false, Ordering::SeqCst)
    }

    /// `round`: it is told when the message was written. Nothing leaves before [`Outbox::send`] or
    /// [`Outbox::send_now`].
    /// Returns whether no routes waited before, so that this is to be called once.
    pub fn push_routes(&self, message: &Bytes, round: Option<&Arc<Round>>) -> bool {
        let mut queue = self.lock();
        if queue.is_closing {
            return false;
        }
        self.bytes.fetch_add(message.len(), Ordering::SeqCst);
        queue.routes.push_back(message.clone());
        queue.routes_pushed += 1;
        if let Some(round) = round {
            queue.note_round(round);
        }
        queue.routes.len() == 1
    }

    /// Has the writer write what waits.
    pub fn send(&self) {
        self.ready.notify_one();
    }

    /// Octets that wait, or are being written.
    pub fn octets(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Writes what waits, as far as the socket takes it at once; the rest is for the writer. Sooner
    /// done than to wake it, if it is little.
    pub fn send_now(&self) {
        if !self.write_now() {
            self.ready.notify_one();
        }
    }

    /// Whether nothing is left to do.
    fn write_now(&self) -> bool {
        let Some(socket) = self.socket.upgrade() else {
            return false;
        };
        // Locked while it is written: a socket that does not block takes microseconds.
        let mut queue = self.lock();
        if queue.is_writing || queue.is_closing {
            return false;
        }
        let Some(mut batch) = queue.take() else {
            return true;
        };
        // The writer meets the same error, and the reader tells.
        let outcome = batch.write_to(&socket);
        if outcome.is_err() || !batch.is_written() {
            queue.begun = Some(batch);
            return false;
        }
        let is_all = queue.is_empty();
        drop(queue);
        self.account(batch);
        is_all
    }

    pub fn push_control(&self, message: Bytes) {
        let mut queue = self.lock();
        if !queue.is_closing {
            self.bytes.fetch_add(message.len(), Ordering::SeqCst);
            queue.control.push_back(message);
        }
        drop(queue);
        self.ready.notify_one();
    }

    /// Drops routes that wait, writes `last`, then closes.
    pub fn close_with(&self, last: Option<Bytes>) {
        let mut queue = self.lock();
        let dropped: usize = queue.routes.drain(..).map(|message| message.len()).sum();
        let unfinished = std::mem::take(&mut queue.rounds);
        self.bytes.fetch_sub(dropped, Ordering::SeqCst);
        if let Some(last) = last {
            self.bytes.fetch_add(last.len(), Ordering::SeqCst);
            queue.control.push_back(last);
        }
        queue.is_closing = true;
        drop(queue);
        drop(unfinished);
        self.ready.notify_one();
        self.closing.notify_waiters();
    }

    /// Waits for something to write. What it returns is to be given back to [`Outbox::written`].
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.ready.notified().await;
        }
    }

    /// Returns when the outbox has been closing for `wait`.
    pub async fn closed_for(&self, wait: std::time::Duration) {
        loop {
            let closing = self.closing.notified();
            if self.lock().is_closing {
                break;
            }
            closing.await;
        }
        tokio::time::sleep(wait).await;
    }

    /// A batch of the writer left.
    pub fn written(&self, batch: Batch) {
        self.lock().is_writing = false;
        self.account(batch);
    }

    fn account(&self, batch: Batch) {
        self.bytes.fetch_sub(batch.octets(), Ordering::SeqCst);
        self.traffic.sent.add(batch.messages(), batch.octets());
        if !batch.rounds.is_empty() {
            let now = clock::now();
            batch.rounds.iter().for_each(|round| round.taken(now));
        }
    }

    fn take(&self) -> Option<Next> {
        let mut queue = self.lock();
        match queue.take() {
            Some(batch) => {
                queue.is_writing = true;
                Some(Next::Write(batch))
            }
            None => queue.is_closing.then_some(Next::Close),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.begun.is_none() && self.control.is_empty() && self.routes.is_empty()
    }

    /// What one gathered write is to carry.
    fn take(&mut self) -> Option<Batch> {
        if let Some(begun) = self.begun.take() {
            return Some(begun);
        }
        let routes = self.routes.len().min(BATCH);
        let mut pieces = Vec::with_capacity(self.control.len() + routes);
        pieces.extend(self.control.drain(..));
        pieces.extend(self.routes.drain(..routes));
        if pieces.is_empty() {
            return None;
        }
        self.routes_taken += routes as u64;
        Some(Batch::new(pieces, self.take_rounds()))
    }

    /// The message pushed last is of `round`.
    fn note_round(&mut self, round: &Arc<Round>) {
        let pushed = self.routes_pushed;
        match self.rounds.back_mut() {
            Some((last, known)) if Arc::ptr_eq(known, round) => *last = pushed,
            Some(_) | None => self.rounds.push_back((pushed, round.clone())),
        }
    }

    /// Those of which no message is left.
    fn take_rounds(&mut self) -> Vec<Arc<Round>> {
        let taken = self.routes_taken;
        let finished = self.rounds.partition_point(|(last, _)| *last <= taken);
        self.rounds
            .drain(..finished)
            .map(|(_, round)| round)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::speaker::convergence::Convergence;

    #[test]
    fn a_round_is_over_when_its_last_message_is_written() {
        let convergence = Arc::new(Convergence::default());
        let now = Instant::now();
        let outbox = Outbox::default();
        let message = Bytes::from_static(b"x");
        for messages in [BATCH + 1, 1] {
            let round = Round::begin(vec![now], &convergence, now);
            for _ in 0..messages {
                outbox.push_routes(&message, round.as_ref());
            }
        }
        outbox.push_routes(&message, None);
        let observed = || convergence.counts().count();
        let Some(Next::Write(first)) = outbox.take() else {
            panic!("messages wait");
        };
        outbox.written(first);
        assert_eq!(observed(), 0, "one of its messages waits still");
        let Some(Next::Write(rest)) = outbox.take() else {
            panic!("messages wait");
        };
        assert_eq!(observed(), 0, "taken is not written");
        outbox.written(rest);
        assert_eq!(observed(), 2);
    }

    #[test]
    fn what_a_closing_outbox_drops_is_not_observed() {
        let convergence = Arc::new(Convergence::default());
        let now = Instant::now();
        let outbox = Outbox::default();
        let round = Round::begin(vec![now], &convergence, now);
        outbox.push_routes(&Bytes::from_static(b"x"), round.as_ref());
        drop(round);
        outbox.close_with(Some(Bytes::from_static(b"last")));
        let Some(Next::Write(last)) = outbox.take() else {
            panic!("the last word waits");
        };
        outbox.written(last);
        assert_eq!(convergence.counts().count(), 0);
    }
}
