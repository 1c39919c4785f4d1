//! Packets between workloads of two nodes, by every way that there is between nodes.

mod plain;
mod site;
mod traffic;
mod ways;

use std::time::Duration;

use anyhow::Result;

pub use self::plain::carry as carry_plainly;
use self::site::Site;
use self::traffic::Traffic;
use self::ways::Way;
use crate::contender::{Contender, Test};
use crate::scenarios::Figure;

/// How long each kind of traffic lasts.
const FULL: Duration = Duration::from_secs(3);
const SMALL: Duration = Duration::from_millis(100);

/// `is_small`: just long enough to see that it works.
pub fn tests(is_small: bool) -> Vec<Test> {
    let lasts = if is_small { SMALL } else { FULL };
    let contender = |way: &'static Way| {
        Contender::new(
            way.name,
            way.role,
            || way.is_possible().map(|()| way.title.to_owned()),
            move || measure(way, lasts),
        )
    };
    vec![Test {
        name: "packets",
        title: "one TCP stream, small UDP packets 256 on their way at most, one packet to and fro",
        contenders: ways::ALL.iter().map(contender).collect(),
        note: "nodes, workloads, carriers and both ends of the traffic share this machine's processors",
    }]
}

fn measure(way: &Way, lasts: Duration) -> Result<Vec<Figure>> {
    let site = Site::start(way)?;
    let traffic = Traffic {
        from: &site.workloads[0].namespace,
        to: &site.workloads[1].namespace,
        address: site::address(1),
        lasts,
    };
    traffic.wait_for_echo()?;
    site.check_way(way)?;
    let stream = traffic.stream()?;
    let (packets, lost) = traffic.packets()?;
    let (p50, p99) = traffic.round_trips()?;
    Ok(vec![
        ("TCP Gbit/s", stream / 1e9),
        ("1000 packets/s", packets / 1e3),
        ("lost %", lost * 100.0),
        ("RTT p50 us", p50),
        ("RTT p99 us", p99),
    ])
}
