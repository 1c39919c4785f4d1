//! Runs nft, and iptables for what nft does not see: bounded in time and in what they say.
//!
//! In: arguments and a script. Out: what it printed, or why it did not do it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::crash::crash_point;

/// A transaction of many thousand elements takes a second on a slow machine.
const LONGEST: Duration = Duration::from_secs(10);
/// Some 100 octets an element: a hundred thousand workloads.
const OUTPUT_MAX: usize = 32 << 20;
/// Of what nft complains, the first words say what is wrong.
const COMPLAINT_MAX: usize = 400;
/// Debian's users have no sbin in their path.
const OTHER_PLACES: [&str; 2] = ["/usr/sbin", "/sbin"];
const END_POLL: Duration = Duration::from_micros(100);

#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("there is no {0}; install the package {package}", package = package_of(.0))]
    Missing(String),
    #[error("failed to run it: {0}")]
    Run(#[source] io::Error),
    #[error("it did not end within {0:?} and was killed")]
    Hung(Duration),
    #[error("it printed more than {OUTPUT_MAX} octets and was killed")]
    TooMuch,
    /// It has neither the netlink family nor `inet` tables.
    #[error("this kernel has no nftables for inet (nf_tables, NF_TABLES_INET): {0}")]
    Unsupported(String),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
}

impl ProgramError {
    /// Nothing of ours can be in nftables.
    pub fn has_no_tables(&self) -> bool {
        matches!(
            self,
            ProgramError::Missing(_) | ProgramError::Unsupported(_)
        )
    }

    /// What was asked about is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ProgramError::Refused(reason) if reason.contains("No such file or directory"))
    }
}

/// Runs `program ARGUMENTS` with `script` as its input. `started` gets its process id, usually
/// before the kernel tells anybody what it did.
///
/// # Errors
/// Why it did not do what it was asked; the whole of a script is then not done.
pub fn run(
    program: &Path,
    arguments: &[&str],
    script: &str,
    started: impl FnOnce(u32),
) -> Result<String, ProgramError> {
    // A file, not a pipe: if we are killed while writing, nft must not take half a script for all.
    let input = in_memory(script).map_err(ProgramError::Run)?;
    let mut child = spawn(program, arguments, input)?;
    started(child.id());
    let does_write = !script.is_empty();
    if does_write {
        crash_point(format_args!("{} started", program.display()));
    }
    let collected = collect(&mut child, LONGEST);
    if collected.is_err() {
        // It may have ended just now; either way it is gone after this.
        let _ = child.kill();
        let _ = child.wait();
    }
    let Outcome {
        is_success,
        output,
        complaint,
    } = collected?;
    if does_write {
        crash_point(format_args!("{} ended", program.display()));
    }
    if !is_success {
        return Err(refusal(&complaint));
    }
    String::from_utf8(output).map_err(|error| ProgramError::Answer(error.to_string()))
}

struct Outcome {
    is_success: bool,
    output: Vec<u8>,
    complaint: Vec<u8>,
}

fn in_memory(script: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("nft script", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(script.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn spawn(program: &Path, arguments: &[&str], input: File) -> Result<Child, ProgramError> {
    let is_path = program.components().count() > 1;
    let others = OTHER_PLACES.iter().filter(|_| !is_path);
    let others = others.map(|place| Path::new(place).join(program));
    for place in [program.to_owned()].into_iter().chain(others) {
        let started = Command::new(place)
            .args(arguments)
            // Its complaints are read.
            .env("LC_ALL", "C")
            .stdin(input.try_clone().map_err(ProgramError::Run)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            started => return started.map_err(ProgramError::Run),
        }
    }
    Err(ProgramError::Missing(program.display().to_string()))
}

/// Reads both outputs until the program ends.
fn collect(child: &mut Child, longest: Duration) -> Result<Outcome, ProgramError> {
    let deadline = Instant::now() + longest;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(ProgramError::Answer("its output was not piped".to_owned()));
    };
    let mut output = Vec::new();
    let mut complaint = Vec::new();
    let (mut stdout, mut stderr) = (Some(stdout), Some(stderr));
    while stdout.is_some() || stderr.is_some() {
        let mut waited: Vec<PollFd<'_>> = Vec::new();
        waited.extend(
            stdout
                .as_ref()
                .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
        );
        waited.extend(
            stderr
                .as_ref()
                .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
        );
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut waited, timeout) {
            Ok(0) => return Err(ProgramError::Hung(longest)),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(ProgramError::Run(errno.into())),
        }
        let mut ready = waited
            .iter()
            .map(|one| one.any().unwrap_or(true))
            .collect::<Vec<bool>>()
            .into_iter();
        let is_out = stdout.is_some() && ready.next() == Some(true);
        let is_err = stderr.is_some() && ready.next() == Some(true);
        if is_out && read_some(&mut stdout, &mut output)? {
            stdout = None;
        }
        if is_err && read_some(&mut stderr, &mut complaint)? {
            stderr = None;
        }
    }
    loop {
        match child.try_wait().map_err(ProgramError::Run)? {
            Some(status) => {
                return Ok(Outcome {
                    is_success: status.success(),
                    output,
                    complaint,
                });
            }
            None if Instant::now() >= deadline => return Err(ProgramError::Hung(longest)),
            None => std::thread::sleep(END_POLL),
        }
    }
}

/// Returns whether the end was reached.
fn read_some(pipe: &mut Option<impl Read>, text: &mut Vec<u8>) -> Result<bool, ProgramError> {
    let mut buffer = [0; 64 * 1024];
    let Some(pipe) = pipe else { return Ok(true) };
    match pipe.read(&mut buffer) {
        Ok(0) => Ok(true),
        Ok(length) => {
            text.extend_from_slice(buffer.get(..length).unwrap_or_default());
            if text.len() > OUTPUT_MAX {
                return Err(ProgramError::TooMuch);
            }
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(ProgramError::Run(error)),
    }
}

/// What Debian calls it.
fn package_of(program: &str) -> &'static str {
    if program.contains("iptables") {
        "iptables"
    } else {
        "nftables"
    }
}

fn refusal(complaint: &[u8]) -> ProgramError {
    let text = String::from_utf8_lossy(complaint);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut reason = lines.join("; ");
    if reason.len() > COMPLAINT_MAX {
        let end = (0..=COMPLAINT_MAX)
            .rev()
            .find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or_default());
    }
    let is_unsupported = ["Operation not supported", "Protocol not supported"]
        .iter()
        .any(|words| reason.contains(words));
    if is_unsupported {
        return ProgramError::Unsupported(reason);
    }
    ProgramError::Refused(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<String, ProgramError> {
        run(Path::new("/bin/sh"), &["-c", script], "input", drop)
    }

    #[test]
    fn programs_are_understood_by_how_they_end() {
        assert_eq!(sh("cat").expect("reads its input"), "input");
        let refused = sh("echo 'Error: No such file or directory' >&2; exit 1");
        assert!(refused.is_err_and(|error| error.is_not_found()));
        let unsupported = sh("echo 'Error: Operation not supported' >&2; exit 1");
        assert!(unsupported.is_err_and(|error| error.has_no_tables()));
        let missing = run(Path::new("/nonexistent/nft"), &[], "", drop);
        assert!(
            matches!(missing, Err(ProgramError::Missing(_))),
            "{missing:?}"
        );
    }

    #[test]
    fn one_that_does_not_end_is_given_up() {
        for script in ["exec sleep 60", "exec sleep 60 >&- 2>&-"] {
            let input = in_memory("").expect("a file in memory");
            let mut child = spawn(Path::new("/bin/sh"), &["-c", script], input).expect("starts");
            let collected = collect(&mut child, Duration::from_millis(50));
            let is_hung = matches!(collected, Err(ProgramError::Hung(_)));
            child.kill().expect("it runs");
            child.wait().expect("it ends");
            assert!(is_hung, "{script}");
        }
    }

    #[test]
    fn endless_output_ends_with_the_program() {
        let endless = sh("exec cat /dev/zero");
        assert!(matches!(endless, Err(ProgramError::TooMuch)), "{endless:?}");
    }

    #[test]
    fn long_complaints_are_cut() {
        let long = "ü".repeat(COMPLAINT_MAX);
        let ProgramError::Refused(reason) = refusal(long.as_bytes()) else {
            panic!("a refusal");
        };
        assert_eq!(reason.len(), COMPLAINT_MAX);
    }
}
