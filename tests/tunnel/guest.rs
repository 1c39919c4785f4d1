//! Kernel IPIP, in a guest kernel that has it.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::product::{programs, succeeded};
use harness::{guest, needs_root};

/// A boot takes 2 s and a lab some 20 s there; a busy machine several times as long.
const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn kernel_ipip_and_carrier_carry_packets_to_each_other() -> Result<()> {
    needs_root!();
    let caracal = programs()?.join("caracal").display().to_string();
    let command = [caracal.as_str(), "lab", "--driver", "b1=userspace"];
    let finished = guest::run(&guest::TUNNEL_MODULES, &command, LIMIT)?;
    println!("{}", finished.stdout);
    let output = succeeded(finished)?;
    // b2 chose the kernel's driver by itself, b1 was told otherwise.
    ensure!(output.contains("via 192.168.100.100 dev caracal-ipip"));
    ensure!(output.contains("via 192.168.100.100 dev caracal-tun"));
    Ok(())
}
