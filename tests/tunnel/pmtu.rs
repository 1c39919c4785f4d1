//! Paths whose MTU is smaller than the NICs': who sends too much is told, and what may be cut
//! arrives. Where the kernel has ipip, a1's is its own; b1's is the carrier.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use agent::lab::process::{self, Finished};
use agent::lab::topology::{NIC, ROUTER, ROUTER_NIC_B, Rack};
use agent::lab::{Lab, Scenario, machine};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab_with_carriers};
use harness::traffic::{IPIP, Stream, address, bound, set_mode, wait_for_device};
use nix::sys::socket::{getsockopt, sockopt};

/// Between the racks; the NICs' is 1500.
const PATH_MTU: usize = 1400;
/// IPv4 and ICMP, or UDP.
const HEADERS: usize = 28;
const PORT: u16 = 7001;

fn lab_with_narrow_path() -> Result<Lab> {
    let lab = lab_with_carriers(Scenario::Mesh, &["b1"])?;
    let narrow = |rack: Rack, nic: &str| {
        let (subnet, router) = (rack.subnet(), rack.router());
        format!(
            "route change {subnet} dev {nic} proto kernel scope link src {router} mtu {PATH_MTU}\n"
        )
    };
    let lines = narrow(Rack::A, NIC) + &narrow(Rack::B, ROUTER_NIC_B);
    machine::ip_batch(lab.namespace(ROUTER)?, &lines)?;
    Ok(lab)
}

/// One way between two workloads.
struct Way<'a> {
    lab: &'a Lab,
    from: &'a str,
    to: &'a str,
}

impl Way<'_> {
    /// What was learned of paths is forgotten.
    fn forget(&self) -> Result<()> {
        for machine in ["a1", "b1", self.from, self.to] {
            machine::ip(self.lab.namespace(machine)?, &["route", "flush", "cache"])?;
        }
        Ok(())
    }

    /// One echo whose packet has this length.
    fn ping(&self, length: usize, fragmentation: &str) -> Result<Finished> {
        let mut command = Command::new("ping");
        command.args(["-n", "-c", "1", "-W", "3", "-M", fragmentation, "-s"]);
        command.arg((length - HEADERS).to_string());
        command.arg(address(self.lab, self.to)?.to_string());
        let namespace = self.lab.namespace(self.from)?;
        Ok(process::run(Some(namespace), &mut command, "", TIMEOUT)?)
    }

    /// `None`: it has an answer.
    fn unanswered(&self, length: usize, fragmentation: &str) -> Result<Option<String>> {
        let said = self.ping(length, fragmentation)?;
        Ok((!said.status.success()).then(|| said.stdout + &said.stderr))
    }

    /// TCP finds out by itself.
    fn expect_stream(&self) -> Result<()> {
        self.forget()?;
        let stream = Stream::start(self.lab, self.from, self.to)?;
        stream.wait_turns(20)?;
        stream.stop()?;
        Ok(())
    }

    /// Packets with DF as long as the workload's link: their sender is told what passes, and that does.
    fn expect_told(&self, link_mtu: usize, inner_mtu: usize) -> Result<()> {
        self.forget()?;
        eventually("ping is told", TIMEOUT, || {
            let said = self.ping(link_mtu, "do")?;
            let said = said.stdout + &said.stderr;
            let text = said.replace("mtu = ", "mtu=");
            Ok((!text.contains(&format!("mtu={inner_mtu}"))).then_some(said))
        })?;
        eventually("what passes has an answer", TIMEOUT, || {
            self.unanswered(inner_mtu, "do")
        })
    }

    /// UDP as most programs have it: the kernel finds the path's MTU and cuts what is longer.
    fn expect_datagrams(&self, link_mtu: usize, inner_mtu: usize) -> Result<()> {
        self.forget()?;
        let target = SocketAddr::from((address(self.lab, self.to)?, PORT));
        let receiver = bound(self.lab.namespace(self.to)?, || UdpSocket::bind(target))?;
        receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
        let sender = self.lab.namespace(self.from)?.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(target)?;
            Ok(socket)
        })?;
        for (what, length) in [
            ("as long as the link takes", link_mtu - HEADERS),
            ("longer", 4000),
        ] {
            let sent = vec![7; length];
            eventually(&format!("a datagram {what}"), TIMEOUT, || {
                // What is too long now is cut the next time.
                let result = sender.send(&sent);
                let mut received = [0; 4096];
                let arrived = receiver.recv(&mut received);
                let is_right = arrived.as_ref().is_ok_and(|got| *got == length);
                Ok((!is_right).then(|| format!("sent {result:?}, arrived {arrived:?}")))
            })?;
        }
        let known = getsockopt(&sender, sockopt::IpMtu)?;
        ensure!(
            usize::try_from(known)? == inner_mtu,
            "the socket knows {known}"
        );
        Ok(())
    }
}

#[test]
fn smaller_mtu_on_the_path_is_told_and_hinders_nothing() -> Result<()> {
    needs_root!();
    let lab = lab_with_narrow_path()?;
    let ways = [("a1", "172.17.10.0/24"), ("b1", "172.17.8.0/24")];
    for (mode, device, overhead) in [
        ("ipipMode: CrossSubnet", IPIP, 20),
        ("udpMode: CrossSubnet", "caracal-udp", 28),
    ] {
        set_mode(&lab, mode)?;
        wait_for_device(&lab, &ways, device)?;
        let (link_mtu, inner_mtu) = (1500 - overhead, PATH_MTU - overhead);
        for (from, to) in [("a1-1", "b1-1"), ("b1-1", "a1-1")] {
            println!("{mode}, from {from} to {to}");
            let way = Way {
                lab: &lab,
                from,
                to,
            };
            way.expect_stream()?;
            way.expect_told(link_mtu, inner_mtu)?;
            way.expect_datagrams(link_mtu, inner_mtu)?;
            for length in [link_mtu, 4000] {
                // Nobody knows the path, and the first has an answer all the same.
                way.forget()?;
                let unanswered = way.unanswered(length, "dont")?;
                ensure!(
                    unanswered.is_none(),
                    "{length} octets without DF: {unanswered:?}"
                );
            }
        }
    }
    Ok(())
}

/// The kernel tells no workload of it: the outer packets are cut on the way.
#[test]
fn smaller_mtu_on_the_path_hinders_no_vxlan() -> Result<()> {
    needs_root!();
    let lab = lab_with_narrow_path()?;
    set_mode(&lab, "vxlanMode: CrossSubnet")?;
    let ways = [("a1", "172.17.10.0/24"), ("b1", "172.17.8.0/24")];
    wait_for_device(&lab, &ways, "caracal-vxlan")?;
    let way = Way {
        lab: &lab,
        from: "a1-1",
        to: "b1-1",
    };
    way.expect_stream()?;
    for fragmentation in ["do", "dont"] {
        eventually(fragmentation, TIMEOUT, || {
            way.unanswered(1450, fragmentation)
        })?;
    }
    Ok(())
}
