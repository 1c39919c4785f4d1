//! Configuration that changes while a peer is away, or says that another one is there.

use std::time::Duration;

use bgp::policy::ImportDefault;
use bgp::speaker::Stop;
use bgp::speaker::config::{PeerConfig, PeerSource, SpeakerConfig};
use bgp::types::Asn;

use crate::rig::*;

/// Speaker 91 of AS 64512 with speaker 92 of AS 64513, whose route it has.
async fn pair(port: u16) -> (SpeakerConfig, Running, Running) {
    let mut near = speaker(91, 64512, port);
    let mut far = speaker(92, 64513, port);
    peer(&mut near, 92, 64513, port);
    peer(&mut far, 91, 64512, port);
    let config = near.clone();
    let (mut near, far) = (Running::start(near), Running::start(far));
    near.learns(&["10.92.0.0/16"]).await;
    (config, near, far)
}

#[tokio::test]
async fn what_a_peer_of_another_as_said_goes_with_it() {
    let port = free_port();
    let (mut config, mut near, mut far) = pair(port).await;
    peer(&mut config, 92, 64514, port).remote_asn = Some(Asn(64514));
    near.speaker.configure(config.clone()).await;
    // Both have graceful restart, and the one that is expected does not come.
    near.learns(&[]).await;
    far.learns(&[]).await;
    peer(&mut config, 92, 64513, port).remote_asn = Some(Asn(64513));
    near.speaker.configure(config).await;
    near.learns(&["10.92.0.0/16"]).await;
}

#[tokio::test]
async fn routes_of_a_peer_that_restarts_follow_a_new_filter() {
    let port = free_port();
    let (mut config, mut near, far) = pair(port).await;
    far.speaker.stop(Stop::Restarting).await;
    let is_stale = || async {
        let routes = near.routes("10.92.0.0/16").await;
        routes.iter().any(|route| route.stale && route.best)
    };
    Running::wait_for("the route is kept", is_stale).await;
    for (default, expected) in [
        (ImportDefault::Reject, &[][..]),
        (ImportDefault::Accept, &["10.92.0.0/16"][..]),
    ] {
        peer(&mut config, 92, 64513, port).import_default = default;
        near.speaker.configure(config.clone()).await;
        near.learns(expected).await;
    }
}

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
