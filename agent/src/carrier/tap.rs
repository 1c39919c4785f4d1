//! The persistent TAP device: made and opened through /dev/net/tun.
//!
//! In: a device name. Out: a descriptor that reads and writes frames. Address, MTU, link-up and
//! neighbours belong to `dataplane::tunnel`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Checksums and segmentation of TCP over IPv4 may be left to us.
const OFFLOADS: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4;
/// So may that of UDP (TUN_F_USO4 and TUN_F_USO6, which the kernel takes only together).
const DATAGRAM_OFFLOADS: libc::c_uint = OFFLOADS | 0x20 | 0x40;
const CLONE_DEVICE: &str = "/dev/net/tun";

/// Length of the virtio_net_hdr in front of every frame (`IFF_VNET_HDR`).
pub const VNET_HEADER: usize = 10;

/// An open TAP device.
pub struct Tap {
    pub file: File,
    /// The kernel takes, and gives, UDP datagrams of one length joined to one packet: from 6.2 on.
    pub joins_datagrams: bool,
}

/// Opens the TAP device `name` in the calling thread's network namespace, making it if need be, and
/// makes it persistent: it stays, with its routes, when the descriptor is closed.
///
/// # Errors
/// `NotFound` without /dev/net/tun, EBUSY if another process has it open, EINVAL if a device of
/// this name exists and is no TAP, EPERM without CAP_NET_ADMIN.
pub fn open_persistent(name: &str) -> io::Result<Tap> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(CLONE_DEVICE)?;
    attach(file.as_fd(), name)?;
    Tap::attached(file)
}

impl Tap {
    /// `file` is attached to a device already.
    ///
    /// # Errors
    /// EBADFD if the device is gone.
    pub fn attached(file: File) -> io::Result<Tap> {
        // Large packets come whole, for us to cut: one read for some 45 segments.
        let joins_datagrams = set_offloads(file.as_fd(), DATAGRAM_OFFLOADS).is_ok();
        if !joins_datagrams {
            set_offloads(file.as_fd(), OFFLOADS)?;
        }
        Ok(Tap {
            file,
            joins_datagrams,
        })
    }
}

#[allow(
    unsafe_code,
    reason = "TUNSETIFF and TUNSETPERSIST have no safe wrapper"
)]
fn attach(tun: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is plain C data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = libc::c_char::from_ne_bytes([byte]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open for the whole call, TUNSETIFF reads and writes one `ifreq`
    // that outlives it, and TUNSETPERSIST takes its argument by value.
    let result = unsafe {
        match libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) {
            0 => libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST as _, 1),
            failed => failed,
        }
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Errors
/// EINVAL if the kernel does not know one of them.
#[allow(unsafe_code, reason = "TUNSETOFFLOAD has no safe wrapper")]
fn set_offloads(tun: BorrowedFd<'_>, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call, which takes its argument by value.
    match unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD as _, offloads) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
