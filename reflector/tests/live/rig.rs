//! A reflector as a process on loopback addresses, and clients of it in this one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use agent::api::client::Client;
use agent::api::schema::Items;
use bgp::rib::decision;
use bgp::speaker::config::{
    GracefulRestartConfig, Originated, PeerConfig, PeerKey, PeerSource, SpeakerConfig,
};
use bgp::speaker::secret::Secret;
use bgp::speaker::status::PeerStatus;
use bgp::speaker::{Event, Speaker};
use bgp::types::{Asn, LocalPref, RouterId};
use serde_json::Value;
use tokio::sync::mpsc;

const ASN: Asn = Asn(64512);
/// Of documentation (RFC 5737).
const ABSENT: &str = "192.0.2.99";
const DEADLINE: Duration = Duration::from_secs(30);

pub fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// A port that was free a moment ago on every loopback address.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("0.0.0.0:0").expect("bind");
    socket.local_addr().expect("bound").port()
}

/// The reflector 127.0.0.1, whose file is the test's. It ends with this value.
pub struct Reflector {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
    http: SocketAddr,
}

impl Reflector {
    /// Starts it with these BGPPeers and waits until it answers.
    pub async fn start(peers: &[String]) -> Reflector {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rack/rack-a.yaml");
        fs::create_dir(file.parent().expect("a directory")).expect("made");
        let port = free_port();
        let http = SocketAddr::new(loopback(1), free_port());
        fs::write(&file, text(port, peers)).expect("written");
        let process = Command::new(env!("CARGO_BIN_EXE_caracal-reflector"))
            .arg("--config")
            .arg(&file)
            .arg("--run-dir")
            .arg(directory.path().join("run"))
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .args(["--http-listen", &http.to_string()])
            .spawn()
            .expect("the reflector starts");
        let reflector = Reflector {
            process,
            directory,
            port,
            http,
        };
        wait_for("it serves", || reflector.get("/livez").is_some()).await;
        reflector
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("rack/rack-a.yaml")
    }

    /// A password file of the reflector.
    pub fn password_file(&self, password: &str) -> PathBuf {
        let path = self.directory.path().join("password");
        fs::write(&path, password).expect("written");
        path
    }

    /// Replaces the file as an editor does.
    pub fn write(&self, text: &str) {
        let temporary = self.directory.path().join("rack/.new");
        fs::write(&temporary, text).expect("written");
        fs::rename(&temporary, self.file()).expect("renamed");
    }

    pub fn write_peers(&self, peers: &[String]) {
        self.write(&self.text(peers));
    }

    pub fn text(&self, peers: &[String]) -> String {
        text(self.port, peers)
    }

    pub fn hang_up(&self) {
        let id = i32::try_from(self.process.id()).expect("a process id");
        let signal = nix::sys::signal::Signal::SIGHUP;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).expect("sent");
    }

    pub fn ask(&self, target: &str) -> Value {
        let socket = self.directory.path().join("run/reflector.sock");
        Client::new(&socket).get(target).expect(target)
    }

    pub fn peers(&self) -> Vec<PeerStatus> {
        let peers: Items<PeerStatus> =
            serde_json::from_value(self.ask("/v1/peers")).expect("as documented");
        peers.items
    }

    pub fn peer(&self, last: u8) -> Option<PeerStatus> {
        let mut peers = self.peers().into_iter();
        peers.find(|peer| peer.peer == loopback(last))
    }

    pub fn has_absent(&self) -> bool {
        let address = ABSENT.parse::<IpAddr>().expect("an address");
        self.peers().iter().any(|peer| peer.peer == address)
    }

    pub async fn is_established(&self, last: u8) -> PeerStatus {
        let peer = || self.peer(last).filter(|peer| peer.state == "established");
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(peer) = peer() {
                return peer;
            }
            let peers = || self.peers();
            assert!(Instant::now() < until, "{last} is not up: {:#?}", peers());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Status and body of an answer over HTTP; `None` while nobody listens.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> Option<String> {
        let (_, text) = self.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        // It may have ended already; the test has failed then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn text(port: u16, peers: &[String]) -> String {
    let mut text = format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{asNumber: 64512, listenAddresses: [127.0.0.1], listenPort: {port}}}\n"
    );
    for peer in peers {
        text.push_str("---\napiVersion: caracal.dev/v1alpha1\n");
        text.push_str(peer);
    }
    text
}

/// Any client of these addresses.
pub fn range(name: &str, cidr: &str) -> String {
    clients(name, cidr, "")
}

/// The client 127.0.0.`last`, which has `more` in its spec. A range of one address, because a loopback
/// address cannot be listed.
pub fn client(last: u8, more: &str) -> String {
    clients(
        &format!("client-{last}"),
        &format!("127.0.0.{last}/32"),
        more,
    )
}

fn clients(name: &str, cidr: &str, more: &str) -> String {
    format!(
        "kind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{peerPrefixes: [{cidr}], \
         asNumber: 64512, routeReflectorClient: true{more}}}\n"
    )
}

/// A listed peer that is never there, and is not dialled.
pub fn absent() -> String {
    format!(
        "kind: BGPPeer\nmetadata: {{name: absent}}\nspec: {{peerIP: {ABSENT}, asNumber: 64512, \
         passive: true}}\n"
    )
}

/// The client 127.0.0.`last`, which has 10.`last`.0.0/16 to say.
pub struct RackNode {
    pub speaker: Speaker,
    config: SpeakerConfig,
    _events: mpsc::Receiver<Event>,
}

impl RackNode {
    pub fn start(last: u8, reflector: &Reflector) -> RackNode {
        let address = loopback(last);
        // 127/8 is no next hop one may use; this one is only a number.
        let next_hop = IpAddr::from([192, 0, 2, last]);
        let own = format!("10.{last}.0.0/16").parse().expect("a prefix");
        let mut peer = PeerConfig::new("reflector", PeerSource::Peer, Some(ASN));
        peer.local_address = Some(address);
        peer.connect_retry_time = Duration::from_millis(500);
        peer.idle_hold_time = Duration::from_millis(100);
        peer.idle_hold_max = Duration::from_millis(500);
        let config = SpeakerConfig {
            asn: ASN,
            router_id: RouterId(Ipv4Addr::new(127, 0, 0, last)),
            cluster_id: None,
            listen: vec![SocketAddr::new(address, reflector.port)],
            local_addresses: vec![address, next_hop],
            local_pref: LocalPref::DEFAULT,
            peers: BTreeMap::from([(key(reflector), peer)]),
            ranges: BTreeMap::new(),
            max_dynamic_peers: 0,
            originated: [(own, Originated::new(next_hop))].into(),
            aggregates: BTreeMap::new(),
            decision: decision::Options::default(),
            is_draining: false,
            graceful_restart: GracefulRestartConfig::default(),
        };
        let (speaker, events) = Speaker::start(config.clone(), false);
        RackNode {
            speaker,
            config,
            _events: events,
        }
    }

    /// Has another password for the reflector.
    pub async fn follow_password(&mut self, reflector: &Reflector, password: &str) {
        let secret = Secret::new(password).expect("1 to 80 octets");
        let peer = self.config.peers.get_mut(&key(reflector));
        peer.expect("its only peer").password = Some(secret);
        self.speaker.configure(self.config.clone()).await;
    }

    /// What it hears of others.
    pub async fn learned(&self) -> Vec<String> {
        let routes = self.speaker.routes(Default::default()).await;
        let learned = routes.iter().filter(|route| route.peer.is_some());
        learned.map(|route| route.prefix.to_string()).collect()
    }

    pub async fn learns(&self, expected: &[&str]) {
        let until = Instant::now() + DEADLINE;
        while self.learned().await != expected {
            let learned = self.learned().await;
            assert!(Instant::now() < until, "wanted {expected:?}: {learned:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn key(reflector: &Reflector) -> PeerKey {
    PeerKey {
        address: loopback(1),
        port: reflector.port,
    }
}

pub async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
