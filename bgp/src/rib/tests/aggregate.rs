//! Aggregates: when they are there, what they say, who hears them and in place of what.

use super::*;
use crate::policy::{Action, Filter, PrefixMatch, Rule};
use crate::speaker::config::Aggregate;
use crate::wire::attribute::{Aggregator, Origin};

/// Of another AS; the others are clients.
const OUT: PeerId = PeerId(3);
/// Of another AS, and the next hop of the aggregate.
const TOR: PeerId = PeerId(4);

const RACK: &str = "172.17.8.0/22";

fn of_rack(summary_only: bool) -> BTreeMap<Prefix, Aggregate> {
    let next_hop = address(TOR);
    let aggregate = Aggregate {
        next_hop,
        summary_only,
    };
    [(prefix(RACK), aggregate)].into()
}

fn aggregator() -> Aggregator {
    Aggregator {
        asn: Asn(64512),
        address: [10, 0, 0, 1].into(),
    }
}

fn external(id: PeerId, aggregates: &BTreeMap<Prefix, Aggregate>) -> PeerSetup {
    let mut setup = client(id);
    (setup.ebgp, setup.client) = (true, false);
    let import = Arc::make_mut(&mut setup.import);
    (import.ebgp, import.remote_asn) = (true, Asn(64513));
    let export = &mut setup.group.export;
    (export.ebgp, export.client) = (true, false);
    setup.group.export = export.clone().summarizing(aggregates, address(id));
    setup
}

/// Three clients and two external peers, with an aggregate for the latter.
fn rack(summary_only: bool) -> (Rib, Heard) {
    let (mut rib, mut heard) = with_clients();
    let aggregates = of_rack(summary_only);
    rib.set_aggregates(&aggregates, aggregator());
    for id in [OUT, TOR] {
        rib.peer_up(id, external(id, &aggregates));
    }
    rib.turn(&mut heard);
    (rib, heard)
}

fn own(from: PeerId) -> PathAttributes {
    PathAttributes::originated(address(from))
}

fn say(rib: &mut Rib, from: PeerId, text: &str, attributes: PathAttributes) {
    rib.announce(from, attributes, [prefix(text)].into_iter());
}

fn withdraw(rib: &mut Rib, from: PeerId, text: &str) {
    rib.withdraw(from, [prefix(text)].into_iter());
}

const NOTHING: [&str; 0] = [];

#[test]
fn it_comes_with_the_first_specific_and_goes_with_the_last_in_the_same_turn() {
    let (mut rib, mut heard) = rack(true);
    assert_eq!(heard.prefixes(OUT), NOTHING);
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), [RACK]);
    let said = heard.tables[&OUT][&prefix(RACK)].clone();
    assert_eq!(said.next_hop.address, address(TOR));
    assert_eq!(said.as_path.to_string(), "64512");
    assert_eq!((said.origin, said.atomic_aggregate), (Origin::Igp, false));
    assert_eq!(said.aggregator, Some(aggregator()));
    assert_eq!((said.med, said.originator_id), (None, None));
    assert_eq!(
        heard.prefixes(B),
        ["172.17.8.0/24"],
        "clients: no aggregate"
    );

    let messages = heard.messages;
    announce(&mut rib, B, "172.17.9.0/24");
    rib.turn(&mut heard);
    withdraw(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), [RACK]);
    assert_eq!(
        heard.messages - messages,
        6,
        "to two clients and the ToR each time; nothing to who hears the aggregate"
    );
    withdraw(&mut rib, B, "172.17.9.0/24");
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), NOTHING);
    assert_eq!(heard.withdrawals[&OUT], [prefix(RACK)]);
    assert_eq!(rib.show(Selection::default()).len(), 0);
}

#[test]
fn a_specific_that_comes_and_goes_within_a_turn_brings_nothing() {
    let (mut rib, mut heard) = rack(true);
    heard.messages = 0;
    announce(&mut rib, A, "172.17.8.0/24");
    withdraw(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), NOTHING);
    assert_eq!(heard.messages, 0);
}

#[test]
fn only_longer_routes_of_clients_that_may_leave_the_as_bring_it() {
    let with = |community| PathAttributes {
        communities: vec![community].into(),
        ..own(A)
    };
    let for_customers = PathAttributes {
        only_to_customer: Some(Asn(64999)),
        ..own(A)
    };
    let looped = PathAttributes {
        originator_id: Some(RouterId([10, 0, 0, 1].into())),
        ..own(A)
    };
    let of_other_as = PathAttributes {
        as_path: "64513".parse().expect("a path"),
        ..own(OUT)
    };
    let longer = "172.17.9.0/24";
    for (name, from, text, attributes, is_there) in [
        ("of a client", A, longer, own(A), true),
        ("a single address", A, "172.17.11.255/32", own(A), true),
        ("as long as it", A, RACK, own(A), false),
        ("shorter", A, "172.17.0.0/16", own(A), false),
        ("beside it", A, "172.17.12.0/24", own(A), false),
        ("NO_EXPORT", A, longer, with(Community::NO_EXPORT), false),
        (
            "NO_ADVERTISE",
            A,
            longer,
            with(Community::NO_ADVERTISE),
            false,
        ),
        ("for customers only", A, longer, for_customers, false),
        ("refused by import", A, longer, looped, false),
        ("of an external peer", OUT, longer, of_other_as, false),
    ] {
        let (mut rib, mut heard) = rack(true);
        say(&mut rib, from, text, attributes);
        rib.turn(&mut heard);
        let shown = rib.show(Selection::default());
        let is_in_table = shown.iter().any(|path| path.source == PeerId::AGGREGATE);
        assert_eq!(is_in_table, is_there, "{name}");
    }
}

#[test]
fn it_says_what_its_specifics_have_in_common() {
    let (mut rib, mut heard) = rack(true);
    let incomplete = PathAttributes {
        origin: Origin::Incomplete,
        ..own(B)
    };
    let from_afar = PathAttributes {
        as_path: "65010".parse().expect("a path"),
        ..own(B)
    };
    let with = |community| PathAttributes {
        communities: vec![community].into(),
        ..own(B)
    };
    let stopping = Community::GRACEFUL_SHUTDOWN;
    let tag = Community(65000 << 16 | 100);
    for (name, attributes, origin, atomic, beside, alone) in [
        ("plain", own(B), Origin::Igp, false, vec![], vec![]),
        (
            "incomplete",
            incomplete,
            Origin::Incomplete,
            false,
            vec![],
            vec![],
        ),
        ("with a path", from_afar, Origin::Igp, true, vec![], vec![]),
        ("tagged", with(tag), Origin::Igp, true, vec![], vec![]),
        (
            "about to stop",
            with(stopping),
            Origin::Igp,
            true,
            vec![],
            vec![stopping],
        ),
    ] {
        announce(&mut rib, A, "172.17.8.0/24");
        say(&mut rib, B, "172.17.9.0/24", attributes);
        for (who, communities) in [("beside another", beside), ("alone", alone)] {
            rib.turn(&mut heard);
            let said = &heard.tables[&OUT][&prefix(RACK)];
            assert_eq!(
                (said.origin, said.atomic_aggregate, &said.communities),
                (origin, atomic, &communities.into()),
                "{name}, {who}"
            );
            assert_eq!(said.as_path.to_string(), "64512", "{name}, {who}");
            withdraw(&mut rib, A, "172.17.8.0/24");
        }
    }
}

#[test]
fn it_stands_for_its_specifics_towards_external_peers_alone() {
    for (summary_only, out) in [
        (true, vec!["172.17.8.0/22", "172.17.16.0/24"]),
        (
            false,
            vec!["172.17.8.0/22", "172.17.8.0/24", "172.17.16.0/24"],
        ),
    ] {
        let (mut rib, mut heard) = rack(summary_only);
        announce(&mut rib, A, "172.17.8.0/24");
        announce(&mut rib, A, "172.17.16.0/24");
        rib.turn(&mut heard);
        assert_eq!(heard.prefixes(OUT), out);
        let specifics = ["172.17.8.0/24", "172.17.16.0/24"];
        assert_eq!(heard.prefixes(B), specifics);
        assert_eq!(heard.prefixes(TOR), specifics, "the next hop needs them");
        let shown = rib.show_advertised(OUT, None);
        assert_eq!(shown.len(), out.len());
        let counts = rib.advertised_counts();
        assert_eq!(counts[&OUT][0], out.len() as u64);
    }
}

#[test]
fn a_longer_route_of_another_as_is_said_beside_it() {
    let (mut rib, mut heard) = rack(true);
    announce(&mut rib, A, "172.17.8.0/24");
    let of_other_as = PathAttributes {
        as_path: "64513".parse().expect("a path"),
        ..own(TOR)
    };
    say(&mut rib, TOR, "172.17.9.0/24", of_other_as);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), [RACK, "172.17.9.0/24"]);
}

#[test]
fn who_does_not_get_to_hear_it_hears_the_specifics() {
    let (mut rib, mut heard) = rack(true);
    let only_long = Filter {
        name: "f".into(),
        export_v4: vec![Rule::new(PrefixMatch::Equal(prefix(RACK)), Action::Reject)],
        ..Filter::default()
    };
    let mut setup = external(OUT, &BTreeMap::new());
    setup.group.export.filters = vec![only_long];
    let export = setup.group.export.clone();
    setup.group.export = export.summarizing(&of_rack(true), address(OUT));
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    rib.set_policy(OUT, setup);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), ["172.17.8.0/24"]);
}

#[test]
fn nobody_elses_route_to_it_is_preferred() {
    let (mut rib, mut heard) = rack(true);
    let of_other_as = PathAttributes {
        as_path: "64513".parse().expect("a path"),
        ..own(OUT)
    };
    say(&mut rib, OUT, RACK, of_other_as);
    rib.turn(&mut heard);
    assert_eq!(
        heard.prefixes(A),
        [RACK],
        "without specifics it is a route like others"
    );
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    let shown = rib.show(Selection {
        prefix: Some(prefix(RACK)),
        received_from: None,
    });
    let best: Vec<PeerId> = shown
        .iter()
        .filter(|path| path.is_best)
        .map(|path| path.source)
        .collect();
    assert_eq!(best, [PeerId::AGGREGATE]);
    assert_eq!(shown[0].deciding_step, Some(decision::Step::Local));
    assert_eq!(shown[0].peer, None, "our own");
    assert_eq!(heard.prefixes(OUT), [RACK]);
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24"]);
    let told = rib.learned(10);
    let of_rack = told.iter().find(|route| route.prefix == prefix(RACK));
    assert_eq!(of_rack.and_then(|route| route.best.clone()), None);
}

#[test]
fn stale_specifics_keep_it_and_flushed_ones_do_not() {
    let (mut rib, mut heard) = rack(true);
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    rib.peer_down(A, &[Family::Ipv4]);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), [RACK]);
    assert_eq!(heard.withdrawals.get(&OUT), None);
    rib.keep_long_lived(A, Family::Ipv4);
    rib.turn(&mut heard);
    // RFC 9494 §4.3: it would be stale for long, and this peer does not know what that means.
    assert_eq!(heard.prefixes(OUT), NOTHING);
    announce(&mut rib, B, "172.17.9.0/24");
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), [RACK], "a fresh one is enough");
    withdraw(&mut rib, B, "172.17.9.0/24");
    rib.flush_stale(A, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), NOTHING);
    assert_eq!(rib.show(Selection::default()).len(), 0);
}

#[test]
fn a_client_that_becomes_none_takes_it_along() {
    let (mut rib, mut heard) = rack(true);
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    let mut no_client = client(A);
    (no_client.client, no_client.group.export.client) = (false, false);
    rib.set_policy(A, no_client);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), ["172.17.8.0/24"]);
    rib.set_policy(A, client(A));
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(OUT), [RACK]);
}

#[test]
fn its_next_hop_stays_whatever_the_mode_of_the_peer() {
    let (mut rib, mut heard) = rack(true);
    announce(&mut rib, A, "172.17.8.0/24");
    for mode in [NextHopMode::SelfAddress, NextHopMode::Auto] {
        let mut setup = external(OUT, &of_rack(true));
        setup.group.export.next_hop_mode = mode;
        rib.set_policy(OUT, setup);
        rib.turn(&mut heard);
        let said = &heard.tables[&OUT][&prefix(RACK)];
        assert_eq!(said.next_hop.address, address(TOR), "{mode:?}");
    }
}

#[test]
fn what_is_originated_is_no_aggregate_besides() {
    let (mut rib, mut heard) = rack(true);
    announce(&mut rib, A, "172.17.8.0/24");
    let own = Originated::new([10, 0, 0, 1].into());
    rib.set_originated([(prefix(RACK), own)].into());
    rib.set_aggregates(&of_rack(true), aggregator());
    rib.turn(&mut heard);
    let of_rack = Selection {
        prefix: Some(prefix(RACK)),
        received_from: None,
    };
    let sources: Vec<PeerId> = rib.show(of_rack).iter().map(|path| path.source).collect();
    assert_eq!(sources, [PeerId::LOCAL]);
}

#[test]
fn configuration_counts_at_once_for_what_is_there() {
    let (mut rib, mut heard) = rack(true);
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, B, "172.17.9.0/24");
    rib.turn(&mut heard);
    let other = |text: &str, next_hop: u8, summary_only| -> BTreeMap<Prefix, Aggregate> {
        let next_hop = [10, 0, 1, next_hop].into();
        let aggregate = Aggregate {
            next_hop,
            summary_only,
        };
        [(prefix(text), aggregate)].into()
    };
    let specifics = ["172.17.8.0/24", "172.17.9.0/24"];
    for (name, configured, expected) in [
        ("another next hop", other(RACK, 1, true), vec![RACK]),
        (
            "with specifics",
            other(RACK, 1, false),
            [vec![RACK], specifics.to_vec()].concat(),
        ),
        (
            "another prefix",
            other("172.17.9.0/25", 1, true),
            specifics.to_vec(),
        ),
        ("none", BTreeMap::new(), specifics.to_vec()),
        (
            "a shorter one",
            other("172.17.0.0/16", 2, true),
            vec!["172.17.0.0/16"],
        ),
    ] {
        rib.set_aggregates(&configured, aggregator());
        for id in [OUT, TOR] {
            rib.set_policy(id, external(id, &configured));
        }
        rib.turn(&mut heard);
        assert_eq!(heard.prefixes(OUT), expected, "{name}");
        for (prefix, aggregate) in &configured {
            if let Some(said) = heard.tables[&OUT].get(prefix) {
                assert_eq!(said.next_hop.address, aggregate.next_hop, "{name}");
            }
        }
    }
}

/// xorshift: the same history for the same seed.
fn next(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

#[test]
fn whatever_happens_it_is_there_exactly_while_a_specific_is() {
    for seed in 1..500u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut is_summary = true;
        let (mut rib, mut heard) = rack(is_summary);
        let clients = [A, B, C];
        let texts = ["172.17.8.0/24", "172.17.9.0/24", "172.17.12.0/24", RACK];
        for _ in 0..next(&mut state, 60) {
            let id = clients[next(&mut state, 3) as usize];
            let text = texts[next(&mut state, 4) as usize];
            match next(&mut state, 12) {
                0..=3 => {
                    let mut attributes = own(id);
                    match next(&mut state, 4) {
                        0 => attributes.communities.push(Community::NO_EXPORT),
                        1 => attributes.communities.push(Community::GRACEFUL_SHUTDOWN),
                        _ => {}
                    }
                    say(&mut rib, id, text, attributes);
                }
                4..=6 => withdraw(&mut rib, id, text),
                7 => {
                    let kept: &[Family] = match next(&mut state, 2) {
                        0 => &[Family::Ipv4],
                        _ => &[],
                    };
                    rib.peer_down(id, kept);
                    heard.tables.remove(&id);
                    let mut setup = client(id);
                    setup.client = next(&mut state, 3) > 0;
                    setup.group.export.client = setup.client;
                    rib.peer_up(id, setup);
                }
                8 => rib.flush_stale(id, Family::Ipv4),
                9 => {
                    is_summary = !is_summary;
                    rib.set_aggregates(&of_rack(is_summary), aggregator());
                    for id in [OUT, TOR] {
                        rib.set_policy(id, external(id, &of_rack(is_summary)));
                    }
                }
                10 => {
                    rib.set_aggregates(&BTreeMap::new(), aggregator());
                    rib.set_aggregates(&of_rack(is_summary), aggregator());
                }
                _ => rib.turn(&mut heard),
            }
        }
        rib.turn(&mut heard);
        let shown = rib.show(Selection::default());
        let is_specific = |path: &&show::ShownPath| {
            let peer = rib.peer(path.source);
            path.is_best
                && prefix(RACK).covers(&path.prefix)
                && path.prefix.length() > 22
                && peer.is_some_and(|peer| peer.setup.client)
                && !path.attributes.communities.contains(&Community::NO_EXPORT)
        };
        let specifics = shown.iter().filter(is_specific).count();
        let is_said = heard.tables.get(&OUT).and_then(|t| t.get(&prefix(RACK)));
        let is_own = is_said.is_some_and(|said| said.aggregator.is_some());
        assert_eq!(is_own, specifics > 0, "seed {seed}");
        // A new aggregate that follows the table from the start is what the old one became.
        let fresh = rib.show_advertised(OUT, Some(prefix(RACK)));
        rib.set_aggregates(&BTreeMap::new(), aggregator());
        rib.set_aggregates(&of_rack(is_summary), aggregator());
        assert_eq!(
            rib.show_advertised(OUT, Some(prefix(RACK))),
            fresh,
            "seed {seed}"
        );
        for id in [OUT, TOR] {
            let expected: Vec<String> = rib
                .show_advertised(id, None)
                .iter()
                .map(|(path, ..)| path.prefix.to_string())
                .collect();
            assert_eq!(heard.prefixes(id), expected, "seed {seed}, {id:?}");
        }
    }
}
