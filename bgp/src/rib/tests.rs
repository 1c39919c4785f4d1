mod add_path;
mod aggregate;
mod filtered;
mod held;
mod histories;
mod why;

use std::collections::BTreeSet;

use bytes::BytesMut;

use super::next_hop::NextHopInfo;
use super::peer::{GroupKey, ImportPolicy};
use super::show::Selection;
use super::*;
use crate::policy::propagate::ExportPolicy;
use crate::policy::{ExportDefault, ImportDefault};
use crate::speaker::config::NextHopMode;
use crate::types::{Asn, FamilySet, LocalPref};
use crate::wire::community::Community;
use crate::wire::frame::{self, Frame, MessageKind};
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::update::{self, UpdateContext};

/// What each peer was told and not told to forget, decoded from the messages themselves.
#[derive(Default)]
struct Heard {
    tables: BTreeMap<PeerId, BTreeMap<Prefix, PathAttributes>>,
    end_of_rib: BTreeMap<PeerId, usize>,
    withdrawals: BTreeMap<PeerId, Vec<Prefix>>,
    full: BTreeSet<PeerId>,
    messages: usize,
    /// Peers with extended messages.
    extended: BTreeSet<PeerId>,
    /// All messages but announcements and withdrawals, in order: `EoR`, `BoRR`, `EoRR`; and `routes`
    /// where some of those came.
    order: BTreeMap<PeerId, Vec<&'static str>>,
}

impl Sink for Heard {
    fn has_room(&self, peer: PeerId) -> bool {
        !self.full.contains(&peer)
    }

    fn send(&mut self, peer: PeerId, messages: &bytes::Bytes) {
        assert!(!self.full.contains(&peer), "sent to {peer:?} without room");
        let mut buffer = BytesMut::from(&messages[..]);
        let max_len = if self.extended.contains(&peer) {
            frame::MAX_EXTENDED_LEN
        } else {
            frame::MAX_LEN
        };
        while let Some(frame) = frame::next_frame(&mut buffer, max_len).expect("valid") {
            self.hear(peer, &frame);
        }
        assert!(buffer.is_empty(), "messages are whole");
    }
}

impl Heard {
    fn hear(&mut self, peer: PeerId, frame: &Frame) {
        self.messages += 1;
        let order = self.order.entry(peer).or_default();
        if frame.kind == MessageKind::RouteRefresh {
            let refresh = RouteRefresh::decode(&frame.body).expect("valid");
            order.push(match refresh.expect("ours").kind {
                RefreshKind::Request => panic!("the RIB asks for nothing"),
                RefreshKind::Begin => "BoRR",
                RefreshKind::End => "EoRR",
            });
            return;
        }
        let context = UpdateContext {
            four_octet_as: true,
            ebgp: false,
            add_path: FamilySet::EMPTY,
        };
        let update = update::decode_update(&frame.body, &context).expect("valid");
        match update.end_of_rib {
            Some(_) => order.push("EoR"),
            None if order.last() != Some(&"routes") => order.push("routes"),
            None => {}
        }
        let table = self.tables.entry(peer).or_default();
        for prefix in update.withdrawn.iter().flat_map(|nlri| nlri.iter()) {
            table.remove(&prefix);
            self.withdrawals.entry(peer).or_default().push(prefix);
        }
        for announcement in update.announced {
            for prefix in announcement.nlri.iter() {
                table.insert(prefix, announcement.attributes.clone());
            }
        }
        if update.end_of_rib.is_some() {
            *self.end_of_rib.entry(peer).or_default() += 1;
        }
    }

    fn prefixes(&self, peer: PeerId) -> Vec<String> {
        self.tables
            .get(&peer)
            .into_iter()
            .flat_map(|table| table.keys())
            .map(ToString::to_string)
            .collect()
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect(text)
}

fn address(id: PeerId) -> IpAddr {
    [10, 0, 0, 10 + u8::try_from(id.0).expect("few peers")].into()
}

fn rib() -> Rib {
    Rib::new(RibConfig {
        router_id: RouterId([10, 0, 0, 1].into()),
        cluster_id: ClusterId([10, 0, 0, 1].into()),
        local_addresses: vec![[10, 0, 0, 1].into()],
        has_consumer: true,
        decision: decision::Options::default(),
        local_pref: LocalPref::DEFAULT,
    })
}

fn client(id: PeerId) -> PeerSetup {
    let std::net::IpAddr::V4(router_id) = address(id) else {
        unreachable!("IPv4 above")
    };
    PeerSetup {
        address: address(id),
        router_id: RouterId(router_id),
        ebgp: false,
        client: true,
        enhanced_route_refresh: true,
        import: Arc::new(ImportPolicy {
            ebgp: false,
            local_asn: Asn(64512),
            remote_asn: Asn(64512),
            allow_own_as: 0,
            role: None,
            filters: Vec::new(),
            default: ImportDefault::Accept,
        }),
        group: GroupKey {
            export: ExportPolicy {
                ebgp: false,
                role: None,
                remove_private_as: None,
                is_draining: false,
                ipv4_over_ipv6: false,
                long_lived: false,
                client: true,
                local_asn: Asn(64512),
                cluster_id: ClusterId([10, 0, 0, 1].into()),
                next_hop_mode: NextHopMode::Keep,
                own_addresses: vec![[10, 0, 0, 1].into()],
                local_pref: LocalPref::DEFAULT,
                summarized: Vec::new(),
                filters: Vec::new(),
                default: ExportDefault::Accept,
            },
            families: vec![Family::Ipv4],
            four_octet_as: true,
            max_message_len: frame::MAX_LEN,
            add_path: FamilySet::EMPTY,
        },
    }
}

const A: PeerId = PeerId(0);
const B: PeerId = PeerId(1);
const C: PeerId = PeerId(2);

fn with_clients() -> (Rib, Heard) {
    let mut rib = rib();
    for id in [A, B, C] {
        rib.peer_up(id, client(id));
    }
    let mut heard = Heard::default();
    rib.turn(&mut heard);
    (rib, heard)
}

fn announce(rib: &mut Rib, from: PeerId, text: &str) {
    rib.announce(
        from,
        PathAttributes::originated(address(from)),
        [prefix(text)].into_iter(),
    );
}

#[test]
fn a_route_goes_to_all_but_its_source_encoded_once_for_all() {
    let (mut rib, mut heard) = with_clients();
    heard.messages = 0;
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, A, "172.17.9.0/24");
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(A), Vec::<String>::new());
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24", "172.17.9.0/24"]);
    assert_eq!(heard.prefixes(C), heard.prefixes(B));
    assert_eq!(
        heard.messages, 2,
        "both prefixes in one message to each receiver"
    );
    let route = &heard.tables[&B][&prefix("172.17.8.0/24")];
    assert_eq!(route.next_hop.address, address(A));
    assert_eq!(
        route.originator_id.map(|id| IpAddr::V4(id.0)),
        Some(address(A))
    );
}

#[test]
fn late_joiner_gets_all_then_eor() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    let late = PeerId(3);
    rib.peer_up(late, client(late));
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(late), ["172.17.8.0/24"]);
    assert_eq!(heard.end_of_rib[&late], 1);
    assert_eq!(heard.withdrawals.get(&late), None);
}

#[test]
fn withdrawal_falls_back_to_the_next_best() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, B, "172.17.8.0/24");
    rib.turn(&mut heard);
    let next_hop = |heard: &Heard, id| {
        heard.tables[&id]
            .get(&prefix("172.17.8.0/24"))
            .map(|route| route.next_hop.address)
    };
    assert_eq!(next_hop(&heard, C), Some(address(A)), "lower router id");
    rib.withdraw(A, [prefix("172.17.8.0/24")].into_iter());
    rib.turn(&mut heard);
    assert_eq!(next_hop(&heard, C), Some(address(B)));
    assert_eq!(next_hop(&heard, A), Some(address(B)));
    assert_eq!(
        heard.prefixes(B),
        Vec::<String>::new(),
        "what B heard of A's is withdrawn from it"
    );
    rib.withdraw(B, [prefix("172.17.8.0/24")].into_iter());
    rib.turn(&mut heard);
    assert_eq!(next_hop(&heard, C), None);
    assert_eq!(rib.show(Selection::default()).len(), 0);
}

#[test]
fn a_peer_that_drains_is_used_last() {
    let (mut rib, mut heard) = with_clients();
    let mut draining = PathAttributes::originated(address(A));
    draining.communities.push(Community::GRACEFUL_SHUTDOWN);
    for text in ["172.17.8.0/24", "172.17.9.0/24"] {
        announce(&mut rib, A, text);
        rib.announce(A, draining.clone(), [prefix(text)].into_iter());
    }
    announce(&mut rib, B, "172.17.8.0/24");
    rib.turn(&mut heard);
    let next_hop = |text: &str| heard.tables[&C][&prefix(text)].next_hop.address;
    assert_eq!(next_hop("172.17.8.0/24"), address(B));
    assert_eq!(next_hop("172.17.9.0/24"), address(A), "nobody else has it");
}

#[test]
fn implicit_withdraw_and_1000_updates_last_state_wins() {
    let (mut rib, mut heard) = with_clients();
    for round in 0..1000u32 {
        if round % 3 == 2 {
            rib.withdraw(A, [prefix("172.17.8.0/24")].into_iter());
        } else {
            let mut attributes = PathAttributes::originated(address(A));
            attributes.med = Some(crate::types::Med(round));
            rib.announce(A, attributes, [prefix("172.17.8.0/24")].into_iter());
        }
        if round % 7 == 0 {
            rib.turn(&mut heard);
        }
    }
    rib.turn(&mut heard);
    let route = &heard.tables[&B][&prefix("172.17.8.0/24")];
    assert_eq!(route.med, Some(crate::types::Med(999)));
}

#[test]
fn a_member_without_room_catches_up_with_the_last_state() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, A, "172.17.9.0/24");
    rib.turn(&mut heard);
    heard.full.insert(B);
    announce(&mut rib, A, "172.17.10.0/24");
    rib.withdraw(A, [prefix("172.17.9.0/24")].into_iter());
    rib.turn(&mut heard);
    assert_eq!(
        heard.prefixes(C),
        ["172.17.8.0/24", "172.17.10.0/24"],
        "others go on"
    );
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24", "172.17.9.0/24"]);
    heard.full.clear();
    announce(&mut rib, A, "172.17.11.0/24");
    rib.turn(&mut heard);
    assert_eq!(
        heard.prefixes(B),
        ["172.17.8.0/24", "172.17.10.0/24", "172.17.11.0/24"]
    );
    assert_eq!(heard.prefixes(C), heard.prefixes(B));
}

#[test]
fn stale_routes_stay_until_flushed_and_refreshed_ones_survive() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, A, "172.17.9.0/24");
    rib.turn(&mut heard);
    rib.peer_down(A, &[Family::Ipv4]);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B).len(), 2);
    assert_eq!(
        heard.withdrawals.get(&B),
        None,
        "nothing is withdrawn while A restarts"
    );
    rib.peer_up(A, client(A));
    announce(&mut rib, A, "172.17.8.0/24");
    rib.flush_stale(A, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24"]);
    assert_eq!(heard.withdrawals[&B], [prefix("172.17.9.0/24")]);
    assert_eq!(rib.counts(A, Family::Ipv4).accepted, 1);
}

#[test]
fn rejected_routes_are_kept_with_their_reason_and_not_used() {
    let (mut rib, mut heard) = with_clients();
    let mut looped = PathAttributes::originated(address(A));
    looped.originator_id = Some(RouterId([10, 0, 0, 1].into()));
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    rib.announce(A, looped, [prefix("172.17.8.0/24")].into_iter());
    rib.turn(&mut heard);
    assert_eq!(
        heard.prefixes(B),
        Vec::<String>::new(),
        "the older route goes"
    );
    let shown = rib.show(Selection::default());
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].rejection, Some(Rejection::OwnOriginatorId));
    assert!(!shown[0].is_best);
    let counts = rib.counts(A, Family::Ipv4);
    assert_eq!((counts.received, counts.accepted), (1, 0));
}

#[test]
fn next_hop_that_is_the_receiver_is_not_said_to_it() {
    let (mut rib, mut heard) = with_clients();
    rib.announce(
        A,
        PathAttributes::originated(address(B)),
        [prefix("172.17.8.0/24")].into_iter(),
    );
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), Vec::<String>::new());
    assert_eq!(heard.prefixes(C), ["172.17.8.0/24"]);
}

#[test]
fn own_routes_are_said_and_not_told_to_the_kernel() {
    let (mut rib, mut heard) = with_clients();
    let own = Originated::new([10, 0, 0, 1].into());
    rib.set_originated([(prefix("172.17.1.0/24"), own)].into());
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(A), ["172.17.1.0/24"]);
    assert_eq!(
        rib.learned(10),
        [LearnedRoute {
            prefix: prefix("172.17.1.0/24"),
            best: None,
            multipath: Vec::new(),
        }]
    );
    rib.set_originated(BTreeMap::new());
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(A), Vec::<String>::new());
}

#[test]
fn what_a_peer_hears_names_whose_route_it_is() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    let sources: Vec<_> = rib
        .show_advertised(B, None)
        .into_iter()
        .map(|(_, source, _)| source)
        .collect();
    assert_eq!(sources, [Some(address(A))]);
}

#[test]
fn route_refresh_resends_everything_even_unchanged() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    heard.tables.clear();
    rib.refresh(B, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24"]);
    assert_eq!(heard.prefixes(C), Vec::<String>::new());
}

#[test]
fn refreshes_are_demarcated_after_end_of_rib_and_one_by_one() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    heard.order.clear();
    for _ in 0..1000 {
        rib.refresh(B, Family::Ipv4);
    }
    rib.refresh(B, Family::Ipv6);
    rib.turn(&mut heard);
    assert_eq!(heard.order[&B], ["BoRR", "routes", "EoRR"]);
    assert!(!heard.order.contains_key(&C));
    // A late joiner that asks at once, and has no room for a while.
    heard.order.clear();
    rib.peer_down(B, &[]);
    rib.peer_up(B, client(B));
    rib.refresh(B, Family::Ipv4);
    heard.full.insert(B);
    rib.turn(&mut heard);
    heard.full.clear();
    rib.turn(&mut heard);
    assert_eq!(heard.order[&B], ["routes", "EoR", "BoRR", "routes", "EoRR"]);
    // A peer that does not know them.
    heard.order.clear();
    let mut plain = client(C);
    plain.enhanced_route_refresh = false;
    rib.peer_up(C, plain);
    rib.refresh(C, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(heard.order[&C], ["routes", "EoR", "routes"]);
}

#[test]
fn a_refresh_that_a_new_policy_interrupts_has_an_end() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    heard.order.clear();
    rib.refresh(B, Family::Ipv4);
    heard.full.insert(B);
    rib.turn(&mut heard);
    rib.set_policy(B, client(B));
    heard.full.clear();
    rib.turn(&mut heard);
    assert_eq!(
        heard.order[&B].last(),
        Some(&"EoRR"),
        "{:?}",
        heard.order[&B]
    );
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24"]);
}

#[test]
fn a_route_that_outgrows_a_peer_is_withdrawn_from_it_alone() {
    let (mut rib, mut heard) = with_clients();
    let mut extended = client(C);
    extended.group.max_message_len = frame::MAX_EXTENDED_LEN;
    rib.peer_up(C, extended);
    heard.extended.insert(C);
    let with_communities = |count: u32| PathAttributes {
        communities: (0..count).map(Community).collect(),
        ..PathAttributes::originated(address(A))
    };
    let announce = |rib: &mut Rib, count| {
        let prefixes = [prefix("172.17.8.0/24")].into_iter();
        rib.announce(A, with_communities(count), prefixes);
    };
    for (name, count, b_hears, c_hears) in [
        ("fits both", 10, true, true),
        ("outgrew 4096 octets", 2000, false, true),
        ("outgrew 65535 octets", 16_380, false, false),
        ("shrank for one", 3000, false, true),
        ("shrank for both", 11, true, true),
    ] {
        announce(&mut rib, count);
        rib.turn(&mut heard);
        let hears = |id| !heard.prefixes(id).is_empty();
        assert_eq!((hears(B), hears(C)), (b_hears, c_hears), "{name}");
    }
    // Who joins late, or asks again, hears the same.
    announce(&mut rib, 2000);
    rib.turn(&mut heard);
    for id in [B, C] {
        rib.refresh(id, Family::Ipv4);
    }
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), Vec::<String>::new());
    assert_eq!(
        heard.tables[&C][&prefix("172.17.8.0/24")].communities.len(),
        2000
    );
}

#[test]
fn what_a_refresh_does_not_repeat_goes() {
    let (mut rib, mut heard) = with_clients();
    for text in ["172.17.8.0/24", "172.17.9.0/24"] {
        announce(&mut rib, A, text);
    }
    announce(&mut rib, B, "172.17.10.0/24");
    rib.mark_stale(A, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(C).len(), 3, "stale routes are used");
    announce(&mut rib, A, "172.17.9.0/24");
    rib.flush_stale(A, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(C), ["172.17.9.0/24", "172.17.10.0/24"]);
}

/// What C hears of 172.17.8.0/24, which A and B announce, with these costs of their next hops.
fn next_hop_with(costs: &[(PeerId, Reach)], is_set_first: bool) -> Option<IpAddr> {
    let (mut rib, mut heard) = with_clients();
    let costs = costs
        .iter()
        .map(|(id, reach)| (address(*id), NextHopInfo::from(*reach)));
    if is_set_first {
        rib.set_next_hop_costs(costs.clone().collect());
    }
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, B, "172.17.8.0/24");
    rib.turn(&mut heard);
    rib.set_next_hop_costs(costs.collect());
    rib.turn(&mut heard);
    let route = heard.tables.get(&C)?.get(&prefix("172.17.8.0/24"))?;
    Some(route.next_hop.address)
}

#[test]
fn next_hops_decide_by_cost_and_only_where_they_resolve() {
    use Reach::{Cost, Unresolvable};
    for (name, costs, expected) in [
        ("nothing told", &[][..], Some(A)),
        ("equal", &[(A, Cost(1)), (B, Cost(1))], Some(A)),
        ("B is nearer", &[(A, Cost(1)), (B, Cost(0))], Some(B)),
        ("not told of is nearest", &[(A, Cost(1))], Some(B)),
        ("A does not resolve", &[(A, Unresolvable)], Some(B)),
        (
            "any cost beats none",
            &[(A, Unresolvable), (B, Cost(9))],
            Some(B),
        ),
        (
            "none resolves",
            &[(A, Unresolvable), (B, Unresolvable)],
            None,
        ),
    ] {
        for is_set_first in [false, true] {
            assert_eq!(
                next_hop_with(costs, is_set_first),
                expected.map(address),
                "{name}, known before the routes: {is_set_first}"
            );
        }
    }
}

#[test]
fn a_next_hop_that_resolves_again_brings_its_routes_back() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    rib.learned(10);
    rib.set_next_hop_costs([(address(A), Reach::Unresolvable.into())].into());
    assert_eq!(rib.next_hop_question(), [address(A)].into());
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(C), Vec::<String>::new());
    assert_eq!(rib.learned(10)[0].best, None);
    assert_eq!(
        rib.show(Selection::default())[0].rejection,
        Some(Rejection::NextHopUnresolvable)
    );
    assert_eq!(rib.counts(A, Family::Ipv4).accepted, 1, "policy has no say");
    rib.set_next_hop_costs(HashMap::new());
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(C), ["172.17.8.0/24"]);
    assert_eq!(rib.show(Selection::default())[0].rejection, None);
}

#[test]
fn the_consumer_hears_nothing_before_it_has_told_of_every_next_hop() {
    let (mut rib, mut heard) = with_clients();
    let told = |ids: &[PeerId]| -> HashMap<IpAddr, NextHopInfo> {
        let reached = |id: &PeerId| (address(*id), Reach::Cost(0).into());
        ids.iter().map(reached).collect()
    };
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    assert!(!rib.has_next_hop_question(), "nobody tells");
    assert_eq!(rib.learned(10).len(), 1);

    rib.set_next_hop_costs(HashMap::new());
    assert_eq!(rib.next_hop_question(), [address(A)].into());
    assert!(!rib.has_next_hop_question(), "asked once");
    rib.set_next_hop_costs(told(&[A]));
    announce(&mut rib, A, "172.17.9.0/24");
    announce(&mut rib, B, "172.17.10.0/24");
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(C).len(), 3, "peers do not wait");
    assert!(!rib.has_learned() && rib.learned(10).is_empty());
    assert_eq!(rib.next_hop_question(), [address(A), address(B)].into());
    rib.set_next_hop_costs(told(&[A]));
    assert!(!rib.has_learned(), "the answer to an earlier question");
    rib.set_next_hop_costs(told(&[A, B]));
    assert_eq!(rib.learned(10).len(), 2);

    announce(&mut rib, B, "172.17.11.0/24");
    rib.turn(&mut heard);
    assert!(!rib.has_next_hop_question(), "no new one");
    assert_eq!(rib.learned(10).len(), 1);
}

#[test]
fn routes_without_local_preference_have_ours() {
    let mut rib = rib();
    let external = PeerSetup {
        ebgp: true,
        client: false,
        ..client(B)
    };
    rib.peer_up(A, client(A));
    rib.peer_up(B, external);
    let of_inside = PathAttributes {
        local_pref: Some(LocalPref(150)),
        ..PathAttributes::originated(address(A))
    };
    rib.announce(A, of_inside, [prefix("172.17.8.0/24")].into_iter());
    announce(&mut rib, B, "172.17.8.0/24");
    for (ours, expected) in [(100, A), (200, B), (150, B), (149, A)] {
        rib.reconfigure(RibConfig {
            local_pref: LocalPref(ours),
            ..RibConfig::clone(&rib.config)
        });
        rib.turn(&mut Heard::default());
        let best = rib.learned(10).pop().and_then(|route| route.best);
        let next_hop = best.map(|best| best.next_hop.address);
        assert_eq!(next_hop, Some(address(expected)), "{ours}");
    }
}

#[test]
fn own_routes_need_no_next_hop() {
    let (mut rib, mut heard) = with_clients();
    let next_hop = IpAddr::from([10, 0, 0, 1]);
    rib.set_next_hop_costs([(next_hop, Reach::Unresolvable.into())].into());
    rib.set_originated([(prefix("172.17.1.0/24"), Originated::new(next_hop))].into());
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(A), ["172.17.1.0/24"]);
}

#[test]
fn a_new_export_policy_withdraws_what_it_does_not_say() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    let mut closed = client(B);
    closed.group.export.default = ExportDefault::Reject;
    rib.set_policy(B, closed);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), Vec::<String>::new());
    assert_eq!(heard.prefixes(C), ["172.17.8.0/24"]);
    assert_eq!(rib.advertised_counts()[&B], [0, 0]);
    assert_eq!(rib.advertised_counts()[&C], [1, 0]);
}

#[test]
fn a_new_export_policy_says_each_route_once() {
    let (mut rib, mut heard) = with_clients();
    for second in 0..10 {
        announce(&mut rib, A, &format!("10.{second}.0.0/16"));
    }
    rib.turn(&mut heard);
    let (messages, ends) = (heard.messages, heard.end_of_rib.clone());
    let mut setup = client(C);
    setup.group.export.is_draining = true;
    rib.set_policy(C, setup);
    rib.turn(&mut heard);
    assert_eq!(heard.messages, messages + 1);
    assert_eq!(
        heard.end_of_rib, ends,
        "the table was said to its end before"
    );
    let drains = |said: &PathAttributes| said.communities.contains(&Community::GRACEFUL_SHUTDOWN);
    assert_eq!(heard.tables[&C].len(), 10);
    assert!(heard.tables[&C].values().all(drains));
}

#[test]
fn a_withdrawal_survives_a_change_of_policy() {
    for (name, is_full) in [("in the same turn", false), ("without room before", true)] {
        let (mut rib, mut heard) = with_clients();
        announce(&mut rib, A, "172.17.8.0/24");
        announce(&mut rib, A, "172.17.9.0/24");
        rib.turn(&mut heard);
        if is_full {
            heard.full.insert(B);
        }
        rib.withdraw(A, [prefix("172.17.8.0/24")].into_iter());
        if is_full {
            rib.turn(&mut heard);
        }
        let mut other = client(B);
        other.group.export.local_pref = LocalPref(200);
        rib.set_policy(B, other);
        heard.full.clear();
        rib.turn(&mut heard);
        assert_eq!(heard.prefixes(B), ["172.17.9.0/24"], "{name}");
    }
}

#[test]
fn every_order_of_arrival_gives_the_same_table() {
    let routes = [
        (A, "172.17.8.0/24"),
        (B, "172.17.8.0/24"),
        (C, "172.17.8.0/24"),
        (B, "172.17.9.0/24"),
    ];
    let tables: Vec<Vec<(String, IpAddr)>> = (0..routes.len())
        .map(|shift| {
            let (mut rib, mut heard) = with_clients();
            for index in 0..routes.len() {
                let (from, text) = routes[(index + shift) % routes.len()];
                announce(&mut rib, from, text);
                rib.turn(&mut heard);
            }
            let best = rib
                .show(Selection::default())
                .into_iter()
                .filter(|path| path.is_best);
            best.map(|path| (path.prefix.to_string(), path.attributes.next_hop.address))
                .collect()
        })
        .collect();
    for table in &tables {
        assert_eq!(*table, tables[0]);
    }
}

/// A route that came back to us is not used, and neither is what it replaced (RFC 4456 §8).
#[test]
fn reflection_loops() {
    let own = [10, 0, 0, 1].into();
    for (name, loops) in [
        (
            "own ORIGINATOR_ID",
            PathAttributes {
                originator_id: Some(RouterId(own)),
                ..PathAttributes::originated(address(A))
            },
        ),
        (
            "own cluster id",
            PathAttributes {
                cluster_list: thin_vec::thin_vec![ClusterId([9, 9, 9, 9].into()), ClusterId(own)],
                ..PathAttributes::originated(address(A))
            },
        ),
    ] {
        let (mut rib, mut heard) = with_clients();
        announce(&mut rib, A, "10.9.0.0/16");
        rib.turn(&mut heard);
        assert_eq!(heard.prefixes(B), ["10.9.0.0/16"], "{name}");
        rib.announce(A, loops, [prefix("10.9.0.0/16")].into_iter());
        rib.turn(&mut heard);
        assert_eq!(heard.prefixes(B), Vec::<String>::new(), "{name}");
        let shown = rib.show(Selection::default());
        assert!(shown[0].rejection.is_some(), "{name}: {shown:?}");
    }
}
