//! Captured messages with faults in them: whatever comes, decoding ends soon, in bounded memory,
//! without a panic; and what is accepted can be sent on and is accepted again.

use std::time::{Duration, Instant};

use bgp::types::FamilySet;
use bgp::wire::frame::{Frame, MAX_EXTENDED_LEN, MAX_LEN, MessageKind, next_frame};
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::refresh::RouteRefresh;
use bgp::wire::update::{EncodeContext, UpdateContext, decode_update, encode_announce};
use bytes::BytesMut;

use crate::memory::measured;
use crate::message::{EBGP, IBGP, TWO_OCTET};
use crate::vectors;

/// A run of the usual tests; `CARACAL_FUZZ_SECONDS` says otherwise.
const USUAL: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(120);
/// Decoding allocates at most this much per octet of the message, and a little at all. The most
/// expensive octets are those of an attribute's list in many small parts: an AS path segment of one
/// number takes 4 or 6 octets and becomes a `Vec` of its own.
const MEMORY_PER_OCTET: usize = 64;
const MEMORY: usize = 16 * 1024;
/// No message takes longer, tests' build and busy machine included.
const TIME: Duration = Duration::from_millis(250);

/// xorshift64*: the same numbers for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("64 bits");
        usize::try_from((self.next() >> 11) % bound).expect("below a usize")
    }

    fn octet(&mut self) -> u8 {
        // Values at which lengths and codes change their meaning come more often.
        const EDGES: [u8; 12] = [0, 1, 2, 3, 4, 15, 16, 31, 127, 128, 254, 255];
        match self.below(3) {
            0 => EDGES[self.below(EDGES.len())],
            _ => u8::try_from(self.next() >> 56).expect("8 bits"),
        }
    }
}

/// One to four faults in a message: octets changed, left out, doubled, moved, taken from another.
/// Mostly the header's length is right in the end, so that the body is read at all.
fn mutate(message: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(message.len());
        let end = (at + 1 + dice.below(16)).min(message.len());
        match dice.below(8) {
            0 | 1 => message[at] = dice.octet(),
            2 => message[at] ^= 1 << dice.below(8),
            3 => drop(message.drain(at..end)),
            4 => {
                let part = message[at..end].to_vec();
                message.splice(at..at, part);
            }
            5 => message.truncate(at.max(1)),
            6 => {
                let from = dice.below(other.len());
                let part = &other[from..(from + dice.below(40)).min(other.len())];
                message.splice(at..at, part.iter().copied());
            }
            _ => message.insert(at, dice.octet()),
        }
        if message.is_empty() {
            message.push(dice.octet());
        }
    }
    if dice.below(16) != 0
        && message.len() >= 19
        && let Ok(length) = u16::try_from(message.len())
    {
        message[..16].fill(0xFF);
        message[16..18].copy_from_slice(&length.to_be_bytes());
    }
}

fn read(octets: &[u8]) -> Option<Frame> {
    next_frame(&mut BytesMut::from(octets), MAX_EXTENDED_LEN)
        .ok()
        .flatten()
}

/// Decodes a body of any kind; whether it was accepted.
fn decode(frame: &Frame, context: &UpdateContext) -> bool {
    match frame.kind {
        MessageKind::Open => Open::decode(&frame.body).is_ok(),
        MessageKind::Update => decode_update(&frame.body, context).is_ok(),
        MessageKind::Notification => Notification::decode(&frame.body).is_ok(),
        MessageKind::Keepalive => true,
        MessageKind::RouteRefresh => RouteRefresh::decode(&frame.body).is_ok(),
    }
}

/// What we accept we may have to pass on: it must be encoded, and read by us as the same again.
fn pass_on(frame: &Frame, context: &UpdateContext) {
    let Ok(update) = decode_update(&frame.body, context) else {
        return;
    };
    let out = EncodeContext {
        four_octet_as: context.four_octet_as,
        max_len: MAX_LEN,
        add_path: FamilySet::EMPTY,
    };
    for announcement in &update.announced {
        let run = &announcement.nlri;
        let sent = &announcement.attributes;
        // A message of 65535 octets may hold more than one of 4096 can.
        let Ok(messages) = encode_announce(run.family(), sent, run.iter(), &out) else {
            continue;
        };
        for message in messages {
            assert!(message.len() <= MAX_LEN);
            let frame = read(&message).expect("our own header");
            let again = decode_update(&frame.body, context).expect("our own message");
            assert_eq!(again.errors, []);
            assert_eq!(again.announced.len(), 1);
            if context.four_octet_as {
                assert_eq!(&again.announced[0].attributes, sent);
            }
        }
    }
}

fn fuzz(seed: u64, time: Duration) {
    let vectors = vectors::all();
    let mut dice = Dice(seed);
    let deadline = Instant::now() + time;
    let (mut count, mut accepted, mut most) = (0u64, 0u64, (0, 0));
    while Instant::now() < deadline {
        let mut message = vectors[dice.below(vectors.len())].octets.clone();
        let other = &vectors[dice.below(vectors.len())].octets;
        mutate(&mut message, other, &mut dice);
        // A panic anywhere below is printed with this, which is all it takes to repeat it.
        let shown = Shown(&message);
        let Some(frame) = read(&message) else {
            continue;
        };
        for context in [&IBGP, &EBGP, &TWO_OCTET] {
            let begin = Instant::now();
            let (is_accepted, memory) = measured(|| decode(&frame, context));
            let took = begin.elapsed();
            assert!(
                memory <= MEMORY + MEMORY_PER_OCTET * message.len() && took <= TIME,
                "{memory} octets and {took:?} for {} octets",
                message.len()
            );
            most = most.max((memory, message.len()));
            count += 1;
            accepted += u64::from(is_accepted);
            if frame.kind == MessageKind::Update {
                pass_on(&frame, context);
            }
        }
        drop(shown);
    }
    println!("seed {seed}: {count} decoded, {accepted} accepted, most memory {most:?}");
    assert!(
        count > 1000,
        "only {count} messages: is the machine that slow?"
    );
}

/// Prints the message if the test fails while it is in work.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|octet| format!("{octet:02x}")).collect();
            println!("the message: {hex}");
        }
    }
}

#[test]
fn mutated_captures_end_in_bounded_time_and_memory() {
    let seconds = std::env::var("CARACAL_FUZZ_SECONDS").ok();
    let time = seconds.map_or(USUAL, |text| {
        Duration::from_secs(text.parse().expect("CARACAL_FUZZ_SECONDS is a number"))
    });
    fuzz(4271, time);
}

#[test]
#[ignore = "long"]
fn mutated_captures_for_two_minutes() {
    fuzz(7606, LONG);
}
