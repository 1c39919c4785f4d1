//! Two sessions, a network that delays and loses, and a virtual clock: whatever happens in the
//! first minute, both end up with the same one connection, or with none where one was stopped.
//!
//! What happens: dials are lost or refused, connections are reset, fall silent or are half open after
//! a restart, OPENs come half a minute late, drivers look at their timers late or for nothing, both
//! dial at once, strangers connect, sessions are stopped, ended and held down.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// How long the network misbehaves.
const CHAOS: Duration = Duration::from_secs(60);
/// Then both sides have this long to settle: longer than any hold timer plus back-off.
const SETTLE: Duration = Duration::from_secs(400);
/// And must not change any more.
const STEADY: Duration = Duration::from_secs(120);
/// Every event and timer counts as a step; a run needs about 500.
const MAX_STEPS: usize = 20_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn jitter(&mut self) -> Jitter {
        Jitter::from_random((self.next() >> 32) as u32)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

#[derive(Clone, Debug)]
enum Message {
    Open(Open),
    Keepalive,
    Update,
    Notification(Notification),
    /// FIN or RST.
    End,
}

#[derive(Clone, Debug)]
enum Event {
    /// The first packet of a dial reaches the other side.
    Syn {
        dialler: Side,
        dial: u64,
    },
    /// A dial comes back: connected, or refused.
    Answered {
        dialler: Side,
        dial: u64,
        is_accepted: bool,
    },
    /// The accepting side's kernel hands the connection over.
    Accepted {
        acceptor: Side,
        connection: ConnectionId,
    },
    Arrives {
        at: Side,
        connection: ConnectionId,
        message: Message,
    },
    Start {
        side: Side,
    },
    /// A driver looks at its timers though none is due.
    EarlyTimeout {
        side: Side,
    },
    /// Something breaks.
    Fault,
}

/// A TCP connection as the network knows it.
struct Link {
    /// The sides that have it open. The accepting one is in here before it is told.
    open: BTreeSet<Side>,
    /// Nothing gets through any more, and nobody is told.
    is_silent: bool,
    /// One side's machine started anew and knows nothing of it: what arrives there is answered by
    /// a reset.
    is_half_open: bool,
    /// When the last message to each side arrives: TCP keeps the order.
    last_arrival: BTreeMap<Side, Instant>,
}

struct Peer {
    session: Session,
    /// The dial that is not answered yet.
    dial: Option<u64>,
    established: Option<ConnectionId>,
    changes: usize,
    /// How late its driver is with the next timer.
    lag: Duration,
}

struct World {
    random: Random,
    now: Instant,
    chaos_end: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    links: BTreeMap<ConnectionId, Link>,
    peers: BTreeMap<Side, Peer>,
    latency_ms: RangeInclusive<u64>,
    /// What happened, where it is asked for.
    history: Option<String>,
}

impl World {
    /// Nothing is started yet and nothing breaks.
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let now = Instant::now();
        let left = side_config(&mut random, 1);
        let mut right = side_config(&mut random, 2);
        right.passive &= !left.passive;
        // RFC 6286: identifiers may be equal across AS borders.
        if random.one_in(4) {
            right.router_id = left.router_id;
        }
        let peer = |config| Peer {
            session: Session::new(config),
            dial: None,
            established: None,
            changes: 0,
            lag: Duration::ZERO,
        };
        World {
            latency_ms: 1..=[1, 20, 400][random.below(3) as usize],
            random,
            now,
            chaos_end: now,
            events: BTreeMap::new(),
            sequence: 0,
            links: BTreeMap::new(),
            peers: BTreeMap::from([(Side::Left, peer(left)), (Side::Right, peer(right))]),
            history: None,
        }
    }

    /// Both start, and for a minute dials fail and things break.
    fn chaotic(seed: u64) -> World {
        let mut world = World::new(seed);
        world.chaos_end = world.now + CHAOS;
        for _ in 0..world.random.below(12) {
            let delay = Duration::from_millis(world.random.below(CHAOS.as_millis() as u64));
            world.schedule(delay, Event::Fault);
        }
        for side in [Side::Left, Side::Right] {
            let delay = Duration::from_millis(world.random.below(CHAOS.as_millis() as u64));
            world.schedule(delay, Event::EarlyTimeout { side });
        }
        world.schedule(Duration::ZERO, Event::Start { side: Side::Left });
        world.schedule(Duration::ZERO, Event::Start { side: Side::Right });
        world
    }

    /// Both dial at about the same time, over a line that always takes as long.
    fn of_simultaneous_dials(seed: u64) -> World {
        const LATENCY_MS: u64 = 100;
        let mut world = World::new(seed);
        world.latency_ms = LATENCY_MS..=LATENCY_MS;
        for side in [Side::Left, Side::Right] {
            world.peer(side).session.config.passive = false;
            let delay = Duration::from_millis(world.random.below(5 * LATENCY_MS));
            world.schedule(delay, Event::Start { side });
        }
        world
    }

    fn is_chaos(&self) -> bool {
        self.now < self.chaos_end
    }

    fn record(&mut self, line: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push_str(&line());
            history.push('\n');
        }
    }

    fn peer(&mut self, side: Side) -> &mut Peer {
        self.peers.get_mut(&side).expect("both sides are there")
    }

    fn latency(&mut self) -> Duration {
        let (shortest, longest) = (*self.latency_ms.start(), *self.latency_ms.end());
        Duration::from_millis(shortest + self.random.below(longest - shortest + 1))
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    fn input(&mut self, side: Side, input: Input) {
        let (now, jitter) = (self.now, self.random.jitter());
        self.record(|| format!("{side:?} <- {input:?}"));
        self.peer(side).session.handle(input, now, jitter);
        self.carry_out(side);
    }

    /// Runs until `end`. Returns whether the steps sufficed.
    fn run_until(&mut self, end: Instant, steps: &mut usize) {
        loop {
            let event_at = self.events.first_key_value().map(|((at, _), _)| *at);
            let timers = [Side::Left, Side::Right].into_iter().filter_map(|side| {
                let peer = &self.peers[&side];
                let deadline = peer.session.next_timeout()?;
                Some(((deadline + peer.lag).max(self.now), side))
            });
            let timer = timers.min();
            let next = event_at.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            assert!(next >= self.now, "time went back");
            *steps += 1;
            assert!(*steps < MAX_STEPS, "too many steps");
            self.now = next;
            match timer {
                Some((at, side)) if at == next => self.look_at_timers(side),
                _ => {
                    let (_, event) = self.events.pop_first().expect("an event is due");
                    self.happen(event);
                }
            }
        }
    }

    fn look_at_timers(&mut self, side: Side) {
        let (now, jitter) = (self.now, self.random.jitter());
        self.record(|| format!("{side:?} <- timeout"));
        let lag = if self.is_chaos() && self.random.one_in(3) {
            Duration::from_millis(self.random.below(4000))
        } else {
            Duration::ZERO
        };
        let peer = self.peer(side);
        peer.lag = lag;
        peer.session.handle_timeout(now, jitter);
        let left_over = peer.session.next_timeout().filter(|at| *at <= now);
        assert_eq!(left_over, None, "a timer that expired is still set");
        self.carry_out(side);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Syn { dialler, dial } => self.syn_arrives(dialler, dial),
            Event::Answered {
                dialler,
                dial,
                is_accepted,
            } => self.answer(dialler, dial, is_accepted),
            Event::Accepted {
                acceptor,
                connection,
            } => {
                let link = &self.links[&connection];
                if link.open.contains(&acceptor) {
                    let input = connected(connection.0, Direction::Incoming);
                    self.input(acceptor, input);
                }
            }
            Event::Arrives {
                at,
                connection,
                message,
            } => self.arrive(at, connection, message),
            Event::Start { side } => self.input(side, Input::Start),
            Event::EarlyTimeout { side } => self.look_at_timers(side),
            Event::Fault => self.fault(),
        }
    }

    fn syn_arrives(&mut self, dialler: Side, dial: u64) {
        // Lost or refused now and then; nobody else listens.
        let is_accepted = !(self.is_chaos() && self.random.one_in(4));
        let is_lost = !is_accepted && self.random.one_in(2);
        if !is_lost {
            let latency = self.latency();
            self.schedule(
                latency,
                Event::Answered {
                    dialler,
                    dial,
                    is_accepted,
                },
            );
        }
    }

    fn answer(&mut self, dialler: Side, dial: u64, is_accepted: bool) {
        if self.peer(dialler).dial != Some(dial) {
            return;
        }
        self.peer(dialler).dial = None;
        if !is_accepted {
            return self.input(dialler, Input::DialFailed);
        }
        let connection = ConnectionId(dial);
        let acceptor = dialler.other();
        let accepted_after = self.latency();
        self.links.insert(
            connection,
            Link {
                open: BTreeSet::from([dialler, acceptor]),
                is_silent: false,
                is_half_open: false,
                last_arrival: BTreeMap::from([(acceptor, self.now + accepted_after)]),
            },
        );
        self.schedule(
            accepted_after,
            Event::Accepted {
                acceptor,
                connection,
            },
        );
        self.input(dialler, connected(dial, Direction::Outgoing));
    }

    fn arrive(&mut self, at: Side, connection: ConnectionId, message: Message) {
        let link = self
            .links
            .get_mut(&connection)
            .expect("connections are never forgotten");
        if link.is_silent {
            return;
        }
        if !link.open.contains(&at) {
            // A reset is not answered by another.
            if link.is_half_open && !matches!(message, Message::End) {
                let (at, message) = (at.other(), Message::End);
                let latency = self.latency();
                self.schedule(
                    latency,
                    Event::Arrives {
                        at,
                        connection,
                        message,
                    },
                );
            }
            return;
        }
        let input = match message {
            Message::Open(open) => Input::OpenReceived { connection, open },
            Message::Keepalive => Input::KeepaliveReceived { connection },
            Message::Update => Input::UpdateReceived { connection },
            Message::Notification(notification) => Input::NotificationReceived {
                connection,
                notification,
            },
            Message::End => {
                link.open.remove(&at);
                Input::Closed { connection }
            }
        };
        self.input(at, input);
    }

    fn send(&mut self, from: Side, connection: ConnectionId, message: Message) {
        let mut latency = self.latency();
        // A peer that is busy as it starts: what follows its OPEN waits too.
        if matches!(message, Message::Open(_)) && self.is_chaos() && self.random.one_in(6) {
            latency += Duration::from_millis(self.random.below(30_000));
        }
        let to = from.other();
        let link = self
            .links
            .get_mut(&connection)
            .expect("connections are never forgotten");
        assert!(
            link.open.contains(&from),
            "{from:?} writes to a connection it closed"
        );
        let earliest = link.last_arrival.get(&to).copied().unwrap_or(self.now);
        let arrival = earliest.max(self.now + latency);
        link.last_arrival.insert(to, arrival);
        let delay = arrival - self.now;
        self.schedule(
            delay,
            Event::Arrives {
                at: to,
                connection,
                message,
            },
        );
    }

    fn close(&mut self, side: Side, connection: ConnectionId) {
        self.send(side, connection, Message::End);
        let link = self
            .links
            .get_mut(&connection)
            .expect("connections are never forgotten");
        link.open.remove(&side);
    }

    fn carry_out(&mut self, side: Side) {
        while let Some(action) = self.peer(side).session.poll_action() {
            self.record(|| format!("    {side:?} -> {}", brief(&action)));
            match action {
                Action::Dial => {
                    assert_eq!(self.peer(side).dial, None, "two dials at once");
                    self.sequence += 1;
                    let dial = self.sequence;
                    self.peer(side).dial = Some(dial);
                    let latency = self.latency();
                    self.schedule(
                        latency,
                        Event::Syn {
                            dialler: side,
                            dial,
                        },
                    );
                }
                Action::AbortDial => {
                    let dial = self.peer(side).dial.take();
                    assert!(dial.is_some(), "no dial to give up");
                }
                Action::SendOpen { connection, open } => {
                    self.send(side, connection, Message::Open(open));
                }
                Action::SendKeepalive { connection } => {
                    self.send(side, connection, Message::Keepalive);
                }
                Action::SendNotification {
                    connection,
                    notification,
                } => {
                    self.send(side, connection, Message::Notification(notification));
                    self.close(side, connection);
                }
                Action::Close { connection } => self.close(side, connection),
                Action::Established { connection, .. } => {
                    let before = self.peer(side).established.replace(connection);
                    assert_eq!(before, None, "established twice without going down");
                    self.peer(side).changes += 1;
                    // Routes go out at once: they must not reach the other side too early.
                    self.send(side, connection, Message::Update);
                }
                Action::Down { connection, .. } => {
                    let before = self.peer(side).established.take();
                    assert_eq!(before, Some(connection), "down without being up");
                    self.peer(side).changes += 1;
                }
                Action::RefreshRequested { .. } => unreachable!("nobody asks for it"),
                Action::StateChanged { .. } | Action::ErrorNoted { .. } => {}
            }
        }
        let peer = &self.peers[&side];
        let established = peer.session.established().map(|(connection, _)| connection);
        assert_eq!(peer.established, established, "the driver was not told");
        assert!(
            peer.session.connections.len() <= MAX_UNOPENED + 2,
            "too many connections"
        );
    }

    fn fault(&mut self) {
        let side = if self.random.one_in(2) {
            Side::Left
        } else {
            Side::Right
        };
        self.record(|| format!("fault at {side:?}"));
        match self.random.below(9) {
            0 => self.reset_links(),
            1 => {
                for link in self.links.values_mut() {
                    link.is_silent = true;
                }
            }
            2 => {
                self.input(side, Input::Stop { notification: None });
                self.input(side, Input::Start);
            }
            3 => {
                self.input(side, cease(None));
            }
            4 => self.input(side, stop(6, 2)),
            5 => self.stranger(side),
            6 => {
                let hold_down = seconds(self.random.below(40));
                self.input(side, cease(Some(hold_down)));
            }
            7 => self.input(side, Input::Release),
            _ => self.crash(side),
        }
    }

    /// Both ends of every connection see it break.
    fn reset_links(&mut self) {
        let mut broken = Vec::new();
        for (connection, link) in &mut self.links {
            broken.extend(link.open.iter().map(|side| (*side, *connection)));
            link.open.clear();
        }
        for (side, connection) in broken {
            self.input(side, Input::Closed { connection });
        }
    }

    /// Somebody at the peer's address connects and says nothing.
    fn stranger(&mut self, side: Side) {
        self.sequence += 1;
        let connection = ConnectionId(self.sequence);
        let link = Link {
            open: BTreeSet::from([side]),
            is_silent: true,
            is_half_open: false,
            last_arrival: BTreeMap::new(),
        };
        self.links.insert(connection, link);
        self.input(side, connected(connection.0, Direction::Incoming));
    }

    /// The program starts anew: its kernel closes its connections, or the machine was gone and is
    /// back without them, or packets of before its end get lost for good.
    fn crash(&mut self, side: Side) {
        let kind = self.random.below(3);
        let is_open = |link: &Link| link.open.contains(&side);
        let open: Vec<ConnectionId> = self
            .links
            .iter()
            .filter(|(_, link)| is_open(link))
            .map(|(id, _)| *id)
            .collect();
        for connection in open {
            if kind == 0 {
                self.close(side, connection);
            } else if let Some(link) = self.links.get_mut(&connection) {
                link.open.remove(&side);
                link.is_half_open |= kind == 1;
                link.is_silent |= kind == 2;
            }
        }
        let peer = self.peer(side);
        peer.session = Session::new(peer.session.config().clone());
        peer.dial = None;
        peer.lag = Duration::ZERO;
        peer.changes += usize::from(peer.established.take().is_some());
        self.input(side, Input::Start);
    }

    /// How often a side went up or down.
    fn changes(&self) -> usize {
        self.peers.values().map(|peer| peer.changes).sum()
    }

    /// What is wrong with how it ended, if anything.
    fn verdict(&self) -> Result<(), String> {
        let [left, right] = [Side::Left, Side::Right].map(|side| &self.peers[&side]);
        let is_stopped = !(left.session.is_started && right.session.is_started);
        match (left.established, right.established) {
            (None, None) if is_stopped => Ok(()),
            (Some(left), Some(right)) if left == right && !is_stopped => Ok(()),
            ends => Err(format!("left and right are established on {ends:?}")),
        }
    }
}

fn side_config(random: &mut Random, number: u8) -> SessionConfig {
    let asn = |number: u8| Asn(64512 + u32::from(number));
    SessionConfig {
        local_asn: asn(number),
        remote_asn: Some(asn(3 - number)),
        router_id: router_id(u8::try_from(random.below(100)).unwrap() * 2 + number),
        hold_time: HoldTime::new([9, 90][random.below(2) as usize]).unwrap(),
        idle_hold_max: seconds([0, 10][random.below(2) as usize]),
        passive: random.one_in(4),
        graceful_restart: (!random.one_in(3)).then(graceful_restart),
        ..config()
    }
}

/// Panics unless the world comes to rest.
fn check_settles(world: &mut World) {
    let (mut steps, start) = (0, world.now);
    world.run_until(start + CHAOS + SETTLE, &mut steps);
    world.verdict().unwrap();
    let settled = world.changes();
    world.run_until(start + CHAOS + SETTLE + STEADY, &mut steps);
    world.verdict().unwrap();
    assert_eq!(world.changes(), settled, "the session flaps");
}

/// Panics unless both sides come up at once and stay up.
fn check_comes_up_once(world: &mut World) {
    let (mut steps, start) = (0, world.now);
    world.run_until(start + seconds(3), &mut steps);
    world.verdict().unwrap();
    world.run_until(start + seconds(100), &mut steps);
    world.verdict().unwrap();
    assert_eq!(world.changes(), 2, "one side went down again");
}

/// Panics with the history of the first seed for which `check` does.
fn check_seeds(count: u64, new: fn(u64) -> World, check: fn(&mut World)) {
    for seed in 0..count {
        let run = |history| {
            let mut world = World {
                history,
                ..new(seed)
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut world)));
            (outcome.is_ok(), world.history)
        };
        let (is_good, _) = run(None);
        if !is_good {
            // The same seed gives the same run.
            let (_, history) = run(Some(String::new()));
            panic!("seed {seed}:\n{}", history.unwrap_or_default());
        }
    }
}

#[test]
fn two_sessions_end_with_one_connection_or_none() {
    check_seeds(5000, World::chaotic, check_settles);
}

#[test]
fn simultaneous_dials_come_up_once() {
    check_seeds(5000, World::of_simultaneous_dials, check_comes_up_once);
}
