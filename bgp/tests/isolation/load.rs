//! A table larger than the Internet's comes in and goes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bgp::policy::ExportDefault;
use bgp::types::Prefix;

use crate::bystanders::{BYSTANDERS, Bystanders};
use crate::peer::{Heard, Peer, announce, attributes};
use crate::scene::{Scene, in_namespace, within};

const LOADER: u8 = 41;
const RECEIVER: u8 = 42;
const WATCHER: u8 = 43;
const HOLD_TIME_SECS: u16 = 3;
const KEEPALIVE: Duration = Duration::from_secs(1);
const ATTRIBUTE_SETS: u32 = 500;
/// How long all of it may take: not what is looked at here.
const PATIENCE: Duration = Duration::from_secs(180);

/// `count` /24s from 16.0.0.0 on, as UPDATEs of `ATTRIBUTE_SETS` attribute sets.
fn table(count: u32) -> Vec<u8> {
    let prefix = |number: u32| {
        let address = std::net::Ipv4Addr::from(0x1000_0000 + (number << 8));
        Prefix::new(address.into(), 24).expect("a /24")
    };
    let share = count.div_ceil(ATTRIBUTE_SETS);
    (0..ATTRIBUTE_SETS)
        .flat_map(|set| {
            let numbers = set * share..((set + 1) * share).min(count);
            let prefixes: Vec<Prefix> = numbers.map(prefix).collect();
            announce(&attributes(LOADER, set), &prefixes)
        })
        .collect()
}

fn keepalives_leave_on_time_while_routes_load(count: u32) {
    in_namespace(|| {
        let [left, right] = BYSTANDERS;
        let peers = [left, right, LOADER, RECEIVER, WATCHER];
        let scene = Scene::start_with(&peers, |last, config| {
            if last == WATCHER {
                config.export_default = ExportDefault::OwnOnly;
            }
        });
        let octets = table(count);
        let heard = Arc::new(AtomicUsize::new(0));
        let hearing = Arc::clone(&heard);
        let watcher = Peer::establish(WATCHER, HOLD_TIME_SECS).live(KEEPALIVE, |_, _| {});
        let receiver = Peer::establish(RECEIVER, HOLD_TIME_SECS).live(KEEPALIVE, move |_, what| {
            if let Heard::Announced(prefixes) = what {
                hearing.fetch_add(prefixes.len(), Ordering::Relaxed);
            }
        });
        let mut bystanders = Bystanders::meet(&scene);
        let loader = Peer::establish(LOADER, 90).live(KEEPALIVE, |_, _| {});
        bystanders.exchange_during(|| {
            let begun = Instant::now();
            loader.send(&octets);
            println!(
                "{count} routes sent after {} ms",
                begun.elapsed().as_millis()
            );
            within(PATIENCE, "the receiver has all routes", || {
                let heard = heard.load(Ordering::Relaxed);
                (heard < count as usize).then(|| format!("{heard} of {count}"))
            });
            println!("passed on after {} ms", begun.elapsed().as_millis());
        });
        for last in [WATCHER, RECEIVER, LOADER] {
            let peer = scene.peer(last);
            assert_eq!(
                (peer.state.as_str(), peer.flaps),
                ("established", 0),
                "{peer:?}"
            );
        }
        for (name, live) in [("watcher", watcher), ("receiver", receiver)] {
            let gap = live.end();
            println!("{name}: longest without KEEPALIVE {} ms", gap.as_millis());
        }
        bystanders.expect_unharmed(&scene);
    });
}

#[test]
fn keepalives_leave_on_time_while_a_million_routes_load() {
    keepalives_leave_on_time_while_routes_load(1_000_000);
}
