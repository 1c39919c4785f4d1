//! Where connections read to. A connection that waits has no buffer: each thread lends one to who
//! has something to read, so a thousand silent peers cost nothing.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;

use bytes::BytesMut;
use tokio::net::tcp::OwnedReadHalf;

use crate::wire::frame::MAX_LEN;

/// What one read brings at most.
const READ_SIZE: usize = 64 * 1024;

thread_local! {
    static SPARE: RefCell<BytesMut> = RefCell::default();
}

/// What one connection has read and not yet taken.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    pub octets: BytesMut,
    /// It is the thread's.
    is_lent: bool,
}

impl ReadBuffer {
    /// Waits until there is something, and puts it behind what is there. Returns how many octets
    /// came; 0: the peer closed.
    pub async fn fill(
        &mut self,
        socket: &OwnedReadHalf,
        is_established: bool,
    ) -> io::Result<usize> {
        loop {
            self.release();
            // Counts against what a task may do before others have their turn, which `readable` does
            // not: who sends without end must not have a thread to itself.
            poll_fn(|context| socket.as_ref().poll_read_ready(context)).await?;
            if is_established {
                if self.octets.is_empty() {
                    self.octets = SPARE.take();
                    self.is_lent = true;
                }
                self.octets.reserve(READ_SIZE);
            } else {
                // Who may never say a word costs no more than the message that is due.
                self.octets.reserve(MAX_LEN);
            }
            match socket.try_read_buf(&mut self.octets) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    /// Goes without, unless a part of a message is in it.
    fn release(&mut self) {
        if self.octets.is_empty() {
            let octets = std::mem::take(&mut self.octets);
            if std::mem::take(&mut self.is_lent) {
                SPARE.set(octets);
            }
        }
    }
}
