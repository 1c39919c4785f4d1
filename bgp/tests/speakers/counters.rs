//! What a speaker counts of itself.

use bgp::speaker::counters::{Counters, PeerCounters};
use bgp::speaker::status::FamilyCounts;

use crate::rig::*;

fn of(counters: &Counters, last: u8) -> &PeerCounters {
    let address = format!("127.0.0.{last}:");
    let mut peers = counters.peers.iter();
    peers
        .find(|peer| peer.peer.starts_with(&address))
        .expect("configured")
}

#[tokio::test]
async fn peers_groups_and_convergence_are_counted_where_it_happens() {
    let port = free_port();
    let mut reflector = speaker(1, 64512, port);
    let mut clients = Vec::new();
    for last in [2, 3, 4] {
        peer(&mut reflector, last, 64512, port).route_reflector_client = true;
        let mut client = speaker(last, 64512, port);
        peer(&mut client, 1, 64512, port);
        clients.push(Running::start(client));
    }
    // It is never there.
    peer(&mut reflector, 5, 64512, port).passive = true;
    reflector.originated.clear();
    let reflector = Running::start(reflector);
    clients[0].learns(&["10.3.0.0/16", "10.4.0.0/16"]).await;
    clients[1].learns(&["10.2.0.0/16", "10.4.0.0/16"]).await;
    clients[2].learns(&["10.2.0.0/16", "10.3.0.0/16"]).await;

    let before = reflector.speaker.counters().await;
    let one = FamilyCounts { ipv4: 1, ipv6: 0 };
    for last in [2, 3, 4] {
        let peer = of(&before, last);
        let prefixes = (peer.received, peer.accepted);
        assert_eq!(
            (peer.state, prefixes, peer.flaps, peer.is_lagging),
            ("established", (one, one), 0, false),
            "{last}"
        );
        // OPEN, KEEPALIVE and a route at least, each of 19 octets or more.
        for flow in [peer.messages_in, peer.messages_out] {
            assert!(flow.messages >= 3 && flow.octets >= 57, "{peer:?}");
        }
    }
    assert_ne!(of(&before, 5).state, "established");
    assert_eq!(of(&before, 5).messages_in, Default::default());
    let groups: Vec<_> = before.groups.iter().map(|group| group.members).collect();
    assert_eq!(groups, [3]);

    // One more route of one client, to two others: made once, sent twice.
    let mut changed = speaker(2, 64512, port);
    peer(&mut changed, 1, 64512, port);
    let own = changed.originated.values().next().cloned().expect("one");
    changed.originated.insert(prefix("10.9.0.0/16"), own);
    clients[0].speaker.configure(changed).await;
    clients[1]
        .learns(&["10.2.0.0/16", "10.4.0.0/16", "10.9.0.0/16"])
        .await;
    clients[2]
        .learns(&["10.2.0.0/16", "10.3.0.0/16", "10.9.0.0/16"])
        .await;
    Running::wait_for("the writers' word", || async {
        let now = reflector.speaker.counters().await;
        now.convergence.count() > before.convergence.count()
    })
    .await;
    let after = reflector.speaker.counters().await;
    assert!(after.convergence.sum > before.convergence.sum);
    let encoded = |counters: &Counters| counters.groups[0].encoded;
    assert_eq!(encoded(&after).messages, encoded(&before).messages + 1);
    assert!(encoded(&after).octets > encoded(&before).octets);
    for last in [3, 4] {
        let sent = |counters: &Counters| of(counters, last).messages_out;
        assert!(sent(&after).octets > sent(&before).octets, "{last}");
    }
}

#[tokio::test]
async fn a_route_that_nobody_is_told_of_is_no_observation() {
    let port = free_port();
    let mut one = speaker(1, 64512, port);
    let mut other = speaker(2, 64512, port);
    peer(&mut one, 2, 64512, port);
    peer(&mut other, 1, 64512, port);
    let mut one = Running::start(one);
    let other = Running::start(other);
    one.learns(&["10.2.0.0/16"]).await;
    assert_eq!(one.speaker.counters().await.convergence.count(), 0);
    drop(other);
}
