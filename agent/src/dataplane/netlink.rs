//! One rtnetlink socket: requests with their acknowledgement, batches, dumps.
//!
//! In: messages of `netlink-packet-route`. Out: the kernel's answers. Blocking, for the dataplane's
//! own thread. It decides nothing and knows no object; routes, links and neighbours have their own
//! modules. Multicast notifications are `monitor`'s.

use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use tracing::debug;

use super::rehearsal::Rehearsal;
use crate::crash::crash_point;

/// Requests per send. Beyond some 64 little is gained.
const BATCH: usize = 128;
/// A dump that the kernel marks as inconsistent is read again this often, after a pause that grows
/// with each time: while hundreds of workloads come at once, tables hold still only for moments.
const DUMP_ATTEMPTS: u32 = 40;
const DUMP_PAUSE: Duration = Duration::from_micros(200);
/// The kernel answers at once, unless its one lock is held elsewhere, as while many namespaces are
/// removed. After this an error is better than a hang.
const ANSWER_TIMEOUT_SECS: i64 = 30;
/// More than the kernel ever puts into one datagram of a dump (32 KiB).
const RECEIVE_BUFFER: usize = 128 * 1024;
const HEADER: usize = 16;
/// `nlmsg_flags` in a header.
const FLAGS: Range<usize> = 6..8;
/// Attribute of an extended acknowledgement that carries the kernel's own words.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The kernel's no to one request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Refusal {
    pub errno: Errno,
    /// The kernel's explanation, where it gave one.
    pub explanation: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.explanation {
            Some(explanation) => {
                write!(f, "{} ({})", explanation.trim_end_matches('.'), self.errno)
            }
            None => write!(f, "{}", self.errno.desc().to_lowercase()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("netlink socket failed")]
    Socket(#[source] io::Error),
    #[error("kernel refused: {0}")]
    Refused(Refusal),
    #[error("dump of {what} changed under way {DUMP_ATTEMPTS} times")]
    Interrupted { what: &'static str },
    #[error("netlink answer cannot be read: {0}")]
    Malformed(String),
}

impl NetlinkError {
    /// The kernel's error number, if the kernel answered at all.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused(refusal) => Some(refusal.errno),
            NetlinkError::Socket(_)
            | NetlinkError::Interrupted { .. }
            | NetlinkError::Malformed(_) => None,
        }
    }
}

/// What can be asked of the kernel: one netlink message.
pub trait Ask {
    /// `RTM_*`, and `NLM_F_*` beyond REQUEST and ACK.
    fn kind(&self) -> (u16, u16);

    /// Appends what follows the message's header.
    fn put(&self, out: &mut Vec<u8>);
}

/// A request with its `NLM_F_*` flags beyond REQUEST and ACK.
pub struct Request {
    pub message: RouteNetlinkMessage,
    pub flags: u16,
}

impl Ask for Request {
    fn kind(&self) -> (u16, u16) {
        (self.message.message_type(), self.flags)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.message.buffer_len(), 0);
        self.message.serialize(&mut out[start..]);
    }
}

/// A blocking rtnetlink socket of the network namespace it was opened in.
pub struct Netlink {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
    /// Requests acknowledged without error since open.
    writes: u64,
    rehearsal: Rehearsal,
    /// What a rehearsal did not send.
    held_back: Vec<Request>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. It stays there.
    ///
    /// # Errors
    /// `Socket` if the system refuses the socket.
    pub fn open() -> Result<Netlink, NetlinkError> {
        Netlink::open_for(Rehearsal::default())
    }

    /// The same. In a rehearsal requests that change something are kept, not sent, and answered as
    /// if the kernel had taken them.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_for(rehearsal: Rehearsal) -> Result<Netlink, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Socket)?;
        let port = socket
            .bind_auto()
            .map_err(NetlinkError::Socket)?
            .port_number();
        // Old kernels lack some of these. Without them errors are terser and dumps unfiltered,
        // which the readers tolerate.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        let _ = socket.set_rx_buf_sz(4_i32 << 20);
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(ANSWER_TIMEOUT_SECS),
        )
        .map_err(|errno| NetlinkError::Socket(errno.into()))?;
        Ok(Netlink {
            socket,
            port,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            writes: 0,
            rehearsal,
            held_back: Vec::new(),
        })
    }

    pub fn rehearsal(&self) -> &Rehearsal {
        &self.rehearsal
    }

    /// What was not sent, in order.
    pub fn held_back(&self) -> &[Request] {
        &self.held_back
    }

    /// Marks notifications that this socket caused.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Changes made through this socket since it was opened.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Sends one request and waits for its acknowledgement.
    ///
    /// # Errors
    /// `Refused` with the kernel's reason, `Socket` if there was no answer.
    pub fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.ask(&Request { message, flags })
    }

    /// As `request`.
    ///
    /// # Errors
    /// As `request`.
    pub fn ask(&mut self, request: &impl Ask) -> Result<(), NetlinkError> {
        match self.batch(std::iter::once(request))?.pop() {
            Some(Ok(())) => Ok(()),
            Some(Err(refusal)) => Err(NetlinkError::Refused(refusal)),
            None => Err(NetlinkError::Malformed("no answer".into())),
        }
    }

    /// Sends requests, 128 at a time, and returns one answer for each, in order. A refused request
    /// does not stop the others.
    ///
    /// # Errors
    /// `Socket` if sending or receiving failed; what became of the requests is then unknown.
    pub fn batch<'a, A: Ask + 'a>(
        &mut self,
        requests: impl IntoIterator<Item = &'a A>,
    ) -> Result<Vec<Result<(), Refusal>>, NetlinkError> {
        if self.rehearsal.is_on() {
            let requests = requests.into_iter();
            return requests.map(|request| self.hold_back(request)).collect();
        }
        let mut answers = Vec::new();
        let mut requests = requests.into_iter().peekable();
        let mut outgoing = Vec::with_capacity(BATCH * 96);
        while requests.peek().is_some() {
            outgoing.clear();
            let first = self.sequence.wrapping_add(1);
            let mut count = 0;
            let mut last = 0;
            for request in requests.by_ref().take(BATCH) {
                last = outgoing.len();
                self.sequence = self.sequence.wrapping_add(1);
                encode(&mut outgoing, request, self.sequence);
                count += 1;
            }
            // The kernel works them off in order and speaks up about each that it refuses, so the
            // last one's answer is that of all which it did not speak of.
            add_flag(&mut outgoing[last..], NLM_F_ACK);
            self.send(&outgoing)?;
            self.collect_answers(first, count, &mut answers)?;
            crash_point(format_args!("{count} kernel requests"));
        }
        self.writes += answers.iter().filter(|answer| answer.is_ok()).count() as u64;
        Ok(answers)
    }

    /// Keeps the request as the kernel would have read it.
    fn hold_back(&mut self, request: &impl Ask) -> Result<Result<(), Refusal>, NetlinkError> {
        let mut bytes = Vec::new();
        encode(&mut bytes, request, 0);
        let (_, flags) = request.kind();
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes) {
            Ok(NetlinkMessage {
                payload: NetlinkPayload::InnerMessage(message),
                ..
            }) => {
                self.held_back.push(Request { message, flags });
                Ok(Ok(()))
            }
            Ok(_) => Err(NetlinkError::Malformed("a request that is none".into())),
            Err(error) => Err(NetlinkError::Malformed(error.to_string())),
        }
    }

    /// Reads all objects that `message` asks for.
    ///
    /// # Errors
    /// As `dump_as`.
    pub fn dump(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.dump_as(what, message, Some)
    }

    /// Reads all objects that `message` asks for, each as what `take` makes of it.
    ///
    /// # Errors
    /// As `dump_parts`.
    pub fn dump_as<T>(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        mut take: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let request = Request { message, flags: 0 };
        self.dump_parts(what, &request, |part| {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(part.bytes) {
                Ok(NetlinkMessage {
                    payload: NetlinkPayload::InnerMessage(object),
                    ..
                }) => take(object),
                Ok(_) => None,
                // One object of an unknown kind must not hide all the others.
                Err(error) => {
                    debug!(%error, "object in a dump cannot be decoded");
                    None
                }
            }
        })
    }

    /// Reads the messages of all objects that `request` asks for, each as what `take` makes of it. A
    /// dump during which the kernel's tables changed is read again.
    ///
    /// # Errors
    /// `Interrupted` if the tables never held still, else as `request`.
    pub fn dump_parts<T>(
        &mut self,
        what: &'static str,
        request: &impl Ask,
        mut take: impl FnMut(&Part<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for attempt in 0..DUMP_ATTEMPTS {
            std::thread::sleep(DUMP_PAUSE * attempt);
            match self.dump_once(request, &mut take) {
                Ok(Some(objects)) => return Ok(objects),
                Ok(None) => debug!(what, "dump was interrupted, reading again"),
                Err(error) if error.errno() == Some(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NetlinkError::Interrupted { what })
    }

    /// Reads the one object that `message` names.
    ///
    /// # Errors
    /// As `request`; `Refused` with what the kernel says of an object that does not exist.
    pub fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut outgoing = Vec::new();
        encode(&mut outgoing, &Request { message, flags: 0 }, sequence);
        self.send(&outgoing)?;
        loop {
            self.receive()?;
            for part in Parts::new(&self.buffer) {
                let part = part?;
                if part.sequence != sequence {
                    continue;
                }
                if part.kind == NLMSG_ERROR {
                    return match part.refusal() {
                        Some(refusal) => Err(NetlinkError::Refused(refusal)),
                        None => Ok(None),
                    };
                }
                return match NetlinkMessage::<RouteNetlinkMessage>::deserialize(part.bytes) {
                    Ok(NetlinkMessage {
                        payload: NetlinkPayload::InnerMessage(object),
                        ..
                    }) => Ok(Some(object)),
                    Ok(_) => Ok(None),
                    Err(error) => {
                        debug!(%error, "object cannot be decoded");
                        Ok(None)
                    }
                };
            }
        }
    }

    /// `None`: the dump is inconsistent (NLM_F_DUMP_INTR).
    fn dump_once<T>(
        &mut self,
        request: &impl Ask,
        take: &mut impl FnMut(&Part<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut outgoing = Vec::new();
        encode(&mut outgoing, request, sequence);
        add_flag(&mut outgoing, NLM_F_DUMP);
        self.send(&outgoing)?;
        let mut objects = Vec::new();
        let mut is_consistent = true;
        loop {
            self.receive()?;
            for part in Parts::new(&self.buffer) {
                let part = part?;
                if part.sequence != sequence {
                    continue;
                }
                is_consistent &= part.flags & NLM_F_DUMP_INTR == 0;
                match part.kind {
                    // DONE carries an error too: it is how a filtered dump of a missing table ends.
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match part.refusal() {
                            Some(refusal) => Err(NetlinkError::Refused(refusal)),
                            None => Ok(is_consistent.then_some(objects)),
                        };
                    }
                    _ => objects.extend(take(&part)),
                }
            }
        }
    }

    fn collect_answers(
        &mut self,
        first: u32,
        count: usize,
        answers: &mut Vec<Result<(), Refusal>>,
    ) -> Result<(), NetlinkError> {
        let start = answers.len();
        answers.resize(start + count, Ok(()));
        loop {
            self.receive()?;
            for part in Parts::new(&self.buffer) {
                let part = part?;
                if part.kind != NLMSG_ERROR {
                    continue;
                }
                let index = part.sequence.wrapping_sub(first) as usize;
                // An answer to an earlier, abandoned batch has another number.
                let Some(slot) = answers.get_mut(start..).and_then(|own| own.get_mut(index)) else {
                    continue;
                };
                *slot = part.refusal().map_or(Ok(()), Err);
                if index + 1 == count {
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Socket(error)),
            }
        }
    }

    fn receive(&mut self) -> Result<(), NetlinkError> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Socket(error)),
            }
        }
    }
}

fn encode(outgoing: &mut Vec<u8>, request: &impl Ask, sequence: u32) {
    let (kind, flags) = request.kind();
    let start = outgoing.len();
    outgoing.extend([0; HEADER]);
    request.put(outgoing);
    let length = u32::try_from(outgoing.len() - start).expect("requests are short");
    let header = &mut outgoing[start..start + HEADER];
    header[..4].copy_from_slice(&length.to_ne_bytes());
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[FLAGS].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    // The sender's port, which the kernel fills in, and padding to a word.
    outgoing.resize(outgoing.len().next_multiple_of(4), 0);
}

fn add_flag(message: &mut [u8], flag: u16) {
    let flags = u16::from_ne_bytes([message[FLAGS.start], message[FLAGS.start + 1]]) | flag;
    message[FLAGS].copy_from_slice(&flags.to_ne_bytes());
}

/// One netlink message within a datagram.
pub struct Part<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Who caused it: the port of the requesting socket, 0 for the kernel itself.
    pub port: u32,
    pub bytes: &'a [u8],
}

impl Part<'_> {
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// What an ERROR or DONE message says; `None` for success.
    pub fn refusal(&self) -> Option<Refusal> {
        let code = i32::from_ne_bytes(self.payload().first_chunk().copied()?);
        if code == 0 {
            return None;
        }
        Some(Refusal {
            errno: Errno::from_raw(code.saturating_neg()),
            explanation: self.explanation(),
        })
    }

    fn explanation(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let request_length = match (self.kind, self.flags & NLM_F_CAPPED) {
            (NLMSG_DONE, _) => 0,
            (_, 0) => u32::from_ne_bytes(self.payload().get(4..)?.first_chunk().copied()?) as usize,
            _ => HEADER,
        };
        let attributes = self
            .payload()
            .get(4 + request_length.next_multiple_of(4)..)?;
        let message = NlasIterator::new(attributes)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
        let text = String::from_utf8_lossy(message.value());
        Some(text.trim_end_matches('\0').to_owned())
    }
}

/// Walks the messages of one datagram. Ends after the first malformed one.
pub struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    pub fn new(datagram: &'a [u8]) -> Parts<'a> {
        Parts { rest: datagram }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let part = split_part(self.rest);
        self.rest = match &part {
            Some(part) => self
                .rest
                .get(part.bytes.len().next_multiple_of(4)..)
                .unwrap_or_default(),
            None => &[],
        };
        Some(part.ok_or_else(|| NetlinkError::Malformed("message runs past its datagram".into())))
    }
}

fn split_part(rest: &[u8]) -> Option<Part<'_>> {
    let header = rest.first_chunk::<HEADER>()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if length < HEADER {
        return None;
    }
    Some(Part {
        kind: u16::from_ne_bytes([header[4], header[5]]),
        flags: u16::from_ne_bytes([header[6], header[7]]),
        sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
        port: u32::from_ne_bytes([header[12], header[13], header[14], header[15]]),
        bytes: rest.get(..length)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_datagrams_end_the_walk() {
        for (name, bytes) in [
            ("shorter than a header", vec![0; 7]),
            ("zero length", vec![0; 32]),
            ("length beyond the datagram", {
                let mut bytes = vec![0; 32];
                bytes[..4].copy_from_slice(&64_u32.to_ne_bytes());
                bytes
            }),
        ] {
            let parts: Vec<_> = Parts::new(&bytes).collect();
            assert_eq!(parts.len(), 1, "{name}");
            assert!(parts[0].is_err(), "{name}");
        }
    }
}
