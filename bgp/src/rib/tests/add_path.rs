//! Several paths a prefix (RFC 7911), as receivers hear them, and paths that are used together.

use super::*;

pub(super) const D: PeerId = PeerId(3);
pub(super) const E: PeerId = PeerId(4);

/// What receivers were told and not told to forget; those `numbered` with path identifiers.
#[derive(Default)]
pub(super) struct HeardPaths {
    pub(super) tables: BTreeMap<PeerId, BTreeMap<PathPrefix, PathAttributes>>,
    pub(super) numbered: BTreeSet<PeerId>,
    pub(super) full: BTreeSet<PeerId>,
    messages: usize,
}

impl Sink for HeardPaths {
    fn has_room(&self, peer: PeerId) -> bool {
        !self.full.contains(&peer)
    }

    fn send(&mut self, peer: PeerId, messages: &bytes::Bytes) {
        let mut buffer = BytesMut::from(&messages[..]);
        while let Some(frame) = frame::next_frame(&mut buffer, frame::MAX_LEN).expect("valid") {
            self.hear(peer, &frame);
        }
        assert!(buffer.is_empty(), "messages are whole");
    }
}

impl HeardPaths {
    fn hear(&mut self, peer: PeerId, frame: &Frame) {
        self.messages += 1;
        if frame.kind == MessageKind::RouteRefresh {
            return;
        }
        let numbered = Family::ALL
            .into_iter()
            .filter(|_| self.numbered.contains(&peer));
        let context = UpdateContext {
            four_octet_as: true,
            ebgp: false,
            add_path: numbered.collect(),
        };
        let update = update::decode_update(&frame.body, &context).expect("valid");
        let table = self.tables.entry(peer).or_default();
        for path in update.withdrawn.iter().flat_map(|nlri| nlri.paths()) {
            table.remove(&path);
        }
        for announcement in &update.announced {
            for path in announcement.nlri.paths() {
                table.insert(path, announcement.attributes.clone());
            }
        }
    }

    /// Next hops by prefix and path identifier.
    fn paths(&self, peer: PeerId) -> Vec<(PathPrefix, IpAddr)> {
        let table = self.tables.get(&peer).into_iter().flatten();
        table
            .map(|(path, attributes)| (*path, attributes.next_hop.address))
            .collect()
    }

    /// Next hops of a prefix, in order.
    fn next_hops(&self, peer: PeerId) -> Vec<IpAddr> {
        let mut next_hops: Vec<IpAddr> = self.paths(peer).iter().map(|(_, hop)| *hop).collect();
        next_hops.sort();
        next_hops
    }
}

pub(super) fn listener(id: PeerId) -> PeerSetup {
    let mut setup = client(id);
    setup.group.add_path = FamilySet::from_iter([Family::Ipv4]);
    setup
}

pub(super) fn numbered(text: &str, path_id: u32) -> PathPrefix {
    PathPrefix {
        prefix: prefix(text),
        path_id,
    }
}

pub(super) fn by(next_hop: u8) -> PathAttributes {
    PathAttributes::originated([10, 0, 1, next_hop].into())
}

/// A and B announce, C hears the best path, D and E hear all.
fn with_listeners() -> (Rib, HeardPaths) {
    let mut rib = rib();
    for id in [A, B, C] {
        rib.peer_up(id, client(id));
    }
    let mut heard = HeardPaths::default();
    for id in [D, E] {
        rib.peer_up(id, listener(id));
        heard.numbered.insert(id);
    }
    rib.turn(&mut heard);
    (rib, heard)
}

#[test]
fn every_path_is_said_where_add_path_was_negotiated_and_the_best_elsewhere() {
    let (mut rib, mut heard) = with_listeners();
    announce(&mut rib, A, "10.9.0.0/16");
    announce(&mut rib, B, "10.9.0.0/16");
    rib.turn(&mut heard);
    assert_eq!(heard.next_hops(D), [address(A), address(B)]);
    assert_eq!(heard.next_hops(C), [address(A)]);
    rib.withdraw(A, [prefix("10.9.0.0/16")].into_iter());
    rib.turn(&mut heard);
    assert_eq!(heard.next_hops(D), [address(B)]);
    assert_eq!(heard.next_hops(C), [address(B)]);
    rib.withdraw(B, [prefix("10.9.0.0/16")].into_iter());
    rib.turn(&mut heard);
    assert_eq!((heard.paths(D), heard.paths(C)), (vec![], vec![]));
}

#[test]
fn a_path_keeps_its_number_and_others_are_left_alone() {
    let (mut rib, mut heard) = with_listeners();
    announce(&mut rib, A, "10.9.0.0/16");
    announce(&mut rib, B, "10.9.0.0/16");
    rib.turn(&mut heard);
    let before = heard.paths(D);
    let number = |next_hop: IpAddr| {
        before
            .iter()
            .find(|(_, hop)| *hop == next_hop)
            .map(|(path, _)| *path)
    };
    heard.messages = 0;
    rib.announce(B, by(7), [prefix("10.9.0.0/16")].into_iter());
    rib.turn(&mut heard);
    let after = heard.paths(D);
    assert_eq!(after.len(), 2);
    assert!(after.contains(&(number(address(B)).expect("said"), [10, 0, 1, 7].into())));
    assert!(after.contains(&(number(address(A)).expect("said"), address(A))));
    // One UPDATE each to the two that hear all; the best path did not change.
    assert_eq!(heard.messages, 2);
}

#[test]
fn paths_of_one_peer_are_told_apart_by_their_identifiers() {
    let (mut rib, mut heard) = with_listeners();
    rib.announce(A, by(1), [numbered("10.9.0.0/16", 1)].into_iter());
    rib.announce(A, by(2), [numbered("10.9.0.0/16", 2)].into_iter());
    rib.announce(A, by(3), [numbered("10.9.0.0/16", 2)].into_iter());
    rib.turn(&mut heard);
    assert_eq!(
        heard.next_hops(D),
        [IpAddr::from([10, 0, 1, 1]), [10, 0, 1, 3].into()]
    );
    assert_eq!(rib.counts(A, Family::Ipv4).received, 2);
    rib.withdraw(A, [numbered("10.9.0.0/16", 9)].into_iter());
    rib.withdraw(A, [numbered("10.9.0.0/16", 1)].into_iter());
    rib.turn(&mut heard);
    assert_eq!(heard.next_hops(D), [IpAddr::from([10, 0, 1, 3])]);
    rib.peer_down(A, &[]);
    rib.turn(&mut heard);
    assert_eq!(heard.paths(D), vec![]);
    assert_eq!(rib.counts(A, Family::Ipv4).received, 0);
}

#[test]
fn a_peer_cannot_have_paths_to_one_prefix_without_end() {
    let (mut rib, mut heard) = with_listeners();
    let all = (1..600).map(|path_id| numbered("10.9.0.0/16", path_id));
    rib.announce(A, by(1), all);
    rib.turn(&mut heard);
    assert_eq!(rib.counts(A, Family::Ipv4).received, 256);
    assert_eq!(heard.paths(D).len(), 256);
}

#[test]
fn a_listener_hears_no_path_of_its_own() {
    let mut rib = rib();
    let mut heard = HeardPaths::default();
    for id in [A, D] {
        rib.peer_up(id, listener(id));
        heard.numbered.insert(id);
    }
    announce(&mut rib, A, "10.9.0.0/16");
    announce(&mut rib, D, "10.9.0.0/16");
    rib.turn(&mut heard);
    assert_eq!(heard.next_hops(A), [address(D)]);
    assert_eq!(heard.next_hops(D), [address(A)]);
}

/// Whatever happens in whatever order, receivers have what the RIB says they have.
#[test]
fn receivers_have_what_is_shown_as_advertised_after_any_history() {
    for seed in 0..300u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let (mut rib, mut heard) = with_listeners();
        for step in 0..60 {
            let from = [A, B, D][draw(3) as usize];
            let path = numbered(
                ["10.9.0.0/16", "10.8.0.0/16"][draw(2) as usize],
                draw(3) as u32,
            );
            match draw(12) {
                0..=4 => {
                    let attributes = by(draw(4) as u8);
                    rib.announce(from, attributes, [path].into_iter());
                }
                5..=7 => rib.withdraw(from, [path].into_iter()),
                8 => {
                    let peer = [C, D, E][draw(3) as usize];
                    if !heard.full.remove(&peer) {
                        heard.full.insert(peer);
                    }
                }
                9 => {
                    rib.peer_down(B, &[]);
                    rib.peer_up(B, client(B));
                    heard.tables.remove(&B);
                }
                10 => {
                    rib.peer_down(E, &[]);
                    rib.peer_up(E, listener(E));
                    heard.tables.remove(&E);
                }
                _ => rib.refresh(D, Family::Ipv4),
            }
            if draw(2) == 0 {
                rib.turn(&mut heard);
            }
            if step == 59 {
                heard.full.clear();
                rib.turn(&mut heard);
                rib.turn(&mut heard);
            }
        }
        for id in [A, B, C, D, E] {
            let mut shown: Vec<(PathPrefix, IpAddr)> = rib
                .show_advertised(id, None)
                .into_iter()
                .map(|(path, _, attributes)| (path, attributes.next_hop.address))
                .collect();
            shown.sort();
            assert_eq!(heard.paths(id), shown, "seed {seed}, {id:?}");
        }
    }
}

fn with_multipath(max_ibgp_paths: u8) -> Rib {
    let mut rib = Rib::new(RibConfig {
        decision: decision::Options {
            max_ibgp_paths,
            ..decision::Options::default()
        },
        ..RibConfig::clone(&rib().config)
    });
    for id in [A, B, C, D] {
        rib.peer_up(id, client(id));
    }
    rib
}

/// The next hops the consumer is told of a prefix, the best first; `None`: it is told nothing.
fn told(rib: &mut Rib, text: &str) -> Option<Vec<IpAddr>> {
    rib.turn(&mut HeardPaths::default());
    let learned = rib
        .learned(10)
        .into_iter()
        .find(|l| l.prefix == prefix(text))?;
    let all = learned.best.into_iter().chain(learned.multipath);
    Some(all.map(|attributes| attributes.next_hop.address).collect())
}

#[test]
fn equal_paths_are_used_together_as_many_as_configured() {
    let mut rib = with_multipath(2);
    for id in [C, B, A] {
        announce(&mut rib, id, "10.9.0.0/16");
    }
    assert_eq!(
        told(&mut rib, "10.9.0.0/16"),
        Some(vec![address(A), address(B)])
    );
    // Not the best: the consumer hears of it all the same.
    rib.withdraw(B, [prefix("10.9.0.0/16")].into_iter());
    assert_eq!(
        told(&mut rib, "10.9.0.0/16"),
        Some(vec![address(A), address(C)])
    );
    let mut worse = PathAttributes::originated(address(C));
    worse.local_pref = Some(LocalPref(50));
    rib.announce(C, worse, [prefix("10.9.0.0/16")].into_iter());
    assert_eq!(told(&mut rib, "10.9.0.0/16"), Some(vec![address(A)]));
}

#[test]
fn two_paths_by_one_next_hop_count_once() {
    let mut rib = with_multipath(8);
    rib.announce(A, by(1), [prefix("10.9.0.0/16")].into_iter());
    rib.announce(B, by(1), [prefix("10.9.0.0/16")].into_iter());
    rib.announce(C, by(2), [prefix("10.9.0.0/16")].into_iter());
    assert_eq!(
        told(&mut rib, "10.9.0.0/16"),
        Some(vec![[10, 0, 1, 1].into(), [10, 0, 1, 2].into()])
    );
    let shown = rib.show(Selection::default());
    let used = shown.iter().filter(|path| path.is_multipath).count();
    assert_eq!(used, 2, "{shown:?}");
}

#[test]
fn new_options_of_the_decision_hold_for_routes_that_are_there() {
    let mut rib = with_multipath(1);
    announce(&mut rib, A, "10.9.0.0/16");
    announce(&mut rib, B, "10.9.0.0/16");
    assert_eq!(told(&mut rib, "10.9.0.0/16"), Some(vec![address(A)]));
    let mut config = RibConfig::clone(&rib.config);
    config.decision.max_ibgp_paths = 4;
    rib.reconfigure(config);
    assert_eq!(
        told(&mut rib, "10.9.0.0/16"),
        Some(vec![address(A), address(B)])
    );
}

#[test]
fn long_stale_routes_are_the_last_resort() {
    let mut rib = with_multipath(1);
    let text = "10.9.0.0/16";
    let mut preferred = PathAttributes::originated(address(A));
    preferred.local_pref = Some(LocalPref(500));
    rib.announce(A, preferred, [prefix(text)].into_iter());
    announce(&mut rib, B, text);
    let mut never = PathAttributes::originated(address(A));
    never.communities.push(Community::NO_LLGR);
    rib.announce(A, never, [prefix("10.8.0.0/16")].into_iter());
    rib.turn(&mut HeardPaths::default());
    rib.learned(10);
    rib.peer_down(A, &[Family::Ipv4]);
    assert_eq!(told(&mut rib, text), None, "kept, and nothing changed");
    rib.keep_long_lived(A, Family::Ipv4);
    rib.turn(&mut HeardPaths::default());
    let learned = rib.learned(10);
    let best = |text: &str| {
        let of = learned.iter().find(|l| l.prefix == prefix(text));
        of.map(|l| l.best.as_ref().map(|best| best.next_hop.address))
    };
    assert_eq!(best(text), Some(Some(address(B))));
    assert_eq!(best("10.8.0.0/16"), Some(None), "it asked not to be kept");
    rib.withdraw(B, [prefix(text)].into_iter());
    assert_eq!(told(&mut rib, text), Some(vec![address(A)]));
}

/// A peer that restarts may number its paths anew. What is stale goes with its End-of-RIB; what it
/// announced must not be refused for it.
#[test]
fn stale_paths_leave_room_for_those_announced_under_other_numbers() {
    let (mut rib, mut heard) = with_listeners();
    let paths = |from: u32| (from..from + 200).map(|path_id| numbered("10.9.0.0/16", path_id));
    rib.announce(A, by(1), paths(1));
    rib.turn(&mut heard);
    rib.peer_down(A, &[Family::Ipv4]);
    rib.peer_up(A, client(A));
    rib.announce(A, by(1), paths(1001));
    rib.turn(&mut heard);
    rib.flush_stale(A, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(rib.counts(A, Family::Ipv4).received, 200);
    assert_eq!(heard.paths(D).len(), 200);
}

/// What is passed on depends on whether the source is a client of ours (RFC 4456 §6).
#[test]
fn routes_of_a_peer_that_is_no_client_any_more_are_taken_back() {
    let (mut rib, mut heard) = with_listeners();
    for id in [C, D] {
        let mut setup = if id == C { client(id) } else { listener(id) };
        setup.client = false;
        setup.group.export.client = false;
        rib.set_policy(id, setup);
    }
    announce(&mut rib, A, "10.9.0.0/16");
    rib.turn(&mut heard);
    assert_eq!((heard.paths(C).len(), heard.paths(D).len()), (1, 1));
    let mut setup = client(A);
    setup.client = false;
    setup.group.export.client = false;
    rib.set_policy(A, setup);
    rib.turn(&mut heard);
    assert_eq!((heard.paths(C), heard.paths(D)), (vec![], vec![]));
    assert_eq!(heard.paths(E).len(), 1, "a client hears of it still");
    rib.set_policy(A, client(A));
    rib.turn(&mut heard);
    assert_eq!((heard.paths(C).len(), heard.paths(D).len()), (1, 1));
}

/// Groups beyond the bits of a destination share the last one.
#[test]
fn routes_told_are_counted_for_more_groups_than_there_are_bits() {
    let mut rib = rib();
    let mut heard = HeardPaths::default();
    for index in 0..70 {
        let id = PeerId(index);
        let mut setup = client(id);
        setup.group.export.local_pref = LocalPref(index);
        rib.peer_up(id, setup);
    }
    for index in 0..70 {
        let text = format!("10.{index}.0.0/16");
        announce(&mut rib, PeerId(index), &text);
    }
    rib.turn(&mut heard);
    let counts = rib.advertised_counts();
    for index in 0..70 {
        assert_eq!(counts[&PeerId(index)], [69, 0], "peer {index}");
    }
}

#[test]
fn paths_follow_their_interfaces_one_by_one() {
    use crate::policy::{Action, Filter, PrefixMatch, Rule};
    let (mut rib, mut heard) = with_listeners();
    let mut only_eth = listener(D);
    only_eth.group.export.default = ExportDefault::Reject;
    only_eth.group.export.filters = vec![Filter {
        name: "eth".into(),
        export_v4: vec![Rule {
            interface: "eth*".parse().ok(),
            ..Rule::new(PrefixMatch::Any, Action::ACCEPT)
        }],
        ..Filter::default()
    }];
    rib.set_policy(D, only_eth);
    announce(&mut rib, A, "10.9.0.0/16");
    announce(&mut rib, B, "10.9.0.0/16");
    let by = |interface: &str| NextHopInfo {
        reach: Reach::Cost(0),
        interface: Some(interface.into()),
    };
    for (of_a, of_b, expected) in [
        ("eth0", "eth0", &[A, B][..]),
        ("wlan0", "eth0", &[B]),
        ("wlan0", "wlan0", &[]),
        ("eth1", "wlan0", &[A]),
        ("eth1", "eth0", &[A, B]),
    ] {
        rib.set_next_hop_costs([(address(A), by(of_a)), (address(B), by(of_b))].into());
        rib.turn(&mut heard);
        let expected: Vec<IpAddr> = expected.iter().copied().map(address).collect();
        assert_eq!(heard.next_hops(D), expected, "{of_a}, {of_b}");
        assert_eq!(heard.next_hops(E), [address(A), address(B)]);
    }
}
