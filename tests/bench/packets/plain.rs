//! The carrier that is compared with: IPIP, one packet a system call, nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::Command;
use std::thread;

use anyhow::{Result, ensure};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

pub const DEVICE: &str = "plain";
const PROTOCOL_IPIP: i32 = 4;
const OUTER_HEADER: usize = 20;
const PACKET: usize = 1 << 16;
const BUFFERS: usize = 8 << 20;

/// Between `DEVICE`, which it makes, and the wire, until it is killed.
pub fn carry(local: Ipv4Addr, remote: Ipv4Addr) -> Result<()> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let kind = Some(Protocol::from(PROTOCOL_IPIP));
    let wire = Socket::new(Domain::IPV4, Type::RAW, kind)?;
    wire.bind(&SocketAddrV4::new(local, 0).into())?;
    wire.connect(&SocketAddrV4::new(remote, 0).into())?;
    wire.set_recv_buffer_size(BUFFERS)?;
    wire.set_send_buffer_size(BUFFERS)?;
    make_device(tun.as_fd())?;
    let up = ["link", "set", DEVICE, "mtu", "1480", "up"];
    ensure!(
        Command::new("ip").args(up).status()?.success(),
        "ip {up:?} failed"
    );
    thread::scope(|scope| {
        scope.spawn(|| send(&tun, &wire));
        receive(&tun, &wire)
    })
}

fn send(mut tun: &File, wire: &Socket) {
    let mut packet = vec![0; PACKET];
    loop {
        if let Ok(length) = tun.read(&mut packet) {
            // What cannot be sent is lost, as on any wire.
            let _ = wire.send(&packet[..length]);
        }
    }
}

fn receive(mut tun: &File, mut wire: &Socket) -> ! {
    let mut packet = vec![0; PACKET];
    loop {
        // An error is an ICMP message about a packet sent before.
        let length = wire.read(&mut packet).unwrap_or_default();
        if let Some(inner) = packet.get(OUTER_HEADER..length) {
            // Lost, if the device does not take it.
            let _ = tun.write(inner);
        }
    }
}

#[allow(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]
fn make_device(tun: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `ifreq` is plain C data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *target = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open for the whole call, and TUNSETIFF reads and writes one `ifreq`
    // that outlives it.
    match unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
