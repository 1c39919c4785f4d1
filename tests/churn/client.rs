//! A scripted client: what it wants to say, its session, and what it heard.
//!
//! Nothing here waits. Sockets do not block, and time is what the world says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bgp::types::{Asn, Family, FamilySet, HoldTime, PathPrefix, Prefix};
use bgp::wire::Notification;
use bgp::wire::attribute::PathAttributes;
use bgp::wire::capability::{Capability, GracefulRestart};
use bgp::wire::frame::{self, Frame, MAX_LEN, MessageKind};
use bgp::wire::open::Open;
use bgp::wire::refresh::{RefreshKind, RouteRefresh};
use bgp::wire::update::{self, EncodeContext, UpdateContext};
use bytes::BytesMut;
use socket2::{Domain, Socket, Type};

use crate::oracle::{self, Table};
use crate::setup::address;

const ENCODING: EncodeContext = EncodeContext {
    four_octet_as: true,
    max_len: MAX_LEN,
    add_path: FamilySet::EMPTY,
};

/// What a client offers in its OPEN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Habits {
    pub hold_time_secs: u16,
    /// Graceful restart (RFC 4724), and for how long.
    pub restart_time_secs: Option<u16>,
    /// NOTIFICATIONs are covered, too (RFC 8538).
    pub has_notification: bool,
    pub has_enhanced_refresh: bool,
    pub takes_all_paths: bool,
}

pub struct Client {
    pub last: u8,
    pub asn: Asn,
    /// What it announces when it is up.
    pub routes: BTreeMap<Prefix, PathAttributes>,
    pub session: Option<Live>,
    /// What the reflector has of it.
    pub known: BTreeMap<Prefix, PathAttributes>,
    /// The session is lost; until then the reflector keeps what is known.
    pub kept_until: Option<Duration>,
    /// When the oldest of what is kept became stale.
    pub first_lost: Option<Duration>,
    /// Until then the reflector takes no connection of it.
    pub held_until: Option<Duration>,
}

impl Client {
    pub fn new(last: u8, asn: Asn) -> Client {
        Client {
            last,
            asn,
            routes: BTreeMap::new(),
            session: None,
            known: BTreeMap::new(),
            kept_until: None,
            first_lost: None,
            held_until: None,
        }
    }

    /// Up, and listening to the reflector.
    pub fn is_well(&self) -> bool {
        self.session.as_ref().is_some_and(|live| !live.is_silent)
    }

    /// When the reflector does something about it by itself.
    pub fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let live = self.session.as_ref().filter(|live| live.is_silent);
        let expires = live.map(Live::expires);
        [expires, self.kept_until, self.held_until]
            .into_iter()
            .flatten()
    }

    /// Most routes of one family.
    pub fn most_of_a_family(&self) -> usize {
        let of = |family| {
            self.known
                .keys()
                .filter(|prefix| prefix.family() == family)
                .count()
        };
        Family::ALL.map(of).into_iter().max().unwrap_or(0)
    }
}

/// A session of which the test writes every octet.
pub struct Live {
    stream: TcpStream,
    buffer: BytesMut,
    pub habits: Habits,
    pub last_sent: Duration,
    /// Reads and says nothing any more.
    pub is_silent: bool,
    has_open: bool,
    pub is_established: bool,
    /// What ended it.
    pub end: Option<String>,
    table: BTreeMap<PathPrefix, PathAttributes>,
    /// Between BoRR and EoRR, what was not repeated.
    in_doubt: BTreeSet<PathPrefix>,
    /// Families whose End-of-RIB came.
    ended: BTreeSet<Family>,
    /// Families that the reflector wants again.
    pub asked: BTreeSet<Family>,
    pub messages: u64,
}

impl Live {
    /// Connects and says OPEN. `None` where the reflector does not even accept that.
    pub fn dial(
        (last, asn): (u8, Asn),
        to: SocketAddr,
        habits: Habits,
        now: Duration,
    ) -> Option<Live> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket
            .bind(&SocketAddr::from((address(last), 0)).into())
            .expect("bound");
        socket.connect(&to.into()).ok()?;
        socket.set_tcp_nodelay(true).expect("set");
        socket.set_nonblocking(true).expect("set");
        let mut live = Live {
            stream: socket.into(),
            buffer: BytesMut::new(),
            habits,
            last_sent: now,
            is_silent: false,
            has_open: false,
            is_established: false,
            end: None,
            table: BTreeMap::new(),
            in_doubt: BTreeSet::new(),
            ended: BTreeSet::new(),
            asked: BTreeSet::new(),
            messages: 0,
        };
        live.send(&open(last, asn, habits).encode(), now);
        live.send(&frame::keepalive(), now);
        Some(live)
    }

    /// When its hold timer ends at the reflector if nothing is sent any more.
    pub fn expires(&self) -> Duration {
        self.last_sent + Duration::from_secs(u64::from(self.habits.hold_time_secs))
    }

    pub fn send(&mut self, octets: &[u8], now: Duration) {
        self.last_sent = now;
        if self.end.is_none()
            && let Err(error) = self.stream.write_all(octets)
        {
            // What was said before is still to be read.
            let is_closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(is_closed.contains(&error.kind()), "{error}");
        }
    }

    pub fn announce(&mut self, routes: &BTreeMap<Prefix, PathAttributes>, now: Duration) {
        for (prefix, attributes) in routes {
            let prefixes = std::iter::once(*prefix);
            let messages =
                update::encode_announce(prefix.family(), attributes, prefixes, &ENCODING);
            self.send(&messages.expect("fits").concat(), now);
        }
    }

    pub fn withdraw(&mut self, prefixes: &[Prefix], now: Duration) {
        for family in Family::ALL {
            let of_family = prefixes.iter().copied().filter(|p| p.family() == family);
            let messages = update::encode_withdraw(family, of_family, &ENCODING);
            self.send(&messages.concat(), now);
        }
    }

    pub fn end_of_rib(&mut self, now: Duration) {
        for family in Family::ALL {
            self.send(&update::encode_end_of_rib(family), now);
        }
    }

    pub fn refresh(&mut self, family: Family, kind: RefreshKind, now: Duration) {
        self.send(&RouteRefresh { family, kind }.encode(), now);
    }

    pub fn notify(&mut self, notification: &Notification, now: Duration) {
        self.send(&notification.encode(), now);
    }

    /// Whether the whole table came.
    pub fn has_ended_tables(&self) -> bool {
        self.ended.len() == Family::ALL.len() && self.in_doubt.is_empty()
    }

    /// Takes what has come. Returns whether something did.
    pub fn hear(&mut self) -> bool {
        let mut octets = [0; 16 * 1024];
        let mut has_heard = false;
        while self.end.is_none() && !self.is_silent {
            match self.stream.read(&mut octets) {
                Ok(0) => self.end = Some("closed".into()),
                Ok(read) => self.buffer.extend_from_slice(&octets[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.end = Some(error.to_string()),
            }
            has_heard = true;
            while let Some(frame) = frame::next_frame(&mut self.buffer, MAX_LEN).expect("valid") {
                self.messages += 1;
                self.take(&frame);
            }
        }
        if self.buffer.is_empty() {
            // What it once held is not the reflector's.
            self.buffer = BytesMut::new();
        }
        has_heard
    }

    fn take(&mut self, frame: &Frame) {
        match frame.kind {
            MessageKind::Open => self.has_open = true,
            MessageKind::Keepalive => self.is_established |= self.has_open,
            MessageKind::Update => self.take_update(&frame.body),
            MessageKind::Notification => {
                let notification = Notification::decode(&frame.body).expect("valid");
                self.end = Some(notification.describe());
            }
            MessageKind::RouteRefresh => {
                let refresh = RouteRefresh::decode(&frame.body).expect("valid");
                let RouteRefresh { family, kind } = refresh.expect("of a family of ours");
                let of_family = |path: &&PathPrefix| path.prefix.family() == family;
                match kind {
                    RefreshKind::Request => {
                        self.asked.insert(family);
                    }
                    RefreshKind::Begin => {
                        self.in_doubt.extend(self.table.keys().filter(of_family));
                    }
                    RefreshKind::End => {
                        let table = &mut self.table;
                        self.in_doubt.retain(|path| {
                            let is_over = path.prefix.family() == family;
                            if is_over {
                                table.remove(path);
                            }
                            !is_over
                        });
                    }
                }
            }
        }
    }

    fn take_update(&mut self, body: &[u8]) {
        let add_path = match self.habits.takes_all_paths {
            true => Family::ALL.into_iter().collect(),
            false => FamilySet::EMPTY,
        };
        let context = UpdateContext {
            four_octet_as: true,
            // Nothing is dropped that an external peer should not have been sent.
            ebgp: false,
            add_path,
        };
        let update = update::decode_update(body, &context).expect("valid");
        assert_eq!(update.errors, [], "an UPDATE without faults");
        for path in update.withdrawn.iter().flat_map(|nlri| nlri.paths()) {
            self.table.remove(&path);
            self.in_doubt.remove(&path);
        }
        for announced in &update.announced {
            for path in announced.nlri.paths() {
                self.table.insert(path, announced.attributes.clone());
                self.in_doubt.remove(&path);
            }
        }
        self.ended.extend(update.end_of_rib);
    }

    /// What it has, in the form of the oracle.
    pub fn heard(&self) -> Table {
        let mut table = Table::new();
        for (path, attributes) in &self.table {
            table
                .entry(path.prefix)
                .or_default()
                .push(attributes.clone());
        }
        table
    }
}

fn open(last: u8, asn: Asn, habits: Habits) -> Open {
    let mut capabilities = vec![
        Family::Ipv4.into(),
        Family::Ipv6.into(),
        Capability::FourOctetAs(asn),
        Capability::RouteRefresh,
    ];
    if let Some(restart_time_secs) = habits.restart_time_secs {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restart_state: false,
            notification: habits.has_notification,
            restart_time_secs,
            families: Family::ALL.map(|family| (family, true)).to_vec(),
        }));
    }
    if habits.has_enhanced_refresh {
        capabilities.push(Capability::EnhancedRouteRefresh);
    }
    if habits.takes_all_paths {
        const RECEIVE: u8 = 1;
        let entries = Family::ALL.map(|family| (family.afi(), 1, RECEIVE));
        capabilities.push(Capability::AddPath(entries.to_vec()));
    }
    Open {
        asn,
        hold_time: HoldTime::new(habits.hold_time_secs).expect("allowed"),
        router_id: oracle::router_id(last),
        capabilities,
    }
}
