//! What goes from one workload to the other.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent::lab::Namespace;
use anyhow::{Result, anyhow, ensure};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use nix::sys::socket::{setsockopt, sockopt};

use crate::scenarios::percentile;

/// Until packets arrive at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// A packet that has not come until then is lost.
const LOST: Duration = Duration::from_millis(20);
/// Octets of a small packet: the number of those sent before it, and nothing.
const PACKET: usize = 64;
/// Small packets on their way at most, in one system call, and acknowledged by one packet.
const WINDOW: u64 = 256;
const BATCH: u64 = 32;
const BUFFER: usize = 4 << 20;

pub struct Traffic<'a> {
    pub from: &'a Namespace,
    pub to: &'a Namespace,
    pub address: Ipv4Addr,
    pub lasts: Duration,
}

impl Traffic<'_> {
    /// Two connected sockets, the first here, the second there.
    fn sockets(&self) -> Result<(UdpSocket, UdpSocket)> {
        let open = |address: Ipv4Addr| {
            let socket = UdpSocket::bind((address, 0))?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            socket.set_read_timeout(Some(LOST))?;
            Ok(socket)
        };
        let there = self.to.enter(|| open(self.address))?;
        let to = there.local_addr()?;
        let here = self.from.enter(|| {
            let socket = open(Ipv4Addr::UNSPECIFIED)?;
            socket.connect(to)?;
            Ok(socket)
        })?;
        there.connect(here.local_addr()?)?;
        Ok((here, there))
    }

    /// Waits until a packet comes there and another one back.
    pub fn wait_for_echo(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            // Without a route there is not even a socket.
            let is_through = self
                .sockets()
                .and_then(|(here, there)| round_trip(&here, &there));
            match is_through {
                Ok(()) => return Ok(()),
                Err(error) => ensure!(start.elapsed() < PATIENCE, "no packet came: {error:#}"),
            }
        }
    }

    /// Bits per second of one TCP connection.
    pub fn stream(&self) -> Result<f64> {
        let listener = self.to.enter(|| TcpListener::bind((self.address, 0)))?;
        let to: SocketAddr = listener.local_addr()?;
        let mut sender: TcpStream = self.from.enter(|| TcpStream::connect(to))?;
        let (mut receiver, _) = listener.accept()?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        sender.set_write_timeout(Some(PATIENCE))?;
        let lasts = self.lasts;
        // The receiver's end ends the sender.
        thread::scope(move |scope| {
            scope.spawn(move || {
                let octets = vec![0; 128 << 10];
                while sender.write_all(&octets).is_ok() {}
            });
            let mut buffer = vec![0; 256 << 10];
            // The window opens meanwhile.
            read_for(&mut receiver, &mut buffer, lasts / 10)?;
            let start = Instant::now();
            let received = read_for(&mut receiver, &mut buffer, lasts)?;
            Ok(received as f64 * 8.0 / start.elapsed().as_secs_f64())
        })
    }

    /// Small packets per second, and which part was lost.
    pub fn packets(&self) -> Result<(f64, f64)> {
        let (here, there) = self.sockets()?;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(&there, &is_over));
            let sent = send(&here, self.lasts);
            is_over.store(true, Ordering::Relaxed);
            let received = receiver
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the receiver panicked")))?;
            let sent = sent?;
            let rate = received as f64 / self.lasts.as_secs_f64();
            Ok((rate, 1.0 - received as f64 / sent.max(1) as f64))
        })
    }

    /// p50 and p99 of one packet to and fro, in microseconds.
    pub fn round_trips(&self) -> Result<(f64, f64)> {
        let (here, there) = self.sockets()?;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| echo(&there, &is_over));
            let mut times = Vec::new();
            let start = Instant::now();
            while start.elapsed() < self.lasts / 3 {
                let sent = Instant::now();
                here.send(&[0; PACKET])?;
                match here.recv(&mut [0; PACKET]) {
                    Ok(_) => times.push(sent.elapsed().as_secs_f64() * 1e6),
                    Err(error) if is_late(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            is_over.store(true, Ordering::Relaxed);
            Ok((percentile(&mut times, 50), percentile(&mut times, 99)))
        })
    }
}

fn is_late(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn round_trip(here: &UdpSocket, there: &UdpSocket) -> Result<()> {
    here.send(&[0; PACKET])?;
    there.recv(&mut [0; PACKET])?;
    there.send(&[0; PACKET])?;
    here.recv(&mut [0; PACKET])?;
    Ok(())
}

fn read_for(stream: &mut TcpStream, buffer: &mut [u8], lasts: Duration) -> Result<u64> {
    let start = Instant::now();
    let mut received = 0;
    while start.elapsed() < lasts {
        let read = stream.read(buffer)?;
        ensure!(read > 0, "the stream ended");
        received += read as u64;
    }
    Ok(received)
}

fn echo(socket: &UdpSocket, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        if socket.recv(&mut [0; PACKET]).is_ok() {
            // One that does not come back counts as lost at the other end.
            let _ = socket.send(&[0; PACKET]);
        }
    }
}

/// Returns how many were sent.
fn send(socket: &UdpSocket, lasts: Duration) -> Result<u64> {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH as usize, None);
    let octets = [0; PACKET];
    let slices = [[IoSlice::new(&octets)]; BATCH as usize];
    let addresses = [None; BATCH as usize];
    let (mut sent, mut arrived, mut lost) = (0, 0, 0);
    let start = Instant::now();
    while start.elapsed() < lasts {
        if sent + BATCH <= arrived + lost + WINDOW {
            let done = sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &slices,
                addresses,
                [],
                MsgFlags::empty(),
            );
            match done {
                Ok(done) => sent += done.count() as u64,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {}
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        let mut said = [0; 8];
        match socket.recv(&mut said) {
            Ok(8) => arrived = u64::from_ne_bytes(said).max(arrived),
            Ok(_) => {}
            // Packets were lost, and are on their way no more.
            Err(error) if is_late(&error) => lost = sent - arrived,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

/// Returns how many came, after saying so to the sender now and then.
fn receive(socket: &UdpSocket, is_over: &AtomicBool) -> Result<u64> {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH as usize, None);
    let mut packets = [[0; PACKET]; BATCH as usize];
    let (mut received, mut told) = (0, 0);
    loop {
        let mut slices: Vec<_> = packets
            .iter_mut()
            .map(|packet| [IoSliceMut::new(packet)])
            .collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None) {
            Ok(done) => received += done.count() as u64,
            Err(Errno::EAGAIN) if is_over.load(Ordering::Relaxed) => return Ok(received),
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        if received - told >= BATCH {
            told = received;
            // A later one says as much.
            let _ = socket.send(&u64::to_ne_bytes(received));
        }
    }
}
