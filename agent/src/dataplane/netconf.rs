//! Notifications about parameters of links (RTM_NEWNETCONF): what the kernel tells of /proc/sys/net.
//!
//! Pure. It tells of forwarding, rp_filter and proxying alone; other parameters change in silence. A
//! message names the link and the changed parameter, whoever changed it: the kernel sends them in
//! its own name.

use netlink_packet_core::NlasIterator;

/// `struct netconfmsg`: the family, padded.
const HEADER: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_PROXY_NEIGH: u16 = 5;
/// NETCONFA_IFINDEX_ALL; `ip_forward` is the same parameter.
const ALL_LINKS: i32 = -1;

/// Of which link, and what its parameters are now: those that the message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Parameters {
    /// `None`: of `all`. Those of `default` concern no link, and are not decoded.
    pub link: Option<u32>,
    pub is_forwarding: Option<bool>,
    pub rp_filter: Option<i32>,
    /// proxy_arp or proxy_ndp.
    pub is_proxying: Option<bool>,
}

/// `None` if no link is named.
pub fn decode(payload: &[u8]) -> Option<Parameters> {
    let mut parameters = Parameters::default();
    let mut link = None;
    for attribute in NlasIterator::new(payload.get(HEADER..)?).map_while(Result::ok) {
        let Some(value) = attribute.value().first_chunk().copied() else {
            continue;
        };
        let value = i32::from_ne_bytes(value);
        match attribute.kind() {
            NETCONFA_IFINDEX => link = Some(value),
            NETCONFA_FORWARDING => parameters.is_forwarding = Some(value != 0),
            NETCONFA_RP_FILTER => parameters.rp_filter = Some(value),
            NETCONFA_PROXY_NEIGH => parameters.is_proxying = Some(value != 0),
            _ => {}
        }
    }
    match link? {
        ALL_LINKS => Some(parameters),
        index => Some(Parameters {
            link: Some(u32::try_from(index).ok()?),
            ..parameters
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What Linux 6.18 told on a little-endian machine: the payload of each message.

    /// `proxy_arp` of link 3 set to 1.
    const PROXY_ARP: [u8; 20] = [2, 0, 0, 0, 8, 0, 1, 0, 3, 0, 0, 0, 8, 0, 5, 0, 1, 0, 0, 0];
    /// `rp_filter` of link 3 set to 2.
    const RP_FILTER: [u8; 20] = [2, 0, 0, 0, 8, 0, 1, 0, 3, 0, 0, 0, 8, 0, 3, 0, 2, 0, 0, 0];
    /// IPv6 `forwarding` of link 3 set to 1.
    const FORWARDING6: [u8; 20] = [10, 0, 0, 0, 8, 0, 1, 0, 3, 0, 0, 0, 8, 0, 2, 0, 1, 0, 0, 0];
    /// `ip_forward` set to 0.
    const IP_FORWARD: [u8; 20] = [
        2, 0, 0, 0, 8, 0, 1, 0, 255, 255, 255, 255, 8, 0, 2, 0, 0, 0, 0, 0,
    ];
    /// The same, of `default`.
    const DEFAULT: [u8; 20] = [
        2, 0, 0, 0, 8, 0, 1, 0, 254, 255, 255, 255, 8, 0, 2, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn changed_parameter_is_named_with_its_link() {
        let of_link = Parameters {
            link: Some(3),
            ..Parameters::default()
        };
        for (name, bytes, expected) in [
            (
                "proxy_arp",
                PROXY_ARP,
                Some(Parameters {
                    is_proxying: Some(true),
                    ..of_link
                }),
            ),
            (
                "rp_filter",
                RP_FILTER,
                Some(Parameters {
                    rp_filter: Some(2),
                    ..of_link
                }),
            ),
            (
                "IPv6 forwarding",
                FORWARDING6,
                Some(Parameters {
                    is_forwarding: Some(true),
                    ..of_link
                }),
            ),
            (
                "ip_forward",
                IP_FORWARD,
                Some(Parameters {
                    is_forwarding: Some(false),
                    ..Parameters::default()
                }),
            ),
            ("default", DEFAULT, None),
        ] {
            assert_eq!(decode(&bytes), expected, "{name}");
        }
    }

    #[test]
    fn shortened_and_changed_messages_end_in_an_answer() {
        for length in 0..PROXY_ARP.len() {
            let _ = decode(&PROXY_ARP[..length]);
        }
        for at in 0..PROXY_ARP.len() {
            for bit in 0..8 {
                let mut bytes = PROXY_ARP;
                bytes[at] ^= 1 << bit;
                let _ = decode(&bytes);
            }
        }
    }
}
