//! The carrier's control socket: one JSON object per line, each way.
//!
//! The agent asks `hello` and keeps the connection: its end is how each side learns of the other's
//! death. `stop` ends the carrier. These two keep their form in every version, so that an agent of
//! any version can replace a carrier of any other. With `handOver` the next carrier gets the open TAP
//! and socket beside the answer, with all that waits in them, and this one ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;

use serde::{Deserialize, Serialize};

use super::counters::{self, CounterValues, Counters};
use super::handover;
use super::tap::Tap;
use super::wire::Wire;

/// Of the packets' handling and of these messages: an agent replaces a carrier of another version.
pub const VERSION: u32 = 3;
/// From this version on, carriers hand over.
pub const HANDS_OVER_SINCE: u32 = 3;
/// Further connections are closed at once.
const CONNECTIONS_MAX: usize = 8;
/// A longer request ends the connection.
const REQUEST_MAX: u64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Who are you, and how many packets did you move?
    Hello,
    Stop,
    HandOver,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub command: Command,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    pub version: u32,
    pub pid: u32,
    pub local: Ipv4Addr,
    pub device: String,
    #[serde(default)]
    pub counters: CounterValues,
}

/// What the carrier says of itself.
pub struct Identity {
    pub local: Ipv4Addr,
    pub device: String,
    pub counters: Arc<Counters>,
    pub tap: Arc<Tap>,
    pub wire: Arc<Wire>,
    /// The directions take nothing more.
    pub is_leaving: Arc<AtomicBool>,
}

impl Identity {
    fn reply(&self) -> Reply {
        Reply {
            version: VERSION,
            pid: std::process::id(),
            local: self.local,
            device: self.device.clone(),
            counters: CounterValues {
                // 0 where the kernel does not tell.
                dropped_wire_queue: counters::socket_drops(self.wire.as_fd()).unwrap_or_default(),
                dropped_tap_queue: counters::device_drops(&self.device).unwrap_or_default(),
                ..self.counters.values()
            },
        }
    }
}

/// Serves connections for as long as the process lives. `stop` gets a message when a client asks
/// for the end, after the answer is out.
///
/// # Errors
/// If the listener fails.
pub fn serve(
    listener: &UnixListener,
    identity: &Arc<Identity>,
    stop: &SyncSender<()>,
) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (identity, stop, open) = (Arc::clone(identity), stop.clone(), Arc::clone(&open));
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                // The client's troubles are its own.
                let _ = converse(&stream, &identity, &stop);
                open.fetch_sub(1, Ordering::Relaxed);
            })?;
    }
}

fn converse(mut stream: &UnixStream, identity: &Identity, stop: &SyncSender<()>) -> io::Result<()> {
    let mut requests = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut requests).take(REQUEST_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let request: Request = serde_json::from_str(&line)?;
        let mut answer = serde_json::to_string(&identity.reply())?;
        answer.push('\n');
        match request.command {
            Command::Hello => stream.write_all(answer.as_bytes())?,
            Command::Stop => {
                stream.write_all(answer.as_bytes())?;
                // Full means that somebody else asked already.
                let _ = stop.try_send(());
            }
            Command::HandOver => {
                identity.is_leaving.store(true, Ordering::Relaxed);
                let given =
                    handover::give(stream, answer.as_bytes(), &identity.tap, &identity.wire);
                // Also if there is nobody to take it: the directions move nothing any more.
                let _ = stop.try_send(());
                given?;
            }
        }
    }
}
