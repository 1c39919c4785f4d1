//! A node with 2,000 learned routes and 200 workloads, whose agent ends and comes back.

use anyhow::Result;
use harness::needs_root;

use crate::busy::{Way, restarts_are_not_noticed};

/// The carrier for IPIP, whatever the kernel has.
const CARRIER: &str = "tunnelDriver: userspace\n";

#[test]
fn restart_with_2000_routes_and_200_workloads_is_not_noticed_on_link() -> Result<()> {
    needs_root!();
    restarts_are_not_noticed(&Way {
        name: "direct",
        modes: "ipipMode: Never",
        settings: "",
        device: "eth1",
        has_carrier: false,
        by_hand: None,
    })
}

#[test]
fn restart_with_2000_routes_and_200_workloads_is_not_noticed_by_vxlan() -> Result<()> {
    needs_root!();
    restarts_are_not_noticed(&Way {
        name: "VXLAN",
        modes: "vxlanMode: Always",
        settings: "",
        device: "caracal-vxlan",
        has_carrier: false,
        by_hand: None,
    })
}

#[test]
fn restart_with_2000_routes_and_200_workloads_is_not_noticed_by_ipip_of_the_carrier() -> Result<()>
{
    needs_root!();
    restarts_are_not_noticed(&Way {
        name: "IPIP by the carrier",
        modes: "ipipMode: Always",
        settings: CARRIER,
        device: "caracal-tun",
        has_carrier: true,
        by_hand: None,
    })
}

#[test]
fn restart_with_2000_routes_and_200_workloads_is_not_noticed_by_udp() -> Result<()> {
    needs_root!();
    restarts_are_not_noticed(&Way {
        name: "UDP",
        modes: "udpMode: Always",
        settings: "",
        device: "caracal-udp",
        has_carrier: true,
        by_hand: None,
    })
}
