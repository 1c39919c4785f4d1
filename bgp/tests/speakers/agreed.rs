//! What both sides agreed on, as each of them then sees it.

use std::time::Duration;

use bgp::speaker::config::{AddPaths, NextHopMode, SpeakerConfig};
use bgp::speaker::status::RouteStatus;
use bgp::types::Role;

use crate::rig::*;

#[tokio::test]
async fn a_draining_speaker_asks_to_be_used_last_and_takes_it_back() {
    let port = free_port();
    let mut a = speaker(1, 64512, port);
    let mut b = speaker(2, 64513, port);
    peer(&mut a, 2, 64513, port);
    peer(&mut b, 1, 64512, port);
    let (a_config, a) = (a.clone(), Running::start(a));
    let mut b = Running::start(b);
    b.learns(&["10.1.0.0/16"]).await;
    for is_draining in [true, false] {
        let config = SpeakerConfig {
            is_draining,
            ..a_config.clone()
        };
        a.speaker.configure(config).await;
        Running::wait_for("the community, and what it does", || async {
            let routes = b.routes("10.1.0.0/16").await;
            let asks = |route: &RouteStatus| {
                let is_asked = route.communities == ["graceful-shutdown"];
                is_asked && route.local_pref == Some(0)
            };
            !routes.is_empty() && routes.iter().all(|route| asks(route) == is_draining)
        })
        .await;
    }
    assert_eq!(b.speaker.peers().await[0].flaps, 0);
}

#[tokio::test]
async fn bfd_ends_a_session_with_its_own_cease() {
    let port = free_port();
    let mut a = speaker(1, 64512, port);
    let mut b = speaker(2, 64512, port);
    peer(&mut a, 2, 64512, port);
    peer(&mut b, 1, 64512, port);
    let a = Running::start(a);
    let mut b = Running::start(b);
    b.learns(&["10.1.0.0/16"]).await;
    a.speaker.bfd_down(loopback(2)).await;
    Running::wait_for("Cease / BFD Down", || async {
        let peers = b.speaker.peers().await;
        let error = peers[0].last_error.as_ref();
        error.is_some_and(|error| (error.code, error.subcode) == (6, 10))
    })
    .await;
}

#[tokio::test]
async fn add_path_brings_every_path_through_a_reflector() {
    let port = free_port();
    let mut reflector = speaker(1, 64512, port);
    let mut sources = [speaker(2, 64512, port), speaker(3, 64512, port)];
    let mut listener = speaker(4, 64512, port);
    for last in [2, 3, 4] {
        let client = peer(&mut reflector, last, 64512, port);
        client.route_reflector_client = true;
        client.add_paths.send = true;
    }
    let anycast = prefix("10.99.0.0/16");
    for source in &mut sources {
        let own = source.originated.values().next().cloned().expect("one");
        source.originated.insert(anycast, own);
        peer(source, 1, 64512, port);
    }
    peer(&mut listener, 1, 64512, port).add_paths = AddPaths {
        send: false,
        receive: true,
    };
    let reflector = Running::start(reflector);
    let sources = sources.map(Running::start);
    let listener = Running::start(listener);
    let heard = || async {
        let routes = listener.routes("10.99.0.0/16").await;
        let mut next_hops: Vec<String> = routes.iter().map(|r| r.next_hop.to_string()).collect();
        next_hops.sort();
        (next_hops, routes)
    };
    Running::wait_for("both paths", || async {
        heard().await.0 == ["192.0.2.2", "192.0.2.3"]
    })
    .await;
    let (_, routes) = heard().await;
    assert!(routes.iter().all(|route| route.path_id.is_some()));
    assert_eq!(routes.iter().filter(|route| route.best).count(), 1);
    let status = &listener.speaker.peers().await[0];
    assert_eq!(status.add_paths.receive, ["ipv4"]);
    assert_eq!(status.add_paths.send, Vec::<String>::new());
    // A source without ADD-PATH hears the best path of the other only.
    let of_source = sources[1].routes("10.99.0.0/16").await;
    let from_reflector = of_source.iter().filter(|route| route.peer.is_some());
    assert_eq!(from_reflector.count(), 1);
    let [first, second] = sources;
    first.speaker.stop(bgp::speaker::Stop::ForGood).await;
    Running::wait_for("the other path alone", || async {
        heard().await.0 == ["192.0.2.3"]
    })
    .await;
    drop((second, reflector));
}

#[tokio::test]
async fn a_route_of_a_provider_is_not_passed_to_a_peer() {
    let port = free_port();
    let mut provider = speaker(1, 65001, port);
    let mut us = speaker(2, 65002, port);
    let mut lateral = speaker(3, 65003, port);
    let mut customer = speaker(4, 65004, port);
    for (other, last, asn, ours) in [
        (&mut provider, 1, 65001, Role::Customer),
        (&mut lateral, 3, 65003, Role::Peer),
        (&mut customer, 4, 65004, Role::Provider),
    ] {
        let towards = peer(&mut us, last, asn, port);
        towards.role = Some(ours);
        // Loopback addresses are no next hops.
        towards.next_hop_mode = NextHopMode::Keep;
        peer(other, 2, 65002, port).role = Some(match ours {
            Role::Customer => Role::Provider,
            Role::Provider => Role::Customer,
            same => same,
        });
    }
    let us = Running::start(us);
    let provider = Running::start(provider);
    let mut lateral = Running::start(lateral);
    let mut customer = Running::start(customer);
    customer
        .learns(&["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"])
        .await;
    lateral.learns(&["10.2.0.0/16", "10.4.0.0/16"]).await;
    let at_provider = || async {
        let routes = provider.speaker.routes(Default::default()).await;
        let learned = routes.iter().filter(|route| route.peer.is_some());
        learned.map(|r| r.prefix.to_string()).collect::<Vec<_>>()
    };
    Running::wait_for("ours and our customer's", || async {
        at_provider().await == ["10.2.0.0/16", "10.4.0.0/16"]
    })
    .await;
    assert_eq!(
        us.speaker.peers().await[0].role.as_deref(),
        Some("customer")
    );
}

#[tokio::test]
async fn sides_whose_roles_do_not_match_have_no_session() {
    let port = free_port();
    let mut a = speaker(1, 65001, port);
    let mut b = speaker(2, 65002, port);
    peer(&mut a, 2, 65002, port).role = Some(Role::Customer);
    peer(&mut b, 1, 65001, port).role = Some(Role::Customer);
    let a = Running::start(a);
    let b = Running::start(b);
    Running::wait_for("Role Mismatch", || async {
        let peers = [a.speaker.peers().await, b.speaker.peers().await].concat();
        let mut errors = peers.iter().filter_map(|peer| peer.last_error.as_ref());
        errors.any(|error| (error.code, error.subcode) == (2, 11))
    })
    .await;
}

/// RFC 9494: what a peer leaves behind goes on as the last resort, for those who know what that is.
#[tokio::test]
async fn routes_of_a_lost_peer_become_the_last_resort() {
    let port = free_port();
    let long = Some(Duration::from_secs(60));
    let mut lost = speaker(1, 64512, port);
    let mut helper = speaker(2, 64512, port);
    let mut knows = speaker(3, 64512, port);
    let mut knows_not = speaker(4, 64512, port);
    lost.graceful_restart.forwarding_preserved = true;
    for (config, last) in [(&mut lost, 1), (&mut knows, 3), (&mut knows_not, 4)] {
        let to_helper = peer(config, 2, 64512, port);
        to_helper.restart_time = Some(Duration::from_secs(1));
        let client = peer(&mut helper, last, 64512, port);
        client.route_reflector_client = true;
        if last != 4 {
            to_helper.long_lived_stale_time = long;
            client.long_lived_stale_time = long;
        }
    }
    let helper = Running::start(helper);
    let mut knows = Running::start(knows);
    let mut knows_not = Running::start(knows_not);
    let lost = Running::start(lost);
    let own = |last: u8| format!("10.{last}.0.0/16");
    knows.learns(&[&own(1), &own(2), &own(4)]).await;
    knows_not.learns(&[&own(1), &own(2), &own(3)]).await;
    // Silently: peers keep its routes for its restart time of a second.
    lost.speaker.stop(bgp::speaker::Stop::Restarting).await;
    let is_last_resort = |routes: &[RouteStatus]| {
        let is = |route: &RouteStatus| route.communities == ["llgr-stale"];
        !routes.is_empty() && routes.iter().all(is)
    };
    for running in [&helper, &knows] {
        Running::wait_for("the last resort", || async {
            is_last_resort(&running.routes(&own(1)).await)
        })
        .await;
    }
    knows_not.learns(&[&own(2), &own(3)]).await;
    knows.learns(&[&own(1), &own(2), &own(4)]).await;
}

#[tokio::test]
async fn a_peer_with_too_many_prefixes_is_held_down_until_it_may_have_them() {
    let port = free_port();
    let mut many = speaker(1, 64512, port);
    let mut few = speaker(2, 64512, port);
    let mut other = speaker(3, 64512, port);
    let own = many.originated.values().next().cloned().expect("one");
    for third in 0..5 {
        let text = format!("10.100.{third}.0/24");
        many.originated.insert(prefix(&text), own.clone());
    }
    peer(&mut many, 2, 64512, port);
    peer(&mut other, 2, 64512, port);
    peer(&mut few, 1, 64512, port).max_prefixes = Some(3);
    peer(&mut few, 3, 64512, port);
    let (few_config, mut few) = (few.clone(), Running::start(few));
    let many = Running::start(many);
    let _other = Running::start(other);
    Running::wait_for("Cease / Maximum Number of Prefixes", || async {
        let peers = many.speaker.peers().await;
        let error = peers[0].last_error.as_ref();
        // A Hard Reset around 6/1, since both sides have RFC 8538; IPv4 unicast, and the limit
        // (RFC 4486 §4).
        let data = "060100010100000003";
        error.is_some_and(|e| (e.code, e.subcode) == (6, 9) && e.data_hex == data)
    })
    .await;
    few.learns(&["10.3.0.0/16"]).await;
    let peers = few.speaker.peers().await;
    assert_eq!((peers[0].state.as_str(), peers[0].flaps), ("idle", 1));
    let reason = peers[0].last_error.as_ref().map(|error| &*error.reason);
    let held_down = "Cease / Maximum Number of Prefixes Reached, held down for 300 s";
    assert_eq!(reason, Some(held_down));
    assert_eq!(peers[1].flaps, 0, "the other peer is not concerned");
    let mut raised = few_config;
    raised
        .peers
        .values_mut()
        .for_each(|peer| peer.max_prefixes = Some(10));
    few.speaker.configure(raised).await;
    Running::wait_for("all its prefixes", || async {
        few.speaker.peers().await[0].received.ipv4 == 6
    })
    .await;
}
