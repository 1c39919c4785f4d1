//! Configuration that changes while a peer is away, or says that another one is there.

use std::time::Duration;

use bgp::speaker::Stop;
use bgp::speaker::config::{PeerConfig, PeerSource};
use bgp::types::Asn;

use crate::rig::*;

#[tokio::test]
async fn a_peer_of_a_range_is_not_dialled_after_a_change_of_configuration() {
    let port = free_port();
    let mut ranged = speaker(93, 64512, port);
    let mut template = PeerConfig::new("any", PeerSource::Range, Some(Asn(64512)));
    template.idle_hold_time = Duration::from_millis(100);
    ranged.ranges.insert(prefix("127.0.0.0/24"), template);
    let config = ranged.clone();
    let mut ranged = Running::start(ranged);
    let mut client = speaker(94, 64512, port);
    peer(&mut client, 93, 64512, port);
    let away = Running::start(client);
    ranged.learns(&["10.94.0.0/16"]).await;
    ranged.speaker.configure(config).await;
    away.speaker.stop(Stop::Restarting).await;
    // Its routes are kept. After the wait that follows the error a dial would be due.
    let is_waited_for = || async { ranged.speaker.peers().await[0].state == "active" };
    Running::wait_for("it may come back", is_waited_for).await;
    let peers = ranged.speaker.peers().await;
    assert_eq!(peers[0].last_connect_error, None, "it was dialled");
}
