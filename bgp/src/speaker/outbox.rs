//! What waits to be written to one connection.
//!
//! Holds pointers to shared messages. The limit is in bytes; who sends routes asks for room first,
//! so it is passed by one turn's messages at most. KEEPALIVE and NOTIFICATION always fit, and go
//! before routes that wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::clock;
use super::convergence::Round;
use crate::wire::frame;

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
}

#[derive(Debug, Default)]
struct Queue {
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

/// What leaves in one gathered write.
#[derive(Debug, Default)]
pub struct Batch {
    /// Each of one or several messages.
    pub messages: Vec<Bytes>,
    /// The rounds that are written when these are.
    rounds: Vec<Arc<Round>>,
}

impl Batch {
    pub fn count(&self) -> usize {
        let pieces = self.messages.iter();
        pieces.map(|piece| frame::messages_in(piece)).sum()
    }

    pub fn octets(&self) -> usize {
        self.messages.iter().map(Bytes::len).sum()
    }
}

impl Outbox {
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

    /// `round`: it is told when the message was written.
    pub fn push_routes(&self, message: &Bytes, round: Option<&Arc<Round>>) {
        let mut queue = self.lock();
        if !queue.is_closing {
            self.bytes.fetch_add(message.len(), Ordering::SeqCst);
            queue.routes.push_back(message.clone());
            queue.routes_pushed += 1;
            if let Some(round) = round {
                queue.note_round(round);
            }
        }
        drop(queue);
        self.ready.notify_one();
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

    /// Waits for something to write.
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

    /// Accounts for a batch that left.
    pub fn written(&self, batch: Batch) {
        self.bytes.fetch_sub(batch.octets(), Ordering::SeqCst);
        if !batch.rounds.is_empty() {
            let now = clock::now();
            batch.rounds.iter().for_each(|round| round.taken(now));
        }
    }

    fn take(&self) -> Option<Next> {
        let mut queue = self.lock();
        let mut messages: Vec<Bytes> = queue.control.drain(..).collect();
        let routes = queue.routes.len().min(BATCH);
        messages.extend(queue.routes.drain(..routes));
        if messages.is_empty() {
            return queue.is_closing.then_some(Next::Close);
        }
        queue.routes_taken += routes as u64;
        let rounds = queue.take_rounds();
        Some(Next::Write(Batch { messages, rounds }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Queue {
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

    #[test]
    fn a_piece_of_several_messages_counts_as_that_many() {
        let one = frame::keepalive();
        let two = Bytes::from([&one[..], &one[..]].concat());
        let batch = Batch {
            messages: vec![two, one],
            rounds: Vec::new(),
        };
        assert_eq!((batch.count(), batch.octets()), (3, 57));
    }
}
