//! The one socket that sends and receives: raw for IP protocol 4, or UDP.
//!
//! One only: the kernel gives a copy of every packet to each raw socket that matches. While it is
//! open the kernel counts protocol 4 for this address as delivered and sends no ICMP "protocol
//! unreachable". One that has ipip loaded complains all the same, of packets that none of its own
//! tunnels takes; the tunnels of our nodes, which have no fixed remote, take no notice.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::Encapsulation;
use super::batch::{Batch, Outgoing};

const PROTOCOL_IPIP: i32 = 4;
const TTL: u32 = 64;
/// Of payload; the kernel counts as much again for what it needs itself. A burst of as many full packets
/// as a TAP holds, 23 MB with all, is not lost where the carrier waits for a processor.
const RECEIVE_BUFFER: usize = 16 << 20;
const SEND_BUFFER: usize = 4 << 20;
/// Any port: nothing is ever sent by the probe.
const PROBE_PORT: u16 = 9;

pub struct Wire {
    socket: Socket,
    encapsulation: Encapsulation,
}

impl Wire {
    /// Opens the socket for the outer address `local`.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, EADDRNOTAVAIL if the address is not on this host, EADDRINUSE if
    /// somebody else has the UDP port.
    pub fn open(local: Ipv4Addr, encapsulation: Encapsulation) -> io::Result<Wire> {
        let (kind, protocol) = match encapsulation {
            Encapsulation::Ipip => (Type::RAW, Protocol::from(PROTOCOL_IPIP)),
            Encapsulation::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
        let wire = Wire::configured(socket, encapsulation)?;
        let name = SocketAddrV4::new(local, encapsulation.port());
        wire.socket.bind(&SocketAddr::V4(name).into())?;
        Ok(wire)
    }

    /// Of a socket of the right kind.
    ///
    /// # Errors
    /// The kernel's.
    pub fn configured(socket: Socket, encapsulation: Encapsulation) -> io::Result<Wire> {
        // FORCE goes beyond net.core.rmem_max, which needs CAP_NET_ADMIN in the host's user namespace.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.set_ttl_v4(TTL)?;
        if encapsulation == Encapsulation::Udp {
            // The congestion mark of the outer header, which the kernel keeps to itself.
            socket.set_recv_tos_v4(true)?;
            // Without it, which a kernel before 5.0 has not, they come one by one.
            let _ = join_datagrams(socket.as_fd());
        }
        set_path_mtu_discovery(socket.as_fd(), true)?;
        Ok(Wire {
            socket,
            encapsulation,
        })
    }

    pub fn encapsulation(&self) -> Encapsulation {
        self.encapsulation
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The sending half.
pub struct Sender<'a> {
    wire: &'a Wire,
    batch: Batch,
    probe: UdpSocket,
    /// As the socket is set: whether it sends with DF.
    is_unfragmentable: bool,
}

impl<'a> Sender<'a> {
    /// # Errors
    /// If the system has no socket left.
    pub fn new(wire: &'a Wire, local: Ipv4Addr) -> io::Result<Sender<'a>> {
        Ok(Sender {
            wire,
            batch: Batch::new(),
            probe: UdpSocket::bind((local, 0))?,
            is_unfragmentable: true,
        })
    }

    /// Sends the first of `packets` and returns how many; waits while the queue is full. The outer
    /// header has DF where the inner one has it (RFC 2003 §3.1): what may be fragmented is, here or
    /// on the way.
    ///
    /// # Errors
    /// None was sent: EMSGSIZE if the first must not be fragmented and exceeds its path's MTU, or
    /// late news about an earlier packet.
    pub fn send(&mut self, packets: &[Outgoing<'_>]) -> io::Result<usize> {
        let Some(first) = packets.first() else {
            return Ok(0);
        };
        // No control message says it: it is the socket's, and most packets are of one kind.
        if first.is_unfragmentable != self.is_unfragmentable {
            set_path_mtu_discovery(self.wire.as_fd(), first.is_unfragmentable)?;
            self.is_unfragmentable = first.is_unfragmentable;
        }
        let is_other = |packet: &Outgoing<'_>| packet.is_unfragmentable != first.is_unfragmentable;
        let alike = packets.iter().position(is_other).unwrap_or(packets.len());
        let port = self.wire.encapsulation.port();
        self.batch.send(self.wire.as_fd(), port, &packets[..alike])
    }

    /// The largest inner packet that the path to `node` takes, as far as the kernel knows; 0 if there
    /// is no route.
    pub fn inner_mtu(&self, node: Ipv4Addr) -> usize {
        let outer = path_mtu(&self.probe, node).unwrap_or_default();
        outer.saturating_sub(self.wire.encapsulation.overhead())
    }
}

/// The largest outer packet that the path to `node` takes, as far as the kernel knows. Connecting a
/// UDP socket sends nothing, and tells.
///
/// # Errors
/// If there is no route.
pub fn path_mtu(probe: &UdpSocket, node: Ipv4Addr) -> io::Result<usize> {
    probe.connect((node, PROBE_PORT))?;
    let mtu = getsockopt(probe, sockopt::IpMtu)?;
    Ok(usize::try_from(mtu).unwrap_or_default())
}

/// Whether packets are sent with DF, as far as the path takes them, or without and in fragments.
fn set_path_mtu_discovery(socket: BorrowedFd<'_>, is_on: bool) -> io::Result<()> {
    let value = if is_on {
        libc::IP_PMTUDISC_DO
    } else {
        libc::IP_PMTUDISC_DONT
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
}

/// Datagrams that follow each other may be received as one.
pub fn join_datagrams(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

#[allow(unsafe_code, reason = "these options have no safe wrappers")]
fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call, and the kernel reads one `c_int` from the
    // pointer, which is valid for that long.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
