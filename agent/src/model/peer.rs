//! BGPPeer: a session beside those that mesh and racks bring, or a change to one of them.
//!
//! Everything but whom it is for and with whom is optional: what is not said comes from the
//! generated session with the same peer, or from the defaults of the program that reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bgp::speaker::config::{AddPaths, NextHopMode};
use bgp::speaker::secret::Secret;
use bgp::types::{Asn, Family, HoldTime, Prefix, Role};
use serde_json::Value;

use super::fields::Fields;
use super::names::NodeName;
use super::object::Metadata;
use super::selector::Selector;
use super::values::{self, PeerAddress};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BgpPeer {
    pub name: String,
    pub speakers: Speakers,
    pub target: PeerTarget,
    pub asn: Option<Asn>,
    pub local_asn: Option<Asn>,
    /// TCP MD5 (RFC 2385). Without it there must be no session.
    pub password: Option<Password>,
    pub source_address: Option<SourceAddress>,
    pub next_hop_mode: Option<NextHopMode>,
    /// The nodes that `peerSelector` means get the session too (Calico's `Auto`).
    pub reverse: bool,
    /// Names of BGPFilters; order decides.
    pub filters: Vec<String>,
    pub families: Option<Vec<Family>>,
    pub passive: Option<bool>,
    pub route_reflector_client: Option<bool>,
    pub hold_time: Option<HoldTime>,
    pub keepalive_time: Option<Duration>,
    pub connect_retry_time: Option<Duration>,
    pub idle_hold_time: Option<Duration>,
    pub idle_hold_max: Option<Duration>,
    /// `Some(None)`: off.
    pub send_hold_time: Option<Option<Duration>>,
    /// Hops an eBGP session may take: the TTL it sends.
    pub ebgp_multihop: Option<u8>,
    /// `Some(None)`: off.
    pub ttl_security_hops: Option<Option<u8>>,
    pub max_prefixes: Option<u32>,
    pub allow_own_as: Option<u8>,
    pub strict_consecutive_restart: Option<bool>,
    /// Several paths a prefix (RFC 7911).
    pub add_paths: Option<AddPaths>,
    /// Ours (RFC 9234).
    pub role: Option<Role>,
    pub role_strict: Option<bool>,
    /// `Some(None)`: off.
    pub long_lived_stale_time: Option<Option<Duration>>,
    /// How long the peer should wait for us when we restart.
    pub max_restart_time: Option<Duration>,
    pub remove_private_as: Option<bool>,
    /// IPv4 prefixes with IPv6 next hops (RFC 8950).
    pub extended_next_hop: Option<bool>,
}

/// What the 24 bits of the capability hold (RFC 9494 §3.1).
const MOST_LONG_LIVED_SECONDS: u64 = (1 << 24) - 1;
/// What the 12 bits of the capability hold (RFC 4724 §3).
const MOST_RESTART_SECONDS: u64 = 4095;

/// Where the password of a session is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Password {
    /// The file's only line; an absolute path on the machine of the speaker.
    File(PathBuf),
    /// Somewhere we do not read: the session stays closed.
    Unsupported,
}

/// What the files hold; or why there is no password, in words for the owner of the BGPPeer.
pub type Passwords = BTreeMap<PathBuf, Result<Secret, String>>;

/// Whose session it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Speakers {
    All,
    Node(NodeName),
    Selected(Selector),
}

/// Whom the session is with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PeerTarget {
    Address(PeerAddress),
    /// Every node that is selected.
    Nodes(Selector),
    /// Whoever dials from one of these. Not empty.
    Prefixes(Vec<Prefix>),
}

/// The TCP source of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SourceAddress {
    NodeAddress,
    /// The kernel chooses.
    Any,
    Address(IpAddr),
}

pub(super) fn read(metadata: Metadata, spec: &mut Fields<'_, '_>) -> Option<BgpPeer> {
    let speakers = read_speakers(spec);
    let target = read_target(spec);
    let asn = spec.optional("asNumber", values::asn);
    if spec.has("asNumber") && spec.has("peerSelector") {
        spec.reject(
            "asNumber",
            "with peerSelector each node's own AS number counts; remove it",
        );
    }
    let password = read_password(spec);
    let passive = spec.optional("passive", values::boolean);
    let peer = BgpPeer {
        name: metadata.name,
        speakers: speakers.unwrap_or(Speakers::All),
        // A peer without target was reported and is not used.
        target: target.clone().unwrap_or(PeerTarget::Prefixes(Vec::new())),
        asn,
        local_asn: spec.optional("localASNumber", values::asn),
        password,
        source_address: spec.optional("sourceAddress", source_address),
        next_hop_mode: read_next_hop_mode(spec),
        reverse: read_reverse(spec),
        filters: spec.list("filters", values::text).unwrap_or_default(),
        families: read_families(spec),
        passive,
        route_reflector_client: spec.optional("routeReflectorClient", values::boolean),
        hold_time: spec.optional("holdTime", values::hold_time),
        keepalive_time: spec.optional("keepaliveTime", positive_duration),
        connect_retry_time: spec.optional("connectRetryTime", positive_duration),
        idle_hold_time: spec.optional("idleHoldTime", values::duration),
        idle_hold_max: spec.optional("idleHoldMax", values::duration),
        send_hold_time: spec
            .optional("sendHoldTime", values::duration)
            .map(|time| Some(time).filter(|time| !time.is_zero())),
        ebgp_multihop: spec.optional("ebgpMultihop", multihop),
        ttl_security_hops: spec
            .optional("ttlSecurity", |value| values::small_integer(value, 0..=254))
            .map(|hops| Some(hops).filter(|hops| *hops > 0)),
        max_prefixes: spec.optional("maxPrefixes", max_prefixes),
        allow_own_as: spec.optional("numAllowedLocalASNumbers", |value| {
            values::small_integer(value, 0..=255)
        }),
        strict_consecutive_restart: spec.optional("strictConsecutiveRestart", values::boolean),
        add_paths: spec.optional("addPaths", add_paths),
        role: spec.optional("role", role),
        role_strict: spec.optional("roleStrict", values::boolean),
        long_lived_stale_time: spec
            .optional("longLivedStaleTime", |value| {
                whole_seconds(value, 0..=MOST_LONG_LIVED_SECONDS)
            })
            .map(|time| Some(time).filter(|time| !time.is_zero())),
        max_restart_time: spec.optional("maxRestartTime", |value| {
            whole_seconds(value, 1..=MOST_RESTART_SECONDS)
        }),
        remove_private_as: spec.optional("removePrivateASNumbers", values::boolean),
        extended_next_hop: spec.optional("extendedNextHop", values::boolean),
    };
    check_together(&peer, spec);
    read_other_fields(spec);
    target.map(|_| peer)
}

fn read_speakers(spec: &mut Fields<'_, '_>) -> Option<Speakers> {
    let node = spec.optional("node", |value| {
        let text = values::text(value)?;
        match text.as_str() {
            "" => Ok(None),
            name => name
                .parse::<NodeName>()
                .map(Some)
                .map_err(|error| error.to_string()),
        }
    });
    let selector = optional_selector(spec, "nodeSelector");
    match (node.flatten(), selector) {
        (Some(_), Some(_)) => {
            spec.reject("nodeSelector", "node is given as well; remove one of them");
            None
        }
        (Some(node), None) => Some(Speakers::Node(node)),
        (None, Some(selector)) => Some(Speakers::Selected(selector)),
        (None, None) => Some(Speakers::All),
    }
}

fn read_password(spec: &mut Fields<'_, '_>) -> Option<Password> {
    if !spec.has("password") {
        spec.ignored(&["password"]);
        return None;
    }
    // What was found is not shown here: it may be the key, and errors go to logs and screens.
    let given = spec.optional("password", |value| {
        let unreadable = "expected {file: PATH}; the key itself does not stand here";
        value.as_object().cloned().ok_or(unreadable.to_owned())
    });
    let Some(given) = given else {
        return Some(Password::Unsupported);
    };
    let mut password = spec.nested("password", &given);
    let is_file = password.has("file");
    let path = password.optional("file", absolute_path);
    password.ignored(&["secretKeyRef"]);
    password.finish();
    if !is_file {
        spec.report(
            "password",
            "not supported in this form: the session is not configured; write {file: PATH}",
        );
    }
    Some(path.map_or(Password::Unsupported, Password::File))
}

fn absolute_path(value: &Value) -> Result<PathBuf, String> {
    let path = value.as_str().map(PathBuf::from);
    // As above, not a word of what was found.
    path.filter(|path| path.is_absolute()).ok_or_else(|| {
        String::from("expected an absolute path; the key itself does not stand here")
    })
}

fn read_target(spec: &mut Fields<'_, '_>) -> Option<PeerTarget> {
    let fields = ["peerIP", "peerSelector", "peerPrefixes"];
    let given: Vec<&str> = fields.into_iter().filter(|field| spec.has(field)).collect();
    let address = spec.optional("peerIP", values::peer_address);
    let selector = optional_selector(spec, "peerSelector");
    let prefixes = spec.list("peerPrefixes", values::prefix);
    match given.as_slice() {
        ["peerIP"] => address.map(PeerTarget::Address),
        ["peerSelector"] => selector.map(PeerTarget::Nodes),
        ["peerPrefixes"] if spec.is_nonempty_list("peerPrefixes") => {
            prefixes.map(PeerTarget::Prefixes)
        }
        ["peerPrefixes"] => {
            if prefixes.is_some() {
                spec.reject("peerPrefixes", "empty; write at least one prefix");
            }
            None
        }
        [] => {
            spec.reject(
                "peerIP",
                "missing; write peerIP, or peerSelector, or peerPrefixes",
            );
            None
        }
        [first, others @ ..] => {
            for other in others {
                spec.reject(other, format!("{first} is given as well; keep one"));
            }
            None
        }
    }
}

/// Calico writes an empty selector where there is none.
fn optional_selector(spec: &mut Fields<'_, '_>, field: &'static str) -> Option<Selector> {
    spec.optional(field, |value| match value.as_str() {
        Some("") => Ok(None),
        Some(_) | None => values::selector(value).map(Some),
    })
    .flatten()
}

fn source_address(value: &Value) -> Result<SourceAddress, String> {
    match value.as_str() {
        Some("UseNodeIP") => Ok(SourceAddress::NodeAddress),
        Some("None") => Ok(SourceAddress::Any),
        Some(_) | None => values::address(value)
            .map(SourceAddress::Address)
            .map_err(|_| values::expected("UseNodeIP, None or an IP address", value)),
    }
}

fn read_next_hop_mode(spec: &mut Fields<'_, '_>) -> Option<NextHopMode> {
    let mode = spec.optional("nextHopMode", |value| {
        values::choice(
            value,
            &[
                ("Auto", NextHopMode::Auto),
                ("Self", NextHopMode::SelfAddress),
                ("Keep", NextHopMode::Keep),
            ],
        )
    });
    // Calico's older spelling of Keep; the newer field wins there too.
    let keep = spec.optional("keepOriginalNextHop", values::boolean);
    mode.or_else(|| keep.filter(|keep| *keep).map(|_| NextHopMode::Keep))
}

fn read_reverse(spec: &mut Fields<'_, '_>) -> bool {
    spec.optional("reversePeering", |value| {
        values::choice(value, &[("Auto", true), ("Manual", false)])
    })
    .unwrap_or(true)
}

fn read_families(spec: &mut Fields<'_, '_>) -> Option<Vec<Family>> {
    let mut families = spec.list("families", |value| {
        values::choice(value, &[("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)])
    })?;
    if !spec.is_nonempty_list("families") {
        spec.reject("families", "empty; write [ipv4], [ipv6] or [ipv4, ipv6]");
    }
    families.sort();
    families.dedup();
    Some(families)
}

fn positive_duration(value: &Value) -> Result<Duration, String> {
    let duration = values::duration(value)?;
    if duration.is_zero() {
        Err(values::expected("a duration above zero", value))
    } else {
        Ok(duration)
    }
}

fn add_paths(value: &Value) -> Result<AddPaths, String> {
    let (send, receive) = (true, true);
    values::choice(
        value,
        &[
            (
                "send",
                AddPaths {
                    send,
                    receive: false,
                },
            ),
            (
                "receive",
                AddPaths {
                    send: false,
                    receive,
                },
            ),
            ("both", AddPaths { send, receive }),
        ],
    )
}

fn role(value: &Value) -> Result<Role, String> {
    values::choice(
        value,
        &[
            ("provider", Role::Provider),
            ("rs", Role::RouteServer),
            ("rsClient", Role::RouteServerClient),
            ("customer", Role::Customer),
            ("peer", Role::Peer),
        ],
    )
}

/// A time that goes out in whole seconds, within what its field of the OPEN can hold.
fn whole_seconds(value: &Value, range: RangeInclusive<u64>) -> Result<Duration, String> {
    let duration = values::duration(value)?;
    if range.contains(&duration.as_secs()) && duration.subsec_nanos() == 0 {
        return Ok(duration);
    }
    let (least, most) = (range.start(), range.end());
    let wanted = format!("whole seconds from {least}s to {most}s");
    Err(values::expected(&wanted, value))
}

/// Hops, or `true` for as many as a TTL has; `false` is directly connected.
fn multihop(value: &Value) -> Result<u8, String> {
    match value.as_bool() {
        Some(true) => Ok(255),
        Some(false) => Ok(1),
        None => values::small_integer(value, 1..=255)
            .map_err(|_| values::expected("true, false or hops from 1 to 255", value)),
    }
}

fn max_prefixes(value: &Value) -> Result<u32, String> {
    let number = values::integer(value, 1..=u64::from(u32::MAX))?;
    u32::try_from(number).map_err(|_| values::expected("a smaller number", value))
}

/// What is right by itself and wrong together.
fn check_together(peer: &BgpPeer, spec: &mut Fields<'_, '_>) {
    let hold = Duration::from_secs(u64::from(
        peer.hold_time.unwrap_or(HoldTime::DEFAULT).seconds(),
    ));
    if let Some(keepalive) = peer.keepalive_time
        && !hold.is_zero()
        && keepalive >= hold
    {
        let hold = hold.as_secs();
        spec.reject(
            "keepaliveTime",
            format!("not below the hold time of {hold}s; write a third of it, or raise holdTime"),
        );
    }
    if let Some(Some(send_hold)) = peer.send_hold_time
        && send_hold <= hold
    {
        // RFC 9687 §4.
        spec.reject(
            "sendHoldTime",
            format!("not above the hold time of {}s; raise it", hold.as_secs()),
        );
    }
    if let (Some(first), Some(most)) = (peer.idle_hold_time, peer.idle_hold_max)
        && !most.is_zero()
        && first > most
    {
        spec.reject("idleHoldTime", "above idleHoldMax; lower it");
    }
    if peer.ebgp_multihop.is_some() && matches!(peer.ttl_security_hops, Some(Some(_))) {
        // GTSM sends TTL 255 always (RFC 5082 §3).
        spec.reject(
            "ebgpMultihop",
            "ttlSecurity says the hops already; remove one",
        );
    }
    if peer.role_strict == Some(true) && peer.role.is_none() {
        spec.reject("roleStrict", "there is no role; add it");
    }
    if peer.passive == Some(true) && matches!(peer.target, PeerTarget::Nodes(_)) && peer.reverse {
        spec.reject(
            "passive",
            "both ends would wait for the other; set reversePeering: Manual or remove it",
        );
    }
}

fn read_other_fields(spec: &mut Fields<'_, '_>) {
    spec.refused(
        "port",
        "write it behind the address, as in peerIP: 192.0.2.1:1179",
    );
    spec.refused(
        "localWorkloadSelector",
        "peers are peerIP, peerSelector or peerPrefixes",
    );
    spec.unsupported(
        "reachableBy",
        "the kernel's routes lead to the peer; add one there",
    );
    spec.unsupported("bfd", "use a short holdTime");
}
