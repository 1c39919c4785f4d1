//! The one raw socket for IP protocol 4 that sends and receives.
//!
//! One only: the kernel gives a copy of every packet to each raw socket that matches. While it is
//! open the kernel counts protocol 4 for this address as delivered and sends no ICMP "protocol
//! unreachable".

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

const PROTOCOL_IPIP: i32 = 4;
const TTL: u32 = 64;
/// A burst of a few thousand full packets; 212 KB, the default, loses packets at once.
const RECEIVE_BUFFER: usize = 8 << 20;
const SEND_BUFFER: usize = 4 << 20;
/// Any port: nothing is ever sent by the probe.
const PROBE_PORT: u16 = 9;

pub struct Wire {
    socket: Socket,
}

impl Wire {
    /// Opens the socket for the outer address `local`.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, EADDRNOTAVAIL if the address is not on this host.
    pub fn open(local: Ipv4Addr) -> io::Result<Wire> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(PROTOCOL_IPIP)))?;
        // FORCE goes beyond net.core.rmem_max, which needs CAP_NET_ADMIN in the host's user namespace.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.set_ttl_v4(TTL)?;
        set_path_mtu_discovery(socket.as_fd(), true)?;
        socket.bind(&SocketAddr::V4(SocketAddrV4::new(local, 0)).into())?;
        socket.set_nonblocking(true)?;
        Ok(Wire { socket })
    }

    /// Receives one packet with its outer header.
    ///
    /// # Errors
    /// WouldBlock if there is none. Others are late news about packets sent earlier (an ICMP error),
    /// and the next call goes on.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::sys::socket::recv(
            self.socket.as_raw_fd(),
            buffer,
            nix::sys::socket::MsgFlags::empty(),
        )?)
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The sending half: keeps what the socket is set to, so that most packets cost one system call.
pub struct Sender<'a> {
    wire: &'a Wire,
    tos: u8,
    probe: UdpSocket,
}

impl<'a> Sender<'a> {
    /// # Errors
    /// If the system has no socket left.
    pub fn new(wire: &'a Wire, local: Ipv4Addr) -> io::Result<Sender<'a>> {
        let probe = UdpSocket::bind((local, 0))?;
        wire.socket.set_tos_v4(0)?;
        Ok(Sender {
            wire,
            tos: 0,
            probe,
        })
    }

    /// Sends `inner` in an outer packet to `node`, with DF set.
    ///
    /// # Errors
    /// WouldBlock if the queue is full, EMSGSIZE if it exceeds the path's MTU, or late news about
    /// an earlier packet.
    pub fn send(&mut self, inner: &[u8], tos: u8, node: Ipv4Addr) -> io::Result<()> {
        if tos != self.tos {
            self.wire.socket.set_tos_v4(u32::from(tos))?;
            self.tos = tos;
        }
        let target = SocketAddr::V4(SocketAddrV4::new(node, 0)).into();
        self.wire.socket.send_to(inner, &target).map(drop)
    }

    /// As `send`, in fragments if need be: for an inner packet that may be fragmented.
    ///
    /// # Errors
    /// As `send`.
    pub fn send_fragmented(&mut self, inner: &[u8], tos: u8, node: Ipv4Addr) -> io::Result<()> {
        set_path_mtu_discovery(self.wire.as_fd(), false)?;
        let sent = self.send(inner, tos, node);
        set_path_mtu_discovery(self.wire.as_fd(), true)?;
        sent
    }

    /// The largest outer packet that the path to `node` takes, as far as the kernel knows.
    ///
    /// # Errors
    /// If there is no route.
    pub fn path_mtu(&self, node: Ipv4Addr) -> io::Result<usize> {
        path_mtu(&self.probe, node)
    }
}

/// Connecting a UDP socket sends nothing, and tells the MTU of the path.
///
/// # Errors
/// If there is no route.
pub fn path_mtu(probe: &UdpSocket, node: Ipv4Addr) -> io::Result<usize> {
    probe.connect((node, PROBE_PORT))?;
    let mtu = getsockopt(probe, sockopt::IpMtu)?;
    Ok(usize::try_from(mtu).unwrap_or_default())
}

#[allow(unsafe_code, reason = "IP_MTU_DISCOVER has no safe wrapper")]
fn set_path_mtu_discovery(socket: BorrowedFd<'_>, is_on: bool) -> io::Result<()> {
    let value: libc::c_int = if is_on {
        libc::IP_PMTUDISC_DO
    } else {
        libc::IP_PMTUDISC_DONT
    };
    // SAFETY: the descriptor is open for the whole call, and the kernel reads one `c_int` from the
    // pointer, which is valid for that long.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
