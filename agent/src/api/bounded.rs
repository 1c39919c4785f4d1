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

/// A listener that serves a bounded number of connections and closes idle ones.
#[derive(Debug)]
pub struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
    /// Who may have to make way; `None`: nobody.
    queue: Option<Arc<Queue>>,
}

impl<L> Bounded<L> {
    /// When all places are taken, further connections wait in the kernel's backlog: for few who trust
    /// each other, and answers that take time.
    pub fn waiting(listener: L) -> Bounded<L> {
        Bounded {
            listener,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            queue: None,
        }
    }

    /// When all places are taken, the connection that has had no answer for the longest time makes
    /// way: for anybody, and answers that come at once. Who connects and says nothing, or an octet
    /// now and then, keeps nobody else out.
    pub fn making_way(listener: L) -> Bounded<L> {
        Bounded {
            queue: Some(Arc::default()),
            ..Bounded::waiting(listener)
        }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = BoundedStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (BoundedStream<L::Io>, L::Addr) {
        let Some(queue) = self.queue.clone() else {
            let place = place(Arc::clone(&self.places)).await;
            let (inner, address) = self.listener.accept().await;
            return (BoundedStream::new(inner, place, None), address);
        };
        let (inner, address) = self.listener.accept().await;
        if self.places.available_permits() == 0 {
            queue.end_first();
        }
        let place = place(Arc::clone(&self.places)).await;
        let turn = Turn::last_of(queue);
        (BoundedStream::new(inner, place, Some(turn)), address)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

async fn place(places: Arc<Semaphore>) -> OwnedSemaphorePermit {
    let place = places.acquire_owned().await;
    place.expect("the semaphore is never closed")
}

/// Connections, those first that have had no answer for the longest time.
#[derive(Debug, Default)]
struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// What is dropped ends its connection. As many as there are places at most.
    ends_by_number: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Waiting {
    fn append(&mut self, end: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.ends_by_number.insert(number, end);
        number
    }
}

impl Queue {
    fn end_first(&self) {
        self.lock().ends_by_number.pop_first();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the queue.
#[derive(Debug)]
struct Turn {
    queue: Arc<Queue>,
    number: u64,
    ended: oneshot::Receiver<()>,
}

impl Turn {
    fn last_of(queue: Arc<Queue>) -> Turn {
        let (end, ended) = oneshot::channel();
        let number = queue.lock().append(end);
        Turn {
            queue,
            number,
            ended,
        }
    }

    /// Something was answered.
    fn renew(&mut self) {
        let mut waiting = self.queue.lock();
        // Else it is ended already.
        if let Some(end) = waiting.ends_by_number.remove(&self.number) {
            self.number = waiting.append(end);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.lock().ends_by_number.remove(&self.number);
    }
}

/// Fails a read that waits longer than the idle limit, or when another connection needs the place; a
/// handler that works is not hurried.
#[derive(Debug)]
pub struct BoundedStream<S> {
    inner: S,
    idle: Pin<Box<Sleep>>,
    turn: Option<Turn>,
    /// Given back when the connection ends.
    _place: OwnedSemaphorePermit,
}

impl<S> BoundedStream<S> {
    fn new(inner: S, place: OwnedSemaphorePermit, turn: Option<Turn>) -> BoundedStream<S> {
        BoundedStream {
            inner,
            idle: Box::pin(tokio::time::sleep(IDLE_LIMIT)),
            turn,
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
        if let Some(turn) = &mut self.turn
            && Pin::new(&mut turn.ended).poll(context).is_ready()
        {
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
            if let Some(turn) = &mut self.turn {
                turn.renew();
            }
            return Poll::Ready(done);
        }
        self.poll_end(context).map(Err)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
