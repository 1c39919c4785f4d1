//! What a group says in one turn: encoded once, one message behind the other, and cut for each
//! member where what came from itself would be.
//!
//! A member's outbox so holds a few pieces a turn, however many messages those are.

use std::convert::Infallible;
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;

use crate::rib::{PeerId, Sink};

/// About the octets of one piece of memory: it is freed when the last member has written it.
const CHUNK: usize = 64 * 1024;

/// Messages side by side that the same members get.
#[derive(Clone, Copy, Debug)]
struct Part {
    chunk: usize,
    start: usize,
    end: usize,
    source: Option<PeerId>,
    next_hop: Option<IpAddr>,
}

#[derive(Debug, Default)]
pub(super) struct Bundle {
    chunks: Vec<Bytes>,
    open: BytesMut,
    parts: Vec<Part>,
    /// Parts by whom they are not for.
    by_source: HashMap<PeerId, Vec<usize>>,
    by_next_hop: HashMap<IpAddr, Vec<usize>>,
}

impl Bundle {
    /// Adds what `put` encodes, for everybody but `source` and the router at `next_hop`. Nothing is
    /// added where it fails.
    pub(super) fn add<E>(
        &mut self,
        source: Option<PeerId>,
        next_hop: Option<IpAddr>,
        put: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.open.len() >= CHUNK {
            self.close_chunk();
        }
        let start = self.open.len();
        if let Err(error) = put(&mut self.open) {
            self.open.truncate(start);
            return Err(error);
        }
        let (chunk, end) = (self.chunks.len(), self.open.len());
        match self.parts.last_mut() {
            Some(last) if (last.chunk, last.source, last.next_hop) == (chunk, source, next_hop) => {
                last.end = end;
            }
            _ if start == end => {}
            _ => {
                let index = self.parts.len();
                self.parts.push(Part {
                    chunk,
                    start,
                    end,
                    source,
                    next_hop,
                });
                if let Some(source) = source {
                    self.by_source.entry(source).or_default().push(index);
                }
                if let Some(next_hop) = next_hop {
                    self.by_next_hop.entry(next_hop).or_default().push(index);
                }
            }
        }
        Ok(())
    }

    /// Adds what `put` encodes, for everybody but `source`.
    pub(super) fn put(&mut self, source: Option<PeerId>, put: impl FnOnce(&mut BytesMut)) {
        let put = |out: &mut BytesMut| {
            put(out);
            Ok::<(), Infallible>(())
        };
        let Ok(()) = self.add(source, None, put);
    }

    /// Nothing is added from here on.
    pub(super) fn close(mut self) -> Bundle {
        self.close_chunk();
        self
    }

    fn close_chunk(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push(self.open.split().freeze());
        }
    }

    /// All that was encoded, once closed.
    pub(super) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// Whether some of it has `address` as its next hop and came from someone else than `receiver`.
    pub(super) fn leads_to(&self, receiver: PeerId, address: &IpAddr) -> bool {
        let parts = self.by_next_hop.get(address).into_iter().flatten();
        parts
            .filter_map(|index| self.parts.get(*index))
            .any(|part| part.source != Some(receiver))
    }

    /// Sends `receiver`, whose address is `address`, all that is for it.
    pub(super) fn say(&self, receiver: PeerId, address: &IpAddr, sink: &mut impl Sink) {
        let own = self.by_source.get(&receiver).into_iter().flatten();
        let leading = self.by_next_hop.get(address).into_iter().flatten();
        let mut left_out: Vec<usize> = own.chain(leading).copied().collect();
        left_out.sort_unstable();
        left_out.dedup();
        let mut left_out = left_out
            .iter()
            .filter_map(|index| self.parts.get(*index))
            .peekable();
        for (number, chunk) in self.chunks.iter().enumerate() {
            let mut from = 0;
            while let Some(part) = left_out.next_if(|part| part.chunk == number) {
                send(chunk, from, part.start, receiver, sink);
                from = part.end;
            }
            send(chunk, from, chunk.len(), receiver, sink);
        }
    }
}

fn send(chunk: &Bytes, from: usize, to: usize, receiver: PeerId, sink: &mut impl Sink) {
    if from < to {
        sink.send(receiver, &chunk.slice(from..to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Vec<(PeerId, String)>);

    impl Sink for Heard {
        fn has_room(&self, _: PeerId) -> bool {
            true
        }

        fn send(&mut self, peer: PeerId, messages: &Bytes) {
            let text = String::from_utf8_lossy(messages).into_owned();
            self.0.push((peer, text));
        }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn heard(bundle: &Bundle, last: u8) -> Vec<String> {
        let mut heard = Heard::default();
        bundle.say(PeerId(u32::from(last)), &address(last), &mut heard);
        heard.0.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_member_gets_all_but_its_own_in_as_few_pieces_as_can_be() {
        let mut bundle = Bundle::default();
        for (source, next_hop, text) in [
            (1, 1, "a"),
            (2, 2, "b"),
            (2, 2, "c"),
            (3, 1, "d"),
            (2, 3, "e"),
        ] {
            let added = bundle.add(Some(PeerId(source)), Some(address(next_hop)), |out| {
                out.extend_from_slice(text.as_bytes());
                Ok::<(), ()>(())
            });
            assert_eq!(added, Ok(()));
        }
        let failed = bundle.add(None, None, |out| {
            out.extend_from_slice(b"half");
            Err(())
        });
        assert_eq!(failed, Err(()));
        let bundle = bundle.close();
        assert_eq!(heard(&bundle, 9), ["abcde"]);
        // Its own, and what leads to it.
        assert_eq!(heard(&bundle, 1), ["bc", "e"]);
        assert_eq!(heard(&bundle, 2), ["a", "d"]);
        assert_eq!(heard(&bundle, 3), ["abc"]);
        assert!(bundle.leads_to(PeerId(1), &address(1)), "d came from 3");
        assert!(!bundle.leads_to(PeerId(2), &address(2)));
    }

    #[test]
    fn a_long_bundle_is_cut_between_messages() {
        let mut bundle = Bundle::default();
        for number in 0..5u8 {
            let put = |out: &mut BytesMut| {
                out.extend_from_slice(&vec![b'0' + number; 30_000]);
                Ok::<(), ()>(())
            };
            let source = Some(PeerId(u32::from(number)));
            assert_eq!(bundle.add(source, None, put), Ok(()));
        }
        let bundle = bundle.close();
        let lengths =
            |last| -> Vec<usize> { heard(&bundle, last).iter().map(String::len).collect() };
        assert_eq!(lengths(9), [90_000, 60_000]);
        assert_eq!(lengths(1), [30_000, 30_000, 60_000]);
        assert_eq!(lengths(4), [90_000, 30_000]);
    }
}
