//! A speaker of ours in a namespace, in a thread of the test.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use agent::lab::Namespace;
use anyhow::{Context, Result};
use bgp::rib::decision;
use bgp::speaker::config::{
    GracefulRestartConfig, Originated, PeerConfig, PeerKey, PeerSource, SpeakerConfig,
};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use bgp::speaker::{RouteSelection, Speaker, Stop};
use bgp::types::{Asn, Family, LocalPref, Prefix, RouterId};
use tokio::sync::oneshot;

use crate::product::eventually;
use crate::site::TIMEOUT;

pub const ASN: Asn = Asn(64512);

/// The speaker at 192.0.2.`last` with 10.`last`.0.0/16 and 2001:db8:`last`::/48 of its own.
pub fn config(last: u8) -> SpeakerConfig {
    let address = address(last);
    let address6 = address6(last);
    let own = |text: String| -> Prefix { text.parse().expect("a prefix") };
    SpeakerConfig {
        asn: ASN,
        router_id: RouterId(Ipv4Addr::new(192, 0, 2, last)),
        cluster_id: None,
        listen: vec![SocketAddr::new(address, 179)],
        local_addresses: vec![address, address6],
        local_pref: LocalPref::DEFAULT,
        peers: BTreeMap::new(),
        ranges: BTreeMap::new(),
        max_dynamic_peers: 10,
        aggregates: BTreeMap::new(),
        originated: [
            (own(format!("10.{last}.0.0/16")), Originated::new(address)),
            (
                own(format!("2001:db8:{last}::/48")),
                Originated::new(address6),
            ),
        ]
        .into(),
        decision: decision::Options::default(),
        is_draining: false,
        graceful_restart: GracefulRestartConfig {
            forwarding_preserved: true,
            selection_deferral: Duration::from_secs(10),
            ..GracefulRestartConfig::default()
        },
    }
}

/// 192.0.2.`last`.
pub fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

/// 2001:db8::`last`.
pub fn address6(last: u8) -> IpAddr {
    let text = format!("2001:db8::{last}");
    text.parse().expect("decimal digits are hexadecimal ones")
}

/// Adds an internal peer at 192.0.2.`last` with both families.
pub fn peer(config: &mut SpeakerConfig, last: u8) -> &mut PeerConfig {
    peer_at(config, address(last))
}

/// The same at any address.
pub fn peer_at(config: &mut SpeakerConfig, address: IpAddr) -> &mut PeerConfig {
    let mut peer = PeerConfig::new(format!("peer-{address}"), PeerSource::Peer, Some(ASN));
    let mut own = config.local_addresses.iter().copied();
    peer.local_address = own.find(|own| own.is_ipv4() == address.is_ipv4());
    peer.families = Family::ALL.to_vec();
    peer.connect_retry_time = Duration::from_millis(500);
    peer.idle_hold_time = Duration::from_millis(100);
    config
        .peers
        .entry(PeerKey { address, port: 179 })
        .or_insert(peer)
}

pub struct Running {
    pub speaker: Speaker,
    asking: tokio::runtime::Runtime,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(namespace: &Namespace, config: SpeakerConfig) -> Result<Running> {
        let namespace = namespace.clone();
        let (kill, killed) = oneshot::channel();
        let (started, start) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let ended = namespace.enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let (speaker, mut events) = Speaker::start(config, false);
                    // The test is still there, or this ends at once.
                    let _ = started.send(speaker);
                    let drain = async { while events.recv().await.is_some() {} };
                    tokio::select! { _ = killed => {}, () = drain => {} }
                });
                Ok(())
            });
            ended.expect("the speaker's thread runs");
        });
        let speaker = start.recv().context("the speaker did not start")?;
        let asking = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Running {
            speaker,
            asking,
            kill: Some(kill),
            thread: Some(thread),
        })
    }

    /// All tasks and sockets go without a word, which is what peers see of kill -9.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.kill.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was printed when it happened.
            let _ = thread.join();
        }
    }

    pub fn stop(self, how: Stop) {
        self.asking.block_on(self.speaker.stop(how));
    }

    pub fn configure(&self, config: SpeakerConfig) {
        self.asking.block_on(self.speaker.configure(config));
    }

    pub fn peers(&self) -> Vec<PeerStatus> {
        self.asking.block_on(self.speaker.peers())
    }

    pub fn peer(&self, last: u8) -> Result<PeerStatus> {
        self.peer_at(address(last))
    }

    pub fn peer_at(&self, address: IpAddr) -> Result<PeerStatus> {
        let found = self.peers().into_iter().find(|peer| peer.peer == address);
        found.with_context(|| format!("no peer {address}"))
    }

    pub fn wait_peer(
        &self,
        what: &str,
        last: u8,
        holds: impl Fn(&PeerStatus) -> bool,
    ) -> Result<()> {
        self.wait_peer_at(what, address(last), holds)
    }

    pub fn wait_peer_at(
        &self,
        what: &str,
        address: IpAddr,
        holds: impl Fn(&PeerStatus) -> bool,
    ) -> Result<()> {
        eventually(what, TIMEOUT, || {
            let peer = self.peer_at(address)?;
            Ok((!holds(&peer)).then(|| format!("{peer:?}")))
        })
    }

    pub fn established(&self, last: u8) -> Result<()> {
        self.established_at(address(last))
    }

    pub fn established_at(&self, address: IpAddr) -> Result<()> {
        let is_up = |peer: &PeerStatus| peer.state == "established";
        self.wait_peer_at("the session", address, is_up)
    }

    /// The routes to a prefix, best first or not.
    pub fn routes(&self, prefix: &str) -> Result<Vec<RouteStatus>> {
        let selection = RouteSelection {
            prefix: Some(prefix.parse()?),
            ..RouteSelection::default()
        };
        Ok(self.asking.block_on(self.speaker.routes(selection)))
    }

    /// Waits until some route to `prefix` is as wanted.
    pub fn expect_route(
        &self,
        prefix: &str,
        what: &str,
        holds: impl Fn(&RouteStatus) -> bool,
    ) -> Result<()> {
        eventually(&format!("{prefix}: {what}"), TIMEOUT, || {
            let routes = self.routes(prefix)?;
            let missing = !routes.iter().any(&holds);
            Ok(missing.then(|| format!("{routes:?}\n{:?}", self.peer(2))))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
