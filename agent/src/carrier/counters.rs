//! What became of the packets: counted by both directions, and by the kernel where its queues are full.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Of this thread's network namespace.
const LINKS: &str = "/proc/thread-self/net/dev";
/// Numbers of a line in it before the dropped ones of those that the host sends.
const NUMBERS_BEFORE: usize = 11;

/// Packets since start. Dropped ones are in exactly one of the `dropped_*`.
#[derive(Debug, Default)]
pub struct Counters {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// From the TAP: not IPv4, or for a MAC that is no node's.
    pub dropped_frame: AtomicU64,
    /// Larger than the path's MTU; the sender was told if it asked (DF).
    pub dropped_too_big: AtomicU64,
    /// The kernel refused to send, e.g. without a route.
    pub dropped_send: AtomicU64,
    /// From the wire: not IPv4 in IPv4, or marked in a way the inner packet does not allow.
    pub dropped_malformed: AtomicU64,
    /// The kernel did not take the frame, e.g. while the TAP is down.
    pub dropped_tap: AtomicU64,
}

/// `Counters` at one moment, and what the kernel counts beside them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CounterValues {
    pub sent: u64,
    pub received: u64,
    pub dropped_frame: u64,
    pub dropped_too_big: u64,
    pub dropped_send: u64,
    pub dropped_malformed: u64,
    pub dropped_tap: u64,
    /// More came than the carrier took, and the socket's buffer was full.
    pub dropped_wire_queue: u64,
    /// More was sent than the carrier took, and the TAP's queue was full, or there was no carrier:
    /// since the TAP was made.
    pub dropped_tap_queue: u64,
}

impl Counters {
    /// Without the kernel's.
    pub fn values(&self) -> CounterValues {
        CounterValues {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            dropped_frame: self.dropped_frame.load(Ordering::Relaxed),
            dropped_too_big: self.dropped_too_big.load(Ordering::Relaxed),
            dropped_send: self.dropped_send.load(Ordering::Relaxed),
            dropped_malformed: self.dropped_malformed.load(Ordering::Relaxed),
            dropped_tap: self.dropped_tap.load(Ordering::Relaxed),
            ..CounterValues::default()
        }
    }
}

pub fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub fn add(counter: &AtomicU64, packets: usize) {
    counter.fetch_add(packets as u64, Ordering::Relaxed);
}

/// What this socket did not take because its buffer was full.
///
/// # Errors
/// The kernel's, before 4.12.
#[allow(unsafe_code, reason = "SO_MEMINFO has no safe wrapper")]
pub fn socket_drops(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut values = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is open for the whole call; the kernel writes at most `length` octets to
    // `values`, and to `length`, which both outlive it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(u64::from(values[libc::SK_MEMINFO_DROPS as usize])),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the queue of a device did not take.
///
/// # Errors
/// If /proc cannot be read or has no such device.
pub fn device_drops(device: &str) -> io::Result<u64> {
    let text = fs::read_to_string(LINKS)?;
    drops_in(&text, device).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn drops_in(links: &str, device: &str) -> Option<u64> {
    let mut lines = links.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| name.trim() == device)?;
    numbers.split_whitespace().nth(NUMBERS_BEFORE)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn dropped_packets_of_a_device_are_found_by_name() {
        // As Linux 6.18 wrote it.
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets \
                    errs drop fifo colls carrier compressed\n    lo:     392       4    0    0    0     \
                    0          0         0      392       4    0    0    0     0       0          0\n\
                    caracal-tun: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        assert_eq!(drops_in(text, "caracal-tun"), Some(12));
        assert_eq!(drops_in(text, "lo"), Some(0));
        assert_eq!(drops_in(text, "caracal"), None);
    }

    #[test]
    fn a_full_socket_counts() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket2::SockRef::from(&receiver)
            .set_recv_buffer_size(1)
            .expect("settable");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let to = receiver.local_addr().expect("bound");
        assert_eq!(socket_drops(receiver.as_fd()).expect("known"), 0);
        for _ in 0..100 {
            sender.send_to(&[0; 1000], to).expect("sends");
        }
        assert!(socket_drops(receiver.as_fd()).expect("known") > 0);
    }
}
