//! A reflector, its clients, and the time between them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bgp::types::Prefix;
use bgp::wire::attribute::PathAttributes;
use bgp::wire::frame;
use bgp::wire::refresh::RefreshKind;

use crate::client::{Client, Habits, Live};
use crate::oracle::{self, Receiver, Said, Table, router_id};
use crate::random::Random;
use crate::setup::{CLUSTER, REFLECTOR, Setup};

/// Longest time that routes are kept of a peer that is away: the product's, whatever the peer asks.
const STALE_TIME: Duration = Duration::from_secs(180);
/// How long a peer with too many prefixes is held down.
const HOLD_DOWN: Duration = Duration::from_secs(300);
/// A client that is refused tries again so often: the reflector may be busy with its former end.
const ATTEMPTS: usize = 500;
/// Events that are shown where something is wrong.
const REMEMBERED: usize = 150;
/// Real time until something must have come about.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A reflector under test, and its clock.
pub trait Reflector {
    /// Since the beginning.
    fn now(&self) -> Duration;
    /// Has it do what there is to do, while no time passes that counts.
    fn work(&mut self);
    /// Lets time pass.
    fn pass(&mut self, by: Duration);
    /// Returns when it has taken the configuration.
    fn configure(&mut self, setup: &Setup);
    /// What it counts as up, for the evidence.
    fn show(&mut self) -> String;
    /// No step of time is longer.
    fn longest_step(&self) -> Duration;
    /// How near to one of its deadlines nobody can say on which side of it the reflector is.
    fn margin(&self) -> Duration;
    /// So much after it was due a timer of the reflector has done its work.
    fn lateness(&self) -> Duration;
}

/// Why a session ended, as far as graceful restart goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// TCP ended, or a new session came in its place.
    Connection,
    /// By a NOTIFICATION, or by the hold timer.
    Notified,
    /// For good.
    Hard,
}

pub struct World<R> {
    pub reflector: R,
    pub setup: Setup,
    pub clients: BTreeMap<u8, Client>,
    pub random: Random,
    pub seed: u64,
    pub counts: BTreeMap<&'static str, u64>,
    history: VecDeque<String>,
    pub messages: u64,
    pub routes_compared: u64,
}

impl<R: Reflector> World<R> {
    pub fn new(reflector: R, setup: Setup, seed: u64) -> World<R> {
        let clients = Setup::all_clients().into_iter();
        World {
            reflector,
            setup,
            clients: clients
                .map(|(last, asn)| (last, Client::new(last, asn)))
                .collect(),
            random: Random(seed),
            seed,
            counts: BTreeMap::new(),
            history: VecDeque::new(),
            messages: 0,
            routes_compared: 0,
        }
    }

    /// Counts what happened to the client at `last`, and remembers it as evidence.
    pub fn note(&mut self, what: &'static str, last: u8) {
        *self.counts.entry(what).or_default() += 1;
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        let client = self.clients.get(&last);
        let times = client.map(|client| (client.first_lost, client.kept_until, client.held_until));
        let line = format!("{:?} {last}: {what} {times:?}", self.now());
        self.history.push_back(line);
    }

    /// Ends the test, with what it takes to find out why.
    fn fail(&mut self, what: &str) -> ! {
        let shown = self.reflector.show();
        let history = Vec::from(std::mem::take(&mut self.history)).join("\n");
        let (seed, now) = (self.seed, self.now());
        panic!("{history}\n{shown}\nseed {seed}, {now:?}: {what}");
    }

    pub fn now(&self) -> Duration {
        self.reflector.now()
    }

    pub fn client(&mut self, last: u8) -> &mut Client {
        self.clients
            .get_mut(&last)
            .expect("there from the beginning")
    }

    /// Runs the reflector and hears what it says until nobody says anything any more.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 2 {
            self.reflector.work();
            quiet = match self.hear() {
                true => 0,
                false => quiet + 1,
            };
        }
    }

    fn hear(&mut self) -> bool {
        let now = self.reflector.now();
        let mut has_heard = false;
        for client in self.clients.values_mut() {
            let Some(live) = &mut client.session else {
                continue;
            };
            has_heard |= live.hear();
            self.messages += std::mem::take(&mut live.messages);
            for family in std::mem::take(&mut live.asked) {
                let routes = client.routes.iter();
                let of_family = routes
                    .filter(|(prefix, _)| prefix.family() == family)
                    .map(|(prefix, attributes)| (*prefix, attributes.clone()))
                    .collect();
                if live.habits.has_enhanced_refresh {
                    live.refresh(family, RefreshKind::Begin, now);
                }
                live.announce(&of_family, now);
                if live.habits.has_enhanced_refresh {
                    live.refresh(family, RefreshKind::End, now);
                }
            }
        }
        has_heard
    }

    /// Lets `time` pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now() + time;
        // What was said so far is heard now, not after the first step.
        self.settle();
        while self.now() < until {
            let step = (until - self.now()).min(self.reflector.longest_step());
            self.reflector.pass(step);
            self.settle();
            if self.keep_alive() {
                self.settle();
            }
            self.expire();
        }
        self.settle();
    }

    /// Those that are well say that they are there. Returns whether somebody had to.
    fn keep_alive(&mut self) -> bool {
        let now = self.now();
        let mut has_said = false;
        let live = self.clients.values_mut();
        let live = live.filter_map(|client| client.session.as_mut());
        for live in live.filter(|live| !live.is_silent) {
            let interval = Duration::from_secs(u64::from(live.habits.hold_time_secs)) / 3;
            if now - live.last_sent >= interval {
                live.send(&frame::keepalive(), now);
                has_said = true;
            }
        }
        has_said
    }

    /// Does to the model what the reflector does by its timers.
    fn expire(&mut self) {
        let now = self.now();
        let lateness = self.reflector.lateness();
        let silent: Vec<u8> = self
            .clients
            .values()
            .filter(|client| {
                let live = client.session.as_ref().filter(|live| live.is_silent);
                live.is_some_and(|live| live.expires() + lateness <= now)
            })
            .map(|client| client.last)
            .collect();
        for last in silent {
            self.lose(last, Loss::Notified);
            self.note("hold timer expired", last);
        }
        for client in self.clients.values_mut() {
            if client.kept_until.is_some_and(|until| until <= now) {
                client.known.clear();
                (client.kept_until, client.first_lost) = (None, None);
            }
            client.held_until = client.held_until.filter(|until| *until > now);
        }
    }

    /// Whether the reflector is about to do something about the client, or has just done so.
    pub fn is_uncertain(&self, client: &Client) -> bool {
        let (now, margin) = (self.now(), self.reflector.margin());
        let is_near = |at: Duration| at < now + margin && now < at + margin;
        client.deadlines().any(is_near)
    }

    /// The session of a client is over. Returns it.
    pub fn lose(&mut self, last: u8, how: Loss) -> Option<Live> {
        let now = self.now();
        let client = self.client(last);
        let live = client.session.take()?;
        let covered = live.habits.restart_time_secs.filter(|_| match how {
            Loss::Connection => true,
            Loss::Notified => live.habits.has_notification,
            Loss::Hard => false,
        });
        match covered {
            Some(seconds) => {
                let first = *client.first_lost.get_or_insert(now);
                let restart = Duration::from_secs(u64::from(seconds)).min(STALE_TIME);
                client.kept_until = Some((now + restart).min(first + STALE_TIME));
            }
            None => client.forget(),
        }
        Some(live)
    }

    /// Has the client connect until it is established.
    pub fn connect(&mut self, last: u8, habits: Habits) {
        let former = self.client(last).session.is_some();
        let mut failures = Vec::new();
        let live = loop {
            match self.attempt(last, habits) {
                Ok(live) => break live,
                Err(why) => failures.push(why),
            }
            if failures.len() >= ATTEMPTS {
                failures.dedup();
                self.fail(&format!("{last} is not taken: {failures:#?}"));
            }
            self.settle();
        };
        // Kept until here, so that the reflector sees a new connection first.
        drop(former.then(|| self.lose(last, Loss::Connection)));
        let client = self.client(last);
        client.kept_until = None;
        if habits.restart_time_secs.is_none() {
            client.forget();
        }
        client.session = Some(live);
    }

    fn attempt(&mut self, last: u8, habits: Habits) -> Result<Live, String> {
        let to = SocketAddr::from((REFLECTOR, 179));
        let now = self.now();
        let asn = self.client(last).asn;
        let mut live = Live::dial((last, asn), to, habits, now).ok_or("no connection")?;
        let deadline = Instant::now() + DEADLINE;
        while !live.is_established {
            self.reflector.work();
            self.hear();
            live.hear();
            if let Some(end) = &live.end {
                return Err(end.clone());
            }
            if Instant::now() > deadline {
                return Err("no OPEN".into());
            }
        }
        Ok(live)
    }

    /// A connection that the reflector must not take.
    pub fn knock(&mut self, last: u8, habits: Habits) {
        if let Ok(live) = self.attempt(last, habits) {
            drop(live);
            self.fail(&format!("{last} was taken"));
        }
    }

    /// A client that is up says all it has, and that this is all.
    pub fn announce_all(&mut self, last: u8) {
        let now = self.now();
        let client = self.client(last);
        if let Some(live) = &mut client.session {
            live.announce(&client.routes, now);
            live.end_of_rib(now);
        }
        client.known = client.routes.clone();
        client.first_lost = None;
        self.enforce_maximum(last);
    }

    /// What the reflector does to an external peer that said too much.
    pub fn enforce_maximum(&mut self, last: u8) {
        let maximum = self.setup.max_prefixes as usize;
        let is_ebgp = self.setup.is_ebgp(last);
        let client = self.client(last);
        if !is_ebgp || client.session.is_none() || client.most_of_a_family() <= maximum {
            return;
        }
        let Some(mut live) = self.lose(last, Loss::Hard) else {
            return;
        };
        let now = self.now();
        self.client(last).held_until = Some(now + HOLD_DOWN);
        self.note("too many prefixes", last);
        if live.is_silent {
            return;
        }
        let deadline = Instant::now() + DEADLINE;
        while live.end.is_none() {
            if Instant::now() > deadline {
                self.fail(&format!("{last} may go on with too many prefixes"));
            }
            self.reflector.work();
            self.hear();
            live.hear();
        }
        let end = live.end.unwrap_or_default();
        if !end.to_lowercase().contains("maximum") {
            self.fail(&format!("{last} hears {end}"));
        }
    }

    /// Waits for a moment at which what the reflector has follows from what the clients did, and
    /// compares.
    pub fn compare(&mut self) {
        loop {
            while self
                .clients
                .values()
                .any(|client| self.is_uncertain(client))
            {
                let step = self.reflector.longest_step() / 2;
                self.pass(step);
            }
            let deadline = Instant::now() + DEADLINE;
            self.settle();
            let mut missing = self.differences();
            while missing.is_some() && Instant::now() < deadline && !self.has_uncertain() {
                self.settle();
                missing = self.differences();
            }
            if self.has_uncertain() {
                continue;
            }
            // It stays so.
            self.settle();
            if let Some(evidence) = missing.or_else(|| self.differences()) {
                self.fail(&evidence);
            }
            break;
        }
        self.note("quiet points", 0);
    }

    fn has_uncertain(&self) -> bool {
        self.clients
            .values()
            .any(|client| self.is_uncertain(client))
    }

    /// What clients have and should not have, or the other way round.
    fn differences(&mut self) -> Option<String> {
        let said: Vec<Said<'_>> = self
            .clients
            .values()
            .filter(|client| !client.known.is_empty())
            .map(|client| Said {
                last: client.last,
                asn: client.asn,
                router_id: router_id(client.last),
                routes: &client.known,
            })
            .collect();
        let well = || self.clients.values().filter(|client| client.is_well());
        let receivers: Vec<Receiver> = well()
            .map(|client| Receiver {
                last: client.last,
                takes_all_paths: client.session.as_ref().is_some_and(takes_all_paths),
            })
            .collect();
        let tables = oracle::tables(&self.setup, &said, &receivers);
        let mut evidence = String::new();
        let mut compared = 0;
        for client in well() {
            let (Some(live), Some(expected)) = (&client.session, tables.get(&client.last)) else {
                continue;
            };
            let name = client.last;
            if let Some(end) = &live.end {
                writeln!(evidence, "{name}: its session ended: {end}").expect("a string");
            }
            if !live.has_ended_tables() {
                writeln!(evidence, "{name}: no End-of-RIB or EoRR").expect("a string");
            }
            let has = live.heard();
            compared += expected.len() as u64;
            differ(name, expected, &has, &mut evidence);
        }
        if evidence.is_empty() {
            self.routes_compared += compared;
            return None;
        }
        Some(evidence)
    }
}

impl Client {
    /// The reflector has nothing of it.
    pub fn forget(&mut self) {
        self.known.clear();
        (self.kept_until, self.first_lost) = (None, None);
    }
}

fn takes_all_paths(live: &Live) -> bool {
    live.habits.takes_all_paths
}

fn differ(name: u8, expected: &Table, has: &Table, evidence: &mut String) {
    let nothing = Vec::new();
    let mut prefixes: Vec<&Prefix> = expected.keys().chain(has.keys()).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    for prefix in prefixes {
        let of = |table: &Table| table.get(prefix).unwrap_or(&nothing).clone();
        let (should, does) = (of(expected), of(has));
        if !is_permutation(&should, &does) {
            writeln!(
                evidence,
                "{name}, {prefix}: should have {should:#?}\nhas {does:#?}"
            )
            .expect("a string");
        }
    }
}

/// The order of paths, and of communities within one, counts for nothing.
fn is_permutation(left: &[PathAttributes], right: &[PathAttributes]) -> bool {
    let mut left: Vec<PathAttributes> = left.iter().map(sorted).collect();
    for one in right.iter().map(sorted) {
        match left.iter().position(|other| *other == one) {
            Some(at) => left.swap_remove(at),
            None => return false,
        };
    }
    left.is_empty()
}

fn sorted(attributes: &PathAttributes) -> PathAttributes {
    let mut attributes = attributes.clone();
    attributes.communities.sort_unstable();
    attributes
}

/// Of attributes that come back to us, for the dice.
pub const OWN_CLUSTER: bgp::types::ClusterId = CLUSTER;
