//! Aggregates over sessions: two racks, of which one says its routes as one.

use std::net::IpAddr;

use bgp::speaker::Stop;
use bgp::speaker::config::{Aggregate, NextHopMode, Originated, SpeakerConfig};

use crate::rig::*;

const RACK: &str = "10.52.0.0/14";
const TOR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// The reflector of a rack with two clients, and an external peer.
fn reflector(port: u16) -> SpeakerConfig {
    let mut config = speaker(51, 64512, port);
    config.originated.clear();
    for last in [52, 53] {
        let client = peer(&mut config, last, 64512, port);
        client.route_reflector_client = true;
        client.next_hop_mode = NextHopMode::Keep;
    }
    peer(&mut config, 54, 64513, port).next_hop_mode = NextHopMode::Keep;
    config
}

fn aggregating(port: u16, summary_only: bool) -> SpeakerConfig {
    let mut config = reflector(port);
    let aggregate = Aggregate {
        next_hop: TOR,
        summary_only,
    };
    config.aggregates.insert(prefix(RACK), aggregate);
    config
}

/// Originates 10.LAST.0.0/16.
fn client(last: u8, port: u16) -> SpeakerConfig {
    let mut config = speaker(last, 64512, port);
    peer(&mut config, 51, 64512, port);
    config
}

fn outside(port: u16) -> Running {
    let mut config = speaker(54, 64513, port);
    config.originated.clear();
    peer(&mut config, 51, 64512, port);
    Running::start(config)
}

#[tokio::test]
async fn an_aggregate_is_heard_from_the_first_specific_to_the_last() {
    let port = free_port();
    let reflector = Running::start(aggregating(port, true));
    let mut outside = outside(port);
    let first = Running::start(client(52, port));
    outside.learns(&[RACK]).await;
    assert_eq!(outside.kernel[&prefix(RACK)], TOR);
    let route = &outside.routes(RACK).await[0];
    assert_eq!(
        (route.as_path.as_str(), route.origin.as_str()),
        ("64512", "igp")
    );
    let own = &reflector.routes(RACK).await[0];
    assert_eq!((own.peer, own.best, own.next_hop), (None, true, TOR));

    let mut second = Running::start(client(53, port));
    second.learns(&["10.52.0.0/16"]).await;
    first.speaker.stop(Stop::ForGood).await;
    // It hears of this after anything that came before.
    second.learns(&[]).await;
    let mut more = client(53, port);
    more.originated
        .insert(prefix("10.60.0.0/16"), Originated::new(TOR));
    second.speaker.configure(more.clone()).await;
    outside.learns(&[RACK, "10.60.0.0/16"]).await;
    assert_eq!(outside.changes, 2, "the aggregate stayed");

    more.originated.remove(&prefix("10.53.0.0/16"));
    second.speaker.configure(more).await;
    outside.learns(&["10.60.0.0/16"]).await;
}

#[tokio::test]
async fn an_aggregate_follows_the_configuration_without_a_reset() {
    let port = free_port();
    let reflector = Running::start(reflector(port));
    let mut outside = outside(port);
    let _clients = [52, 53].map(|last| Running::start(client(last, port)));
    let specifics = ["10.52.0.0/16", "10.53.0.0/16"];
    outside.learns(&specifics).await;
    reflector.speaker.configure(aggregating(port, true)).await;
    outside.learns(&[RACK]).await;
    reflector.speaker.configure(aggregating(port, false)).await;
    outside.learns(&[RACK, specifics[0], specifics[1]]).await;
    let mut elsewhere = aggregating(port, true);
    let next_hop = IpAddr::from([192, 0, 2, 2]);
    for aggregate in elsewhere.aggregates.values_mut() {
        aggregate.next_hop = next_hop;
    }
    reflector.speaker.configure(elsewhere).await;
    outside.learns(&[RACK]).await;
    let is_elsewhere = || async {
        let route = outside.routes(RACK).await;
        route
            .first()
            .is_some_and(|route| route.next_hop == next_hop)
    };
    Running::wait_for("the next hop is the other", is_elsewhere).await;
    reflector.speaker.configure(self::reflector(port)).await;
    outside.learns(&specifics).await;
    let peers = outside.speaker.peers().await;
    assert_eq!(peers[0].flaps, 0);
}
