//! One agent in a network namespace: who writes to its kernel holds the claim.
//!
//! A socket of an abstract name, which the kernel keeps per network namespace and frees when the
//! process ends: it holds whatever the run directory is, and between containers. Anybody may bind such
//! a name, so one that is held by neither root nor our own user counts for nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket,
};
use tokio::time::Instant;
use tracing::warn;

const NAME: &[u8] = b"caracal-agent";
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("another agent{} works on this network namespace; stop it first", shown(*.0))]
    Held(Option<i32>),
    #[error("failed to claim this network namespace")]
    Socket(#[from] io::Error),
}

/// Held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "the kernel looks at it")] Option<OwnedFd>);

impl Claim {
    /// Of the calling thread's network namespace.
    ///
    /// # Errors
    /// `Held` if another process of root or our user has it.
    pub fn take() -> Result<Claim, ClaimError> {
        let listener = stream_socket(SockFlag::SOCK_CLOEXEC)?;
        match bind(listener.as_raw_fd(), &address()?) {
            Ok(()) => {}
            Err(Errno::EADDRINUSE) => return ask_holder(),
            Err(error) => return Err(io_error(error)),
        }
        // Who is turned away asks who we are; nobody is answered.
        listen(&listener, Backlog::MAXCONN).map_err(io_error)?;
        Ok(Claim(Some(listener)))
    }

    /// As `take`, but gives a process that is just ending some time to be gone.
    ///
    /// # Errors
    /// As for `take`; `Held` after `patience`.
    pub async fn take_when_free(patience: Duration) -> Result<Claim, ClaimError> {
        let deadline = Instant::now() + patience;
        loop {
            match Claim::take() {
                Err(ClaimError::Held(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                outcome => return outcome,
            }
        }
    }
}

fn ask_holder() -> Result<Claim, ClaimError> {
    let asking = stream_socket(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    match connect(asking.as_raw_fd(), &address()?) {
        Ok(()) => {}
        // Not listening yet or any more, or too many ask: somebody is there.
        Err(Errno::ECONNREFUSED | Errno::EAGAIN) => return Err(ClaimError::Held(None)),
        Err(error) => return Err(io_error(error)),
    }
    let holder = getsockopt(&asking, PeerCredentials).map_err(io_error)?;
    if holder.uid() != 0 && holder.uid() != nix::unistd::geteuid().as_raw() {
        let (uid, pid) = (holder.uid(), holder.pid());
        warn!(
            uid,
            pid, "a foreign user holds the name by which a second agent would be noticed"
        );
        return Ok(Claim(None));
    }
    // 0: in a container, where we do not see it.
    Err(ClaimError::Held(Some(holder.pid()).filter(|pid| *pid != 0)))
}

fn stream_socket(flags: SockFlag) -> Result<OwnedFd, ClaimError> {
    socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(io_error)
}

fn address() -> Result<UnixAddr, ClaimError> {
    UnixAddr::new_abstract(NAME).map_err(io_error)
}

fn io_error(error: Errno) -> ClaimError {
    ClaimError::Socket(error.into())
}

fn shown(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
