//! More packets at once than anybody can take at once.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use agent::lab::{Lab, Scenario};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{lab_with_carriers, status};
use harness::traffic::{address, bound, set_mode, wait_for_device};
use nix::sys::socket::{setsockopt, sockopt};

const BURST: u32 = 10_000;
/// Between the machines of a lab packets wait in the processors' queues of 1,000 (netdev_max_backlog),
/// which a busy processor may not empty in time; nothing of ours can help that.
const ATTEMPTS: usize = 3;
const PORT: u16 = 7002;
/// Room for all of a burst at its receiver.
const BUFFER: usize = 64 << 20;
/// Nothing comes any more where all have come: not even one of them again.
const QUIET: Duration = Duration::from_secs(1);
/// Nothing comes any more where some are missing, although a busy machine lets a carrier wait.
const LOST: Duration = Duration::from_secs(10);

/// Sends datagrams of this length as fast as the kernel takes them; returns how often each came.
fn send_burst(lab: &Lab, length: usize) -> Result<BTreeMap<u32, usize>> {
    let target = SocketAddr::from((address(lab, "b1-1")?, PORT));
    let receiver = bound(lab.namespace("b1-1")?, || UdpSocket::bind(target))?;
    setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER)?;
    receiver.set_read_timeout(Some(LOST))?;
    let sender = lab.namespace("a1-1")?.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(target)?;
        Ok(socket)
    })?;
    let mut datagram = vec![0; length];
    for number in 0..BURST {
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        sender.send(&datagram)?;
    }
    let mut times = BTreeMap::new();
    let mut received = vec![0; 2048];
    while let Ok(got) = receiver.recv(&mut received) {
        ensure!(got == length, "a datagram of {got} octets came");
        let number = received.first_chunk().copied().map(u32::from_be_bytes);
        *times.entry(number.unwrap_or(u32::MAX)).or_default() += 1;
        if times.len() == BURST as usize {
            receiver.set_read_timeout(Some(QUIET))?;
        }
    }
    Ok(times)
}

/// What both say of their carriers: also where packets were dropped.
fn carriers(lab: &Lab) -> Result<String> {
    let of = |node| -> Result<String> { Ok(format!("{node}: {:?}", status(lab, node)?.tunnels)) };
    Ok(of("a1")? + "\n" + &of("b1")?)
}

#[test]
fn ten_thousand_datagrams_at_once_arrive_once_each() -> Result<()> {
    needs_root!();
    let lab = lab_with_carriers(Scenario::Mesh, &["a1", "b1"])?;
    let ways = [("a1", "172.17.10.0/24"), ("b1", "172.17.8.0/24")];
    for (mode, device) in [
        ("vxlanMode: CrossSubnet", "caracal-vxlan"),
        ("ipipMode: CrossSubnet", "caracal-tun"),
        ("udpMode: CrossSubnet", "caracal-udp"),
    ] {
        set_mode(&lab, mode)?;
        wait_for_device(&lab, &ways, device)?;
        for length in [64, 1400] {
            let mut is_there = false;
            for _ in 0..ATTEMPTS {
                let times = send_burst(&lab, length)?;
                println!("{device}: {} of {BURST} of {length} octets", times.len());
                ensure!(times.values().all(|times| *times == 1), "duplicates");
                is_there = times.len() >= BURST as usize * 99 / 100;
                if is_there {
                    break;
                }
                println!("{}", carriers(&lab)?);
            }
            ensure!(is_there, "{device}: no burst came whole");
        }
    }
    Ok(())
}
