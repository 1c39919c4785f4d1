//! Listeners with bounds: of how many connections there are, and how long one may be idle.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, Sleep};

/// Connections served at the same time by one listener.
pub const MAX_CONNECTIONS: usize = 256;
/// A connection on which nothing moves for so long is closed. Longer than any answer takes.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// Who has just connected, or was just answered, is about to ask.
const MOMENT: Duration = Duration::from_secs(1);
/// Until a connection that has to go is gone.
const MAKING_WAY: Duration = Duration::from_millis(10);

/// A listener that serves a bounded number of connections and closes idle ones.
#[derive(Debug)]
pub struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
    /// Who may have to make way.
    queue: Arc<Queue>,
    rule: Rule,
}

/// Which connections make way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// Those that have asked nothing since they were made or answered, for so long.
    Idle(Duration),
    /// Whichever has had no answer for the longest time.
    Any,
}

impl<L> Bounded<L> {
    /// When all places are taken, the connection that has asked nothing for the longest time makes
    /// way, once that is more than a moment. Where all wait for their answers, further ones wait in
    /// the kernel's backlog: for few who trust each other, and answers that take time.
    pub fn waiting(listener: L) -> Bounded<L> {
        Bounded::new(listener, Rule::Idle(MOMENT))
    }

    /// When all places are taken, the connection that has had no answer for the longest time makes
    /// way: for anybody, and answers that come at once. Who connects and says nothing, or an octet
    /// now and then, keeps nobody else out.
    pub fn making_way(listener: L) -> Bounded<L> {
        Bounded::new(listener, Rule::Any)
    }

    fn new(listener: L, rule: Rule) -> Bounded<L> {
        Bounded {
            listener,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            queue: Arc::default(),
            rule,
        }
    }

    /// Waits for one, if need be until somebody has made way.
    async fn place(&mut self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::pin!(place);
        let mut pause = Duration::ZERO;
        let free = loop {
            let rest = self.queue.rest_of_first(self.rule).max(pause);
            if let Ok(free) = tokio::time::timeout(rest, &mut place).await {
                break free;
            }
            // One that asks at this very moment stays, and then another has to go.
            self.queue.end_first(self.rule);
            pause = MAKING_WAY;
        };
        free.expect("the semaphore is never closed")
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = BoundedStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (BoundedStream<L::Io>, L::Addr) {
        let (inner, address) = self.listener.accept().await;
        let place = self.place().await;
        let turn = Turn::last_of(Arc::clone(&self.queue), self.rule);
        (BoundedStream::new(inner, place, turn), address)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// Connections that may have to make way, in that order.
#[derive(Debug, Default)]
struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// Since when each waits, and what ends its connection when it is dropped. As many as there are
    /// places at most.
    by_number: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
}

impl Waiting {
    fn append(&mut self, end: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, (Instant::now(), end));
        number
    }

    fn rest_of_first(&self, rule: Rule) -> Duration {
        match rule {
            Rule::Any => Duration::ZERO,
            Rule::Idle(moment) => {
                let first = self.by_number.values().next();
                let waited = first.map_or(Duration::ZERO, |(since, _)| since.elapsed());
                moment.saturating_sub(waited)
            }
        }
    }
}

impl Queue {
    /// How long the first one is still left alone; as long as a new one if there is none.
    fn rest_of_first(&self, rule: Rule) -> Duration {
        self.lock().rest_of_first(rule)
    }

    /// Ends the first one if its time has come.
    fn end_first(&self, rule: Rule) {
        let mut waiting = self.lock();
        if waiting.rest_of_first(rule).is_zero() {
            waiting.by_number.pop_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the queue.
#[derive(Debug)]
struct Turn {
    queue: Arc<Queue>,
    rule: Rule,
    number: u64,
    /// While the connection is not in the queue.
    end: Option<oneshot::Sender<()>>,
    /// And not answered: it stays, even if its time had just come.
    is_asked: bool,
    ended: oneshot::Receiver<()>,
}

impl Turn {
    fn last_of(queue: Arc<Queue>, rule: Rule) -> Turn {
        let (end, ended) = oneshot::channel();
        let number = queue.lock().append(end);
        Turn {
            queue,
            rule,
            number,
            end: None,
            is_asked: false,
            ended,
        }
    }

    /// Something was asked.
    fn leave(&mut self) {
        if self.rule != Rule::Any && !self.is_asked {
            let place = self.queue.lock().by_number.remove(&self.number);
            self.end = place.map(|(_, end)| end);
            self.is_asked = true;
        }
    }

    /// Something was answered.
    fn renew(&mut self) {
        self.is_asked = false;
        let mut waiting = self.queue.lock();
        let place = waiting.by_number.remove(&self.number);
        // Else it is ended already.
        if let Some(end) = self.end.take().or(place.map(|(_, end)| end)) {
            self.number = waiting.append(end);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.lock().by_number.remove(&self.number);
    }
}

/// Fails a read that waits longer than the idle limit, or when another connection needs the place; a
/// handler that works is not hurried.
#[derive(Debug)]
pub struct BoundedStream<S> {
    inner: S,
    idle: Pin<Box<Sleep>>,
    turn: Turn,
    /// A part of an answer, of which more may come before it has left.
    has_written: bool,
    /// Given back when the connection ends.
    _place: OwnedSemaphorePermit,
}

impl<S> BoundedStream<S> {
    fn new(inner: S, place: OwnedSemaphorePermit, turn: Turn) -> BoundedStream<S> {
        BoundedStream {
            inner,
            idle: Box::pin(tokio::time::sleep(IDLE_LIMIT)),
            turn,
            has_written: false,
            _place: place,
        }
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn moved(&mut self) {
        self.idle.as_mut().reset(Instant::now() + IDLE_LIMIT);
    }

    /// Ready when there is nothing to be waited for any longer.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.turn.is_asked && Pin::new(&mut self.turn.ended).poll(context).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        let is_idle = self.idle.as_mut().poll(context);
        is_idle.map(|()| io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(done) = Pin::new(&mut self.inner).poll_read(context, buffer) {
            self.moved();
            self.turn.leave();
            return Poll::Ready(done);
        }
        self.poll_end(context).map(Err)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = Pin::new(&mut self.inner).poll_write(context, bytes) {
            self.moved();
            match self.turn.rule {
                Rule::Any => self.turn.renew(),
                Rule::Idle(_) => self.has_written = true,
            }
            return Poll::Ready(done);
        }
        self.poll_end(context).map(Err)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        // All of an answer has left: nothing is asked now.
        if flushed.is_ready() && std::mem::take(&mut self.has_written) {
            self.turn.renew();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
