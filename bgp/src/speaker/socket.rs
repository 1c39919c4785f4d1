//! Sockets with the options BGP wants. The only file of this crate with `unsafe`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The kernel cuts this down to net.core.somaxconn. Long, so that a rack that comes back at once
/// is not turned away.
const BACKLOG: i32 = 65_535;
/// A dial that got no answer by then failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How a connection is made or checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transport {
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
    pub ttl: u8,
    /// GTSM (RFC 5082): packets of peers further away than this are dropped.
    pub ttl_security_hops: Option<u8>,
}

/// Listens on one address.
///
/// # Errors
/// What the kernel said, e.g. that the address is not there or in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The SYN-ACK leaves with the listening socket's TTL; a peer with GTSM drops it below 255.
    if address.is_ipv4() {
        socket.set_ttl_v4(255)?;
    } else {
        socket.set_unicast_hops_v6(255)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects, with every option set before the first packet leaves.
///
/// # Errors
/// What the kernel said, or `TimedOut`.
pub async fn dial(transport: Transport) -> io::Result<TcpStream> {
    let socket = match transport.remote {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(local) = transport
        .local
        .filter(|local| local.is_ipv4() == transport.remote.is_ipv4())
    {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    set_options(&SockRef::from(&socket), &transport)?;
    tokio::time::timeout(DIAL_TIMEOUT, socket.connect(transport.remote)).await?
}

/// Prepares an accepted connection. Must succeed before anything is sent or believed.
///
/// # Errors
/// What the kernel said; the connection must then be closed.
pub fn prepare(stream: &TcpStream, transport: &Transport) -> io::Result<()> {
    set_options(&SockRef::from(stream), transport)
}

fn set_options(socket: &SockRef<'_>, transport: &Transport) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // RFC 5082 §3: with GTSM everything leaves with 255.
    let ttl = if transport.ttl_security_hops.is_some() {
        255
    } else {
        u32::from(transport.ttl)
    };
    let is_ipv4 = transport.remote.is_ipv4();
    if is_ipv4 {
        socket.set_ttl_v4(ttl)?;
        // RFC 4271 §3 leaves precedence open; CS6 is what routers use, so that sessions survive congestion.
        socket.set_tos_v4(0xC0)?;
    } else {
        socket.set_unicast_hops_v6(ttl)?;
    }
    if let Some(hops) = transport.ttl_security_hops {
        let least = 256 - libc::c_int::from(hops.max(1));
        set_min_ttl(socket, is_ipv4, least)?;
    }
    Ok(())
}

#[allow(
    unsafe_code,
    reason = "IP_MINTTL and IPV6_MINHOPCOUNT have no safe wrapper"
)]
fn set_min_ttl(socket: &SockRef<'_>, is_ipv4: bool, least: libc::c_int) -> io::Result<()> {
    const IPV6_MINHOPCOUNT: libc::c_int = 73;
    let (level, option) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_MINTTL)
    } else {
        (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT)
    };
    // SAFETY: the descriptor is open for the borrow's lifetime, and the pointer and length describe
    // one c_int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const least).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gtsm_and_ttl_are_accepted_by_the_kernel() {
        let listener = listen("127.0.0.1:0".parse().expect("address")).expect("listen");
        let transport = Transport {
            remote: listener.local_addr().expect("bound"),
            local: Some([127, 0, 0, 1].into()),
            ttl: 64,
            ttl_security_hops: Some(1),
        };
        let dialed = dial(transport).await.expect("dial");
        assert_eq!(SockRef::from(&dialed).ttl_v4().expect("ttl"), 255);
        let (accepted, _) = listener.accept().await.expect("accept");
        prepare(&accepted, &transport).expect("prepare");
    }
}
