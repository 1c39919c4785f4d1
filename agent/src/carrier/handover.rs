//! The open TAP and socket, from a carrier to the one that follows it.
//!
//! Packets wait in both meanwhile, and the TAP keeps its carrier: nothing is lost, and nothing comes
//! twice, since the one before takes nothing more.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::control::{Command, HANDS_OVER_SINCE, Reply, Request, VERSION};
use super::tap::Tap;
use super::wire::Wire;

const ANSWER_TIME: Duration = Duration::from_secs(1);
const ANSWER_MAX: usize = 4096;

/// Sends `answer` with both descriptors.
///
/// # Errors
/// The socket's.
pub fn give(stream: &UnixStream, answer: &[u8], tap: &Tap, wire: &Wire) -> io::Result<()> {
    let descriptors = [tap.file.as_raw_fd(), wire.as_fd().as_raw_fd()];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(answer)],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}

/// What a carrier had open.
pub struct Taken {
    pub tap: OwnedFd,
    pub wire: OwnedFd,
}

/// Asks the carrier that listens on `path`. `None` if it is none of which `is_right` holds, or one that
/// does not hand over.
///
/// # Errors
/// The socket's, and of an answer that cannot be read.
pub fn take(path: &Path, is_right: impl Fn(&Reply) -> bool) -> io::Result<Option<Taken>> {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(_) => return Ok(None),
    };
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    ask(&stream, Command::Hello)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let reply: Reply = serde_json::from_str(&line)?;
    if reply.version < HANDS_OVER_SINCE || !is_right(&reply) {
        return Ok(None);
    }
    ask(&stream, Command::HandOver)?;
    receive(&stream).map(Some)
}

fn ask(mut stream: &UnixStream, command: Command) -> io::Result<()> {
    let request = Request {
        version: VERSION,
        command,
    };
    let mut line = serde_json::to_string(&request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

fn receive(stream: &UnixStream) -> io::Result<Taken> {
    let mut answer = [0; ANSWER_MAX];
    let mut slices = [IoSliceMut::new(&mut answer)];
    let mut space = cmsg_space!([i32; 2]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let descriptors = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => Some(owned(&descriptors)),
        _ => None,
    });
    let mut descriptors = descriptors.unwrap_or_default().into_iter();
    match (descriptors.next(), descriptors.next()) {
        (Some(tap), Some(wire)) => Ok(Taken { tap, wire }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[allow(unsafe_code, reason = "descriptors come as numbers")]
fn owned(descriptors: &[i32]) -> Vec<OwnedFd> {
    let own = |descriptor: &i32| {
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        unsafe { OwnedFd::from_raw_fd(*descriptor) }
    };
    descriptors.iter().map(own).collect()
}
