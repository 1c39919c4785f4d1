//! Speakers on loopback addresses, and what their events came to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp::rib::decision;
use bgp::speaker::config::{
    GracefulRestartConfig, Originated, PeerConfig, PeerKey, PeerSource, SpeakerConfig,
};
use bgp::speaker::status::RouteStatus;
use bgp::speaker::{Event, LearnedRoute, RouteSelection, Speaker};
use bgp::types::{Asn, LocalPref, Prefix, RouterId};
use tokio::sync::mpsc;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().expect(text)
}

/// A port that was free a moment ago on every loopback address.
pub fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("0.0.0.0:0").expect("bind");
    socket.local_addr().expect("bound").port()
}

/// Speaker number `last` listens on 127.0.0.`last` and originates 10.`last`.0.0/16.
pub fn speaker(last: u8, asn: u32, port: u16) -> SpeakerConfig {
    let address = loopback(last);
    let own = prefix(&format!("10.{last}.0.0/16"));
    // 127/8 is no next hop one may use; the tests' next hops are only numbers.
    let next_hop = IpAddr::from([192, 0, 2, last]);
    SpeakerConfig {
        asn: Asn(asn),
        router_id: RouterId(Ipv4Addr::new(127, 0, 0, last)),
        cluster_id: None,
        listen: vec![SocketAddr::new(address, port)],
        local_addresses: vec![address, next_hop],
        local_pref: LocalPref::DEFAULT,
        peers: BTreeMap::new(),
        ranges: BTreeMap::new(),
        max_dynamic_peers: 100,
        originated: [(own, Originated::new(next_hop))].into(),
        aggregates: BTreeMap::new(),
        decision: decision::Options::default(),
        is_draining: false,
        graceful_restart: GracefulRestartConfig::default(),
    }
}

pub fn peer(config: &mut SpeakerConfig, last: u8, asn: u32, port: u16) -> &mut PeerConfig {
    let local = config.listen[0].ip();
    let mut peer = PeerConfig::new(format!("peer-{last}"), PeerSource::Peer, Some(Asn(asn)));
    peer.local_address = Some(local);
    peer.connect_retry_time = Duration::from_millis(500);
    peer.idle_hold_time = Duration::from_millis(100);
    config
        .peers
        .entry(PeerKey {
            address: loopback(last),
            port,
        })
        .or_insert(peer)
}

/// A running speaker and what its events came to.
pub struct Running {
    pub speaker: Speaker,
    pub events: mpsc::Receiver<Event>,
    pub kernel: BTreeMap<Prefix, IpAddr>,
    pub is_settled: bool,
    /// As last told to be remembered.
    pub dynamic: Vec<IpAddr>,
    /// Every change in order, for tests that nothing changed.
    pub changes: usize,
}

impl Running {
    pub fn start(config: SpeakerConfig) -> Running {
        let (speaker, events) = Speaker::start(config, true);
        Running {
            speaker,
            events,
            kernel: BTreeMap::new(),
            is_settled: false,
            dynamic: Vec::new(),
            changes: 0,
        }
    }

    pub fn take(&mut self, event: Event) {
        match event {
            Event::Learned(routes) => {
                for LearnedRoute { prefix, best, .. } in routes {
                    let before = match best {
                        Some(best) => self.kernel.insert(prefix, best.next_hop.address),
                        None => self.kernel.remove(&prefix),
                    };
                    self.changes += usize::from(before != self.kernel.get(&prefix).copied());
                }
            }
            Event::Settled => self.is_settled = true,
            Event::DynamicPeers(peers) => self.dynamic = peers,
            // Nobody tells of next hops here, so nobody is asked.
            Event::NextHops(next_hops) => panic!("asked about {next_hops:?}"),
        }
    }

    /// Takes events until the learned prefixes are exactly these.
    pub async fn learns(&mut self, expected: &[&str]) {
        let expected: Vec<Prefix> = expected.iter().map(|text| prefix(text)).collect();
        let mut reached = false;
        let wait = tokio::time::timeout(DEADLINE, async {
            while self.kernel.keys().copied().collect::<Vec<_>>() != expected {
                let event = self.events.recv().await.expect("speaker runs");
                self.take(event);
            }
            reached = true;
        });
        if wait.await.is_err() {
            let peers = self.speaker.peers().await;
            panic!(
                "wanted {expected:?}, have {:?}; peers: {peers:#?}",
                self.kernel
            );
        }
        assert!(reached);
    }

    pub async fn routes(&self, text: &str) -> Vec<RouteStatus> {
        self.speaker
            .routes(RouteSelection {
                prefix: Some(prefix(text)),
                ..RouteSelection::default()
            })
            .await
    }

    pub async fn wait_for<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
        let poll = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll)
            .await
            .unwrap_or_else(|_| panic!("timed out: {what}"));
    }
}
