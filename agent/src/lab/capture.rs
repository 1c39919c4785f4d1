//! Sees which echoes pass an interface, and how: bare or inside IP protocol 4.
//!
//! A packet socket hears both directions. It starts hearing when `start` returns.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{LinkAddr, recvfrom, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::error::Result;
use super::netns::Namespace;
use super::packet::{self, Carriage, Echo};

const ETH_P_ALL: u16 = 0x0003;
const ETH_P_IP: u16 = 0x0800;
/// Each packet takes a KiB of it: what comes while a busy machine lets the reader wait for seconds.
const RECEIVE_BUFFER: usize = 8 << 20;

/// An echo on a wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// The namespace's name.
    pub place: String,
    pub interface: String,
    pub carriage: Carriage,
    pub echo: Echo,
}

/// Nothing that `socket` hears is dropped while its reader waits for the processor: it would look like
/// a packet that was lost on the way.
///
/// # Errors
/// The kernel's.
pub fn make_room(socket: &Socket) -> io::Result<()> {
    // FORCE goes beyond net.core.rmem_max, which is 208 KiB unless someone raised it.
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    Ok(())
}

/// A running capture; dropping it ends it.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sighting>>>,
}

impl Capture {
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Capture> {
        let (socket, index) = namespace.enter(|| {
            let index = nix::net::if_::if_nametoindex(interface)?;
            // Datagram: the kernel takes the Ethernet header off, whatever the link is.
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
            make_room(&socket)?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok((socket, index as usize))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (place, interface) = (namespace.name.clone(), interface.to_owned());
        let thread = thread::spawn(move || {
            let mut sightings = Vec::new();
            let mut buffer = [0_u8; 2048];
            loop {
                match receive(&socket, &mut buffer, index) {
                    Ok(Some(packet)) => {
                        if let Some((carriage, echo)) = packet::parse(packet) {
                            sightings.push(Sighting {
                                place: place.clone(),
                                interface: interface.clone(),
                                carriage,
                                echo,
                            });
                        }
                    }
                    Ok(None) => {}
                    // Only an empty queue ends it, so what was heard before `stop` is counted.
                    Err(_) if stopped.load(Ordering::Relaxed) => return sightings,
                    Err(_) => {}
                }
            }
        });
        Ok(Capture {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the capture and returns what passed, in order.
    pub fn stop(mut self) -> Vec<Sighting> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop takes it");
        thread.join().unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The socket hears all interfaces of its namespace: `None` for a packet of another one.
fn receive<'a>(
    socket: &Socket,
    buffer: &'a mut [u8],
    index: usize,
) -> io::Result<Option<&'a [u8]>> {
    let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer)?;
    let is_ours =
        from.is_some_and(|from| from.ifindex() == index && from.protocol() == ETH_P_IP.to_be());
    Ok(if is_ours { buffer.get(..length) } else { None })
}
