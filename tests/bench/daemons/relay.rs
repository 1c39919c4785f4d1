//! The limit: a process that copies what each client says to all the others, and knows nothing.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use super::Daemon;
use crate::load::DAEMON;
use crate::load::messages::{self, Heard};

pub struct Relay;

impl Daemon for Relay {
    fn name(&self) -> &'static str {
        "relay"
    }

    fn version(&self) -> Option<String> {
        Some("copies octets".to_owned())
    }

    fn prepare(&self, _: &Path, _: u32, _: &mut Mounts) -> Result<()> {
        Ok(())
    }

    fn commands(&self, _: &Path) -> Vec<Command> {
        let own = std::env::current_exe().unwrap_or_default();
        let mut command = Command::new(own);
        command.arg("relay");
        vec![command]
    }

    fn is_relay(&self) -> bool {
        true
    }
}

const LISTENER: u64 = u64::MAX;

struct Client {
    stream: TcpStream,
    /// The front of a message that is not there whole.
    rest: Vec<u8>,
    outgoing: Vec<u8>,
}

/// Runs until it is killed.
pub fn serve() -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&std::net::SocketAddr::from((DAEMON, 179)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let reading = |number| EpollEvent::new(EpollFlags::EPOLLIN, number);
    epoll.add(listener.as_fd(), reading(LISTENER))?;
    let mut clients: HashMap<u64, Client> = HashMap::new();
    let mut next = 0;
    let mut events = vec![EpollEvent::empty(); 256];
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        let mut copied = Vec::new();
        for event in &events[..ready] {
            let number = event.data();
            if number == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll.add(stream.as_fd(), reading(next))?;
                    let client = Client {
                        stream,
                        rest: Vec::new(),
                        outgoing: Vec::new(),
                    };
                    clients.insert(next, client);
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&number)
                && !client.hear(&mut buffer, &mut copied, number)?
            {
                clients.remove(&number);
            }
        }
        for (from, octets) in copied {
            for (number, client) in &mut clients {
                if *number != from {
                    client.outgoing.extend_from_slice(&octets);
                }
            }
        }
        for (number, client) in &mut clients {
            if client.outgoing.is_empty() {
                continue;
            }
            client.flush()?;
            let waits = if client.outgoing.is_empty() {
                EpollFlags::EPOLLIN
            } else {
                EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT
            };
            let mut event = EpollEvent::new(waits, *number);
            epoll.modify(client.stream.as_fd(), &mut event)?;
        }
    }
}

impl Client {
    /// Returns whether it is there still.
    fn hear(
        &mut self,
        buffer: &mut [u8],
        copied: &mut Vec<(u64, Vec<u8>)>,
        number: u64,
    ) -> Result<bool> {
        let kept = self.rest.len();
        buffer[..kept].copy_from_slice(&self.rest);
        self.rest.clear();
        let read = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Ok(false),
        };
        let octets = &buffer[..kept + read];
        let mut at = 0;
        let mut updates_from = None;
        while let Some((length, heard)) =
            messages::next(&octets[at..]).map_err(anyhow::Error::msg)?
        {
            match heard {
                Heard::Update { .. } => updates_from = updates_from.or(Some(at)),
                Heard::Open => {
                    self.outgoing.extend(messages::open(DAEMON));
                    self.outgoing.extend(messages::keepalive());
                }
                Heard::Other(..) => {}
            }
            at += length;
        }
        if let Some(from) = updates_from {
            copied.push((number, octets[from..at].to_vec()));
        }
        self.rest.extend_from_slice(&octets[at..]);
        Ok(true)
    }

    fn flush(&mut self) -> Result<()> {
        let mut at = 0;
        while at < self.outgoing.len() {
            match self.stream.write(&self.outgoing[at..]) {
                Ok(written) => at += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Its end is seen where it is read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error).context("failed to write"),
            }
        }
        self.outgoing.drain(..at);
        Ok(())
    }
}
