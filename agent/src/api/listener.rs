//! The socket of this host's own programs: who may connect, and the descriptors that a connection may
//! pass.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg,
    socket,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;
use tracing::warn;

use super::bounded::Bounded;

/// The kernel passes at most this many descriptors with one message (SCM_MAX_FD). A smaller buffer
/// would have it drop some and nix refuse to name the others, which then stay open.
const MAX_PASSED: usize = 253;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another process answers on {}", .0.display())]
    InUse(PathBuf),
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("failed to listen on {}", .path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A unix socket only root and our own user may use. The file is removed when this is dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl PrivateSocket {
    /// Listens on `path` with mode 0600, making its directory if it is missing. A socket file that
    /// nobody answers on is what a killed process left, and is replaced.
    ///
    /// # Errors
    /// `InUse` if somebody answers, `NotASocket`, or `Listen`.
    pub fn bind(path: &Path) -> Result<PrivateSocket, BindError> {
        let listen = |source| BindError::Listen {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(listen)?;
        }
        remove_stale(path)?;
        // Bound under another name and renamed when the mode is right: there is no moment at which
        // others may connect, and a client that sees the path can connect to it.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let bound = bind_at(&temporary).and_then(|listener| {
            std::fs::rename(&temporary, path)?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => Ok(PrivateSocket {
                listener,
                path: path.to_owned(),
            }),
            Err(source) => {
                let _ = std::fs::remove_file(&temporary);
                Err(listen(source))
            }
        }
    }

    /// As [`PrivateSocket::bind`], but gives a process that is just ending some time to be gone: a
    /// killed one is connected to by the kernel until the last of its descriptors is closed.
    ///
    /// # Errors
    /// As for `bind`; `InUse` after `patience`.
    pub async fn bind_when_free(
        path: &Path,
        patience: Duration,
    ) -> Result<PrivateSocket, BindError> {
        let deadline = Instant::now() + patience;
        loop {
            match PrivateSocket::bind(path) {
                Err(BindError::InUse(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn accept_allowed(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_allowed(&stream) => return stream,
                Ok(_) => {}
                Err(error) => {
                    warn!(%error, "failed to accept a connection");
                    // Out of descriptors, most likely: give others time to close theirs.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listener for PrivateSocket {
    type Io = PassingStream;
    type Addr = ();

    async fn accept(&mut self) -> (PassingStream, ()) {
        (PassingStream::new(self.accept_allowed().await), ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

fn bind_at(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let listen = |source| BindError::Listen {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(listen(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match connect_at_once(path) {
        Err(Errno::ECONNREFUSED) => std::fs::remove_file(path).map_err(listen),
        Err(Errno::ENOENT) => Ok(()),
        // EAGAIN: somebody listens, and so many wait already that there is no place for one more.
        Ok(()) | Err(Errno::EAGAIN) => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(listen(error.into())),
    }
}

fn connect_at_once(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

/// The mode keeps others out already; this holds where the directory was opened up by hand.
fn is_allowed(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw() => true,
        Ok(peer) => {
            warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "connection of a foreign user refused"
            );
            false
        }
        Err(error) => {
            warn!(%error, "connection of an unknown user refused");
            false
        }
    }
}

/// The descriptor that came with a connection's data, until a handler takes it. At most one: a
/// later one replaces it, and what nobody took is closed with the connection.
#[derive(Clone, Debug, Default)]
pub struct Descriptors(Arc<Mutex<Option<OwnedFd>>>);

impl Descriptors {
    pub fn take(&self) -> Option<OwnedFd> {
        self.slot().take()
    }

    fn put(&self, descriptor: OwnedFd) {
        *self.slot() = Some(descriptor);
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

impl Connected<IncomingStream<'_, Bounded<PrivateSocket>>> for Descriptors {
    fn connect_info(stream: IncomingStream<'_, Bounded<PrivateSocket>>) -> Descriptors {
        stream.io().inner().descriptors.clone()
    }
}

/// A unix stream that keeps the descriptors passed with what is read.
#[derive(Debug)]
pub struct PassingStream {
    stream: UnixStream,
    descriptors: Descriptors,
    control: Vec<u8>,
}

impl PassingStream {
    fn new(stream: UnixStream) -> PassingStream {
        PassingStream {
            stream,
            descriptors: Descriptors::default(),
            control: nix::cmsg_space!([RawFd; MAX_PASSED]),
        }
    }
}

impl AsyncRead for PassingStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.stream.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            let socket = this.stream.as_raw_fd();
            let received = this.stream.try_io(Interest::READABLE, || {
                receive(socket, unfilled, &mut this.control)
            });
            match received {
                Ok((length, passed)) => {
                    buffer.advance(length);
                    if let Some(descriptor) = passed {
                        this.descriptors.put(descriptor);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Reads once. Of the descriptors that came with it the first is returned, the others are closed.
fn receive(
    socket: RawFd,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket, &mut slices, Some(control), flags)?;
    let mut passed = None;
    for control_message in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control_message {
            for number in numbers {
                let descriptor = own(number);
                if passed.is_none() {
                    passed = descriptor;
                }
            }
        }
    }
    Ok((message.bytes, passed))
}

/// Takes over a received descriptor: opens what it stands for once more, which gives an owned
/// descriptor without `unsafe`, and closes the bare number. Works for namespaces and files, the
/// only things passed to us; `None` for others, such as sockets. O_NONBLOCK: a FIFO must not
/// hang us.
fn own(number: RawFd) -> Option<OwnedFd> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{number}"));
    if let Err(error) = nix::unistd::close(number) {
        warn!(%error, "failed to close a passed descriptor");
    }
    match opened {
        Ok(file) => Some(file.into()),
        Err(error) => {
            warn!(%error, "a passed descriptor is unusable");
            None
        }
    }
}

impl AsyncWrite for PassingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
