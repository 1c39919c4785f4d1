//! What leaves a connection's outbox in one gathered write, and how far it got.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;

use super::convergence::Round;
use crate::wire::frame;

#[derive(Debug)]
pub struct Batch {
    /// Each of one or several messages, one behind the other; none is empty.
    pieces: Vec<Bytes>,
    octets: usize,
    /// The piece that is being written.
    piece: usize,
    /// Octets written of it.
    written: usize,
    /// Where the message ends in it that is being written.
    end: usize,
    /// How many messages are written to their end.
    messages: usize,
    /// The rounds that are over when this is written.
    pub rounds: Vec<Arc<Round>>,
}

impl Batch {
    pub fn new(pieces: Vec<Bytes>, rounds: Vec<Arc<Round>>) -> Batch {
        Batch {
            octets: pieces.iter().map(Bytes::len).sum(),
            end: pieces.first().map_or(0, |piece| frame::length_at(piece)),
            pieces,
            piece: 0,
            written: 0,
            messages: 0,
            rounds,
        }
    }

    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Messages that are written to their end.
    pub fn messages(&self) -> usize {
        self.messages
    }

    pub fn is_written(&self) -> bool {
        self.piece == self.pieces.len()
    }

    /// Writes what the socket takes at once, which may be nothing. Returns whether a message was
    /// written to its end.
    pub fn write_to(&mut self, socket: &OwnedWriteHalf) -> io::Result<bool> {
        let rest = self.pieces.get(self.piece..).unwrap_or_default();
        let mut slices: Vec<IoSlice<'_>> = rest.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, self.written);
        match socket.try_write_vectored(left) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(octets) => Ok(self.advance(octets)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes in that so many more octets left. Returns whether a message was among them to its end.
    fn advance(&mut self, octets: usize) -> bool {
        let before = self.messages;
        self.written += octets;
        while let Some(piece) = self.pieces.get(self.piece)
            && self.written >= self.end
        {
            self.messages += 1;
            if self.end < piece.len() {
                self.end += frame::length_at(piece.get(self.end..).unwrap_or_default());
            } else {
                self.written -= piece.len();
                self.piece += 1;
                let next = self.pieces.get(self.piece);
                self.end = next.map_or(0, |piece| frame::length_at(piece));
            }
        }
        self.messages > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_within_pieces_and_with_them() {
        let one = frame::keepalive();
        let two = Bytes::from([&one[..], &one[..]].concat());
        let length = one.len();
        let mut batch = Batch::new(vec![one.clone(), two, one], Vec::new());
        assert_eq!(batch.octets(), 4 * length);
        for (octets, is_any_whole) in [
            (length - 1, false),
            (1, true),
            (length - 1, false),
            (2, true),
            (1, false),
            // The rest of the second piece, and the third to its last octet but one.
            (2 * length - 4, true),
            (1, false),
            (1, true),
        ] {
            assert!(!batch.is_written());
            assert_eq!(batch.advance(octets), is_any_whole, "{octets}");
        }
        assert!(batch.is_written());
        assert_eq!(batch.messages(), 4);
    }
}
