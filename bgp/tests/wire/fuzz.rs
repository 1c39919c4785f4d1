//! Captured messages with faults in them: whatever comes, decoding ends soon, in bounded memory,
//! without a panic; and what is accepted can be sent on and is accepted again.

use std::time::{Duration, Instant};

use crate::checks::{decode, pass_on, read};
use crate::memory::measured;
use crate::message::{EBGP, IBGP, TWO_OCTET, add_path};
use crate::vectors;

/// A run of the test alone; `tests/run` sets `CARACAL_FUZZ_SECONDS` and has it run beside others.
const USUAL: Duration = Duration::from_secs(3);
/// Where `CARACAL_FUZZ_SEED` says no other.
const SEED: u64 = 4271;
/// Decoding allocates at most this much per octet of the message, and a little at all. The most
/// expensive octets are those of an attribute's list in many small parts: an AS path segment of one
/// number takes 4 or 6 octets and becomes a `Vec` of its own.
const MEMORY_PER_OCTET: usize = 64;
const MEMORY: usize = 16 * 1024;
/// No message takes longer, unoptimized as tests are.
const TIME: Duration = Duration::from_millis(250);
/// A busy machine may take the processor away in the middle; what is slow is so every time.
const ATTEMPTS: usize = 4;

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
        for context in [&IBGP, &EBGP, &TWO_OCTET, &add_path()] {
            let begin = Instant::now();
            let (is_accepted, memory) = measured(|| decode(&frame, context));
            let mut took = begin.elapsed();
            for _ in 1..ATTEMPTS {
                if took > TIME {
                    let begin = Instant::now();
                    decode(&frame, context);
                    took = begin.elapsed();
                }
            }
            assert!(
                memory <= MEMORY + MEMORY_PER_OCTET * message.len() && took <= TIME,
                "{memory} octets and {took:?} for {} octets",
                message.len()
            );
            most = most.max((memory, message.len()));
            count += 1;
            accepted += u64::from(is_accepted);
            pass_on(&frame, context);
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

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect(name))
}

#[test]
fn mutated_captures_end_in_bounded_time_and_memory() {
    let time = number("CARACAL_FUZZ_SECONDS").map_or(USUAL, Duration::from_secs);
    // Zero is the one state that the dice do not leave.
    let seed = number("CARACAL_FUZZ_SEED").map_or(SEED, |seed| seed.max(1));
    fuzz(seed, time);
}
