//! The speaker under attack, and the namespace around it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bgp::rib::decision;
use bgp::speaker::config::{GracefulRestartConfig, PeerConfig, PeerKey, PeerSource, SpeakerConfig};
use bgp::speaker::status::{PeerStatus, RouteStatus};
use bgp::speaker::{RouteSelection, Speaker};
use bgp::types::{Asn, LocalPref, RouterId};
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Runtime;

/// The longest that anything here may take to come about, unless it says so.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at a condition.
pub const POLL: Duration = Duration::from_millis(5);
pub const AS: Asn = Asn(64512);
/// Everybody's address is 127.0.0.x; this is the speaker's x.
pub const SPEAKER: u8 = 1;

pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// One at a time: they count memory and time, and neither is anybody's own.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `test` in a thread in a fresh network namespace; threads and programs that it starts are in
/// there as well.
pub fn in_namespace(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root for a network namespace");
        return;
    }
    // One that failed has left nothing behind.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip starts").success());
        test();
    };
    let ended = std::thread::scope(|scope| scope.spawn(work).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Sets what is at /proc/sys/net/`name` of the present namespace.
pub fn set_net(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).expect(name);
}

/// Looks until `missing` finds nothing missing.
pub fn eventually(what: &str, missing: impl FnMut() -> Option<String>) {
    within(DEADLINE, what, missing);
}

/// The same for what takes a slow machine longer than anything else.
pub fn within(time: Duration, what: &str, mut missing: impl FnMut() -> Option<String>) {
    let deadline = Instant::now() + time;
    while let Some(evidence) = missing() {
        assert!(Instant::now() < deadline, "{what}: {evidence}");
        std::thread::sleep(POLL);
    }
}

/// A speaker at 127.0.0.1:179 whose peers are these, changed by `adjust`.
pub fn config_with(peers: &[u8], adjust: impl Fn(u8, &mut PeerConfig)) -> SpeakerConfig {
    let own = IpAddr::from(address(SPEAKER));
    let peers = peers.iter().map(|last| {
        let mut config = PeerConfig::new(format!("peer-{last}"), PeerSource::Peer, Some(AS));
        config.local_address = Some(own);
        config.route_reflector_client = true;
        adjust(*last, &mut config);
        let key = PeerKey {
            address: address(*last).into(),
            port: 179,
        };
        (key, config)
    });
    SpeakerConfig {
        asn: AS,
        router_id: RouterId(address(SPEAKER)),
        cluster_id: None,
        listen: vec![SocketAddr::new(own, 179)],
        local_addresses: vec![own],
        local_pref: LocalPref::DEFAULT,
        peers: peers.collect(),
        ranges: BTreeMap::new(),
        max_dynamic_peers: 0,
        originated: BTreeMap::new(),
        aggregates: BTreeMap::new(),
        decision: decision::Options::default(),
        is_draining: false,
        graceful_restart: GracefulRestartConfig::default(),
    }
}

/// As many peers of this range as there are `places` may come as well.
pub fn with_range(mut config: SpeakerConfig, range: &str, places: usize) -> SpeakerConfig {
    let mut template = PeerConfig::new("range", PeerSource::Range, Some(AS));
    template.local_address = Some(address(SPEAKER).into());
    template.route_reflector_client = true;
    let range = range.parse().expect("a prefix");
    config.ranges.insert(range, template);
    config.max_dynamic_peers = places;
    config
}

/// A running speaker at 127.0.0.1:179.
pub struct Scene {
    speaker: Speaker,
    runtime: Runtime,
}

impl Scene {
    /// Its peers are these, all of them clients of its AS.
    pub fn start(peers: &[u8]) -> Scene {
        Scene::start_with(peers, |_, _| {})
    }

    /// `adjust` changes what the peer at an address is configured as.
    pub fn start_with(peers: &[u8], adjust: impl Fn(u8, &mut PeerConfig)) -> Scene {
        Scene::start_as(config_with(peers, adjust))
    }

    /// A speaker that is configured so; see [`config_with`].
    pub fn start_as(config: SpeakerConfig) -> Scene {
        // As the agent and the reflector have it.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let speaker = runtime.block_on(async { Speaker::start(config, false).0 });
        let scene = Scene { speaker, runtime };
        eventually("the speaker listens", || {
            let reached = std::net::TcpStream::connect((address(SPEAKER), 179));
            reached.err().map(|error| error.to_string())
        });
        scene
    }

    /// Another speaker, which goes on until what is returned is dropped.
    pub fn start_another(&self, config: SpeakerConfig) -> Speaker {
        self.runtime
            .block_on(async { Speaker::start(config, false).0 })
    }

    /// Waits until what the speaker says is wrong is what `is_it` says.
    pub fn wait_problems(&self, what: &str, is_it: impl Fn(&[String]) -> bool) {
        eventually(what, || {
            let problems = self.problems();
            (!is_it(&problems)).then(|| format!("{problems:?}"))
        });
    }

    pub fn peers(&self) -> Vec<PeerStatus> {
        self.runtime.block_on(self.speaker.peers())
    }

    pub fn problems(&self) -> Vec<String> {
        self.runtime.block_on(self.speaker.problems())
    }

    pub fn peer(&self, last: u8) -> PeerStatus {
        let peers = self.peers();
        let is_it = |peer: &PeerStatus| peer.peer == address(last);
        peers.into_iter().find(is_it).expect("configured")
    }

    /// What the peer at `last` sent and the speaker has.
    pub fn routes_of(&self, last: u8) -> Vec<RouteStatus> {
        let selection = RouteSelection {
            received: Some(address(last).into()),
            ..RouteSelection::default()
        };
        self.runtime.block_on(self.speaker.routes(selection))
    }

    /// Waits until `holds` is true of the peer at `last`.
    pub fn wait_peer(&self, what: &str, last: u8, holds: impl Fn(&PeerStatus) -> bool) {
        eventually(what, || {
            let peer = self.peer(last);
            (!holds(&peer)).then(|| format!("{peer:?}"))
        });
    }

    pub fn wait_established(&self, last: u8) {
        let is_up = |peer: &PeerStatus| peer.state == "established";
        self.wait_peer("the session", last, is_up);
    }
}
