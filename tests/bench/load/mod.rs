//! The load generator: one event loop that plays all peers. What it says is encoded before the
//! clock starts, and what it hears is checked prefix by prefix.

pub mod client;
pub mod messages;
pub mod plan;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use self::client::{BOTH, Client, Judge, Stage};
use self::plan::Plan;

/// Where the daemon listens.
pub const DAEMON: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// As much as one read takes in; longer than any message.
const READ: usize = 256 * 1024;

/// A third of the shortest hold time that a daemon asks for.
const KEEPALIVES: Duration = Duration::from_secs(30);

pub struct Load {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    pub plan: Plan,
    pub clients: Vec<Client>,
    pub is_relayed: bool,
    pub checks: bool,
    /// Clients from this one on count what they hear.
    counts_from: u32,
    established: usize,
    /// When all clients said KEEPALIVE last.
    alive: Instant,
}

impl Load {
    pub fn new(plan: Plan, counts_from: u32, is_relayed: bool) -> Result<Load> {
        Ok(Load {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); 256],
            buffer: vec![0; READ],
            plan,
            clients: Vec::new(),
            is_relayed,
            checks: true,
            counts_from,
            established: 0,
            alive: Instant::now(),
        })
    }

    /// Brings up `number` sessions, all at once, and returns how long that took.
    pub fn connect(&mut self, number: u32, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        for number in 0..number {
            let client = self.dial(number)?;
            self.clients.push(client);
        }
        let all = self.clients.len();
        while self.established < all {
            ensure!(
                start.elapsed() < within,
                "the sessions: not within {within:?}{}",
                self.short()
            );
            self.turn(20)?;
            self.redial()?;
        }
        Ok(start.elapsed())
    }

    fn dial(&self, number: u32) -> Result<Client> {
        let counts = number >= self.counts_from;
        let client = Client::dial(number, DAEMON, &self.plan, counts)?;
        let event = EpollEvent::new(BOTH, u64::from(number));
        self.epoll.add(client.stream.as_fd(), event)?;
        Ok(client)
    }

    /// Clients whose attempt failed, or has led to nothing for long, make another.
    fn redial(&mut self) -> Result<()> {
        for number in 0..u32::try_from(self.clients.len())? {
            if self.clients[number as usize].needs_another_attempt() {
                self.clients[number as usize] = self.dial(number)?;
            }
        }
        Ok(())
    }

    /// Ends all sessions at once.
    pub fn disconnect(&mut self) {
        // The kernel forgets closed descriptors.
        self.clients.clear();
        self.established = 0;
    }

    pub fn say(&mut self, client: u32, octets: &Rc<[u8]>) -> Result<()> {
        let client = &mut self.clients[client as usize];
        client.say(octets)?;
        if client.is_writing() {
            let mut event = EpollEvent::new(BOTH, u64::from(client.number));
            self.epoll.modify(client.stream.as_fd(), &mut event)?;
        }
        Ok(())
    }

    /// Whether each client that counts has all prefixes of others.
    pub fn all_have_all(&self) -> bool {
        let total = self.plan.total();
        self.counting().all(|client| {
            let own = self.plan.of(client.number);
            client.count == total - (own.end - own.start)
        })
    }

    pub fn all_have_none(&self) -> bool {
        self.counting().all(|client| client.count == 0)
    }

    pub fn all_have(&self, index: u32) -> bool {
        self.counting().all(|client| client.has_prefix(index))
    }

    pub fn none_has(&self, index: u32) -> bool {
        self.counting().all(|client| !client.has_prefix(index))
    }

    fn counting(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(|client| client.counts())
    }

    /// Does what there is to do until `is_over`.
    pub fn run_until(
        &mut self,
        what: &str,
        within: Duration,
        is_over: impl Fn(&Load) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        while !is_over(self) {
            ensure!(
                Instant::now() < deadline,
                "{what}: not within {within:?}{}",
                self.short()
            );
            self.turn(100)?;
        }
        Ok(())
    }

    fn short(&self) -> String {
        let counts: Vec<u32> = self.counting().map(|client| client.count).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        format!(
            " ({} of {} sessions, {least:?} to {most:?} of {} prefixes)",
            self.established,
            self.clients.len(),
            self.plan.total()
        )
    }

    /// Waits for what is ready, at most so many milliseconds, and does it.
    pub fn turn(&mut self, milliseconds: u8) -> Result<()> {
        if self.alive.elapsed() > KEEPALIVES {
            self.alive = Instant::now();
            let keepalive = messages::keepalive().into();
            for number in 0..u32::try_from(self.clients.len())? {
                if self.clients[number as usize].stage == Stage::Established {
                    self.say(number, &keepalive)?;
                }
            }
        }
        let mut events = std::mem::take(&mut self.events);
        let ready = match self
            .epoll
            .wait(&mut events, EpollTimeout::from(milliseconds))
        {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => bail!("failed to wait: {errno}"),
        };
        for event in &events[..ready] {
            let number = u32::try_from(event.data()).context("a client's number")?;
            self.serve(number, event.events())?;
        }
        self.events = events;
        Ok(())
    }

    fn serve(&mut self, number: u32, ready: EpollFlags) -> Result<()> {
        let judge = Judge {
            plan: &self.plan,
            is_relayed: self.is_relayed,
            checks: self.checks,
        };
        let client = &mut self.clients[number as usize];
        let is_up = client.stage == Stage::Established;
        match client.serve(&self.epoll, ready, &mut self.buffer, &judge) {
            Ok(()) => {
                self.established += usize::from(!is_up && client.stage == Stage::Established);
                Ok(())
            }
            Err(_) if !is_up => {
                client.stage = Stage::Failed;
                self.epoll.delete(client.stream.as_fd())?;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
