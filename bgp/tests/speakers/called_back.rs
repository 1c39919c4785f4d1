//! Peers of ranges that a restart waits for, and that do not come back by themselves.

use std::net::IpAddr;
use std::time::Duration;

use bgp::speaker::config::{PeerConfig, PeerSource, SpeakerConfig};
use bgp::types::Asn;

use crate::rig::*;

/// Remembered, and away.
const ABSENT: u8 = 125;

/// A speaker that restarts and remembers a peer of its range.
fn restarting(last: u8, is_passive: bool) -> SpeakerConfig {
    let mut config = speaker(last, 64512, free_port());
    let mut template = PeerConfig::new("clients", PeerSource::Range, Some(Asn(64512)));
    template.passive = is_passive;
    template.local_address = Some(loopback(last));
    config.ranges.insert(prefix("127.0.0.0/24"), template);
    let restart = &mut config.graceful_restart;
    restart.restarting = true;
    restart.remembered_peers = vec![loopback(ABSENT)];
    restart.silence = Duration::from_millis(50);
    restart.selection_deferral = Duration::from_millis(500);
    restart.restart_time = Duration::from_secs(1);
    config
}

async fn has(running: &Running, address: IpAddr) -> bool {
    let peers = running.speaker.peers().await;
    peers.iter().any(|peer| peer.peer == address)
}

#[tokio::test]
async fn a_remembered_peer_is_dialled_until_the_restart_is_over() {
    let mut running = Running::start(restarting(121, false));
    Running::wait_for("it is called back", || has(&running, loopback(ABSENT))).await;
    Running::wait_for("it was dialled", || async {
        let peers = running.speaker.peers().await;
        peers.iter().any(|peer| peer.last_connect_error.is_some())
    })
    .await;
    assert!(
        has(&running, loopback(ABSENT)).await,
        "a dial that fails is not the end"
    );
    Running::wait_for("its place is free again", || async {
        !has(&running, loopback(ABSENT)).await
    })
    .await;
    while !running.dynamic.is_empty() || !running.is_settled {
        let event = tokio::time::timeout(DEADLINE, running.events.recv()).await;
        running.take(event.expect("told in time").expect("speaker runs"));
    }
}

#[tokio::test]
async fn a_remembered_peer_of_a_passive_range_is_never_dialled() {
    let mut running = Running::start(restarting(122, true));
    let looks = async {
        while !running.is_settled {
            assert!(running.speaker.peers().await.is_empty());
            let look_again = Duration::from_millis(10);
            let event = tokio::time::timeout(look_again, running.events.recv()).await;
            if let Ok(event) = event {
                running.take(event.expect("speaker runs"));
            }
        }
    };
    tokio::time::timeout(DEADLINE, looks)
        .await
        .expect("settled");
}
