//! IPPool: a range of workload addresses and how packets to it travel between nodes.

use std::fmt;

use bgp::types::{Family, Prefix};

use super::fields::Fields;
use super::object::Metadata;
use super::selector::Selector;
use super::values;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IpPool {
    pub name: String,
    pub cidr: Prefix,
    pub encapsulation: Encapsulation,
    pub nat_outgoing: bool,
    /// Prefixes inside are not announced.
    pub disable_bgp_export: bool,
    /// Nodes whose workloads get addresses from here; `None`: all.
    pub node_selector: Option<Selector>,
    /// Prefix length of a block.
    pub block_size: u8,
}

/// How packets to a prefix in the pool reach its node. At most one kind of tunnel a pool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Encapsulation {
    Never,
    Tunnel { kind: TunnelKind, when: TunnelWhen },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TunnelKind {
    Ipip,
    Vxlan,
    /// IP packets in UDP, as flannel's `udp` sends them.
    Udp,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TunnelWhen {
    /// Only to nodes that are not on-link.
    CrossSubnet,
    Always,
}

impl IpPool {
    /// How some of its packets travel; `None` for `Never`.
    pub fn tunnel_kind(&self) -> Option<TunnelKind> {
        match self.encapsulation {
            Encapsulation::Never => None,
            Encapsulation::Tunnel { kind, .. } => Some(kind),
        }
    }
}

impl TunnelKind {
    pub const ALL: [TunnelKind; 3] = [TunnelKind::Ipip, TunnelKind::Vxlan, TunnelKind::Udp];
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TunnelKind::Ipip => "IPIP",
            TunnelKind::Vxlan => "VXLAN",
            TunnelKind::Udp => "UDP",
        })
    }
}

const MODES: &[(&str, Option<TunnelWhen>)] = &[
    ("Never", None),
    ("CrossSubnet", Some(TunnelWhen::CrossSubnet)),
    ("Always", Some(TunnelWhen::Always)),
    // Calico's objects of old have it empty.
    ("", None),
];

pub(super) fn read(metadata: Metadata, spec: &mut Fields<'_, '_>) -> Option<IpPool> {
    let cidr = spec.required("cidr", "write the pool's prefix", |value| {
        pool_cidr(values::prefix(value)?)
    });
    let encapsulation = read_encapsulation(spec, cidr.map(|cidr| cidr.family()));
    let (default_block, blocks) = match cidr.map(|cidr| cidr.family()) {
        Some(Family::Ipv6) => (122, 116..=128),
        Some(Family::Ipv4) | None => (26, 20..=32),
    };
    let pool = IpPool {
        name: metadata.name,
        // A pool without cidr was reported and is not used.
        cidr: cidr.unwrap_or(Prefix::V4 { bits: 0, length: 0 }),
        encapsulation,
        nat_outgoing: spec
            .optional("natOutgoing", values::boolean)
            .unwrap_or(false),
        disable_bgp_export: spec
            .optional("disableBGPExport", values::boolean)
            .unwrap_or(false),
        node_selector: spec
            .optional("nodeSelector", values::selector)
            .filter(|selector| !selector.is_all()),
        block_size: spec
            .optional("blockSize", |value| values::small_integer(value, blocks))
            .unwrap_or(default_block),
    };
    if pool.node_selector.is_some() {
        spec.report(
            "nodeSelector",
            "not supported yet, has no effect: addresses come from each node's podCIDRs",
        );
    }
    read_calicos_fields(spec);
    cidr.map(|_| pool)
}

fn pool_cidr(cidr: Prefix) -> Result<Prefix, String> {
    if cidr.is_default() {
        Err(format!(
            "{cidr} is everything; write the prefix of the pods"
        ))
    } else {
        Ok(cidr)
    }
}

fn read_encapsulation(spec: &mut Fields<'_, '_>, family: Option<Family>) -> Encapsulation {
    let mut chosen = Encapsulation::Never;
    for (field, kind) in [
        ("ipipMode", TunnelKind::Ipip),
        ("vxlanMode", TunnelKind::Vxlan),
        ("udpMode", TunnelKind::Udp),
    ] {
        let mode = spec.optional(field, |value| values::choice(value, MODES));
        let Some(when) = mode.flatten() else {
            continue;
        };
        if chosen != Encapsulation::Never {
            spec.reject(
                field,
                "a pool has one kind of tunnel; set the other modes to Never",
            );
            continue;
        }
        if kind != TunnelKind::Vxlan && family == Some(Family::Ipv6) {
            spec.reject(
                field,
                format!("{kind} carries IPv4 only; set {field} of an IPv6 pool to Never"),
            );
        }
        chosen = Encapsulation::Tunnel { kind, when };
    }
    chosen
}

/// Fields of Calico's address management. The values it fills in by itself ask for nothing.
fn read_calicos_fields(spec: &mut Fields<'_, '_>) {
    spec.unsupported(
        "disabled",
        "addresses come from each node's podCIDRs, change those",
    );
    spec.unsupported(
        "namespaceSelector",
        "addresses come from each node's podCIDRs",
    );
    let mode = spec.optional("assignmentMode", values::text);
    if mode.is_some_and(|mode| mode != "Automatic") {
        spec.report(
            "assignmentMode",
            "not supported, has no effect; use Automatic",
        );
    }
    let uses = spec.list("allowedUses", values::text).unwrap_or_default();
    if !uses.is_empty()
        && !["Workload", "Tunnel"]
            .iter()
            .all(|u| uses.iter().any(|x| x == u))
    {
        spec.report(
            "allowedUses",
            "not supported, has no effect; use [Workload, Tunnel]",
        );
    }
}
