//! ICMP echo from inside a namespace: a few to many targets at once, or a steady stream to one.
//!
//! Own code in place of ping(8): no process per target, times in microseconds, and the identifier
//! of each pair is ours to choose, so that captures tell the pairs apart.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::capture::make_room;
use super::error::Result;
use super::netns::Namespace;
use super::packet;

/// How long an answer may take before it counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Echoes to one target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub address: Ipv4Addr,
    /// Unique among all echoes of a lab that run at the same time.
    pub identifier: u16,
}

/// What came of the echoes to one target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    pub sent: usize,
    pub received: usize,
    /// Answers that came more than once.
    pub duplicates: usize,
    pub shortest: Option<Duration>,
    /// Why a request could not be sent (`Network is unreachable`).
    pub error: Option<String>,
}

/// Sends `count` echoes to each target, 10 ms apart, and waits for the answers.
pub fn burst(namespace: &Namespace, targets: &[Target], count: u16) -> Result<Vec<Outcome>> {
    let socket = IcmpSocket::open(namespace)?;
    let mut outcomes = vec![Outcome::default(); targets.len()];
    let mut pending: BTreeMap<(u16, u16), (usize, Instant)> = BTreeMap::new();
    for sequence in 0..count {
        for (at, target) in targets.iter().enumerate() {
            outcomes[at].sent += 1;
            let now = Instant::now();
            match socket.send(target, sequence) {
                Ok(()) => {
                    pending.insert((target.identifier, sequence), (at, now));
                }
                Err(error) => outcomes[at].error = Some(error.to_string()),
            }
        }
        let is_last = sequence + 1 == count;
        let wait = if is_last {
            ANSWER_TIMEOUT
        } else {
            Duration::from_millis(10)
        };
        let until = Instant::now() + wait;
        while !(is_last && pending.is_empty()) {
            let Some(answer) = socket.receive(until) else {
                break;
            };
            let known = pending.remove(&(answer.identifier, answer.sequence));
            if let Some((at, sent)) = known {
                let outcome = &mut outcomes[at];
                let took = answer.at.duration_since(sent);
                outcome.received += 1;
                outcome.shortest = Some(outcome.shortest.map_or(took, |known| known.min(took)));
            } else if let Some(at) = position(targets, &answer) {
                outcomes[at].duplicates += 1;
            }
        }
    }
    Ok(outcomes)
}

fn position(targets: &[Target], answer: &Answer) -> Option<usize> {
    let same = |target: &Target| target.identifier == answer.identifier;
    targets.iter().position(same)
}

/// A steady stream of echoes to one target, until `stop`.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Report>>,
}

/// What a probe saw.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub sent: usize,
    /// Sequence numbers without answer, with the time since the start at which they were sent.
    pub lost: Vec<(u64, Duration)>,
    /// Answers that came more than once.
    pub duplicates: usize,
    /// From the start of the probe to the first answer.
    pub first_answer: Option<Duration>,
    /// Longest time between two answers.
    pub longest_gap: Duration,
}

impl Probe {
    /// Starts sending at once, one request every `interval`.
    pub fn start(namespace: &Namespace, target: Target, interval: Duration) -> Result<Probe> {
        let socket = IcmpSocket::open(namespace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || stream(&socket, &target, interval, &stopped));
        Ok(Probe {
            stop,
            thread: Some(thread),
        })
    }

    /// Sends no more, waits for late answers and tells.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop takes it");
        thread.join().unwrap_or_default()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn stream(socket: &IcmpSocket, target: &Target, interval: Duration, stop: &AtomicBool) -> Report {
    let start = Instant::now();
    let mut report = Report::default();
    // By full sequence number; the 16 bits on the wire are made full again by the newest sent.
    let mut unanswered: BTreeMap<u64, Duration> = BTreeMap::new();
    let mut last_answer: Option<Instant> = None;
    let mut next: u64 = 0;
    let mut ended: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if ended.is_none() && stop.load(Ordering::Relaxed) {
            ended = Some(now);
        }
        let until = match ended {
            Some(at) if unanswered.is_empty() || now >= at + ANSWER_TIMEOUT => break,
            Some(at) => at + ANSWER_TIMEOUT,
            None => {
                unanswered.insert(next, start.elapsed());
                report.sent += 1;
                // A request that cannot be sent (no route for a moment) is a lost one.
                let _ = socket.send(target, (next & 0xffff) as u16);
                next += 1;
                now + interval
            }
        };
        while let Some(answer) = socket.receive(until) {
            if answer.identifier != target.identifier {
                continue;
            }
            let behind = ((next.wrapping_sub(1) & 0xffff) as u16).wrapping_sub(answer.sequence);
            let sequence = (next - 1).saturating_sub(u64::from(behind));
            if unanswered.remove(&sequence).is_none() {
                report.duplicates += 1;
            } else {
                report.first_answer.get_or_insert(answer.at - start);
                if let Some(last) = last_answer {
                    report.longest_gap = report.longest_gap.max(answer.at - last);
                }
                last_answer = Some(answer.at);
            }
            if ended.is_some() && unanswered.is_empty() {
                break;
            }
        }
    }
    report.lost = unanswered.into_iter().collect();
    report
}

struct Answer {
    identifier: u16,
    sequence: u16,
    at: Instant,
}

/// A raw ICMP socket that can be waited for with a precise deadline. The kernel rounds a socket's own
/// receive timeout up to its tick, which may be 10 ms.
struct IcmpSocket {
    socket: Socket,
    readiness: Epoll,
}

impl IcmpSocket {
    fn open(namespace: &Namespace) -> Result<IcmpSocket> {
        namespace.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            make_room(&socket)?;
            socket.set_nonblocking(true)?;
            let readiness = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            readiness.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
            Ok(IcmpSocket { socket, readiness })
        })
    }

    fn send(&self, target: &Target, sequence: u16) -> io::Result<()> {
        let request = packet::echo_request(target.identifier, sequence);
        let to = SocketAddrV4::new(target.address, 0);
        self.socket.send_to(&request, &to.into()).map(|_| ())
    }

    /// The next echo reply; `None` at `until`.
    fn receive(&self, until: Instant) -> Option<Answer> {
        loop {
            let mut buffer = [0_u8; 512];
            let mut reader = &self.socket;
            if let Ok(length) = reader.read(&mut buffer) {
                let at = Instant::now();
                match buffer.get(..length).and_then(packet::parse) {
                    Some((_, echo)) if !echo.is_request => {
                        return Some(Answer {
                            identifier: echo.identifier,
                            sequence: echo.sequence,
                            at,
                        });
                    }
                    _ => continue,
                }
            }
            let left = until.checked_duration_since(Instant::now())?;
            // Up to the next millisecond, so that the last look is after the deadline.
            let timeout = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            // Interrupted by a signal is as good as a timeout: the loop looks again.
            let _ = self.readiness.wait(&mut [EpollEvent::empty()], timeout);
        }
    }
}
