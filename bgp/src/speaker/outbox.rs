//! What waits to be written to one connection.
//!
//! Holds pointers to shared messages. The limit is in bytes; who sends routes asks for room first,
//! so it is passed by one turn's messages at most. KEEPALIVE and NOTIFICATION always fit, and go
//! before routes that wait.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

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
    /// No more will be added: close when empty.
    is_closing: bool,
}

/// What the writer is to do next.
pub enum Next {
    Write(Vec<Bytes>),
    Close,
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

    pub fn push_routes(&self, message: &Bytes) {
        let mut queue = self.lock();
        if !queue.is_closing {
            self.bytes.fetch_add(message.len(), Ordering::SeqCst);
            queue.routes.push_back(message.clone());
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
        self.bytes.fetch_sub(dropped, Ordering::SeqCst);
        if let Some(last) = last {
            self.bytes.fetch_add(last.len(), Ordering::SeqCst);
            queue.control.push_back(last);
        }
        queue.is_closing = true;
        drop(queue);
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
    pub fn written(&self, messages: &[Bytes]) {
        let bytes = messages.iter().map(Bytes::len).sum();
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    fn take(&self) -> Option<Next> {
        let mut queue = self.lock();
        let mut batch: Vec<Bytes> = queue.control.drain(..).collect();
        let routes = queue.routes.len().min(BATCH);
        batch.extend(queue.routes.drain(..routes));
        if batch.is_empty() {
            return queue.is_closing.then_some(Next::Close);
        }
        Some(Next::Write(batch))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
