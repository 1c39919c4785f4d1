//! Names and numbers that others see or script against.

use std::net::{Ipv4Addr, Ipv6Addr};

use sha1::{Digest, Sha1};

/// The default gateway of every workload. No host owns it: the veth answers by proxy ARP.
pub const WORKLOAD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// MAC of the host side of every workload's veth.
pub const HOST_VETH_MAC: [u8; 6] = [0xee; 6];
/// The default gateway of every workload of IPv6: the link-local address of the host's side, as it
/// follows from its MAC (RFC 4291, appendix A).
pub const WORKLOAD_GATEWAY_V6: Ipv6Addr =
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// Host veths begin with this.
pub const INTERFACE_PREFIX: &str = "cara";
/// Route protocol of workload and blackhole routes, shown as `caracal`.
pub const PROTOCOL_LOCAL: u8 = 202;
/// Route protocol of learned routes, shown as `caracal-bgp`.
pub const PROTOCOL_LEARNED: u8 = 203;
/// Metric of all our routes.
pub const ROUTE_METRIC: u32 = 202;
pub const IPIP_DEVICE: &str = "caracal-ipip";
pub const CARRIER_DEVICE: &str = "caracal-tun";
pub const VXLAN_DEVICE: &str = "caracal-vxlan";
/// The carrier's for pools with `udpMode`.
pub const UDP_DEVICE: &str = "caracal-udp";
/// VXLAN network identifier of our tunnels.
pub const VXLAN_VNI: u32 = 4096;
pub const VXLAN_PORT: u16 = 4789;
/// Where flannel's `udp` listens, too.
pub const UDP_TUNNEL_PORT: u16 = 8285;
pub const BGP_PORT: u16 = 179;
pub const DEFAULT_ASN: u32 = 64512;

/// The host veth of a workload: `cara` and the first 11 hex digits of sha1 of the workload's
/// `namespace.pod`, or of the container id where the runtime gave no names.
pub fn host_interface(identity: &str) -> String {
    let digest = Sha1::digest(identity.as_bytes());
    let mut name = String::from(INTERFACE_PREFIX);
    for byte in digest.iter().take(6) {
        name.push_str(&format!("{byte:02x}"));
    }
    name.truncate(INTERFACE_PREFIX.len() + 11);
    name
}

/// The MAC of a node's VXLAN device: 02 (locally administered, unicast) and the first five octets of
/// sha1 of the node's name, so that every node knows it without being told.
pub fn vtep_mac(node: &str) -> [u8; 6] {
    let digest = Sha1::digest(node.as_bytes());
    let mut mac = [0x02; 6];
    for (octet, byte) in mac.iter_mut().skip(1).zip(digest) {
        *octet = byte;
    }
    mac
}

/// As `ip` writes it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::{host_interface, vtep_mac};

    #[test]
    fn vtep_mac_follows_sha1_of_the_nodes_name() {
        // sha1("a1") computed with sha1sum.
        assert_eq!(vtep_mac("a1"), [0x02, 0xf2, 0x9b, 0xc9, 0x1b, 0xbd]);
    }

    #[test]
    fn interface_name_fits_the_kernel_and_follows_sha1() {
        // sha1("default.db-0") computed with sha1sum.
        assert_eq!(host_interface("default.db-0"), "cara9ae1fe16e6f");
    }
}
