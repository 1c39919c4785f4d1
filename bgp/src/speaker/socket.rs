//! Sockets with the options BGP wants. The only file of this crate with `unsafe`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::secret::Secret;
use crate::types::Prefix;

/// The kernel cuts this down to net.core.somaxconn. Long, so that a rack that comes back at once
/// is not turned away.
const BACKLOG: i32 = 65_535;
/// A dial that got no answer by then failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How a connection is made or checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transport {
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
    pub ttl: u8,
    /// GTSM (RFC 5082): packets of peers further away than this are dropped.
    pub ttl_security_hops: Option<u8>,
    /// TCP MD5 (RFC 2385).
    pub password: Option<Secret>,
}

/// A socket that has its address and does not listen yet.
///
/// # Errors
/// What the kernel said, e.g. that the address is not there or in use.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
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
    Ok(socket)
}

/// Listens on a bound socket.
///
/// # Errors
/// What the kernel said, e.g. that somebody else listens there.
pub fn listen(socket: Socket) -> io::Result<TcpListener> {
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
        socket
            .bind(SocketAddr::new(local, 0))
            .map_err(|error| io::Error::new(error.kind(), format!("source {local}: {error}")))?;
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

/// Ends a connection of which nothing is to be left: a reset, so that the kernel keeps no socket of
/// it for a minute, as it does for the side that closes first.
pub fn refuse(stream: TcpStream) {
    // Without the option it is an ordinary end.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Whether the other side has ended the connection, by FIN or RST, although there may be octets to
/// read still.
#[allow(unsafe_code, reason = "TCP_INFO has no safe wrapper")]
pub fn has_ended(stream: &TcpStream) -> bool {
    // Of linux/tcp_states.h: gone, and waiting for this side to close.
    const TCP_CLOSE: u8 = 7;
    const TCP_CLOSE_WAIT: u8 = 8;
    // The first field of `struct tcp_info`; the kernel fills in as much as there is room for.
    let mut state = 0u8;
    let mut length = size_of::<u8>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the borrow's lifetime, and the pointers describe one octet
    // and its length, which outlive the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    result == 0 && matches!(state, TCP_CLOSE | TCP_CLOSE_WAIT)
}

/// Whether an error of accept(2) is about one connection, which is gone by it; after any other the
/// same would come again at once.
pub fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
        )
    )
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
    if let Some(password) = &transport.password {
        // On an accepted connection this replaces what the listening socket knew. One that came
        // about before the key was there is dead from here on: nothing without a digest passes.
        set_md5_key(socket, &Prefix::host(transport.remote.ip()), Some(password))?;
    }
    if let Some(hops) = transport.ttl_security_hops {
        let least = 256 - libc::c_int::from(hops.max(1));
        set_min_ttl(socket, is_ipv4, least)?;
    }
    Ok(())
}

/// What one socket may hold in options, keys included (net.core.optmem_max); `None` where the
/// kernel does not say.
pub fn optmem_max() -> Option<usize> {
    core_setting("optmem_max")
}

/// To how many connections the kernel cuts a backlog (net.core.somaxconn of the network namespace);
/// `None` where it does not say.
pub fn somaxconn() -> Option<u64> {
    core_setting("somaxconn")
}

fn core_setting<T: FromStr>(name: &str) -> Option<T> {
    let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
    text.trim().parse().ok()
}

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: SockAddrStorage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    ifindex: libc::c_int,
    key: [u8; Secret::MAX_LEN],
}

/// Sets the TCP MD5 key for remote addresses inside `remote`, or with `None` removes it; one that
/// is not there is removed already. Of several keys the one of the longest prefix counts.
///
/// # Errors
/// What the kernel said: out of option memory (ENOMEM, see [`optmem_max`]), or built without TCP MD5
/// (ENOPROTOOPT).
#[allow(unsafe_code, reason = "TCP_MD5SIG has no safe wrapper")]
pub fn set_md5_key(
    socket: &SockRef<'_>,
    remote: &Prefix,
    secret: Option<&Secret>,
) -> io::Result<()> {
    const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
    let octets = secret.map_or(&[][..], Secret::octets);
    let mut key = [0; Secret::MAX_LEN];
    key[..octets.len()].copy_from_slice(octets);
    let address = SockAddr::from(SocketAddr::new(remote.network(), 0));
    let request = TcpMd5Sig {
        address: address.as_storage(),
        flags: if remote.is_host() {
            0
        } else {
            TCP_MD5SIG_FLAG_PREFIX
        },
        prefix_length: remote.length(),
        key_length: octets.len() as u16,
        ifindex: 0,
        key,
    };
    // Only ranges need the younger option (Linux 4.13).
    let option = if remote.is_host() {
        libc::TCP_MD5SIG
    } else {
        libc::TCP_MD5SIG_EXT
    };
    // SAFETY: the descriptor is open for the borrow's lifetime, and the pointer and length describe
    // one TcpMd5Sig, laid out as the kernel's, that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const request).cast(),
            size_of::<TcpMd5Sig>() as libc::socklen_t,
        )
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if secret.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        error => Err(error),
    }
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
mod tests;
