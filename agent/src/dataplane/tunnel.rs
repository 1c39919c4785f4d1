//! The tunnel device of this node, `caracal-ipip` or `caracal-tun`.
//!
//! In: the wanted `Tunnel`. Out: a device that is up, with its one address, MTU and rp_filter; for
//! the carrier also the addresses of the other nodes as neighbours (applied with the others). Moving
//! the packets of `caracal-tun` is the carrier's.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpTunnel, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};
use nix::errno::Errno;

use super::desired::{Tunnel, TunnelDriver};
use super::link::{self, LinkChange, LinkState, Links, TunnelEnds};
use super::netlink::{Netlink, NetlinkError};
use super::{netns, sysctl};
use crate::carrier::{self, tap};
use crate::names::{CARRIER_DEVICE, IPIP_DEVICE};

/// Of outer headers, as the carrier writes it too.
const OUTER_TTL: u8 = 64;
/// `ip tunnel … tos inherit`: the outer header gets the inner one's.
const INHERIT_TOS: u8 = 1;
/// RFC 3704 loose mode: replies may come from another device than the route back.
const LOOSE: &str = "2";
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
    #[error("failed to open {CARRIER_DEVICE}: {0}")]
    Tap(#[source] std::io::Error),
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

pub fn device_of(driver: TunnelDriver) -> &'static str {
    match driver {
        TunnelDriver::Kernel => IPIP_DEVICE,
        TunnelDriver::Userspace => CARRIER_DEVICE,
    }
}

/// Whether this kernel can make ipip devices. Tried in a namespace of its own; the kernel loads the
/// module if it has one.
pub fn has_kernel_ipip() -> bool {
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

/// What `ensure` changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Done {
    pub is_created: bool,
    pub is_changed: bool,
}

/// Brings the tunnel device about. `links` may be out of date afterwards.
///
/// # Errors
/// The first step that failed; the next pass takes it up again.
pub fn ensure(netlink: &mut Netlink, links: &Links, tunnel: &Tunnel) -> Result<Done, TunnelError> {
    let device = device_of(tunnel.driver);
    let mut done = Done::default();
    let configure = |source| TunnelError::Configure { device, source };
    let fresh;
    let link = match links.get(device) {
        Some(link) if is_right_kind(link, tunnel.driver) => link,
        Some(link) => {
            return Err(TunnelError::ForeignKind {
                device,
                kind: link.kind.clone(),
            });
        }
        None => {
            create(netlink, links, tunnel)?;
            done.is_created = true;
            fresh = link::observe(netlink).map_err(configure)?;
            fresh.get(device).ok_or_else(|| TunnelError::Create {
                device,
                source: NetlinkError::Malformed("device is missing after its creation".into()),
            })?
        }
    };
    if tunnel.driver == TunnelDriver::Kernel && link.tunnel != Some(ends(tunnel.local)) {
        put_ipip(netlink, device, tunnel.local, 0).map_err(configure)?;
        done.is_changed = true;
    }
    done.is_changed |= configure_link(netlink, link, tunnel).map_err(configure)?;
    done.is_changed |=
        configure_parameters(device).map_err(|source| TunnelError::Sysctl { device, source })?;
    Ok(done)
}

fn is_right_kind(link: &LinkState, driver: TunnelDriver) -> bool {
    match driver {
        TunnelDriver::Kernel => link.kind == "ipip",
        TunnelDriver::Userspace => link.kind == "tun",
    }
}

fn create(netlink: &mut Netlink, links: &Links, tunnel: &Tunnel) -> Result<(), TunnelError> {
    match tunnel.driver {
        TunnelDriver::Userspace => tap::open_persistent(CARRIER_DEVICE)
            .map(drop)
            .map_err(TunnelError::Tap),
        TunnelDriver::Kernel => put_ipip(
            netlink,
            IPIP_DEVICE,
            tunnel.local,
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .map_err(|source| match foreign_holder(links, tunnel.local) {
            Some(holder) if source.errno() == Some(Errno::EEXIST) => TunnelError::Taken {
                holder: holder.into(),
                local: tunnel.local,
            },
            _ => TunnelError::Create {
                device: IPIP_DEVICE,
                source,
            },
        }),
    }
}

fn ends(local: Ipv4Addr) -> TunnelEnds {
    TunnelEnds {
        local,
        remote: Ipv4Addr::UNSPECIFIED,
        ttl: OUTER_TTL,
        tos: INHERIT_TOS,
        is_pmtu_discovering: true,
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

/// Returns whether anything had to be written.
fn configure_link(
    netlink: &mut Netlink,
    link: &LinkState,
    tunnel: &Tunnel,
) -> Result<bool, NetlinkError> {
    let address = IpAddr::V4(tunnel.address);
    let mac = match tunnel.driver {
        TunnelDriver::Kernel => None,
        // Where the carrier sends its frames.
        TunnelDriver::Userspace => Some(carrier::mac_of(tunnel.local)),
    };
    let change = LinkChange {
        mac: mac.filter(|mac| link.mac != Some(*mac)),
        mtu: (link.mtu != tunnel.mtu).then_some(tunnel.mtu),
        is_up: (!link.is_up).then_some(true),
        // A TAP would ask for the MAC of every destination; its neighbours are all permanent.
        is_noarp: (!link.is_noarp).then_some(true),
    };
    let mut is_changed = change != LinkChange::default();
    if is_changed {
        link::change(netlink, link.index, change)?;
    }
    if !link.addresses.contains(&(address, 32)) {
        link::add_address(netlink, link.index, address)?;
        is_changed = true;
    }
    for (other, length) in &link.addresses {
        if other.is_ipv4() && (*other, *length) != (address, 32) {
            link::remove_address(netlink, link.index, *other, *length)?;
            is_changed = true;
        }
    }
    Ok(is_changed)
}

/// Returns whether anything had to be written.
fn configure_parameters(device: &str) -> std::io::Result<bool> {
    let is_changed = sysctl::ensure(&format!("ipv4/conf/{device}/rp_filter"), LOOSE)?;
    // IPv6 cannot go through IPIP; enabled, it would only send its solicitations there.
    match sysctl::ensure(&format!("ipv6/conf/{device}/disable_ipv6"), "1") {
        Ok(is_also_changed) => Ok(is_changed | is_also_changed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(is_changed),
        Err(error) => Err(error),
    }
}
