//! Reflectors of one AS as RFC 4456 §4 to §7 has them: a full mesh of reflectors, a hierarchy, and
//! pairs with one cluster id or with two. Every route is everywhere, none goes round, none stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bgp::speaker::config::{NextHopMode, SpeakerConfig};
use bgp::speaker::status::RouteStatus;
use bgp::speaker::{RouteSelection, Stop};
use bgp::types::ClusterId;

use crate::rig::*;

const ASN: u32 = 64512;

/// The clients with routes of their own, in every design.
const CLIENTS: [u8; 4] = [31, 32, 33, 34];

/// Who there is, and who has a session with whom.
struct Design {
    port: u16,
    speakers: BTreeMap<u8, SpeakerConfig>,
}

impl Design {
    /// The clients alone.
    fn new() -> Design {
        let port = free_port();
        let clients = CLIENTS.map(|last| (last, speaker(last, ASN, port)));
        Design {
            port,
            speakers: clients.into(),
        }
    }

    /// A reflector of a cluster. It has no routes of its own.
    fn reflector(&mut self, last: u8, cluster: u8) {
        let mut config = speaker(last, ASN, self.port);
        config.originated.clear();
        config.cluster_id = Some(ClusterId(Ipv4Addr::new(10, 0, 0, cluster)));
        self.speakers.insert(last, config);
    }

    fn session(&mut self, from: u8, to: u8, is_client: bool) {
        let port = self.port;
        let config = self.speakers.get_mut(&from).expect("a speaker");
        let peer = peer(config, to, ASN, port);
        peer.route_reflector_client = is_client;
        peer.next_hop_mode = NextHopMode::Keep;
    }

    /// Two reflectors of which neither is the other's client.
    fn joins(&mut self, left: u8, right: u8) {
        self.session(left, right, false);
        self.session(right, left, false);
    }

    fn serves(&mut self, reflector: u8, client: u8) {
        self.session(reflector, client, true);
        self.session(client, reflector, false);
    }

    fn start(self) -> Network {
        let started = self.speakers.into_iter();
        Network {
            running: started
                .map(|(last, config)| (last, (config.clone(), Running::start(config))))
                .collect(),
        }
    }
}

struct Network {
    running: BTreeMap<u8, (SpeakerConfig, Running)>,
}

fn own(last: u8) -> String {
    format!("10.{last}.0.0/16")
}

impl Network {
    /// Waits until everyone has the routes of these clients and no other.
    async fn learn(&mut self, clients: &[u8]) {
        for (last, (_, running)) in &mut self.running {
            let others = clients.iter().filter(|client| *client != last);
            let expected: Vec<String> = others.map(|client| own(*client)).collect();
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            running.learns(&expected).await;
        }
    }

    /// What is or may be used: with the next hop and ORIGINATOR_ID of the client that has it, and no
    /// cluster twice.
    async fn expect_no_loops(&self) {
        for (last, (config, running)) in &self.running {
            let cluster = config.effective_cluster_id().0.to_string();
            let routes = running.speaker.routes(RouteSelection::default()).await;
            let usable = routes.iter().filter(|route| {
                // What is refused is shown, and never used or passed on.
                route.peer.is_some() && route.rejected_reason.is_none()
            });
            for route in usable {
                check_usable(*last, &cluster, route);
            }
        }
    }

    /// Ends one speaker for good and forgets it.
    async fn end(&mut self, last: u8) {
        let (_, running) = self.running.remove(&last).expect("a speaker");
        running.speaker.stop(Stop::ForGood).await;
    }

    /// What a client no longer has goes everywhere, as a used route or not, and does not come back
    /// by another way; what it has again comes everywhere.
    async fn expect_withdrawal_everywhere(&mut self, client: u8) {
        let remaining: Vec<u8> = (CLIENTS.into_iter())
            .filter(|other| *other != client)
            .collect();
        let (config, running) = self.running.get(&client).expect("a client");
        let with = config.clone();
        let mut without = with.clone();
        without.originated.clear();
        let speaker = running.speaker.clone();
        speaker.configure(without).await;
        self.learn(&remaining).await;
        let gone = || async {
            for (_, running) in self.running.values() {
                if !running.routes(&own(client)).await.is_empty() {
                    return false;
                }
            }
            true
        };
        Running::wait_for("no trace of a withdrawn route", gone).await;
        speaker.configure(with).await;
        self.learn(&CLIENTS).await;
    }

    /// All that a design has to hold.
    async fn expect_it_works(&mut self) {
        self.learn(&CLIENTS).await;
        self.expect_no_loops().await;
        self.expect_withdrawal_everywhere(CLIENTS[0]).await;
        self.expect_withdrawal_everywhere(CLIENTS[3]).await;
        self.expect_no_loops().await;
    }

    /// Without these everyone else keeps every route.
    async fn expect_it_works_without(&mut self, reflectors: &[u8]) {
        for reflector in reflectors {
            self.end(*reflector).await;
            self.learn(&CLIENTS).await;
        }
        self.expect_withdrawal_everywhere(CLIENTS[0]).await;
        self.expect_no_loops().await;
    }
}

fn check_usable(last: u8, cluster: &str, route: &RouteStatus) {
    let at = format!("speaker {last}: {route:?}");
    let [_, client, ..] = octets(route);
    assert_eq!(
        route.next_hop.to_string(),
        format!("192.0.2.{client}"),
        "{at}"
    );
    let clusters: BTreeSet<&String> = route.cluster_list.iter().collect();
    assert_eq!(clusters.len(), route.cluster_list.len(), "{at}");
    assert!(
        route.cluster_list.iter().all(|listed| listed != cluster),
        "{at}"
    );
    if route.cluster_list.is_empty() {
        assert_eq!(route.originator_id, None, "{at}");
    } else {
        let originator = format!("127.0.0.{client}");
        assert_eq!(
            route.originator_id.as_deref(),
            Some(originator.as_str()),
            "{at}"
        );
    }
}

fn octets(route: &RouteStatus) -> [u8; 4] {
    let text = route.prefix.to_string();
    let address = text.split('/').next().and_then(|text| text.parse().ok());
    address.map_or([0; 4], |address: Ipv4Addr| address.octets())
}

/// Reflectors 11 to 14, all joined, each with one client.
#[tokio::test]
async fn a_full_mesh_of_reflectors_delivers_every_route() {
    let mut design = Design::new();
    let reflectors = [11, 12, 13, 14];
    for (reflector, client) in reflectors.into_iter().zip(CLIENTS) {
        design.reflector(reflector, reflector);
        design.serves(reflector, client);
    }
    for left in reflectors {
        for right in reflectors.into_iter().filter(|right| left < *right) {
            design.joins(left, right);
        }
    }
    design.start().expect_it_works().await;
}

/// Pairs 11, 12 and 13, 14, all four joined, each pair with two clients of both.
fn joined_pairs(clusters: [u8; 4]) -> Design {
    let mut design = Design::new();
    let reflectors = [11, 12, 13, 14];
    for (reflector, cluster) in reflectors.into_iter().zip(clusters) {
        design.reflector(reflector, cluster);
        for client in &CLIENTS[if reflector < 13 { 0..2 } else { 2..4 }] {
            design.serves(reflector, *client);
        }
    }
    for left in reflectors {
        for right in reflectors.into_iter().filter(|right| left < *right) {
            design.joins(left, right);
        }
    }
    design
}

/// The pairs 21, 22 on top serve the pairs 11, 12 and 13, 14, which serve two clients each. The
/// reflectors of a pair are joined.
fn hierarchy(clusters: [u8; 6]) -> Design {
    let mut design = Design::new();
    let reflectors = [11, 12, 13, 14, 21, 22];
    for (reflector, cluster) in reflectors.into_iter().zip(clusters) {
        design.reflector(reflector, cluster);
    }
    for pair in [[11, 12], [13, 14], [21, 22]] {
        design.joins(pair[0], pair[1]);
    }
    for below in [11, 12, 13, 14] {
        for top in [21, 22] {
            design.serves(top, below);
        }
        for client in &CLIENTS[if below < 13 { 0..2 } else { 2..4 }] {
            design.serves(below, *client);
        }
    }
    design
}

#[tokio::test]
async fn joined_pairs_with_one_cluster_id_each_deliver_every_route() {
    let mut network = joined_pairs([1, 1, 3, 3]).start();
    network.expect_it_works().await;
    // RFC 4456 §8: what the other of the pair reflected is refused, so each needs its own sessions.
    let (_, first) = &network.running[&11];
    Running::wait_for("the pair's route is refused", || async {
        let routes = first.routes(&own(CLIENTS[0])).await;
        let mut from_pair = routes
            .iter()
            .filter(|route| route.peer == Some(loopback(12)));
        from_pair.next().is_some_and(|route| {
            route.rejected_reason.as_deref() == Some("own cluster id in CLUSTER_LIST")
        })
    })
    .await;
    network.expect_it_works_without(&[11, 14]).await;
}

#[tokio::test]
async fn joined_pairs_with_two_cluster_ids_deliver_every_route() {
    let mut network = joined_pairs([1, 2, 3, 4]).start();
    network.expect_it_works().await;
    network.expect_it_works_without(&[11, 14]).await;
}

#[tokio::test]
async fn a_hierarchy_with_one_cluster_id_a_pair_delivers_every_route() {
    let mut network = hierarchy([1, 1, 3, 3, 5, 5]).start();
    network.expect_it_works().await;
    network.expect_it_works_without(&[21, 12, 13]).await;
}

#[tokio::test]
async fn a_hierarchy_with_two_cluster_ids_a_pair_delivers_every_route() {
    let mut network = hierarchy([1, 2, 3, 4, 5, 6]).start();
    network.expect_it_works().await;
    network.expect_it_works_without(&[21, 12, 13]).await;
}
