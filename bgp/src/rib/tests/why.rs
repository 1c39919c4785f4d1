//! Who hears of a route, and the reason of each who does not.

use super::*;
use crate::rib::why::Telling;

const FAR: PeerId = PeerId(8);

fn outcome(rib: &Rib, receiver: PeerId, text: &str) -> Vec<String> {
    let tellings = rib.tellings(prefix(text));
    let mine = tellings.iter().filter(|one| one.receiver == receiver);
    mine.map(|one: &Telling| match &one.outcome {
        Ok(told) => format!("{} {}", told.next_hop, told.path_id),
        Err(silence) => silence.to_string(),
    })
    .collect()
}

#[test]
fn each_peer_that_does_not_hear_of_a_route_has_its_reason() {
    let text = "172.17.8.0/24";
    let (mut rib, mut heard) = with_clients();
    let mut closed = client(PeerId(3));
    closed.group.export.default = ExportDefault::Reject;
    let mut other_family = client(PeerId(4));
    other_family.group.families = vec![Family::Ipv6];
    let mut small = client(PeerId(5));
    small.group.max_message_len = 50;
    for (number, setup) in (3..).zip([closed, other_family, small]) {
        rib.peer_up(PeerId(number), setup);
    }
    let (held, lagging, joining) = (PeerId(6), PeerId(7), FAR);
    rib.peer_up(held, client(held));
    rib.hold(held);
    rib.peer_up(lagging, client(lagging));
    rib.turn(&mut heard);
    heard.full.extend([lagging, joining]);
    let attributes = PathAttributes::originated(address(B));
    rib.announce(A, attributes, [prefix(text)].into_iter());
    rib.turn(&mut heard);
    rib.peer_up(joining, client(joining));
    rib.turn(&mut heard);
    for (name, receiver, expected) in [
        ("its source", A, "its own route"),
        ("the next hop", B, "it is the next hop itself"),
        ("one that hears", C, "10.0.0.11 0"),
        ("closed", PeerId(3), "no route is said to this peer"),
        (
            "another family",
            PeerId(4),
            "the session does not carry ipv4",
        ),
        (
            "short messages",
            PeerId(5),
            "the attributes do not fit into a message",
        ),
        (
            "held",
            held,
            "held back after our restart until the other peers have said their routes",
        ),
        (
            "lagging",
            lagging,
            "waits: the peer does not take what it was told before",
        ),
        (
            "joining",
            joining,
            "waits: the peer is being sent the table",
        ),
    ] {
        assert_eq!(outcome(&rib, receiver, text), [expected], "{name}");
        // What it says is what was sent.
        let is_told = !heard.prefixes(receiver).is_empty();
        assert_eq!(is_told, receiver == C, "{name}");
    }
    heard.full.clear();
    rib.turn(&mut heard);
    for receiver in [lagging, joining] {
        assert_eq!(outcome(&rib, receiver, text), ["10.0.0.11 0"]);
        assert_eq!(heard.prefixes(receiver), [text]);
    }
}

#[test]
fn without_a_usable_path_nobody_is_told() {
    let (mut rib, mut heard) = with_clients();
    let expected = ["no path is usable"];
    assert_eq!(outcome(&rib, C, "172.17.8.0/24"), expected, "no path");
    // A loop: our own cluster id.
    let mut attributes = PathAttributes::originated(address(A));
    attributes
        .cluster_list
        .push(ClusterId([10, 0, 0, 1].into()));
    rib.announce(A, attributes, [prefix("172.17.8.0/24")].into_iter());
    rib.turn(&mut heard);
    assert_eq!(outcome(&rib, C, "172.17.8.0/24"), expected, "refused");
    let shown = rib.show(Selection::default());
    assert_eq!(shown.len(), 1);
    assert!(shown[0].rejection.is_some());
}

#[test]
fn who_takes_several_paths_hears_of_each_by_its_number() {
    let (mut rib, mut heard) = with_clients();
    let mut several = client(FAR);
    several.group.add_path = Family::ALL.into_iter().collect();
    rib.peer_up(FAR, several);
    for id in [A, B] {
        announce(&mut rib, id, "172.17.8.0/24");
    }
    // Decoding of these is the other tests'.
    heard.full.insert(FAR);
    rib.turn(&mut heard);
    assert_eq!(
        outcome(&rib, FAR, "172.17.8.0/24").len(),
        2,
        "both wait for room"
    );
    assert_eq!(
        outcome(&rib, A, "172.17.8.0/24"),
        ["its own route"],
        "the best path only"
    );
    assert_eq!(outcome(&rib, C, "172.17.8.0/24"), ["10.0.0.10 0"]);
    let mut nobody = Nobody;
    rib.turn(&mut nobody);
    let mut told = outcome(&rib, FAR, "172.17.8.0/24");
    told.sort();
    assert_eq!(told, ["10.0.0.10 1", "10.0.0.11 2"]);
}

/// Takes everything.
struct Nobody;

impl Sink for Nobody {
    fn has_room(&self, _: PeerId) -> bool {
        true
    }

    fn send(&mut self, _: PeerId, _: &bytes::Bytes) {}
}
