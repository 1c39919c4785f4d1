//! Two peers that do nothing wrong, and notice whether anything else does them harm.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bgp::types::Prefix;

use crate::peer::{Heard, Live, Peer, announce, attributes, withdraw};
use crate::scene::{DEADLINE, Scene};

/// Where they are.
pub const BYSTANDERS: [u8; 2] = [11, 12];
/// The shortest that is allowed: the speaker owes a KEEPALIVE every second.
const HOLD_TIME_SECS: u16 = 3;
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Between a route's withdrawal and the next one's announcement.
const PAUSE: Duration = Duration::from_millis(5);

pub struct Bystanders {
    left: Live,
    right: Live,
    heard_left: Receiver<(Instant, Heard)>,
    heard_right: Receiver<(Instant, Heard)>,
    announcements: Vec<Duration>,
    withdrawals: Vec<Duration>,
}

impl Bystanders {
    pub fn meet(scene: &Scene) -> Bystanders {
        let (tell_left, heard_left) = mpsc::channel();
        let (tell_right, heard_right) = mpsc::channel();
        let establish = |last| Peer::establish(last, HOLD_TIME_SECS);
        // The left one only says something: it hears of its end alone. Nobody may listen to either
        // any more when that comes.
        let left = establish(BYSTANDERS[0]).live(KEEPALIVE, move |at, what| {
            if matches!(what, Heard::Notification(_) | Heard::Closed) {
                let _ = tell_left.send((at, what));
            }
        });
        let right = establish(BYSTANDERS[1]).live(KEEPALIVE, move |at, what| {
            let _ = tell_right.send((at, what));
        });
        for last in BYSTANDERS {
            scene.wait_established(last);
        }
        Bystanders {
            left,
            right,
            heard_left,
            heard_right,
            announcements: Vec::new(),
            withdrawals: Vec::new(),
        }
    }

    /// Exchanges a route again and again until `deed` is done, and once more.
    pub fn exchange_during<T>(&mut self, deed: impl FnOnce() -> T) -> T {
        let (done, is_done) = mpsc::channel();
        std::thread::scope(move |scope| {
            // Dropped by a panic of the deed, before the scope waits for its thread.
            let done = done;
            let exchanging = scope.spawn(move || {
                let mut round = 0;
                // Ended by a word, or by the deed's panic.
                while is_done.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    self.exchange(round);
                    round += 1;
                }
                self.exchange(round);
            });
            let result = deed();
            done.send(()).expect("the exchange goes on");
            if let Err(panic) = exchanging.join() {
                std::panic::resume_unwind(panic);
            }
            result
        })
    }

    /// One route from left to right, and its withdrawal.
    pub fn exchange(&mut self, round: u32) {
        let [.., third, fourth] = round.to_be_bytes();
        let text = format!("10.{third}.{fourth}.0/24");
        let route: Prefix = text.parse().expect("a prefix");
        let begun = Instant::now();
        self.left
            .send(&announce(&attributes(BYSTANDERS[0], round), &[route]));
        let at = self.right_hears(
            &text,
            |heard| matches!(heard, Heard::Announced(prefixes) if prefixes.contains(&route)),
        );
        self.announcements.push(at - begun);
        let begun = Instant::now();
        self.left.send(&withdraw(&[route]));
        let at = self.right_hears(
            &text,
            |heard| matches!(heard, Heard::Withdrawn(prefixes) if prefixes.contains(&route)),
        );
        self.withdrawals.push(at - begun);
    }

    /// Waits until the right one hears what `is_it`; returns when that was.
    pub fn right_hears(&self, what: &str, mut is_it: impl FnMut(&Heard) -> bool) -> Instant {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard_right.recv_timeout(left) {
                Ok((at, heard)) if is_it(&heard) => return at,
                Ok((_, Heard::Notification(why))) => panic!("a bystander's session ended: {why}"),
                Ok((_, Heard::Closed)) => panic!("a bystander's session ended"),
                Ok(_) => {}
                Err(error) => panic!("waiting for {what}: {error}"),
            }
        }
    }

    /// Both sessions are those of the beginning. Prints what was seen.
    pub fn expect_unharmed(mut self, scene: &Scene) {
        for last in BYSTANDERS {
            let peer = scene.peer(last);
            assert_eq!(
                (peer.state.as_str(), peer.flaps),
                ("established", 0),
                "{peer:?}"
            );
        }
        for heard in [&self.heard_left, &self.heard_right] {
            let ended = heard
                .try_iter()
                .find(|(_, what)| matches!(what, Heard::Notification(_) | Heard::Closed));
            assert!(ended.is_none(), "{ended:?}");
        }
        let gap = self.left.end().max(self.right.end());
        println!(
            "bystanders: {} routes exchanged; heard after {}, gone after {}; longest without KEEPALIVE {} ms of {} ms",
            self.announcements.len(),
            spread(&mut self.announcements),
            spread(&mut self.withdrawals),
            gap.as_millis(),
            u128::from(HOLD_TIME_SECS) * 1000,
        );
    }
}

/// The median and the longest.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |at: Option<&Duration>| at.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let median = ms(times.get(times.len() / 2));
    format!("{median:.1} ms (p50), {:.1} ms (max)", ms(times.last()))
}
