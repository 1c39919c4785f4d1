//! The userspace tunnel process: IPIP on kernels without ipip, and IP packets in UDP.
//!
//! In: frames from the TAP, IP protocol 4 or UDP from the wire. Out: the other of the two; the bytes
//! on the wire are those of kernel IPIP, or of flannel's `udp`: the IP packet is all that a datagram
//! holds. A process of its own for each encapsulation, which the agent starts, adopts
//! and watches (`supervise`): it goes on when the agent is killed or replaced. It keeps no table,
//! and does not configure the device; both are the kernel's and `dataplane::tunnel`'s.

mod batch;
pub mod control;
pub mod counters;
pub mod forward;
mod handover;
mod inward;
mod leave;
mod packet;
mod segment;
pub mod supervise;
pub mod tap;
mod wire;

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use nix::fcntl::{Flock, FlockArg};
use socket2::Socket;
use tracing::{info, warn};

use self::control::{Identity, Reply};
use self::counters::Counters;
use self::forward::Ends;
use self::tap::Tap;
use self::wire::Wire;
use crate::names::{CARRIER_DEVICE, UDP_DEVICE, UDP_TUNNEL_PORT};

/// Packets that a TAP holds (`txqueuelen`) while the carrier is busy, or waits for a processor. A burst
/// of so many is not lost; the 1,000 of a TAP are, where processors are short. Full packets take 23 MB
/// of the kernel's memory, what large ones of TCP take is their senders' anyway.
pub const QUEUE_LENGTH: u32 = 10_000;

/// What a carrier puts inner packets into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Encapsulation {
    /// IP protocol 4 (RFC 2003).
    Ipip,
    /// UDP port 8285, the IP packet and nothing else.
    Udp,
}

impl Encapsulation {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Encapsulation::Ipip => "ipip",
            Encapsulation::Udp => "udp",
        }
    }

    pub fn device(self) -> &'static str {
        match self {
            Encapsulation::Ipip => CARRIER_DEVICE,
            Encapsulation::Udp => UDP_DEVICE,
        }
    }

    /// Octets of the outer headers.
    fn overhead(self) -> usize {
        match self {
            Encapsulation::Ipip => packet::OUTER_HEADER,
            Encapsulation::Udp => packet::OUTER_HEADER + packet::UDP_HEADER,
        }
    }

    /// Of the outer packets, at both ends; 0: there are no ports.
    fn port(self) -> u16 {
        match self {
            Encapsulation::Ipip => 0,
            Encapsulation::Udp => UDP_TUNNEL_PORT,
        }
    }

    /// Of the file names in the run directory.
    fn file_stem(self) -> &'static str {
        match self {
            Encapsulation::Ipip => "carrier",
            Encapsulation::Udp => "carrier-udp",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CarrierOptions {
    /// Of the socket, lock, pid file and log.
    pub run_dir: PathBuf,
    /// This node's address: the outer source, and the only outer destination accepted.
    pub local: Ipv4Addr,
    pub encapsulation: Encapsulation,
    /// From the carrier that runs, if one does, with all that waits in its queues. So an agent starts
    /// it, which makes the lock file before: once that is gone, no carrier is wanted any more.
    pub takes_over: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    #[error("another carrier runs on {0}")]
    AlreadyRunning(PathBuf),
    #[error("{0} is gone: no carrier is wanted any more")]
    Unwanted(PathBuf),
    #[error("failed to {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

pub fn socket_path(run_dir: &Path, encapsulation: Encapsulation) -> PathBuf {
    run_dir.join(format!("{}.sock", encapsulation.file_stem()))
}

pub fn log_path(run_dir: &Path, encapsulation: Encapsulation) -> PathBuf {
    run_dir.join(format!("{}.log", encapsulation.file_stem()))
}

fn pid_path(run_dir: &Path, encapsulation: Encapsulation) -> PathBuf {
    run_dir.join(format!("{}.pid", encapsulation.file_stem()))
}

fn lock_path(run_dir: &Path, encapsulation: Encapsulation) -> PathBuf {
    run_dir.join(format!("{}.lock", encapsulation.file_stem()))
}

/// The MAC of a node's neighbour entry on the TAP, and of the TAP of the node `node` itself.
pub fn mac_of(node: Ipv4Addr) -> [u8; 6] {
    packet::mac_of(node)
}

/// The process: moves packets until it is told to stop over the control socket (`Ok`), or can move
/// no more.
///
/// # Errors
/// `AlreadyRunning` if another carrier holds the lock of the run directory, `Unwanted` if the agent's
/// was taken away; `Io` with what failed.
pub fn run(options: &CarrierOptions) -> Result<(), CarrierError> {
    // A session of its own: no terminal's or parent's end reaches it. Fails harmlessly where it
    // leads a process group already, such as when started by hand.
    let _ = nix::unistd::setsid();
    let run_dir = &options.run_dir;
    let encapsulation = options.encapsulation;
    let device = encapsulation.device();
    let taken = match options.takes_over {
        true => take_over(options),
        false => None,
    };
    // Whoever hands over ends in a moment.
    let mode = match taken {
        Some(_) => FlockArg::LockExclusive,
        None => FlockArg::LockExclusiveNonblock,
    };
    let _lock = lock(&lock_path(run_dir, encapsulation), options.takes_over, mode)?;
    let (tap, wire) = match taken {
        Some(taken) => taken,
        None => open(options)?,
    };
    let listener = listen(&socket_path(run_dir, encapsulation))
        .map_err(failed("listen on the control socket"))?;
    std::fs::write(
        pid_path(run_dir, encapsulation),
        format!("{}\n", std::process::id()),
    )
    .map_err(failed("write the pid file"))?;
    info!(local = %options.local, iface = device, "carrier runs");
    let result = move_packets(options, tap, wire, listener);
    info!(result = ?result.as_ref().err(), "carrier ends");
    // While the lock is held: nobody else's are removed.
    let _ = std::fs::remove_file(socket_path(run_dir, encapsulation));
    let _ = std::fs::remove_file(pid_path(run_dir, encapsulation));
    result
}

/// `None` if there is no carrier, or what it has is of no use: then all is opened anew.
fn take_over(options: &CarrierOptions) -> Option<(Tap, Wire)> {
    let encapsulation = options.encapsulation;
    let path = socket_path(&options.run_dir, encapsulation);
    let is_right = |reply: &Reply| {
        (reply.local, reply.device.as_str()) == (options.local, encapsulation.device())
    };
    let open = || {
        let Some(taken) = handover::take(&path, is_right)? else {
            return Ok(None);
        };
        let tap = Tap::attached(File::from(taken.tap))?;
        let wire = Wire::configured(Socket::from(taken.wire), encapsulation)?;
        io::Result::Ok(Some((tap, wire)))
    };
    open().unwrap_or_else(|error| {
        warn!(%error, "nothing is taken over from the carrier before");
        None
    })
}

fn open(options: &CarrierOptions) -> Result<(Tap, Wire), CarrierError> {
    let device = options.encapsulation.device();
    let tap =
        tap::open_persistent(device).map_err(failed(format!("open the TAP device {device}")))?;
    let wire = Wire::open(options.local, options.encapsulation)
        .map_err(failed(format!("open a socket on {}", options.local)))?;
    Ok((tap, wire))
}

/// Returns when asked to stop or when a direction fails. Its threads end with the process, those that
/// move packets before it if another carrier takes over.
fn move_packets(
    options: &CarrierOptions,
    tap: Tap,
    wire: Wire,
    listener: UnixListener,
) -> Result<(), CarrierError> {
    let (tap, wire) = (Arc::new(tap), Arc::new(wire));
    let counters = Arc::new(Counters::default());
    let is_leaving = Arc::new(AtomicBool::new(false));
    let identity = Arc::new(Identity {
        local: options.local,
        device: options.encapsulation.device().to_owned(),
        counters: Arc::clone(&counters),
        tap: Arc::clone(&tap),
        wire: Arc::clone(&wire),
        is_leaving: Arc::clone(&is_leaving),
    });
    let local = options.local;
    // One end for all: the first word counts.
    let (ended, end) = sync_channel::<Result<(), CarrierError>>(1);
    let (stop, stopped) = sync_channel::<()>(1);

    leave::prepare().map_err(|errno| failed("handle a signal")(errno.into()))?;
    let direction = |name: &str, work: Box<dyn FnOnce() -> io::Result<()> + Send>| {
        let ended = ended.clone();
        let what = format!("move packets {name}");
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                // One that leaves in order is not the end: its packets' ways are not handed over yet.
                if let Err(error) = work() {
                    let _ = ended.try_send(Err(failed(what)(error)));
                }
            })
            .map_err(failed(format!("start the thread {name}")))
    };
    let (tap_out, wire_out, counters_out) =
        (Arc::clone(&tap), Arc::clone(&wire), Arc::clone(&counters));
    let (is_leaving_in, is_leaving_out) = (Arc::clone(&is_leaving), Arc::clone(&is_leaving));
    let outward = direction(
        "tap-to-wire",
        Box::new(move || {
            forward::tap_to_wire(Ends {
                tap: &tap_out,
                wire: &wire_out,
                local,
                counters: &counters_out,
                is_leaving: &is_leaving_out,
            })
        }),
    )?;
    let inward = direction(
        "wire-to-tap",
        Box::new(move || {
            inward::wire_to_tap(Ends {
                tap: &tap,
                wire: &wire,
                local,
                counters: &counters,
                is_leaving: &is_leaving_in,
            })
        }),
    )?;
    direction(
        "control",
        Box::new(move || control::serve(&listener, &identity, &stop)),
    )?;
    let ended_by_request = ended.clone();
    direction(
        "stop",
        Box::new(move || {
            let _ = stopped.recv();
            let _ = ended_by_request.try_send(Ok(()));
            Ok(())
        }),
    )?;
    let result = end.recv().unwrap_or(Ok(()));
    if is_leaving.load(Ordering::Relaxed) {
        leave::await_ends(&[outward, inward]);
    }
    result
}

/// Held until the process ends, however it ends. `is_made`: by the agent that started us.
fn lock(path: &Path, is_made: bool, mode: FlockArg) -> Result<Flock<File>, CarrierError> {
    let file = open_lock(path, !is_made).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if is_made => CarrierError::Unwanted(path.to_owned()),
        _ => failed(format!("open {}", path.display()))(error),
    })?;
    let lock = Flock::lock(file, mode).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => CarrierError::AlreadyRunning(path.to_owned()),
        errno => failed(format!("lock {}", path.display()))(errno.into()),
    })?;
    // Taken away since it was opened.
    match lock.metadata() {
        Ok(file) if file.nlink() == 0 => Err(CarrierError::Unwanted(path.to_owned())),
        Ok(_) => Ok(lock),
        Err(error) => Err(failed(format!("read {}", path.display()))(error)),
    }
}

fn open_lock(path: &Path, may_make: bool) -> io::Result<File> {
    OpenOptions::new()
        .create(may_make)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// A socket file that is there is a leftover: we hold the lock.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Under another name until only the owner can open it.
    let unready = path.with_extension("new");
    let _ = std::fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready)?;
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unready, path)?;
    Ok(listener)
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> CarrierError {
    let what = what.into();
    move |source| CarrierError::Io { what, source }
}
