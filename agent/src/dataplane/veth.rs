//! A workload's veth: made with both ends in their namespaces, the workload's end ready to use.
//!
//! The host's end is left down: its parameters, neighbour and route come from `Dataplane::apply`,
//! after the workload's policy. Deliberately apart from `Dataplane`, so that CNI calls run side by
//! side.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bgp::types::Prefix;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use smallvec::SmallVec;
use tracing::{debug, warn};

use super::diff::{FibInfo, KernelHop, KernelRoute, RouteKind};
use super::link::{self, LinkChange};
use super::netlink::{Netlink, NetlinkError};
use super::rehearsal::Rehearsal;
use super::route::{RouteWrite, Write};
use super::{neigh, netns, ownership, sysctl};
use crate::names::{HOST_VETH_MAC, WORKLOAD_GATEWAY, WORKLOAD_GATEWAY_V6};

const PROTOCOL_BOOT: u8 = 3;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const DEFAULT_ROUTE: Prefix = Prefix::V4 { bits: 0, length: 0 };
const DEFAULT_ROUTE_V6: Prefix = Prefix::V6 {
    bits: [0; 16],
    length: 0,
};
/// The least that IPv6 takes (RFC 8200 §5): from a smaller link the kernel removes it.
const SMALLEST_MTU_V6: u32 = 1280;

/// What a runtime asked for.
#[derive(Debug)]
pub struct WorkloadSpec {
    /// The workload's network namespace.
    pub netns: OwnedFd,
    /// The interface's name in there, e.g. `eth0`.
    pub container_interface: String,
    /// `names::host_interface` of the workload.
    pub host_interface: String,
    pub addresses: Vec<IpAddr>,
    /// 0: the kernel's default.
    pub mtu: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttachedWorkload {
    /// Of the workload's interface, given by the kernel.
    pub mac: [u8; 6],
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("{0} is not a name of ours")]
    ForeignName(String),
    #[error("device {name} exists and is of kind {kind:?}, not ours to remove")]
    ForeignLink { name: String, kind: String },
    #[error(
        "an MTU of {mtu} leaves no room for IPv6, which takes {SMALLEST_MTU_V6}; raise mtu in the \
         agent's configuration, or remove the node's IPv6 podCIDR"
    )]
    SmallMtu { mtu: u32 },
    #[error("the kernel has no IPv6; remove the node's IPv6 podCIDR")]
    NoIpv6,
    #[error("failed to set {path} in the workload")]
    Parameter {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to enter the workload's network namespace")]
    Namespace(#[source] io::Error),
    #[error("the workload has an interface {0} already; remove it, or use another CNI_IFNAME")]
    Occupied(String),
    #[error("failed to {what}")]
    Kernel { what: String, source: NetlinkError },
    #[error("interface {0} is missing after its creation")]
    Vanished(String),
    #[error("the worker thread failed")]
    Worker,
}

/// Makes the veth and sets up the workload's end. A veth of this name left by an attempt that was
/// killed is removed first; on an error everything made is removed.
///
/// # Errors
/// The step that failed, with the kernel's reason.
pub async fn attach_workload(spec: WorkloadSpec) -> Result<AttachedWorkload, AttachError> {
    tokio::task::spawn_blocking(move || attach(&spec))
        .await
        .map_err(|_| AttachError::Worker)?
}

/// Removes the host's end and with it the workload's. Fine if it is gone already.
///
/// # Errors
/// `ForeignName`, `ForeignLink`, or the kernel's refusal.
pub async fn detach_workload(host_interface: String) -> Result<(), AttachError> {
    tokio::task::spawn_blocking(move || {
        let mut netlink = Netlink::open().map_err(failed("open netlink"))?;
        remove_stale(&mut netlink, &host_interface)
    })
    .await
    .map_err(|_| AttachError::Worker)?
}

/// Waits until the workload's end takes packets. The kernel starts it in the background once the
/// host's end is up too, and drops until then what the workload sends. An end that does not start
/// in time, or is gone, is not waited for.
pub async fn wait_until_running(netns: OwnedFd, container_interface: String) {
    let waited = tokio::task::spawn_blocking(move || {
        let wait = || watch_start(&container_interface);
        let watched = netns::run_in(netns.as_fd(), wait);
        let is_running = watched.map_err(NetlinkError::Socket).flatten();
        debug!(
            iface = container_interface,
            ?is_running,
            "workload's end watched"
        );
    });
    // It fails only if the runtime ends.
    let _ = waited.await;
}

/// Whether the link of this namespace is running within its time.
fn watch_start(name: &str) -> Result<bool, NetlinkError> {
    let deadline = Instant::now() + link::START_TIME;
    let mut netlink = Netlink::open()?;
    loop {
        match link::find(&mut netlink, name)? {
            Some(link) if link.is_running => return Ok(true),
            None => return Ok(false),
            Some(_) if Instant::now() >= deadline => return Ok(false),
            Some(_) => std::thread::sleep(link::START_POLL),
        }
    }
}

fn attach(spec: &WorkloadSpec) -> Result<AttachedWorkload, AttachError> {
    let (mtu, has_ipv6) = (spec.mtu, spec.addresses.iter().any(IpAddr::is_ipv6));
    if has_ipv6 && mtu != 0 && mtu < SMALLEST_MTU_V6 {
        return Err(AttachError::SmallMtu { mtu });
    }
    let mut netlink = Netlink::open().map_err(failed("open netlink"))?;
    remove_stale(&mut netlink, &spec.host_interface)?;
    create_pair(&mut netlink, spec)?;
    let inside = netns::run_in(spec.netns.as_fd(), || set_up_inside(spec))
        .unwrap_or_else(|error| Err(AttachError::Namespace(error)));
    if inside.is_err()
        && let Err(error) = link::remove(&mut netlink, &spec.host_interface)
    {
        warn!(iface = spec.host_interface, %error, "half-made veth is left, the next try removes it");
    }
    inside.map(|mac| AttachedWorkload { mac })
}

/// Removes a veth of ours of this name. One end takes the other with it.
fn remove_stale(netlink: &mut Netlink, name: &str) -> Result<(), AttachError> {
    if !ownership::is_workload_device(name) {
        return Err(AttachError::ForeignName(name.into()));
    }
    match link::find(netlink, name).map_err(failed(format!("look for {name}")))? {
        None => Ok(()),
        Some(stale) if stale.kind == "veth" => {
            link::remove(netlink, name).map_err(failed(format!("remove {name}")))
        }
        Some(other) => Err(AttachError::ForeignLink {
            name: name.into(),
            kind: other.kind,
        }),
    }
}

/// The peer is born in the workload's namespace under its final name: there is no moment at which
/// it stands in ours, and nothing to move or rename.
fn create_pair(netlink: &mut Netlink, spec: &WorkloadSpec) -> Result<(), AttachError> {
    let mtu = (spec.mtu != 0).then_some(LinkAttribute::Mtu(spec.mtu));
    let mut peer = LinkMessage::default();
    peer.attributes
        .push(LinkAttribute::IfName(spec.container_interface.clone()));
    peer.attributes
        .push(LinkAttribute::NetNsFd(spec.netns.as_raw_fd()));
    peer.attributes.extend(mtu.clone());
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(spec.host_interface.clone()));
    // Set at birth: udev gives an address of its own to links that have a random one.
    message
        .attributes
        .push(LinkAttribute::Address(HOST_VETH_MAC.to_vec()));
    message.attributes.extend(mtu);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    netlink
        .request(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .map_err(|error| match error.errno() {
            // Our end's name is free.
            Some(Errno::EEXIST) => AttachError::Occupied(spec.container_interface.clone()),
            _ => failed(format!(
                "create veth {} with peer {}",
                spec.host_interface, spec.container_interface
            ))(error),
        })
}

/// Runs in the workload's namespace. Returns the MAC of its interface.
fn set_up_inside(spec: &WorkloadSpec) -> Result<[u8; 6], AttachError> {
    let name = &spec.container_interface;
    let mut netlink = Netlink::open().map_err(failed("open netlink in the workload"))?;
    let link = link::find(&mut netlink, name)
        .map_err(failed(format!("look for {name} in the workload")))?
        .ok_or_else(|| AttachError::Vanished(name.clone()))?;
    let mac = link
        .mac
        .ok_or_else(|| AttachError::Vanished(name.clone()))?;
    let index = link.index;
    let has_ipv4 = spec.addresses.iter().any(IpAddr::is_ipv4);
    let has_ipv6 = spec.addresses.iter().any(IpAddr::is_ipv6);
    if has_ipv6 {
        prepare_ipv6(name)?;
    }
    for address in &spec.addresses {
        let length = Prefix::host(*address).length();
        link::add_address(&mut netlink, index, *address, length)
            .map_err(failed(format!("add {address} to {name}")))?;
    }
    let up = LinkChange {
        is_up: Some(true),
        ..LinkChange::default()
    };
    if let Some(loopback) = link::find(&mut netlink, "lo").map_err(failed("look for lo"))? {
        link::change(&mut netlink, loopback.index, up).map_err(failed("set lo up"))?;
    }
    link::change(&mut netlink, index, up).map_err(failed(format!("set {name} up")))?;
    let mut routes = Vec::new();
    if has_ipv4 {
        add_gateway(&mut netlink, index, WORKLOAD_GATEWAY.into())?;
        routes.extend(workload_routes(index));
    }
    if has_ipv6 {
        add_gateway(&mut netlink, index, WORKLOAD_GATEWAY_V6.into())?;
        routes.push(default_route(
            DEFAULT_ROUTE_V6,
            WORKLOAD_GATEWAY_V6.into(),
            index,
        ));
    }
    for route in routes {
        let prefix = route.prefix;
        netlink
            .ask(&RouteWrite::new(Write::Create, route))
            .map_err(failed(format!("add route {prefix}")))?;
    }
    Ok(mac)
}

/// Before the link is up: its addresses are usable at once, and no router but the host is heard.
/// Runtimes switch IPv6 off in the namespaces they make; this one is to have it.
fn prepare_ipv6(name: &str) -> Result<(), AttachError> {
    let rehearsal = Rehearsal::default();
    for (path, value) in [
        (String::from("ipv6/conf/lo/disable_ipv6"), "0"),
        (format!("ipv6/conf/{name}/disable_ipv6"), "0"),
        (format!("ipv6/conf/{name}/accept_ra"), "0"),
        (format!("ipv6/conf/{name}/accept_dad"), "0"),
    ] {
        sysctl::ensure(&rehearsal, &path, value).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => AttachError::NoIpv6,
            _ => AttachError::Parameter { path, source },
        })?;
    }
    Ok(())
}

/// Knowing the MAC, a workload does not have to ask.
fn add_gateway(netlink: &mut Netlink, device: u32, gateway: IpAddr) -> Result<(), AttachError> {
    netlink
        .ask(&neigh::put((device, gateway), HOST_VETH_MAC))
        .map_err(failed(format!("add neighbour {gateway}")))
}

/// `169.254.1.1 dev eth0 scope link` and `default via 169.254.1.1 dev eth0`.
fn workload_routes(device: u32) -> [KernelRoute; 2] {
    let hop = KernelHop {
        device: Some(device),
        ..KernelHop::default()
    };
    [
        boot_route(Prefix::host(WORKLOAD_GATEWAY.into()), SCOPE_LINK, hop),
        default_route(DEFAULT_ROUTE, WORKLOAD_GATEWAY.into(), device),
    ]
}

fn default_route(prefix: Prefix, gateway: IpAddr, device: u32) -> KernelRoute {
    let hop = KernelHop {
        gateway: Some(gateway),
        device: Some(device),
        ..KernelHop::default()
    };
    boot_route(prefix, SCOPE_UNIVERSE, hop)
}

fn boot_route(prefix: Prefix, scope: u8, hop: KernelHop) -> KernelRoute {
    KernelRoute {
        prefix,
        tos: 0,
        info: Arc::new(FibInfo {
            metric: 0,
            protocol: PROTOCOL_BOOT,
            kind: RouteKind::Unicast,
            scope,
            hops: SmallVec::from_buf([hop]),
            source: None,
            has_extras: false,
        }),
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(NetlinkError) -> AttachError {
    let what = what.into();
    move |source| AttachError::Kernel { what, source }
}
