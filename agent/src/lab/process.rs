//! Processes of the lab: started, waited for and ended by their own id.
//!
//! A process id is used again by the kernel, so a process is known by its id and its start time,
//! and nothing else is ever signalled.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::error::{LabError, Result};
use super::interrupt;
use super::netns::Namespace;

/// How often a condition is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub name: String,
    pub pid: i32,
    /// In clock ticks since boot, from /proc/PID/stat.
    pub start_time: u64,
}

impl Process {
    /// The running process `pid`.
    ///
    /// # Errors
    /// `Io` if there is none.
    pub fn of(name: &str, pid: u32) -> Result<Process> {
        let pid = i32::try_from(pid).expect("the kernel's process ids fit an i32");
        let start_time = start_time(pid).ok_or_else(|| LabError::Command {
            command: name.to_owned(),
            reason: "it ended at once".to_owned(),
        })?;
        Ok(Process {
            name: name.to_owned(),
            pid,
            start_time,
        })
    }

    pub fn this() -> Result<Process> {
        Process::of("lab", std::process::id())
    }

    /// Whether it still runs. A dead one that nobody has waited for does not count.
    pub fn is_running(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// Sends a signal if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may end between the look and the signal: then there is nothing to do.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until it is gone; takes its exit status if it is a child of ours.
    ///
    /// # Errors
    /// `NotReached` if it still runs at the deadline.
    pub fn wait_gone(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let waited = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
            // A child is gone when it can be waited for; before, some of its threads may still run.
            let is_gone = waited != Ok(WaitStatus::StillAlive) && !self.is_running();
            if is_gone {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(LabError::NotReached {
                    what: format!("the end of {} (process {})", self.name, self.pid),
                    waited: timeout,
                    evidence: "it still runs".to_owned(),
                });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Field 22 of /proc/PID/stat; `None` for a process that is gone or a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if (state == "Z" || state == "X") && threads(pid) <= 1 {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A killed process is a zombie as soon as its first thread has ended; its sockets are open until
/// the last one has.
fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Every process that lives in one of these network namespaces (kernel names).
pub fn in_namespaces(kernel_names: &[std::path::PathBuf]) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|name| kernel_names.contains(&name))
        })
        .filter_map(|pid| Process::of("lab member", pid).ok())
        .collect()
}

/// Starts a long-running program of the lab; what it prints goes to `log`.
pub fn start(
    name: &str,
    namespace: &Namespace,
    command: &mut Command,
    log: &Path,
) -> Result<Process> {
    let open = || {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(LabError::io(format!("open {}", log.display())))
    };
    command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
    isolate(command);
    let child = namespace.spawn(command)?;
    Process::of(name, child.id())
}

/// Ctrl-C reaches the whole foreground process group. Only the lab itself shall hear it.
fn isolate(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end, with `input` as its standard input, and kills it at the timeout.
///
/// # Errors
/// `Command` if it could not be started or took too long. An exit status other than 0 is no error.
pub fn run(
    namespace: Option<&Namespace>,
    command: &mut Command,
    input: &str,
    timeout: Duration,
) -> Result<Finished> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    isolate(command);
    let shown = shown(command);
    let failed = |reason: String| LabError::Command {
        command: shown.clone(),
        reason,
    };
    let mut child = match namespace {
        Some(namespace) => namespace.spawn(command)?,
        None => command.spawn().map_err(|error| failed(error.to_string()))?,
    };
    let process = Process::of(&shown, child.id()).ok();
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input may close it early.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    let deadline = Instant::now() + timeout;
    let output = loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(output) => break output.map_err(|error| failed(error.to_string()))?,
            Err(_) if interrupt::was_interrupted() || Instant::now() >= deadline => {
                if let Some(process) = process {
                    process.signal(Signal::SIGKILL);
                }
                interrupt::check()?;
                return Err(failed(format!("no end after {} s", timeout.as_secs_f32())));
            }
            Err(_) => {}
        }
    };
    Ok(Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Like `run`, where any exit status but 0 is an error; returns standard output.
pub fn output(
    namespace: Option<&Namespace>,
    command: &mut Command,
    input: &str,
    timeout: Duration,
) -> Result<String> {
    let finished = run(namespace, command, input, timeout)?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    let said = [finished.stderr.trim(), finished.stdout.trim()].join(" ");
    Err(LabError::Command {
        command: shown(command),
        reason: format!("{}: {}", finished.status, said.trim()),
    })
}

/// Looks at a condition every 20 ms until it holds. `look` returns what is still missing.
///
/// # Errors
/// `NotReached` with what was missing at the last look; `Interrupted`.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<String>>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        interrupt::check()?;
        // A look may take long on a busy machine: what it saw is as old as its begin.
        let is_last = start.elapsed() >= timeout;
        let Some(missing) = look()? else {
            return Ok(());
        };
        if is_last {
            return Err(LabError::NotReached {
                what: what.to_owned(),
                waited: timeout,
                evidence: missing,
            });
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
