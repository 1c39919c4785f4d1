//! What a route of ours should look like to the kernel, and what follows from what is there.
//!
//! Pure: the last dump in, a verdict out. Keys are the kernel's: (table, prefix, TOS, metric), so
//! two routes for one prefix that differ in metric live side by side.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bgp::types::{Family, Prefix};
use smallvec::SmallVec;

use super::desired::{Route, RouteState};
use super::link::{LinkState, Links};
use super::ownership::is_own_protocol;
use crate::names::{PROTOCOL_LEARNED, PROTOCOL_LOCAL, ROUTE_METRIC};

pub const SCOPE_UNIVERSE: u8 = 0;
pub const SCOPE_LINK: u8 = 253;

/// A route of table main as dumped, or as to be written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KernelRoute {
    pub prefix: Prefix,
    pub tos: u8,
    pub info: Arc<FibInfo>,
}

/// What many routes have in common, as in the kernel's structure of that name: there are as many as
/// there are ways, not as there are prefixes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FibInfo {
    pub metric: u32,
    pub protocol: u8,
    pub kind: RouteKind,
    /// `rt_scope` of IPv4; IPv6 has none and says 0.
    pub scope: u8,
    /// In order, since the kernel may give them in any. Empty for a blackhole.
    pub hops: SmallVec<[KernelHop; 1]>,
    pub source: Option<IpAddr>,
    /// Encapsulation, metrics, next-hop objects: things we never write.
    pub has_extras: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct KernelHop {
    pub gateway: Option<IpAddr>,
    pub device: Option<u32>,
    pub is_onlink: bool,
    /// `rtnh_hops`: its share of packets less one.
    pub extra_weight: u8,
    /// Its device went down: it is skipped, and not always taken up again with the device.
    pub is_dead: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RouteKind {
    Unicast,
    Blackhole,
    /// `rtm_type`
    Other(u8),
}

impl KernelRoute {
    /// Whether it holds the one key per prefix that we use.
    pub fn has_our_key(&self) -> bool {
        self.tos == 0 && self.info.metric == ROUTE_METRIC
    }

    pub fn is_ours(&self) -> bool {
        is_own_protocol(self.info.protocol)
    }
}

impl FibInfo {
    /// Text for people: `proto static via 10.0.0.1 dev eth0`.
    pub fn describe(&self, links: &Links) -> String {
        Described { info: self, links }.to_string()
    }
}

struct Described<'a> {
    info: &'a FibInfo,
    links: &'a Links,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info;
        match info.kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Other(kind) => write!(f, "type {kind} ")?,
        }
        write!(f, "proto {}", protocol_name(info.protocol))?;
        for hop in &info.hops {
            if info.hops.len() > 1 {
                write!(f, " nexthop")?;
            }
            if let Some(gateway) = hop.gateway {
                write!(f, " via {gateway}")?;
            }
            if let Some(device) = hop.device {
                match self.links.name_of(device) {
                    Some(name) => write!(f, " dev {name}")?,
                    None => write!(f, " dev if{device}")?,
                }
            }
        }
        if info.metric != ROUTE_METRIC {
            write!(f, " metric {}", info.metric)?;
        }
        Ok(())
    }
}

/// Names as in /etc/iproute2/rt_protos.
fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        18 => "keepalived",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        PROTOCOL_LOCAL => "caracal",
        PROTOCOL_LEARNED => "caracal-bgp",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// A route as it can be written now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Writable {
    pub info: Arc<FibInfo>,
    /// Why a hop is left out meanwhile.
    pub missing: Option<String>,
}

/// The kernel's form of `route`, or why it cannot be written yet.
///
/// # Errors
/// A clause that names what is missing: the device of every hop, its being up, the source address.
pub fn resolve(
    family: Family,
    route: &Route,
    protocol: u8,
    links: &Links,
) -> Result<Writable, String> {
    let base = FibInfo {
        metric: ROUTE_METRIC,
        protocol,
        kind: RouteKind::Unicast,
        scope: SCOPE_UNIVERSE,
        hops: SmallVec::new(),
        source: None,
        has_extras: false,
    };
    let mut missing = None;
    let info = match route {
        Route::Blackhole => FibInfo {
            kind: RouteKind::Blackhole,
            ..base
        },
        Route::Link { device } => FibInfo {
            hops: SmallVec::from_buf([KernelHop {
                device: Some(usable_device(device, links.get(device))?),
                ..KernelHop::default()
            }]),
            scope: match family {
                Family::Ipv4 => SCOPE_LINK,
                Family::Ipv6 => SCOPE_UNIVERSE,
            },
            ..base
        },
        Route::Via { hops, source } => {
            if let Some(source) = source
                && !links.holds(*source)
            {
                return Err(format!("source address {source} is not on this host"));
            }
            let mut usable = SmallVec::new();
            for hop in hops.iter() {
                match usable_device(&hop.device, links.get_or_renamed(&hop.device)) {
                    Ok(index) => usable.push(KernelHop {
                        gateway: Some(hop.gateway),
                        device: Some(index),
                        is_onlink: true,
                        ..KernelHop::default()
                    }),
                    Err(reason) => missing = Some(reason),
                }
            }
            if usable.is_empty()
                && let Some(missing) = missing
            {
                return Err(missing);
            }
            usable.sort_unstable();
            FibInfo {
                hops: usable,
                source: *source,
                ..base
            }
        }
    };
    Ok(Writable {
        info: Arc::new(info),
        missing,
    })
}

fn usable_device(name: &str, link: Option<&LinkState>) -> Result<u32, String> {
    match link {
        None => Err(format!("device {name} does not exist")),
        Some(link) if !link.is_up => Err(format!("device {name} is down")),
        Some(link) => Ok(link.index),
    }
}

/// What to do about one prefix, at our key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The kernel is as it should be.
    Keep,
    /// Create, failing if any route holds the key.
    Create(Arc<FibInfo>),
    /// Take the place of a route of ours.
    Replace(Arc<FibInfo>),
    /// The route of ours to remove.
    Remove(Arc<FibInfo>),
    /// A foreign route holds our key: nothing is written.
    Blocked(RouteState),
    /// Something is missing: nothing is written now. A route of ours to another place would
    /// mislead packets meanwhile and is removed.
    Wait {
        state: RouteState,
        stale: Option<Arc<FibInfo>>,
    },
}

/// Compares what is wanted for one prefix with the last dump: `held` is the route of ours at our
/// key, `foreign` are the foreign routes for the same prefix.
pub fn step(
    wanted: Option<Result<Arc<FibInfo>, String>>,
    held: Option<&Arc<FibInfo>>,
    foreign: &[KernelRoute],
    links: &Links,
) -> Step {
    match (wanted, held) {
        (None, None) => Step::Keep,
        (None, Some(held)) => Step::Remove(held.clone()),
        (Some(Err(reason)), held) => Step::Wait {
            state: RouteState::Pending { reason },
            stale: held.cloned(),
        },
        (Some(Ok(wanted)), Some(held)) if wanted == *held => Step::Keep,
        (Some(Ok(wanted)), Some(_)) => Step::Replace(wanted),
        (Some(Ok(wanted)), None) => match foreign.iter().find(|route| route.has_our_key()) {
            Some(holder) => Step::Blocked(RouteState::Failed {
                reason: format!("blocked by {}", holder.info.describe(links)),
            }),
            None => Step::Create(wanted),
        },
    }
}

/// The state of a route that is in the kernel: a foreign route of lower metric for the same prefix
/// takes its packets.
pub fn installed_state(foreign: &[KernelRoute], links: &Links) -> RouteState {
    let shadow = foreign
        .iter()
        .filter(|route| route.tos == 0 && route.info.metric < ROUTE_METRIC)
        .min_by_key(|route| route.info.metric);
    match shadow {
        None => RouteState::Installed,
        Some(route) => RouteState::Shadowed {
            reason: format!("shadowed by {}", route.info.describe(links)),
        },
    }
}

#[cfg(test)]
mod tests;
