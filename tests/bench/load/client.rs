//! One peer that the load generator plays.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

use super::messages::{self, Heard, KEEPALIVE};
use super::plan::{Plan, address};

/// Where a client is on its way to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Connecting,
    Opening,
    Established,
    /// The attempt came to nothing.
    Failed,
}

/// How a client is watched.
const READING: EpollFlags = EpollFlags::EPOLLIN;
pub const BOTH: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT);

/// After a failure, and where nothing comes of an attempt.
const RETRY: Duration = Duration::from_millis(100);
const CONNECT_RETRY: Duration = Duration::from_secs(5);

pub struct Client {
    pub number: u32,
    pub stream: TcpStream,
    pub stage: Stage,
    dialled: Instant,
    /// The front of a message that is not there whole.
    rest: Vec<u8>,
    outgoing: VecDeque<(Rc<[u8]>, usize)>,
    /// A bit for each prefix that it has, where it counts.
    has: Option<Vec<u64>>,
    pub count: u32,
    pub octets: u64,
    pub updates: u64,
}

/// What a client needs to know to judge what it hears.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    pub plan: &'a Plan,
    pub is_relayed: bool,
    /// Whether attributes are those of the plan. Under churn they are not.
    pub checks: bool,
}

impl Client {
    /// Begins to connect.
    pub fn dial(number: u32, to: Ipv4Addr, plan: &Plan, counts: bool) -> Result<Client> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((address(number), 0)).into())?;
        match socket.connect(&SocketAddrV4::new(to, 179).into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
            Err(error) => return Err(error).context("failed to connect"),
        }
        let words = (plan.total() as usize).div_ceil(64);
        Ok(Client {
            number,
            stream: socket.into(),
            stage: Stage::Connecting,
            dialled: Instant::now(),
            rest: Vec::new(),
            outgoing: VecDeque::new(),
            has: counts.then(|| vec![0; words]),
            count: 0,
            octets: 0,
            updates: 0,
        })
    }

    pub fn counts(&self) -> bool {
        self.has.is_some()
    }

    pub fn has_prefix(&self, index: u32) -> bool {
        let word = self.has.as_ref().map_or(0, |has| has[index as usize / 64]);
        word & (1 << (index % 64)) != 0
    }

    pub fn needs_another_attempt(&self) -> bool {
        match self.stage {
            Stage::Established => false,
            Stage::Failed => self.dialled.elapsed() > RETRY,
            Stage::Connecting | Stage::Opening => self.dialled.elapsed() > CONNECT_RETRY,
        }
    }

    /// Does what its socket is ready for.
    pub fn serve(
        &mut self,
        epoll: &Epoll,
        ready: EpollFlags,
        buffer: &mut [u8],
        judge: &Judge<'_>,
    ) -> Result<()> {
        if self.stage == Stage::Connecting {
            self.begin()?;
        }
        if ready.contains(EpollFlags::EPOLLOUT) {
            self.flush()?;
            if !self.is_writing() {
                let mut event = EpollEvent::new(READING, u64::from(self.number));
                epoll.modify(self.stream.as_fd(), &mut event)?;
            }
        }
        if ready.intersects(READING | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.hear(buffer, judge)?;
        }
        Ok(())
    }

    /// The connection is there: says OPEN.
    fn begin(&mut self) -> Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error).context("failed to connect");
        }
        self.stage = Stage::Opening;
        self.say(&messages::open(address(self.number)).into())
    }

    /// Writes as much as there is room for now; the rest waits.
    pub fn say(&mut self, octets: &Rc<[u8]>) -> Result<()> {
        self.outgoing.push_back((octets.clone(), 0));
        self.flush()
    }

    pub fn is_writing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    fn flush(&mut self) -> Result<()> {
        while let Some((octets, from)) = self.outgoing.front_mut() {
            match self.stream.write(&octets[*from..]) {
                Ok(written) => *from += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("failed to write"),
            }
            if *from == octets.len() {
                self.outgoing.pop_front();
            }
        }
        Ok(())
    }

    /// Reads once and takes in what is there.
    fn hear(&mut self, buffer: &mut [u8], judge: &Judge<'_>) -> Result<()> {
        let kept = self.rest.len();
        buffer[..kept].copy_from_slice(&self.rest);
        self.rest.clear();
        let read = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => bail!("client {}: the session was closed", self.number),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error).context(format!("client {}", self.number)),
        };
        self.octets += read as u64;
        let mut octets = &buffer[..kept + read];
        while let Some((length, heard)) = messages::next(octets).map_err(anyhow::Error::msg)? {
            self.take(heard, judge)?;
            octets = &octets[length..];
        }
        self.rest.extend_from_slice(octets);
        Ok(())
    }

    fn take(&mut self, heard: Heard<'_>, judge: &Judge<'_>) -> Result<()> {
        match heard {
            Heard::Open => self.say(&messages::keepalive().into()),
            Heard::Other(KEEPALIVE, _) => {
                self.stage = Stage::Established;
                Ok(())
            }
            Heard::Update {
                withdrawn,
                attributes,
                announced,
            } => {
                self.updates += 1;
                self.note(withdrawn, false, judge)?;
                if judge.checks && !announced.is_empty() && self.counts() {
                    check(attributes, announced, judge)?;
                }
                self.note(announced, true, judge)
            }
            Heard::Other(3, body) => bail!("client {}: NOTIFICATION {body:?}", self.number),
            // Route refresh and the like.
            Heard::Other(_, _) => Ok(()),
        }
    }

    /// Marks what is said of /24s.
    fn note(&mut self, nlri: &[u8], is_there: bool, judge: &Judge<'_>) -> Result<()> {
        let own = judge.plan.of(self.number);
        let Some(has) = &mut self.has else {
            return Ok(());
        };
        for prefix in nlri.chunks(4) {
            let index = match index_of(prefix, judge.plan) {
                Ok(index) if own.contains(&index) => continue,
                Ok(index) => index,
                // The daemon's own.
                Err(_) if !judge.checks => continue,
                Err(error) => return Err(error),
            };
            let (word, bit) = (&mut has[index as usize / 64], 1 << (index % 64));
            match (is_there, *word & bit != 0) {
                (true, false) => self.count += 1,
                (false, true) => self.count -= 1,
                _ => {}
            }
            *word = if is_there { *word | bit } else { *word & !bit };
        }
        Ok(())
    }
}

fn index_of(nlri: &[u8], plan: &Plan) -> Result<u32> {
    let [24, a, b, c] = nlri else {
        bail!("no /24: {nlri:?}");
    };
    plan.index([*a, *b, *c])
        .with_context(|| format!("{a}.{b}.{c}.0/24 was never announced"))
}

/// Every prefix of the message has just these attributes.
fn check(attributes: &[u8], announced: &[u8], judge: &Judge<'_>) -> Result<()> {
    let said =
        messages::read_attributes(attributes, judge.is_relayed).map_err(anyhow::Error::msg)?;
    let mut same = 0..0;
    for prefix in announced.chunks(4) {
        let index = index_of(prefix, judge.plan)?;
        if same.contains(&index) {
            continue;
        }
        let (wanted, all) = judge.plan.set_of(index);
        ensure!(
            wanted == said,
            "prefix {index} has {said:?} instead of {wanted:?}"
        );
        same = all;
    }
    Ok(())
}
