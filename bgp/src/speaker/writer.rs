//! The task that writes what one connection's outbox holds, unless the core did so at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use super::batch::Batch;
use super::clock;
use super::connection::{Inbound, InboundSender};
use super::outbox::{Next, Outbox};
use super::peer::sleep_until;

/// How long a closing connection may take to write its last words.
const LAST_WORDS: Duration = Duration::from_secs(5);

pub struct Writer {
    /// The connection's write side is closed when this is dropped.
    pub socket: Arc<OwnedWriteHalf>,
    pub outbox: Arc<Outbox>,
    pub inbound: InboundSender,
    pub core_wakeup: Arc<Notify>,
    pub send_hold: Option<Duration>,
}

/// Why a batch was not written to its end.
enum Stuck {
    /// The connection is gone, or is to be closed and the peer does not read.
    Closed,
    /// No message left for the send hold time.
    SendHold,
}

impl Writer {
    /// One gathered write for all that waits, until the outbox closes.
    pub async fn run(self) {
        loop {
            let mut batch = match self.outbox.next().await {
                Next::Write(batch) => batch,
                // What the peer did not read yet is sent still: only the last handle closes.
                Next::Close => return,
            };
            match self.write(&mut batch).await {
                Ok(()) => {}
                Err(Stuck::SendHold) => {
                    self.inbound.send(Inbound::SendHoldExpired).await;
                    return;
                }
                // The reader notices and tells.
                Err(Stuck::Closed) => return,
            }
            self.outbox.written(batch);
            if self.outbox.take_has_room_again() {
                self.core_wakeup.notify_one();
            }
        }
    }

    async fn write(&self, batch: &mut Batch) -> Result<(), Stuck> {
        // Mostly the socket takes it all: no timers, no waiting.
        if batch.write_to(&self.socket).is_ok() && batch.is_written() {
            return Ok(());
        }
        tokio::select! {
            result = self.write_slowly(batch) => result,
            () = self.outbox.closed_for(LAST_WORDS) => Err(Stuck::Closed),
        }
    }

    async fn write_slowly(&self, batch: &mut Batch) -> Result<(), Stuck> {
        let deadline = || self.send_hold.map(|send_hold| clock::now() + send_hold);
        let mut hold_until = deadline();
        while !batch.is_written() {
            tokio::select! {
                ready = self.socket.writable() => ready.map_err(|_| Stuck::Closed)?,
                () = sleep_until(hold_until) => return Err(Stuck::SendHold),
            }
            let is_any_whole = batch.write_to(&self.socket).map_err(|_| Stuck::Closed)?;
            // RFC 9687 §3: each message that is sent starts the timer anew. A part of one does not,
            // or a peer that takes an octet now and then would be kept for ever.
            if is_any_whole {
                hold_until = deadline();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::fsm::session::ConnectionId;
    use crate::speaker::traffic::Traffic;
    use crate::wire::frame::{HEADER_LEN, MAX_LEN};

    /// As long as messages get, with its number in the body.
    fn message(number: u32) -> Bytes {
        let mut octets = vec![0xFF; MAX_LEN];
        octets[16..18].copy_from_slice(&(MAX_LEN as u16).to_be_bytes());
        octets[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&number.to_be_bytes());
        octets.into()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn messages_stay_whole_and_in_order_whoever_writes_them() {
        const MESSAGES: u32 = 5_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut theirs, _) = theirs.expect("accepted");
        // The read half stays open, as the connection's reader would keep it.
        let (_read, write) = ours.expect("connected").into_split();
        let socket = Arc::new(write);
        let traffic = Arc::new(Traffic::default());
        let outbox = Arc::new(Outbox::new(&socket, traffic.clone()));
        let (queue, _inbound) = mpsc::channel(1);
        let connection = ConnectionId(0);
        let writer = Writer {
            socket,
            outbox: outbox.clone(),
            inbound: InboundSender { connection, queue },
            core_wakeup: Arc::default(),
            send_hold: None,
        };
        tokio::spawn(writer.run());
        let sender = tokio::spawn(async move {
            for number in 0..MESSAGES {
                outbox.push_routes(&message(number), None);
                match number % 7 {
                    0 | 3 => outbox.send(),
                    6 => tokio::task::yield_now().await,
                    _ => outbox.send_now(),
                }
            }
            while outbox.octets() > 0 {
                outbox.send();
                tokio::task::yield_now().await;
            }
            outbox.close_with(None);
        });
        let mut octets = vec![0; MAX_LEN];
        for number in 0..MESSAGES {
            theirs.read_exact(&mut octets).await.expect("a message");
            assert_eq!(octets, message(number), "{number}");
        }
        assert_eq!(theirs.read(&mut octets).await.expect("the end"), 0);
        sender.await.expect("all is sent");
        let sent = traffic.sent.counts();
        assert_eq!(sent.messages, u64::from(MESSAGES));
        assert_eq!(sent.octets, u64::from(MESSAGES) * MAX_LEN as u64);
    }
}
