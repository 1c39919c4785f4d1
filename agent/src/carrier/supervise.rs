//! Keeps a carrier running: adopts one, or starts one, and notices its end at once.
//!
//! In: where and with which parameters. Out: `CarrierStatus`. Dropping the supervisor leaves the
//! carrier running, for the next agent to adopt; `stop` ends it.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command as Process;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::control::{Command, HANDS_OVER_SINCE, Reply, Request, VERSION};
use super::counters::CounterValues;
use super::{Encapsulation, lock_path, log_path, open_lock, socket_path};
use crate::crash::crash_point;

/// A carrier answers at once; one that does not for this long is hung and replaced.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// From its start until it answers.
const START_TIME: Duration = Duration::from_secs(5);
const START_POLL: Duration = Duration::from_millis(10);
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// For a carrier that cannot be started.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// For one that ran: packets are lost while there is none, and another may well run on.
const RETRY_ENDED_MAX: Duration = Duration::from_millis(500);
/// Whoever lived that long is started again without delay.
const STABLE_TIME: Duration = Duration::from_secs(1);
/// The log of the carriers before is dropped when a new one starts and it exceeds this.
const LOG_MAX: u64 = 1 << 20;
const COUNTERS_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SupervisorOptions {
    pub run_dir: PathBuf,
    /// This node's address. A running carrier with another one is replaced.
    pub local: Ipv4Addr,
    pub encapsulation: Encapsulation,
    /// The program and the arguments in front of `--run-dir DIR --local ADDRESS
    /// --encapsulation ENCAPSULATION --take-over`.
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

impl SupervisorOptions {
    /// With this very program, `caracal-agent carrier`.
    ///
    /// # Errors
    /// If its path cannot be found out.
    pub fn new(
        run_dir: PathBuf,
        encapsulation: Encapsulation,
        local: Ipv4Addr,
    ) -> io::Result<SupervisorOptions> {
        Ok(SupervisorOptions {
            run_dir,
            local,
            encapsulation,
            program: std::env::current_exe()?,
            arguments: vec!["carrier".into()],
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CarrierStatus {
    Starting,
    Running {
        pid: u32,
        /// It ran before this agent did.
        is_adopted: bool,
        /// At most two seconds old.
        counters: CounterValues,
    },
    /// Tried again in a moment.
    Failed {
        reason: String,
    },
}

/// Owns the task that watches the carrier.
#[derive(Debug)]
pub struct Supervisor {
    options: SupervisorOptions,
    status: watch::Receiver<CarrierStatus>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Starts watching. Within a tokio runtime.
    pub fn start(options: SupervisorOptions) -> Supervisor {
        let (sender, status) = watch::channel(CarrierStatus::Starting);
        let task = tokio::spawn(supervise(options.clone(), sender));
        Supervisor {
            options,
            status,
            task,
        }
    }

    pub fn options(&self) -> &SupervisorOptions {
        &self.options
    }

    /// Changes are signalled by the receiver.
    pub fn status(&self) -> watch::Receiver<CarrierStatus> {
        self.status.clone()
    }

    /// Ends the carrier and the watching of it.
    ///
    /// # Errors
    /// As `stop`.
    pub async fn stop(mut self) -> Result<(), SuperviseError> {
        self.task.abort();
        // It may be about to start one.
        let _ = (&mut self.task).await;
        stop(&self.options.run_dir, self.options.encapsulation).await
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    #[error("failed to start {program}")]
    Spawn {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("carrier ended right after its start: {0}")]
    Ended(String),
    #[error("carrier did not answer within {0:?}")]
    Silent(Duration),
    #[error("failed to talk to the carrier")]
    Connection(#[source] io::Error),
    #[error("carrier's answer cannot be read")]
    Answer(#[source] serde_json::Error),
    #[error("carrier with pid {0} does not end")]
    Unstoppable(i32),
    #[error("carrier that holds {0} neither answers nor ends; end it by hand")]
    Stuck(PathBuf),
    #[error("failed to use {path}")]
    LockFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Ends the carrier of this encapsulation and run directory, if there is one, and waits for its end. One that does not
/// answer is killed: the kernel says who is at the other end of the socket. One that has been started
/// and does not listen yet is waited for, or finds its lock file gone and makes no device.
///
/// # Errors
/// If it is still there afterwards.
pub async fn stop(run_dir: &Path, encapsulation: Encapsulation) -> Result<(), SuperviseError> {
    let path = lock_path(run_dir, encapsulation);
    let deadline = Instant::now() + START_TIME;
    loop {
        if let Ok(connection) = Connection::open(run_dir, encapsulation).await {
            connection.stop().await?;
        }
        match retire_lock(&path) {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() >= deadline => return Err(SuperviseError::Stuck(path)),
            Ok(false) => sleep(START_POLL).await,
            Err(source) => return Err(SuperviseError::LockFile { path, source }),
        }
    }
}

/// Removes the lock file while no carrier holds it. Returns whether it is gone.
fn retire_lock(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_held) => std::fs::remove_file(path).map(|()| true),
        Err((_, Errno::EWOULDBLOCK)) => Ok(false),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// What an agent that supervises would find.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It would adopt it.
    Right,
    /// It would replace it.
    Other(String),
    /// It would start one.
    None,
}

/// Looks for the carrier of these options and changes nothing.
pub async fn look(options: &SupervisorOptions) -> Found {
    match Connection::open(&options.run_dir, options.encapsulation).await {
        Ok(mut connection) => match connection.ask(Command::Hello).await {
            Ok(reply) if is_right(&reply, options) => Found::Right,
            Ok(reply) => Found::Other(format!("one with local {}", reply.local)),
            Err(error) => Found::Other(describe(&error)),
        },
        Err(_) => Found::None,
    }
}

/// Whether a carrier of this encapsulation takes connections in the run directory.
pub async fn is_there(run_dir: &Path, encapsulation: Encapsulation) -> bool {
    Connection::open(run_dir, encapsulation).await.is_ok()
}

async fn supervise(options: SupervisorOptions, status: watch::Sender<CarrierStatus>) {
    let mut delay = RETRY_FIRST;
    loop {
        let since = Instant::now();
        let mut longest = RETRY_MAX;
        match adopt_or_start(&options).await {
            Ok((connection, reply, is_adopted)) => {
                info!(pid = reply.pid, is_adopted, "carrier is running");
                watch_carrier(connection, reply, is_adopted, &status).await;
                warn!("carrier ended");
                longest = RETRY_ENDED_MAX;
                status.send_replace(CarrierStatus::Starting);
            }
            Err(error) => {
                let reason = describe(&error);
                warn!(reason, "carrier cannot be started");
                status.send_replace(CarrierStatus::Failed { reason });
            }
        }
        if since.elapsed() >= STABLE_TIME {
            delay = RETRY_FIRST;
            continue;
        }
        sleep(delay.min(longest)).await;
        delay = (delay * 2).min(longest);
    }
}

async fn adopt_or_start(
    options: &SupervisorOptions,
) -> Result<(Connection, Reply, bool), SuperviseError> {
    if let Ok(mut connection) = Connection::open(&options.run_dir, options.encapsulation).await {
        match connection.ask(Command::Hello).await {
            Ok(reply) if is_right(&reply, options) => return Ok((connection, reply, true)),
            Ok(reply) => {
                info!(pid = reply.pid, local = %reply.local, version = reply.version, "replacing the carrier");
                // The one that is started takes over from it.
                if !can_hand_over(&reply, options) {
                    connection.stop().await?;
                }
            }
            Err(error) => {
                let reason = describe(&error);
                warn!(reason, "replacing a carrier that does not answer");
                connection.stop().await?;
            }
        }
    }
    let (connection, reply) = start(options).await?;
    Ok((connection, reply, false))
}

fn is_right(reply: &Reply, options: &SupervisorOptions) -> bool {
    reply.version == VERSION && can_hand_over(reply, options)
}

/// Whether a carrier of ours can go on with what this one has open.
fn can_hand_over(reply: &Reply, options: &SupervisorOptions) -> bool {
    reply.version >= HANDS_OVER_SINCE
        && reply.local == options.local
        && reply.device == options.encapsulation.device()
}

/// Returns when the carrier is gone. Asks for its counters now and then.
async fn watch_carrier(
    mut connection: Connection,
    reply: Reply,
    is_adopted: bool,
    status: &watch::Sender<CarrierStatus>,
) {
    let pid = reply.pid;
    let mut counters = reply.counters;
    loop {
        status.send_replace(CarrierStatus::Running {
            pid,
            is_adopted,
            counters,
        });
        // A carrier sends nothing unasked: what comes before the time is its end.
        let mut line = String::new();
        if timeout(COUNTERS_INTERVAL, connection.stream.read_line(&mut line))
            .await
            .is_ok()
        {
            return;
        }
        match connection.ask(Command::Hello).await {
            Ok(reply) => counters = reply.counters,
            Err(error) => {
                warn!(pid, reason = describe(&error), "carrier does not answer");
                return;
            }
        }
    }
}

async fn start(options: &SupervisorOptions) -> Result<(Connection, Reply), SuperviseError> {
    let spawn_failed = |source| SuperviseError::Spawn {
        program: options.program.clone(),
        source,
    };
    let log = open_log(options).map_err(spawn_failed)?;
    // Whoever wants no carrier takes it away; the one that is started here then ends.
    let lock = lock_path(&options.run_dir, options.encapsulation);
    open_lock(&lock, true).map_err(spawn_failed)?;
    let mut child = Process::new(&options.program)
        .args(&options.arguments)
        .arg("--run-dir")
        .arg(&options.run_dir)
        .arg("--local")
        .arg(options.local.to_string())
        .arg("--encapsulation")
        .arg(options.encapsulation.name())
        .arg("--take-over")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(spawn_failed)?)
        .stderr(log)
        .kill_on_drop(false)
        .spawn()
        .map_err(spawn_failed)?;
    crash_point(format_args!("carrier started"));
    let deadline = Instant::now() + START_TIME;
    loop {
        if let Ok(mut connection) = Connection::open(&options.run_dir, options.encapsulation).await
            && let Ok(reply) = connection.ask(Command::Hello).await
            && is_right(&reply, options)
        {
            // Somebody has to take note of its end, or it stays as a zombie.
            tokio::spawn(async move { child.wait().await });
            return Ok((connection, reply));
        }
        if let Ok(Some(exit)) = child.try_wait() {
            let last = last_line(options).unwrap_or_default();
            return Err(SuperviseError::Ended(format!("{exit}: {last}")));
        }
        if Instant::now() >= deadline {
            let _ = child.kill().await;
            return Err(SuperviseError::Silent(START_TIME));
        }
        sleep(START_POLL).await;
    }
}

fn open_log(options: &SupervisorOptions) -> io::Result<File> {
    let path = log_path(&options.run_dir, options.encapsulation);
    let is_long = std::fs::metadata(&path).is_ok_and(|file| file.len() > LOG_MAX);
    if is_long {
        std::fs::remove_file(&path)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn last_line(options: &SupervisorOptions) -> Option<String> {
    let path = log_path(&options.run_dir, options.encapsulation);
    let text = std::fs::read_to_string(path).ok()?;
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .map(str::to_owned)
}

struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    async fn open(run_dir: &Path, encapsulation: Encapsulation) -> io::Result<Connection> {
        let stream = UnixStream::connect(socket_path(run_dir, encapsulation)).await?;
        Ok(Connection {
            stream: BufReader::new(stream),
        })
    }

    async fn ask(&mut self, command: Command) -> Result<Reply, SuperviseError> {
        let mut line = serde_json::to_string(&Request {
            version: VERSION,
            command,
        })
        .map_err(SuperviseError::Answer)?;
        line.push('\n');
        let exchange = async {
            self.stream.write_all(line.as_bytes()).await?;
            let mut answer = String::new();
            match self.stream.read_line(&mut answer).await? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(answer),
            }
        };
        let answer = timeout(ANSWER_TIME, exchange)
            .await
            .map_err(|_| SuperviseError::Silent(ANSWER_TIME))?
            .map_err(SuperviseError::Connection)?;
        serde_json::from_str(&answer).map_err(SuperviseError::Answer)
    }

    /// Asks the carrier to end, waits for the end of the connection, and kills it if need be.
    async fn stop(mut self) -> Result<(), SuperviseError> {
        let pid = self
            .stream
            .get_ref()
            .peer_cred()
            .ok()
            .and_then(|peer| peer.pid());
        let _ = self.ask(Command::Stop).await;
        crash_point(format_args!("carrier told to stop"));
        if self.ends_within(ANSWER_TIME).await {
            return Ok(());
        }
        // The connection is still open, so the pid is still the carrier's.
        let Some(pid) = pid else {
            return Err(SuperviseError::Silent(ANSWER_TIME));
        };
        warn!(pid, "killing a carrier that does not stop");
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        match self.ends_within(ANSWER_TIME).await {
            true => Ok(()),
            false => Err(SuperviseError::Unstoppable(pid)),
        }
    }

    async fn ends_within(&mut self, time: Duration) -> bool {
        let end = async {
            let mut line = String::new();
            while matches!(self.stream.read_line(&mut line).await, Ok(length) if length > 0) {
                line.clear();
            }
        };
        timeout(time, end).await.is_ok()
    }
}

/// The error with its causes.
fn describe(error: &SuperviseError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
