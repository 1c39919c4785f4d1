//! What a speaker is told: itself, its peers, its ranges. A value; two of them are compared and
//! only what differs is touched.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::secret::Secret;
use crate::policy::{ExportDefault, Filter, ImportDefault};
use crate::rib::decision;
use crate::types::{Asn, ClusterId, Family, HoldTime, LocalPref, Prefix, Role, RouterId};

/// The whole desired state of a speaker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpeakerConfig {
    pub asn: Asn,
    pub router_id: RouterId,
    /// Present on route reflectors and nodes with routeReflectorClusterID; else the router id.
    pub cluster_id: Option<ClusterId>,
    /// Where to listen; empty: dial only.
    pub listen: Vec<SocketAddr>,
    /// Own addresses, for next-hop-is-self checks.
    pub local_addresses: Vec<IpAddr>,
    /// LOCAL_PREF of originated routes and of routes learned by eBGP.
    pub local_pref: LocalPref,
    pub peers: BTreeMap<PeerKey, PeerConfig>,
    /// Peers that are accepted without being listed one by one. The longest matching prefix counts.
    pub ranges: BTreeMap<Prefix, PeerConfig>,
    /// Most simultaneous peers over all ranges.
    pub max_dynamic_peers: usize,
    pub originated: BTreeMap<Prefix, Originated>,
    /// Aggregates of what reflection clients say, for external peers. One that is originated besides
    /// is not made.
    pub aggregates: BTreeMap<Prefix, Aggregate>,
    pub decision: decision::Options,
    /// About to stop: every route that is said asks to be used last (RFC 8326).
    pub is_draining: bool,
    pub graceful_restart: GracefulRestartConfig,
}

impl SpeakerConfig {
    /// The configured cluster id, else the router id (RFC 4456 §7).
    pub fn effective_cluster_id(&self) -> ClusterId {
        self.cluster_id.unwrap_or(ClusterId(self.router_id.0))
    }
}

/// Sessions are keyed by remote address and port; the local address is in the peer's configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerKey {
    pub address: IpAddr,
    pub port: u16,
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == 179 {
            self.address.fmt(f)
        } else {
            SocketAddr::new(self.address, self.port).fmt(f)
        }
    }
}

/// Where a peering comes from; shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PeerSource {
    Mesh,
    Rack,
    Peer,
    Range,
}

impl fmt::Display for PeerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerSource::Mesh => "mesh",
            PeerSource::Rack => "rack",
            PeerSource::Peer => "peer",
            PeerSource::Range => "range",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum NextHopMode {
    /// eBGP: self, unless the next hop shares the peer's subnet rules say otherwise; iBGP: keep.
    Auto,
    /// Always our own address.
    SelfAddress,
    /// Never changed (reflectors between racks).
    Keep,
}

/// One peer, or the template of a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerConfig {
    pub name: String,
    pub source: PeerSource,
    /// `None` (ranges only): whatever AS the peer says.
    pub remote_asn: Option<Asn>,
    /// Overrides the speaker's AS towards this peer.
    pub local_asn: Option<Asn>,
    /// TCP source; also the next hop of originated routes towards this peer if set.
    pub local_address: Option<IpAddr>,
    pub families: Vec<Family>,
    /// Never dial. Without it peers of ranges are dialled after a restart of ours alone: those that
    /// are remembered and do not come back by themselves.
    pub passive: bool,
    pub route_reflector_client: bool,
    pub next_hop_mode: NextHopMode,
    pub hold_time: HoldTime,
    pub keepalive_time: Option<Duration>,
    pub connect_retry_time: Duration,
    pub idle_hold_time: Duration,
    pub idle_hold_max: Duration,
    pub send_hold_time: Option<Duration>,
    /// TTL of sent packets; 1 means directly connected only (eBGP default on agents).
    pub ttl: u8,
    /// GTSM (RFC 5082): most hops away the peer may be; `None` is off.
    pub ttl_security_hops: Option<u8>,
    /// TCP MD5 (RFC 2385), both ways: without it there is no connection at all.
    pub password: Option<Secret>,
    pub filters: Vec<Filter>,
    pub import_default: ImportDefault,
    pub export_default: ExportDefault,
    /// Most prefixes per family, refused ones included, before Cease 6/1.
    pub max_prefixes: Option<u32>,
    pub allow_own_as: u8,
    /// RFC 4724 instead of the one stale timer.
    pub strict_consecutive_restart: bool,
    /// Several paths a prefix (RFC 7911), in all families.
    pub add_paths: AddPaths,
    /// Ours towards an eBGP peer (RFC 9234): who is customer of whom.
    pub role: Option<Role>,
    /// No session with a peer that does not say its role.
    pub role_strict: bool,
    /// How long stale routes may go on as a last resort after their stale time (RFC 9494), at most
    /// 2^24 - 1 s; `None` is off.
    pub long_lived_stale_time: Option<Duration>,
    /// How long this peer should wait for us when we restart: 1 to 4095 s; `None`: as the speaker's.
    pub restart_time: Option<Duration>,
    /// Private AS numbers are taken out of AS_PATH towards an eBGP peer.
    pub remove_private_as: bool,
    /// IPv4 prefixes may come and go with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
}

/// Which way several paths a prefix are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct AddPaths {
    pub send: bool,
    pub receive: bool,
}

impl PeerConfig {
    /// A peer with the defaults of the product: hold 90 s, connect retry 5 s, idle hold 1 to 10 s.
    pub fn new(name: impl Into<String>, source: PeerSource, remote_asn: Option<Asn>) -> PeerConfig {
        PeerConfig {
            name: name.into(),
            source,
            remote_asn,
            local_asn: None,
            local_address: None,
            families: vec![Family::Ipv4],
            passive: false,
            route_reflector_client: false,
            next_hop_mode: NextHopMode::Auto,
            hold_time: HoldTime::DEFAULT,
            keepalive_time: None,
            connect_retry_time: Duration::from_secs(5),
            idle_hold_time: Duration::from_secs(1),
            idle_hold_max: Duration::from_secs(10),
            send_hold_time: Some(Duration::from_secs(480)),
            ttl: 255,
            ttl_security_hops: None,
            password: None,
            filters: Vec::new(),
            import_default: ImportDefault::Accept,
            export_default: ExportDefault::Accept,
            max_prefixes: None,
            allow_own_as: 0,
            strict_consecutive_restart: false,
            add_paths: AddPaths::default(),
            role: None,
            role_strict: false,
            long_lived_stale_time: None,
            restart_time: None,
            remove_private_as: false,
            extended_next_hop: false,
        }
    }
}

/// A route of our own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Originated {
    pub next_hop: IpAddr,
    /// The name of the interface by which its packets leave this machine, where that is one.
    pub interface: Option<Arc<str>>,
}

impl Originated {
    /// A route whose packets end here, or leave by interfaces that are not its own.
    pub fn new(next_hop: IpAddr) -> Originated {
        Originated {
            next_hop,
            interface: None,
        }
    }
}

/// A route of our own that is there as long as a reflection client has a more specific one that may
/// leave the AS. Only external peers hear of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aggregate {
    /// Who has the specifics; said as it is, whatever the next hop mode of the peer.
    pub next_hop: IpAddr,
    /// External peers hear the aggregate in place of the specifics, but for the one that is its next
    /// hop, and those to which the aggregate itself is refused.
    pub summary_only: bool,
}

/// Graceful restart (RFC 4724) as this speaker offers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GracefulRestartConfig {
    pub enabled: bool,
    /// How long peers should wait for us: 1 to 4095 s. After a restart of ours, how long we wait for
    /// absent ones before routes that the owner kept count as gone.
    pub restart_time: Duration,
    /// We were here before: R is set and nothing is said before the peers' End-of-RIB.
    pub restarting: bool,
    /// Forwarding survived: F is set.
    pub forwarding_preserved: bool,
    /// Longest wait for the peers' End-of-RIB after a restart.
    pub selection_deferral: Duration,
    /// Longest time after a restart that nothing is told or said because End-of-RIBs are missing.
    /// What is known then goes out; only our own End-of-RIB still waits.
    pub silence: Duration,
    /// Longest time routes stay stale, counted from the first loss.
    pub stale_time: Duration,
    /// Dynamic peers remembered from before the restart: their End-of-RIB is waited for.
    pub remembered_peers: Vec<IpAddr>,
}

impl Default for GracefulRestartConfig {
    fn default() -> Self {
        GracefulRestartConfig {
            enabled: true,
            restart_time: Duration::from_secs(120),
            restarting: false,
            forwarding_preserved: false,
            selection_deferral: Duration::from_secs(30),
            silence: Duration::from_secs(5),
            stale_time: Duration::from_secs(180),
            remembered_peers: Vec::new(),
        }
    }
}
