//! Sessions, restarts, ranges and passwords.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bgp::policy::{Action, Filter, ImportDefault, PrefixMatch, Rule};
use bgp::speaker::config::{
    NextHopMode, Originated, PeerConfig, PeerKey, PeerSource, SpeakerConfig,
};
use bgp::speaker::secret::Secret;
use bgp::speaker::status::PeerStatus;
use bgp::speaker::{RouteSelection, Stop};
use bgp::types::{Asn, HoldTime};

use crate::rig::*;

#[tokio::test]
async fn two_speakers_exchange_their_routes_however_they_dial() {
    let port = free_port();
    let (mut left, mut right) = (speaker(11, 64512, port), speaker(12, 64512, port));
    peer(&mut left, 12, 64512, port);
    peer(&mut right, 11, 64512, port);
    let (mut left, mut right) = (Running::start(left), Running::start(right));
    left.learns(&["10.12.0.0/16"]).await;
    right.learns(&["10.11.0.0/16"]).await;
    assert_eq!(
        left.kernel[&prefix("10.12.0.0/16")],
        IpAddr::from([192, 0, 2, 12])
    );
    let shown = left.speaker.peers().await;
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (shown[0].state.as_str(), shown[0].kind.as_str()),
        ("established", "ibgp")
    );
    assert_eq!(shown[0].advertised.ipv4, 1);
}

/// A reflector at 127.0.0.21 for the range 127.0.0.0/24 of AS 64512.
fn reflector(port: u16) -> SpeakerConfig {
    let mut config = speaker(21, 64512, port);
    config.originated.clear();
    let mut template = PeerConfig::new("clients", PeerSource::Range, Some(Asn(64512)));
    template.route_reflector_client = true;
    template.next_hop_mode = NextHopMode::Keep;
    template.local_address = Some(loopback(21));
    config.ranges.insert(prefix("127.0.0.0/24"), template);
    config.graceful_restart.forwarding_preserved = true;
    config
}

fn client(last: u8, port: u16) -> SpeakerConfig {
    let mut config = speaker(last, 64512, port);
    peer(&mut config, 21, 64512, port);
    config
}

#[tokio::test]
async fn clients_of_a_listen_range_hear_each_other_through_the_reflector() {
    let port = free_port();
    let mut reflector = Running::start(reflector(port));
    let mut clients: Vec<Running> = [22, 23, 24]
        .map(|last| Running::start(client(last, port)))
        .into();
    clients[0].learns(&["10.23.0.0/16", "10.24.0.0/16"]).await;
    clients[1].learns(&["10.22.0.0/16", "10.24.0.0/16"]).await;
    clients[2].learns(&["10.22.0.0/16", "10.23.0.0/16"]).await;
    reflector
        .learns(&["10.22.0.0/16", "10.23.0.0/16", "10.24.0.0/16"])
        .await;
    let route = &clients[0].routes("10.23.0.0/16").await[0];
    assert_eq!(route.originator_id.as_deref(), Some("127.0.0.23"));
    assert_eq!(route.cluster_list, ["127.0.0.21"]);
    assert_eq!(route.next_hop, IpAddr::from([192, 0, 2, 23]));
}

/// From 127.0.0.29 to the reflector, as soon as that listens.
async fn connect_as_stranger(port: u16) -> tokio::net::TcpStream {
    let connect = async {
        loop {
            let stranger = tokio::net::TcpSocket::new_v4().expect("socket");
            stranger
                .bind(SocketAddr::new(loopback(29), 0))
                .expect("bound");
            match stranger.connect(SocketAddr::new(loopback(21), port)).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    };
    let wait = tokio::time::timeout(DEADLINE, connect).await;
    wait.expect("the reflector listens")
}

#[tokio::test]
async fn a_connection_that_never_became_a_session_is_not_remembered() {
    let port = free_port();
    let mut config = reflector(port);
    config.max_dynamic_peers = 1;
    let mut reflector = Running::start(config);
    let speaker = reflector.speaker.clone();
    let stranger = connect_as_stranger(port).await;
    let peers = async |count: usize| speaker.peers().await.len() == count;
    Running::wait_for("the stranger is seen", || peers(1)).await;
    drop(stranger);
    Running::wait_for("its place is free", || peers(0)).await;

    let _client = Running::start(client(22, port));
    reflector.learns(&["10.22.0.0/16"]).await;
    while reflector.dynamic.is_empty() {
        let event = tokio::time::timeout(DEADLINE, reflector.events.recv()).await;
        reflector.take(event.expect("told in time").expect("speaker runs"));
    }
    assert_eq!(reflector.dynamic, [loopback(22)]);
}

#[tokio::test]
async fn a_client_that_restarts_silently_keeps_its_routes_and_loses_what_it_does_not_repeat() {
    let port = free_port();
    let _reflector = Running::start(reflector(port));
    let mut first = client(22, port);
    first.originated.insert(
        prefix("10.99.0.0/16"),
        Originated::new([192, 0, 2, 22].into()),
    );
    let first = Running::start(first);
    let mut other = Running::start(client(23, port));
    other.learns(&["10.22.0.0/16", "10.99.0.0/16"]).await;
    let changes = other.changes;
    first.speaker.stop(Stop::Restarting).await;
    let stale = || async {
        let routes = other.speaker.routes(RouteSelection::default()).await;
        routes.len() == 3
    };
    Running::wait_for("routes are still there", stale).await;
    let mut again = client(22, port);
    again.graceful_restart.restarting = true;
    again.graceful_restart.forwarding_preserved = true;
    let mut again = Running::start(again);
    again.learns(&["10.23.0.0/16"]).await;
    other.learns(&["10.22.0.0/16"]).await;
    assert_eq!(
        other.changes,
        changes + 1,
        "only what was not announced again changed"
    );
}

#[tokio::test]
async fn a_reflector_that_restarts_changes_nothing_at_its_clients() {
    let port = free_port();
    let first = Running::start(reflector(port));
    let mut clients: Vec<Running> = [22, 23]
        .map(|last| Running::start(client(last, port)))
        .into();
    clients[0].learns(&["10.23.0.0/16"]).await;
    clients[1].learns(&["10.22.0.0/16"]).await;
    let changes = [clients[0].changes, clients[1].changes];
    first.speaker.stop(Stop::Restarting).await;
    drop(first);
    let mut again = reflector(port);
    again.graceful_restart.restarting = true;
    again.graceful_restart.remembered_peers = vec![loopback(22), loopback(23)];
    let again = Running::start(again);
    let is_back = || async {
        let peers = again.speaker.peers().await;
        let routes = again.speaker.routes(RouteSelection::default()).await;
        peers
            .iter()
            .filter(|peer| peer.state == "established" && peer.advertised.ipv4 == 1)
            .count()
            == 2
            && routes.len() == 2
    };
    Running::wait_for("both clients are back", is_back).await;
    // End-of-RIB has been processed when nothing is stale any more.
    for client in &mut clients {
        let fresh = || async {
            let routes = client.speaker.routes(RouteSelection::default()).await;
            routes.iter().all(|route| !route.stale)
        };
        Running::wait_for("nothing is stale", fresh).await;
    }
    for (client, before) in clients.iter_mut().zip(changes) {
        while let Ok(event) = client.events.try_recv() {
            client.take(event);
        }
        assert_eq!(client.changes, before, "no route changed");
        assert_eq!(client.kernel.len(), 1);
    }
}

/// Starts a reflector of its own AS that peers by eBGP with another one, both with one client.
fn rack(reflector: u8, asn: u32, other: u8, other_asn: u32, port: u16) -> SpeakerConfig {
    let mut config = speaker(reflector, asn, port);
    config.originated.clear();
    config.graceful_restart.forwarding_preserved = true;
    peer(&mut config, other, other_asn, port).next_hop_mode = NextHopMode::Keep;
    let client = peer(&mut config, reflector + 1, asn, port);
    client.route_reflector_client = true;
    client.next_hop_mode = NextHopMode::Keep;
    config
}

fn client_of(reflector: u8, asn: u32, port: u16) -> SpeakerConfig {
    let mut config = speaker(reflector + 1, asn, port);
    peer(&mut config, reflector, asn, port);
    config
}

fn restarted(mut config: SpeakerConfig) -> SpeakerConfig {
    config.graceful_restart.restarting = true;
    config.graceful_restart.forwarding_preserved = true;
    config
}

#[tokio::test]
async fn reflectors_that_restart_together_change_nothing_at_their_clients() {
    let port = free_port();
    let left = || rack(81, 64512, 84, 64513, port);
    let right = || rack(84, 64513, 81, 64512, port);
    let before = [Running::start(left()), Running::start(right())];
    let mut clients = [
        Running::start(client_of(81, 64512, port)),
        Running::start(client_of(84, 64513, port)),
    ];
    clients[0].learns(&["10.85.0.0/16"]).await;
    clients[1].learns(&["10.82.0.0/16"]).await;
    for speaker in before {
        speaker.speaker.stop(Stop::Restarting).await;
    }
    let changes = clients.each_ref().map(|client| client.changes);
    let _after = [
        Running::start(restarted(left())),
        Running::start(restarted(right())),
    ];
    for client in &mut clients {
        let fresh = || async {
            let routes = client.speaker.routes(RouteSelection::default()).await;
            routes.len() == 2 && routes.iter().all(|route| !route.stale)
        };
        Running::wait_for("every route was repeated", fresh).await;
    }
    for (client, before) in clients.iter_mut().zip(changes) {
        while let Ok(event) = client.events.try_recv() {
            client.take(event);
        }
        assert_eq!(client.changes, before, "no route changed");
    }
}

#[tokio::test]
async fn a_client_and_its_reflector_that_restart_together_lose_no_route() {
    let port = free_port();
    let left = || rack(86, 64512, 88, 64513, port);
    let right = Running::start(rack(88, 64513, 86, 64512, port));
    let mut far = Running::start(client_of(88, 64513, port));
    let both = [
        Running::start(left()),
        Running::start(client_of(86, 64512, port)),
    ];
    far.learns(&["10.87.0.0/16"]).await;
    for speaker in both {
        speaker.speaker.stop(Stop::Restarting).await;
    }
    let changes = far.changes;
    let _reflector = Running::start(restarted(left()));
    let mut client = Running::start(restarted(client_of(86, 64512, port)));
    // What it is told first is already the whole: nothing that it kept would be dropped.
    client.learns(&["10.89.0.0/16"]).await;
    let settled = async {
        while !client.is_settled {
            let event = client.events.recv().await.expect("speaker runs");
            client.take(event);
        }
    };
    tokio::time::timeout(DEADLINE, settled)
        .await
        .expect("settles");
    assert_eq!(client.kernel.len(), 1);
    let fresh = || async {
        let routes = far.speaker.routes(RouteSelection::default()).await;
        routes.len() == 2 && routes.iter().all(|route| !route.stale)
    };
    Running::wait_for("every route was repeated", fresh).await;
    while let Ok(event) = far.events.try_recv() {
        far.take(event);
    }
    assert_eq!(far.changes, changes, "the far rack saw no change");
    drop(right);
}

#[tokio::test]
async fn what_was_kept_over_a_restart_outlives_the_wait_for_an_absent_peer() {
    let mut alone = speaker(91, 64512, free_port());
    peer(&mut alone, 92, 64512, free_port());
    let mut alone = restarted(alone);
    alone.graceful_restart.selection_deferral = Duration::from_millis(50);
    alone.graceful_restart.restart_time = Duration::from_millis(1500);
    let started = std::time::Instant::now();
    let mut alone = Running::start(alone);
    let settled = async {
        while !alone.is_settled {
            let event = alone.events.recv().await.expect("speaker runs");
            alone.take(event);
        }
    };
    tokio::time::timeout(DEADLINE, settled)
        .await
        .expect("settles");
    assert!(started.elapsed() >= Duration::from_millis(1500));
}

#[tokio::test]
async fn an_absent_peer_does_not_keep_the_routes_of_others_from_the_owner() {
    let port = free_port();
    let mut left = speaker(93, 64512, port);
    peer(&mut left, 94, 64512, port);
    peer(&mut left, 95, 64512, port);
    let mut left = restarted(left);
    left.graceful_restart.silence = Duration::from_millis(100);
    // Longer than the test waits.
    left.graceful_restart.selection_deferral = DEADLINE * 2;
    let mut right = speaker(94, 64512, port);
    peer(&mut right, 93, 64512, port);
    let mut left = Running::start(left);
    let _right = Running::start(right);
    left.learns(&["10.94.0.0/16"]).await;
    assert!(!left.is_settled, "what it kept of the absent one stays");
}

#[tokio::test]
async fn an_absent_client_does_not_keep_the_routes_of_others_from_a_reflectors_clients() {
    let port = free_port();
    let mut reflector = restarted(reflector(port));
    reflector.graceful_restart.remembered_peers = vec![loopback(22), loopback(23), loopback(29)];
    reflector.graceful_restart.silence = Duration::from_millis(100);
    reflector.graceful_restart.selection_deferral = DEADLINE * 2;
    let _reflector = Running::start(reflector);
    // One that waits for the reflector's End-of-RIB, and one that waits for nothing.
    let mut waiting = restarted(client(22, port));
    waiting.graceful_restart.silence = Duration::from_millis(100);
    waiting.graceful_restart.selection_deferral = DEADLINE * 2;
    let (mut waiting, mut other) = (Running::start(waiting), Running::start(client(23, port)));
    waiting.learns(&["10.23.0.0/16"]).await;
    other.learns(&["10.22.0.0/16"]).await;
    assert!(!waiting.is_settled, "no End-of-RIB was said");
}

#[tokio::test]
async fn ebgp_between_reflectors_keeps_the_next_hop() {
    let port = free_port();
    let mut left = speaker(31, 64512, port);
    let mut right = speaker(32, 64513, port);
    peer(&mut left, 32, 64513, port).next_hop_mode = NextHopMode::Keep;
    peer(&mut right, 31, 64512, port).next_hop_mode = NextHopMode::Keep;
    let (mut left, mut right) = (Running::start(left), Running::start(right));
    left.learns(&["10.32.0.0/16"]).await;
    right.learns(&["10.31.0.0/16"]).await;
    assert_eq!(
        right.kernel[&prefix("10.31.0.0/16")],
        IpAddr::from([192, 0, 2, 31])
    );
    assert_eq!(right.routes("10.31.0.0/16").await[0].as_path, "64512");
}

#[tokio::test]
async fn a_new_filter_takes_effect_by_refresh_without_a_reset() {
    let port = free_port();
    let mut left = speaker(41, 64512, port);
    let mut right = speaker(42, 64513, port);
    peer(&mut left, 42, 64513, port).import_default = ImportDefault::Reject;
    peer(&mut right, 41, 64512, port);
    let closed = left.clone();
    let (mut left, mut right) = (Running::start(left), Running::start(right));
    right.learns(&["10.41.0.0/16"]).await;
    let is_rejected = || async {
        left.routes("10.42.0.0/16")
            .await
            .first()
            .is_some_and(|route| route.rejected_reason.is_some())
    };
    Running::wait_for("the route is shown as rejected", is_rejected).await;
    let since = left.speaker.peers().await[0].since.clone();
    let mut open = closed.clone();
    let equal = PrefixMatch::Equal(prefix("10.42.0.0/16"));
    let rule = Rule::new(equal, Action::ACCEPT);
    peer(&mut open, 42, 64513, port).filters = vec![Filter {
        name: "from-42".into(),
        import_v4: vec![rule],
        ..Filter::default()
    }];
    left.speaker.configure(open).await;
    left.learns(&["10.42.0.0/16"]).await;
    left.speaker.configure(closed).await;
    left.learns(&[]).await;
    assert_eq!(
        left.speaker.peers().await[0].since,
        since,
        "the session stayed up"
    );
}

#[tokio::test]
async fn removing_a_peer_withdraws_its_routes_and_the_others_stay() {
    let port = free_port();
    let mut hub = speaker(51, 64512, port);
    for last in [52, 53] {
        peer(&mut hub, last, 64512, port);
    }
    let full = hub.clone();
    let mut hub = Running::start(hub);
    let spokes: Vec<Running> = [52, 53]
        .map(|last| {
            let mut config = speaker(last, 64512, port);
            peer(&mut config, 51, 64512, port);
            Running::start(config)
        })
        .into();
    hub.learns(&["10.52.0.0/16", "10.53.0.0/16"]).await;
    let mut less = full.clone();
    less.peers.retain(|key, _| key.address != loopback(53));
    hub.speaker.configure(less).await;
    hub.learns(&["10.52.0.0/16"]).await;
    hub.speaker.configure(full).await;
    hub.learns(&["10.52.0.0/16", "10.53.0.0/16"]).await;
    drop(spokes);
}

#[tokio::test]
async fn a_cold_start_without_anyone_to_wait_for_settles_at_once() {
    let mut alone = Running::start(speaker(61, 64512, free_port()));
    let settled = tokio::time::timeout(DEADLINE, async {
        while !alone.is_settled {
            let event = alone.events.recv().await.expect("speaker runs");
            alone.take(event);
        }
    });
    settled.await.expect("settles");
}

#[tokio::test]
async fn unknown_source_refused() {
    let port = free_port();
    let mut quiet = speaker(71, 64512, port);
    peer(&mut quiet, 72, 64512, port).passive = true;
    let quiet = Running::start(quiet);
    let stranger = || async {
        use tokio::io::AsyncReadExt;
        let Ok(mut stream) = tokio::net::TcpStream::connect((loopback(71), port)).await else {
            return false;
        };
        let mut octets = [0; 1];
        // Closed without a single octet said.
        matches!(stream.read(&mut octets).await, Ok(0) | Err(_))
    };
    Running::wait_for("the stranger is turned away", stranger).await;
    assert_eq!(quiet.speaker.peers().await.len(), 1);
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text).expect("length"))
}

#[tokio::test]
async fn a_password_change_resets_only_its_peer() {
    let port = free_port();
    let mut hub = speaker(81, 64512, port);
    peer(&mut hub, 82, 64512, port).password = secret("first");
    peer(&mut hub, 83, 64512, port).password = secret("other");
    let mut changed = hub.clone();
    peer(&mut changed, 82, 64512, port).password = secret("second");
    let mut hub = Running::start(hub);
    let spokes = [(82, "first"), (83, "other")].map(|(last, password)| {
        let mut config = speaker(last, 64512, port);
        peer(&mut config, 81, 64512, port).password = secret(password);
        Running::start(config)
    });
    hub.learns(&["10.82.0.0/16", "10.83.0.0/16"]).await;
    let since = |peers: Vec<PeerStatus>| peers[1].since.clone();
    let before = since(hub.speaker.peers().await);
    hub.speaker.configure(changed).await;
    let is_down = || async { hub.speaker.peers().await[0].flaps == 1 };
    Running::wait_for("the old key is not used any more", is_down).await;
    let mut follows = speaker(82, 64512, port);
    peer(&mut follows, 81, 64512, port).password = secret("second");
    spokes[0].speaker.configure(follows).await;
    let is_up = || async { hub.speaker.peers().await[0].state == "established" };
    Running::wait_for("both have the new key", is_up).await;
    assert_eq!(since(hub.speaker.peers().await), before);
    assert_eq!(hub.speaker.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_peer_that_drops_what_is_signed_is_shown_as_one_that_gives_no_answer() {
    let port = free_port();
    let mut open = speaker(86, 64512, port);
    peer(&mut open, 87, 64512, port).passive = true;
    let mut keyed = speaker(87, 64512, port);
    peer(&mut keyed, 86, 64512, port).password = secret("nobody else's");
    let (_open, keyed) = (Running::start(open), Running::start(keyed));
    let is_shown = || async {
        let peers = keyed.speaker.peers().await;
        let error = peers[0].last_connect_error.as_ref();
        error.is_some_and(|error| {
            error.reason.starts_with("no answer") && error.reason.contains("password")
        })
    };
    Running::wait_for("no answer, and what it may be", is_shown).await;
}

#[tokio::test]
async fn a_range_has_one_key_and_a_listed_peer_inside_its_own() {
    let port = free_port();
    let mut hub = reflector(port);
    hub.ranges
        .values_mut()
        .for_each(|template| template.password = secret("range"));
    let listed = peer(&mut hub, 23, 64512, port);
    listed.password = secret("listed");
    listed.passive = true;
    listed.route_reflector_client = true;
    peer(&mut hub, 25, 64512, port).passive = true;
    let mut hub = Running::start(hub);
    let _clients = [(22, "range"), (23, "listed"), (24, "neither")].map(|(last, password)| {
        let mut config = client(last, port);
        peer(&mut config, 21, 64512, port).password = secret(password);
        Running::start(config)
    });
    hub.learns(&["10.22.0.0/16", "10.23.0.0/16"]).await;
    let peers = hub.speaker.peers().await;
    assert!(
        peers.iter().all(|peer| peer.peer != loopback(24)),
        "{peers:?}"
    );
    let problems = hub.speaker.problems().await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("127.0.0.25"), "{problems:?}");
}

#[tokio::test]
async fn more_passwords_than_one_socket_takes_are_reported_and_those_that_fit_work() {
    let port = free_port();
    let mut crowded = speaker(91, 64512, port);
    let Ok(optmem_max) = std::fs::read_to_string("/proc/sys/net/core/optmem_max") else {
        eprintln!("skipped: net.core.optmem_max is not readable here");
        return;
    };
    let fits: u32 = optmem_max.trim().parse::<u32>().expect("a number") / 136;
    for number in 0..=fits {
        let address = IpAddr::from((0x0A00_0000 + number).to_be_bytes());
        let mut config = PeerConfig::new("p", PeerSource::Peer, Some(Asn(64512)));
        config.passive = true;
        config.password = secret("x");
        crowded.peers.insert(PeerKey { address, port: 179 }, config);
    }
    let mut template = PeerConfig::new("clients", PeerSource::Range, Some(Asn(64512)));
    template.password = secret("range");
    crowded.ranges.insert(prefix("127.0.0.0/24"), template);
    let mut crowded = Running::start(crowded);
    let is_reported = || async {
        let problems = crowded.speaker.problems().await;
        let is_of_keys = |problem: &&String| problem.contains("TCP MD5");
        let of_keys: Vec<&String> = problems.iter().filter(is_of_keys).collect();
        // How many and why, and what to do.
        matches!(of_keys[..], [_, advice] if advice.contains("net.core.optmem_max"))
    };
    Running::wait_for("the keys that do not fit are reported", is_reported).await;
    let mut config = speaker(92, 64512, port);
    peer(&mut config, 91, 64512, port).password = secret("range");
    let _client = Running::start(config);
    crowded.learns(&["10.92.0.0/16"]).await;
}

#[tokio::test]
async fn a_reset_by_cease_keeps_the_routes_and_a_removed_peer_loses_them() {
    let port = free_port();
    let (mut left, mut right) = (speaker(101, 64512, port), speaker(102, 64512, port));
    peer(&mut left, 102, 64512, port);
    peer(&mut right, 101, 64512, port);
    let (mut changed, mut removed) = (left.clone(), left.clone());
    peer(&mut changed, 102, 64512, port).hold_time = HoldTime::new(30).expect("allowed");
    removed.peers.clear();
    let (mut left, mut right) = (Running::start(left), Running::start(right));
    left.learns(&["10.102.0.0/16"]).await;
    right.learns(&["10.101.0.0/16"]).await;
    let changes = (left.changes, right.changes);
    left.speaker.configure(changed).await;
    let is_back = || async {
        let peers = right.speaker.peers().await;
        let routes = right.speaker.routes(RouteSelection::default()).await;
        peers[0].hold_time_seconds == Some(30)
            && peers[0].flaps == 1
            && routes.iter().all(|route| !route.stale)
    };
    Running::wait_for("the session is back with the new hold time", is_back).await;
    assert_eq!(
        right.speaker.peers().await[0]
            .last_error
            .as_ref()
            .map(|error| (error.code, error.subcode)),
        Some((6, 6)),
        "RFC 4486: other configuration change"
    );
    for running in [&mut left, &mut right] {
        while let Ok(event) = running.events.try_recv() {
            running.take(event);
        }
    }
    assert_eq!((left.changes, right.changes), changes, "no route changed");
    left.speaker.configure(removed).await;
    right.learns(&[]).await;
    let error = right.speaker.peers().await[0].last_error.clone();
    let error = error.expect("told why");
    assert_eq!(
        (error.code, error.subcode, error.data_hex.as_str()),
        (6, 9, "0603"),
        "a hard reset around Cease, peer de-configured"
    );
}

#[tokio::test]
async fn a_stop_for_good_says_so_and_the_routes_go() {
    let port = free_port();
    let (mut left, mut right) = (speaker(111, 64512, port), speaker(112, 64512, port));
    peer(&mut left, 112, 64512, port);
    peer(&mut right, 111, 64512, port);
    let (left, mut right) = (Running::start(left), Running::start(right));
    right.learns(&["10.111.0.0/16"]).await;
    left.speaker.stop(Stop::ForGood).await;
    right.learns(&[]).await;
    let error = right.speaker.peers().await[0].last_error.clone();
    assert_eq!(
        error.map(|error| error.reason).as_deref(),
        Some(
            "Cease / Hard Reset (Cease / Administrative Shutdown: \"the speaker stops for good\")"
        )
    );
}
