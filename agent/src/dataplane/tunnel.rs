//! The tunnel devices of this node: `caracal-ipip`, `caracal-tun`, `caracal-vxlan`, `caracal-udp`.
//!
//! In: the wanted `Tunnel`. Out: a device that is up, with its addresses, MTU and parameters. Its
//! neighbours and forwarding entries are applied with the others of their kind. Moving the packets
//! of `caracal-tun` and `caracal-udp` is the carrier's.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use nix::errno::Errno;

use super::desired::{Tunnel, TunnelDriver};
use super::link::{self, LinkChange, LinkState, Links, TunnelEnds, VxlanEnds};
use super::netlink::{Netlink, NetlinkError};
use super::rehearsal::Rehearsal;
use super::{modules, netns, sysctl};
use crate::carrier::{self, tap};
use crate::crash::crash_point;
use crate::names::{IPIP_DEVICE, VXLAN_DEVICE, VXLAN_PORT, VXLAN_VNI};

/// Of VXLAN's outer headers.
const OUTER_TTL: u8 = 64;
/// `ip tunnel … ttl inherit`.
const INHERIT_TTL: u8 = 0;
/// `ip tunnel … tos inherit`: the outer header gets the inner one's.
const INHERIT_TOS: u8 = 1;
/// RFC 3704 loose mode: replies may come from another device than the route back.
const LOOSE: &str = "2";
/// `addr_gen_mode`: no link-local address is made.
const NO_ADDRESSES: &str = "1";
/// What `ip -d link` shows of the tunnel itself.
const OTHER_PARAMETERS: &str = "other tunnel parameters";
const PROBE_DEVICE: &str = "probe";

#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("failed to create {device}: {source}")]
    Create {
        device: &'static str,
        source: NetlinkError,
    },
    #[error("device {holder} has the parameters of {IPIP_DEVICE} (local {local}, any remote)")]
    Taken { holder: String, local: Ipv4Addr },
    #[error(
        "device {holder} has the parameters of {VXLAN_DEVICE} (VNI {VXLAN_VNI}, port {VXLAN_PORT})"
    )]
    TakenVxlan { holder: String },
    #[error("failed to open {device}: {source}")]
    Tap {
        device: &'static str,
        source: std::io::Error,
    },
    #[error("device {device} is of kind {kind:?}, not ours to change")]
    ForeignKind { device: &'static str, kind: String },
    #[error("failed to configure {device}: {source}")]
    Configure {
        device: &'static str,
        source: NetlinkError,
    },
    #[error("failed to set parameters of {device}: {source}")]
    Sysctl {
        device: &'static str,
        source: std::io::Error,
    },
}

/// Whether this kernel can make ipip devices. Tried in a namespace of its own; the kernel loads the
/// module if it has one, with which a device tunl0 comes into every namespace. A rehearsal only looks
/// whether there is a module to be loaded.
pub fn has_kernel_ipip(rehearsal: &Rehearsal) -> bool {
    if rehearsal.is_on()
        && let Some(has_module) = modules::has_unloaded("ipip")
    {
        return has_module;
    }
    let local = Ipv4Addr::LOCALHOST;
    netns::run_in_new(|| {
        let mut netlink = Netlink::open().ok()?;
        put_ipip(&mut netlink, PROBE_DEVICE, local, NLM_F_CREATE | NLM_F_EXCL).ok()
    })
    .is_ok_and(|made| made.is_some())
}

/// A device that is not ours and catches everything that `caracal-ipip` should: ipip without remote
/// and with the same local address.
pub fn foreign_holder(links: &Links, local: Ipv4Addr) -> Option<&str> {
    let wanted = |link: &LinkState| {
        link.tunnel
            .is_some_and(|ends| ends.local == local && ends.remote.is_unspecified())
    };
    links
        .by_name
        .iter()
        .find(|(name, link)| name.as_str() != IPIP_DEVICE && wanted(link))
        .map(|(name, _)| name.as_str())
}

/// A VXLAN device that is not ours and has our VNI and port: the kernel knows one alone.
pub fn foreign_vxlan(links: &Links) -> Option<&str> {
    let is_taken = |link: &LinkState| {
        let ends = link.vxlan;
        ends.is_some_and(|ends| (ends.vni, ends.port) == (VXLAN_VNI, VXLAN_PORT))
    };
    links
        .by_name
        .iter()
        .find(|(name, link)| name.as_str() != VXLAN_DEVICE && is_taken(link))
        .map(|(name, _)| name.as_str())
}

/// Brings the tunnel device about. Returns what differed and is right now; `links` is out of date
/// if anything did.
///
/// # Errors
/// The first step that failed; the next pass takes it up again.
pub fn ensure(
    netlink: &mut Netlink,
    links: &Links,
    driver: TunnelDriver,
    tunnel: &Tunnel,
) -> Result<Vec<String>, TunnelError> {
    let device = driver.device();
    let mut differences = Vec::new();
    let configure = |source| TunnelError::Configure { device, source };
    let mut found = links.get(device);
    if let Some(link) = found
        && link.kind != driver.link_kind()
    {
        return Err(TunnelError::ForeignKind {
            device,
            kind: link.kind.clone(),
        });
    }
    // What the kernel does not let change under way.
    if driver == TunnelDriver::Vxlan
        && let Some(link) = found
        && link
            .vxlan
            .is_none_or(|ends| (ends.vni, ends.port) != (VXLAN_VNI, VXLAN_PORT))
    {
        link::remove(netlink, device).map_err(configure)?;
        found = None;
    }
    let fresh;
    let link = match found {
        Some(link) => link,
        None => {
            create(netlink, links, driver, tunnel)?;
            differences.push("missing".to_owned());
            fresh = link::observe(netlink).map_err(configure)?;
            fresh.get(device).ok_or_else(|| TunnelError::Create {
                device,
                source: NetlinkError::Malformed("device is missing after its creation".into()),
            })?
        }
    };
    match driver {
        TunnelDriver::Kernel if link.tunnel != Some(ends(tunnel.local)) => {
            put_ipip(netlink, device, tunnel.local, 0).map_err(configure)?;
            differences.push(OTHER_PARAMETERS.to_owned());
        }
        TunnelDriver::Vxlan if link.vxlan != Some(vxlan_ends(tunnel.local)) => {
            put_vxlan(netlink, tunnel, 0).map_err(configure)?;
            differences.push(OTHER_PARAMETERS.to_owned());
        }
        TunnelDriver::Kernel
        | TunnelDriver::Vxlan
        | TunnelDriver::Userspace
        | TunnelDriver::Udp => {}
    }
    // Before the device is up: a link that has IPv6 begins with an address and solicitations.
    let parameters = configure_parameters(netlink.rehearsal(), device, tunnel)
        .map_err(|source| TunnelError::Sysctl { device, source })?;
    differences.extend(parameters);
    let queue_length = driver.carrier().map(|_| carrier::QUEUE_LENGTH);
    let of_link = configure_link(netlink, link, tunnel, queue_length).map_err(configure)?;
    differences.extend(of_link);
    Ok(differences)
}

fn create(
    netlink: &mut Netlink,
    links: &Links,
    driver: TunnelDriver,
    tunnel: &Tunnel,
) -> Result<(), TunnelError> {
    let device = driver.device();
    let taken = || match driver {
        TunnelDriver::Vxlan => foreign_vxlan(links).map(|holder| TunnelError::TakenVxlan {
            holder: holder.into(),
        }),
        TunnelDriver::Kernel | TunnelDriver::Userspace | TunnelDriver::Udp => {
            let holder = foreign_holder(links, tunnel.local);
            holder.map(|holder| TunnelError::Taken {
                holder: holder.into(),
                local: tunnel.local,
            })
        }
    };
    // In a rehearsal there is no kernel to refuse it.
    if netlink.rehearsal().is_on()
        && driver.carrier().is_none()
        && let Some(taken) = taken()
    {
        return Err(taken);
    }
    let made = match driver {
        TunnelDriver::Userspace | TunnelDriver::Udp if netlink.rehearsal().is_on() => {
            rehearse_tap(netlink, driver)
        }
        TunnelDriver::Userspace | TunnelDriver::Udp => {
            let made = tap::open_persistent(device).map(drop);
            crash_point(format_args!("device {device} made"));
            return made.map_err(|source| TunnelError::Tap { device, source });
        }
        TunnelDriver::Kernel => put_ipip(netlink, device, tunnel.local, NLM_F_CREATE | NLM_F_EXCL),
        TunnelDriver::Vxlan => put_vxlan(netlink, tunnel, NLM_F_CREATE | NLM_F_EXCL),
    };
    made.map_err(|source| {
        let is_taken = source.errno() == Some(Errno::EEXIST);
        let taken = is_taken.then(taken).flatten();
        taken.unwrap_or(TunnelError::Create { device, source })
    })
}

/// The kernel makes a TAP by other means than netlink; in its stead what it would show is kept.
fn rehearse_tap(netlink: &mut Netlink, driver: TunnelDriver) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    let kind = LinkInfo::Kind(InfoKind::Tun);
    message.attributes.extend([
        LinkAttribute::IfName(driver.device().into()),
        LinkAttribute::LinkInfo(vec![kind]),
    ]);
    netlink.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE)
}

/// The outer header has DF where the inner one has it: who set it is told of the path's MTU, and
/// what may be cut is cut on the way. With DF on all of them (`pmtudisc`) the kernel would drop the
/// latter without a word. It puts it on all of them as well where the TTL is fixed.
fn ends(local: Ipv4Addr) -> TunnelEnds {
    TunnelEnds {
        local,
        remote: Ipv4Addr::UNSPECIFIED,
        ttl: INHERIT_TTL,
        tos: INHERIT_TOS,
        is_pmtu_discovering: false,
    }
}

/// Creates the ipip device (`NLM_F_CREATE`) or changes its parameters (no flags).
fn put_ipip(
    netlink: &mut Netlink,
    name: &str,
    local: Ipv4Addr,
    flags: u16,
) -> Result<(), NetlinkError> {
    let ends = ends(local);
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::IpIp),
        LinkInfo::Data(InfoData::IpTunnel(vec![
            InfoIpTunnel::Local(IpAddr::V4(ends.local)),
            InfoIpTunnel::Ttl(ends.ttl),
            InfoIpTunnel::Tos(ends.tos),
            InfoIpTunnel::PMtuDisc(ends.is_pmtu_discovering),
        ])),
    ]));
    netlink.request(RouteNetlinkMessage::NewLink(message), flags)
}

fn vxlan_ends(local: Ipv4Addr) -> VxlanEnds {
    VxlanEnds {
        vni: VXLAN_VNI,
        port: VXLAN_PORT,
        local: Some(local),
        is_learning: false,
    }
}

/// Creates the VXLAN device (`NLM_F_CREATE`) or changes its parameters (no flags).
///
/// Outer packets go without DF: what is too big for the path is fragmented on the way, for the kernel
/// tells no workload of it (unlike with ipip).
fn put_vxlan(netlink: &mut Netlink, tunnel: &Tunnel, flags: u16) -> Result<(), NetlinkError> {
    let ends = vxlan_ends(tunnel.local);
    let mut parameters = vec![
        InfoVxlan::Id(ends.vni),
        InfoVxlan::Local(tunnel.local),
        InfoVxlan::Ttl(OUTER_TTL),
        InfoVxlan::Tos(INHERIT_TOS),
        InfoVxlan::Learning(ends.is_learning),
    ];
    if flags & NLM_F_CREATE != 0 {
        // Of a device that is there it may not even be named.
        parameters.push(InfoVxlan::Port(ends.port));
    }
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(VXLAN_DEVICE.into()));
    message
        .attributes
        .extend(tunnel.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(parameters)),
    ]));
    netlink.request(RouteNetlinkMessage::NewLink(message), flags)
}

/// Returns what had to be written.
fn configure_link(
    netlink: &mut Netlink,
    link: &LinkState,
    tunnel: &Tunnel,
    queue_length: Option<u32>,
) -> Result<Vec<String>, NetlinkError> {
    let change = LinkChange {
        mac: tunnel.mac.filter(|mac| link.mac != Some(*mac)),
        mtu: (link.mtu != tunnel.mtu).then_some(tunnel.mtu),
        queue_length: queue_length.filter(|length| link.queue_length != *length),
        is_up: (!link.is_up).then_some(true),
        // It would ask for the MAC of every destination; all neighbours are permanent.
        is_noarp: (!link.is_noarp).then_some(true),
    };
    if change != LinkChange::default() {
        link::change(netlink, link.index, change)?;
    }
    let mut differences: Vec<String> = [
        change.mac.map(|_| "another MAC".to_owned()),
        change
            .mtu
            .map(|mtu| format!("mtu {} instead of {mtu}", link.mtu)),
        change
            .queue_length
            .map(|length| format!("txqueuelen {} instead of {length}", link.queue_length)),
        change.is_up.map(|_| "down".to_owned()),
        change.is_noarp.map(|_| "with ARP".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let wanted: Vec<(IpAddr, u8)> = [(IpAddr::V4(tunnel.address), 32)]
        .into_iter()
        .chain(tunnel.address6.map(|address| (IpAddr::V6(address), 128)))
        .collect();
    for (address, length) in &wanted {
        if !link.addresses.contains(&(*address, *length)) {
            link::add_address(netlink, link.index, *address, *length)?;
            differences.push(format!("without {address}/{length}"));
        }
    }
    for (other, length) in &link.addresses {
        if !wanted.contains(&(*other, *length)) {
            link::remove_address(netlink, link.index, *other, *length)?;
            differences.push(format!("with {other}/{length}"));
        }
    }
    Ok(differences)
}

/// Returns what had to be written.
fn configure_parameters(
    rehearsal: &Rehearsal,
    device: &str,
    tunnel: &Tunnel,
) -> std::io::Result<Vec<String>> {
    let mut parameters = vec![
        (format!("ipv4/conf/{device}/rp_filter"), LOOSE),
        // What comes out of the tunnel is for workloads.
        (format!("ipv4/conf/{device}/forwarding"), "1"),
    ];
    // Where there is nothing for IPv6 to do it would only send its solicitations there.
    let is_disabled = if tunnel.address6.is_some() { "0" } else { "1" };
    if tunnel.address6.is_some() {
        // No address but ours.
        parameters.push((format!("ipv6/conf/{device}/addr_gen_mode"), NO_ADDRESSES));
        parameters.push((format!("ipv6/conf/{device}/forwarding"), "1"));
    }
    parameters.push((format!("ipv6/conf/{device}/disable_ipv6"), is_disabled));
    let mut differences = Vec::new();
    for (path, value) in parameters {
        match sysctl::ensure(rehearsal, &path, value) {
            Ok(Some(before)) => differences.push(format!("{path} {before} instead of {value}")),
            Ok(None) => {}
            // A kernel without IPv6.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && path.starts_with("ipv6/")
                    && tunnel.address6.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(differences)
}
