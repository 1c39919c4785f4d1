//! A blocking HTTP/1.1 client for our own unix sockets: one request per connection, bounded in
//! time and size. No runtime, so that the CNI plugin starts fast.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::de::DeserializeOwned;

use super::schema::ErrorBody;

const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// A reflector's full table is some hundred megabytes.
const DEFAULT_MAX_BODY: usize = 2 * 1024 * 1024 * 1024;
const MAX_HEAD: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("failed to connect to {}", .socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the connection to {} broke", .socket.display())]
    Broken {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} did not answer within {} s", .socket.display(), .deadline.as_secs_f32())]
    TimedOut { socket: PathBuf, deadline: Duration },
    #[error("{} does not speak our protocol: {reason}", .socket.display())]
    Unintelligible { socket: PathBuf, reason: String },
    #[error("refused with HTTP status {status}: {reason}")]
    Refused { status: u16, reason: String },
}

#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
    max_body: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        Client {
            socket: socket.to_owned(),
            deadline: DEFAULT_DEADLINE,
            max_body: DEFAULT_MAX_BODY,
        }
    }

    /// How long connecting, sending and the whole answer may take together.
    pub fn deadline(mut self, deadline: Duration) -> Client {
        self.deadline = deadline;
        self
    }

    /// Longest accepted body, in bytes.
    pub fn max_body(mut self, bytes: usize) -> Client {
        self.max_body = bytes;
        self
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// GET of `target` (path and query, already in URL form), its body read as JSON.
    ///
    /// # Errors
    /// Also `Refused` with the reason given, for a status other than 200.
    pub fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let answer = self.exchange("GET", target, &[], None)?;
        self.read(&answer)
    }

    /// The body of an answer read as JSON.
    ///
    /// # Errors
    /// `Refused` with the reason given, for a status other than 200.
    pub fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        if answer.status != 200 {
            let reason = match serde_json::from_slice::<ErrorBody>(&answer.body) {
                Ok(body) => body.error,
                Err(_) => String::from_utf8_lossy(&answer.body).into_owned(),
            };
            return Err(ClientError::Refused {
                status: answer.status,
                reason,
            });
        }
        serde_json::from_slice(&answer.body).map_err(|error| self.unintelligible(error.to_string()))
    }

    /// POST of a JSON `body`; `passed` goes along with the first bytes.
    ///
    /// # Errors
    /// If there is no HTTP answer; its status is the caller's to judge.
    pub fn post(
        &self,
        target: &str,
        body: &[u8],
        passed: Option<BorrowedFd<'_>>,
    ) -> Result<Answer, ClientError> {
        self.exchange("POST", target, body, passed)
    }

    fn exchange(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
        passed: Option<BorrowedFd<'_>>,
    ) -> Result<Answer, ClientError> {
        let until = Instant::now() + self.deadline;
        let stream = self.connect()?;
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nhost: caracal\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.send(&stream, &request, passed, until)?;
        let bytes = self.receive(&stream, until)?;
        parse_answer(&bytes, self.max_body).map_err(|reason| self.unintelligible(reason))
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            socket: self.socket.clone(),
            source,
        };
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)
            .map_err(unreachable)?;
        // Also bounds connecting, which waits if the listener's backlog is full.
        socket
            .set_write_timeout(Some(self.deadline))
            .map_err(unreachable)?;
        let address = socket2::SockAddr::unix(&self.socket).map_err(unreachable)?;
        socket.connect(&address).map_err(unreachable)?;
        Ok(UnixStream::from(socket))
    }

    fn send(
        &self,
        mut stream: &UnixStream,
        request: &[u8],
        passed: Option<BorrowedFd<'_>>,
        until: Instant,
    ) -> Result<(), ClientError> {
        let failed = |source| self.failed(source);
        stream
            .set_write_timeout(Some(self.left(until)?))
            .map_err(failed)?;
        let Some(passed) = passed else {
            return stream.write_all(request).map_err(failed);
        };
        let numbers = [passed.as_raw_fd()];
        let sent = sendmsg::<()>(
            stream.as_raw_fd(),
            &[IoSlice::new(request)],
            &[ControlMessage::ScmRights(&numbers)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map_err(|error| failed(error.into()))?;
        let rest = request.get(sent..).unwrap_or_default();
        stream.write_all(rest).map_err(failed)
    }

    fn receive(&self, mut stream: &UnixStream, until: Instant) -> Result<Vec<u8>, ClientError> {
        let limit = self.max_body.saturating_add(MAX_HEAD);
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let left = self.left(until)?;
            stream
                .set_read_timeout(Some(left))
                .map_err(|source| self.failed(source))?;
            let length = match stream.read(&mut chunk) {
                Ok(0) => return Ok(bytes),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            bytes.extend_from_slice(chunk.get(..length).unwrap_or_default());
            if bytes.len() > limit {
                return Err(self.unintelligible(format!("its answer exceeds {limit} bytes")));
            }
        }
    }

    fn left(&self, until: Instant) -> Result<Duration, ClientError> {
        let left = until.saturating_duration_since(Instant::now());
        // Zero would mean without a limit.
        if left.is_zero() {
            return Err(self.timed_out());
        }
        Ok(left)
    }

    fn failed(&self, source: io::Error) -> ClientError {
        // What SO_RCVTIMEO and SO_SNDTIMEO end with.
        if matches!(
            source.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ) {
            return self.timed_out();
        }
        ClientError::Broken {
            socket: self.socket.clone(),
            source,
        }
    }

    fn timed_out(&self) -> ClientError {
        ClientError::TimedOut {
            socket: self.socket.clone(),
            deadline: self.deadline,
        }
    }

    fn unintelligible(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Unintelligible {
            socket: self.socket.clone(),
            reason: reason.into(),
        }
    }
}

/// Takes apart a whole answer. Our servers always know the length of what they send, so the chunked
/// coding is not understood here.
fn parse_answer(bytes: &[u8], max_body: usize) -> Result<Answer, String> {
    let head_end = bytes
        .windows(4)
        .take(MAX_HEAD)
        .position(|four| four == b"\r\n\r\n")
        .ok_or("its answer has no end of head")?;
    let (head, rest) = bytes.split_at(head_end);
    let body = rest.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| "the head of its answer is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or("its answer is not HTTP/1")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse::<usize>().ok())
        .ok_or("its answer has no length")?;
    if length > max_body {
        return Err(format!("its answer exceeds {max_body} bytes"));
    }
    let body = body
        .get(..length)
        .ok_or_else(|| format!("its answer ended after {} of {length} bytes", body.len()))?;
    Ok(Answer {
        status,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        for (name, bytes, expected) in [
            (
                "whole",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Ok((200, "ok")),
            ),
            (
                "no reason",
                "HTTP/1.1 404\r\ncontent-length:0\r\n\r\n",
                Ok((404, "")),
            ),
            (
                "cut short",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
                Err(()),
            ),
            (
                "too long",
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789",
                Err(()),
            ),
            ("no length", "HTTP/1.1 200 OK\r\n\r\nok", Err(())),
            (
                "bad length",
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
                Err(()),
            ),
            ("no head", "HTTP/1.1 200 OK\r\n", Err(())),
            (
                "not HTTP",
                "SSH-2.0-x\r\nContent-Length: 0\r\n\r\n",
                Err(()),
            ),
            ("nothing", "", Err(())),
        ] {
            let answer = parse_answer(bytes.as_bytes(), 8);
            let got = answer.as_ref().map_err(|_| ()).map(|answer| {
                (
                    answer.status,
                    std::str::from_utf8(&answer.body).expect("ascii"),
                )
            });
            assert_eq!(got, expected, "{name}");
        }
    }
}
