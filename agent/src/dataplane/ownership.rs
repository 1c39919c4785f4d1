//! Which kernel objects are ours. Nothing else is ever changed or removed.
//!
//! Pure. A route is ours by its protocol, a link by its name: both survive a restart of the agent,
//! so that its leftovers are known without any memory of the run before.

use super::desired::TunnelDriver;
use crate::names::{INTERFACE_PREFIX, PROTOCOL_LEARNED, PROTOCOL_LOCAL};

/// Length of the hexadecimal part of a workload's interface name.
const HASH_DIGITS: usize = 11;

/// Whether a route of this protocol is ours.
pub fn is_own_protocol(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_LOCAL | PROTOCOL_LEARNED)
}

/// Whether a link of this name is ours: a workload's or a tunnel's.
pub fn is_own_device(name: &str) -> bool {
    is_tunnel_device(name) || is_workload_device(name)
}

/// `cara` and 11 lower-case hexadecimal digits.
pub fn is_workload_device(name: &str) -> bool {
    name.strip_prefix(INTERFACE_PREFIX).is_some_and(|digits| {
        digits.len() == HASH_DIGITS
            && digits
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

pub fn is_tunnel_device(name: &str) -> bool {
    TunnelDriver::ALL
        .iter()
        .any(|driver| driver.device() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::host_interface;

    #[test]
    fn only_exact_names_are_ours() {
        for (name, is_ours) in [
            (host_interface("default.db-0").as_str(), true),
            ("cara0123456789a", true),
            ("cara0123456789A", false),
            ("cara0123456789", false),
            ("cara0123456789ab", false),
            ("caravan0", false),
            ("caracal-ipip", true),
            ("caracal-tun", true),
            ("caracal-vxlan", true),
            ("caracal-udp", true),
            ("caracal-tun1", false),
            ("tunl0", false),
            ("cali0123456789a", false),
            ("eth0", false),
            ("", false),
        ] {
            assert_eq!(is_own_device(name), is_ours, "{name:?}");
        }
    }

    #[test]
    fn only_our_two_protocols_are_ours() {
        let ours: Vec<u8> = (0..=255)
            .filter(|protocol| is_own_protocol(*protocol))
            .collect();
        assert_eq!(ours, [202, 203]);
    }
}
