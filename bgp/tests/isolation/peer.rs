//! A peer of which every octet is the test's: a blocking socket, and threads that listen and keep
//! the session alive.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bgp::types::{Family, FamilySet, HoldTime, Prefix, RouterId};
use bgp::wire::Notification;
use bgp::wire::attribute::PathAttributes;
use bgp::wire::capability::Capability;
use bgp::wire::frame::{self, Frame, MAX_LEN, MessageKind};
use bgp::wire::open::Open;
use bgp::wire::update::{self, EncodeContext, UpdateContext};
use bytes::{Bytes, BytesMut};
use socket2::{Domain, SockRef, Socket, Type};

use crate::scene::{AS, DEADLINE, SPEAKER, address};

/// A connection to the speaker from 127.0.0.`last`.
pub fn connect(last: u8) -> TcpStream {
    connect_with(last, None)
}

/// With a receive buffer of this size, in octets.
pub fn connect_with(last: u8, receive_buffer: Option<usize>) -> TcpStream {
    connect_from(address(last), receive_buffer)
}

/// From any address of the namespace.
pub fn connect_from(from: Ipv4Addr, receive_buffer: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    if let Some(size) = receive_buffer {
        // Before the connection: afterwards the window has been told.
        socket.set_recv_buffer_size(size).expect("buffer");
    }
    connect_socket(socket, from)
}

pub fn connect_socket(socket: Socket, from: Ipv4Addr) -> TcpStream {
    try_socket(socket, from).expect("connected")
}

/// `None` if it was refused before this side had seen it come about.
pub fn connect_to_be_refused(from: Ipv4Addr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    match try_socket(socket, from) {
        Ok(stream) => Some(stream),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

fn try_socket(socket: Socket, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let from = SocketAddr::from((from, 0));
    socket.bind(&from.into()).expect("bound");
    let to = SocketAddr::from((address(SPEAKER), 179));
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    stream.set_write_timeout(Some(DEADLINE)).expect("set");
    // One that was refused already has no options any more.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// What the speaker sees of a process that is killed with unread octets, or of a firewall.
pub fn reset(stream: TcpStream) {
    let linger = Some(Duration::ZERO);
    SockRef::from(&stream).set_linger(linger).expect("set");
}

pub fn open(last: u8, hold_time_secs: u16) -> Bytes {
    let open = Open {
        asn: AS,
        hold_time: HoldTime::new(hold_time_secs).expect("allowed"),
        router_id: RouterId(Ipv4Addr::new(192, 0, 2, last)),
        capabilities: vec![Family::Ipv4.into(), Capability::FourOctetAs(AS)],
    };
    open.encode()
}

/// Attributes that tell `number`s apart.
pub fn attributes(last: u8, number: u32) -> PathAttributes {
    PathAttributes {
        med: Some(bgp::types::Med(number)),
        local_pref: Some(bgp::types::LocalPref(100)),
        ..PathAttributes::originated(IpAddr::from([192, 0, 2, last]))
    }
}

const ENCODING: EncodeContext = EncodeContext {
    four_octet_as: true,
    max_len: MAX_LEN,
    add_path: FamilySet::EMPTY,
};

pub fn announce(attributes: &PathAttributes, prefixes: &[Prefix]) -> Vec<u8> {
    let prefixes = prefixes.iter().copied();
    let messages = update::encode_announce(Family::Ipv4, attributes, prefixes, &ENCODING);
    messages.expect("fits").concat()
}

pub fn withdraw(prefixes: &[Prefix]) -> Vec<u8> {
    update::encode_withdraw(Family::Ipv4, prefixes.iter().copied(), &ENCODING).concat()
}

/// What a peer hears, KEEPALIVEs apart.
#[derive(Debug)]
pub enum Heard {
    Announced(Vec<Prefix>),
    Withdrawn(Vec<Prefix>),
    EndOfRib,
    Notification(Notification),
    Closed,
}

/// The peer's end of an established session.
pub struct Peer {
    pub stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    pub fn establish(last: u8, hold_time_secs: u16) -> Peer {
        Peer::establish_on(connect(last), last, hold_time_secs)
            .unwrap_or_else(|| panic!("127.0.0.{last} was turned away"))
    }

    /// `None` if the speaker ends the connection instead.
    pub fn establish_on(stream: TcpStream, last: u8, hold_time_secs: u16) -> Option<Peer> {
        Peer::establish_with(stream, &open(last, hold_time_secs))
    }

    /// With an OPEN of the test's own.
    pub fn establish_with(stream: TcpStream, open: &[u8]) -> Option<Peer> {
        let mut peer = Peer {
            stream,
            buffer: BytesMut::new(),
        };
        let both = [open, &frame::keepalive()].concat();
        peer.stream.write_all(&both).ok()?;
        for kind in [MessageKind::Open, MessageKind::Keepalive] {
            let frame = peer.receive()?;
            if frame.kind == MessageKind::Notification {
                return None;
            }
            assert_eq!(frame.kind, kind);
        }
        Some(peer)
    }

    /// The next message; `None` where the connection ends.
    pub fn receive(&mut self) -> Option<Frame> {
        receive(&mut self.stream, &mut self.buffer)
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("written");
    }

    /// Goes on in threads of its own: one tells `hear` what comes, and when; one sends a KEEPALIVE
    /// every `interval`.
    pub fn live(
        self,
        interval: Duration,
        hear: impl FnMut(Instant, Heard) + Send + 'static,
    ) -> Live {
        let reading = self.stream.try_clone().expect("a descriptor");
        let writing = Arc::new(Mutex::new(self.stream));
        let (stop, stopped) = mpsc::channel();
        let ticking = Arc::clone(&writing);
        let ticker = std::thread::spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let mut stream = ticking.lock().expect("no panic");
                // The listener notices and tells.
                let _ = stream.write_all(&frame::keepalive());
            }
        });
        let buffer = self.buffer;
        let listener = std::thread::spawn(move || listen(reading, buffer, hear));
        Live {
            writing,
            stop,
            ticker: Some(ticker),
            listener: Some(listener),
        }
    }
}

fn receive(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Frame> {
    let mut octets = [0; 16 * 1024];
    loop {
        if let Some(frame) = frame::next_frame(buffer, MAX_LEN).expect("valid") {
            return Some(frame);
        }
        match stream.read(&mut octets) {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&octets[..read]),
        }
    }
}

/// Until the connection ends. Returns when KEEPALIVEs came, and the end.
fn listen(
    mut stream: TcpStream,
    mut buffer: BytesMut,
    mut hear: impl FnMut(Instant, Heard),
) -> Vec<Instant> {
    let mut keepalives = vec![Instant::now()];
    while let Some(frame) = receive(&mut stream, &mut buffer) {
        let now = Instant::now();
        match frame.kind {
            MessageKind::Keepalive => keepalives.push(now),
            MessageKind::Update => hear_update(&frame.body, &mut |heard| hear(now, heard)),
            MessageKind::Notification => {
                let notification = Notification::decode(&frame.body).expect("valid");
                hear(now, Heard::Notification(notification));
            }
            MessageKind::Open | MessageKind::RouteRefresh => panic!("unexpected {frame:?}"),
        }
    }
    keepalives.push(Instant::now());
    hear(Instant::now(), Heard::Closed);
    keepalives
}

fn hear_update(body: &[u8], hear: &mut impl FnMut(Heard)) {
    let context = UpdateContext {
        four_octet_as: true,
        ebgp: false,
        add_path: FamilySet::EMPTY,
    };
    let update = update::decode_update(body, &context).expect("valid");
    for nlri in &update.withdrawn {
        hear(Heard::Withdrawn(nlri.iter().collect()));
    }
    for announced in &update.announced {
        hear(Heard::Announced(announced.nlri.iter().collect()));
    }
    if update.end_of_rib.is_some() {
        hear(Heard::EndOfRib);
    }
}

/// A session that goes on by itself.
pub struct Live {
    writing: Arc<Mutex<TcpStream>>,
    stop: mpsc::Sender<()>,
    ticker: Option<JoinHandle<()>>,
    listener: Option<JoinHandle<Vec<Instant>>>,
}

impl Live {
    pub fn send(&self, octets: &[u8]) {
        let mut stream = self.writing.lock().expect("no panic");
        stream.write_all(octets).expect("written");
    }

    /// Ends the session and returns the longest time between two KEEPALIVEs, the session's
    /// beginning and end included.
    pub fn end(mut self) -> Duration {
        self.close();
        let listener = self.listener.take().expect("only this takes it");
        let keepalives = listener.join().expect("no panic");
        let gaps = keepalives.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    fn close(&mut self) {
        // A ticker that panicked has said so.
        let _ = self.stop.send(());
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
        if let Ok(stream) = self.writing.lock() {
            // Closed by the speaker already is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.close();
    }
}
