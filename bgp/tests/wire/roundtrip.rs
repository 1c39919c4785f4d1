//! What we encode we decode, and nothing anyone can send makes a decoder panic or hang.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::{Asn, ClusterId, Family, FamilySet, HoldTime, LocalPref, Med, Prefix, RouterId};
use bgp::wire::as_path::{AsPath, Segment, SegmentKind};
use bgp::wire::attribute::{Aggregator, NextHop, Origin, PathAttributes, UnknownAttribute};
use bgp::wire::capability::{Capability, GracefulRestart};
use bgp::wire::community::{Community, ExtendedCommunity, LargeCommunity};
use bgp::wire::frame::{MAX_EXTENDED_LEN, MAX_LEN};
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::refresh::RouteRefresh;
use bgp::wire::update::{
    EncodeContext, UpdateContext, decode_update, encode_announce, encode_withdraw,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::checks::{decode, is_same, pass_on, read};
use crate::message::{EBGP, IBGP, TWO_OCTET, add_path, frame, message};

pub fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 100,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(4271),
        ..ProptestConfig::default()
    }
}

pub fn any_asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=65535u32, 65536..=u32::MAX].prop_map(Asn)
}

pub fn any_as_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![Just(SegmentKind::Sequence), Just(SegmentKind::Set)];
    let segment = (kind, vec(any_asn(), 1..8)).prop_map(|(kind, asns)| Segment { kind, asns });
    vec(segment, 0..4).prop_map(|segments| AsPath { segments })
}

pub fn any_router_id() -> impl Strategy<Value = RouterId> {
    (1..=u32::MAX).prop_map(|id| RouterId(id.into()))
}

pub fn any_next_hop(family: Family) -> impl Strategy<Value = NextHop> {
    let v6 = (any::<Ipv6Addr>(), option::of(any::<u64>())).prop_map(|(address, local)| NextHop {
        address: IpAddr::V6(address),
        link_local: local.map(|bits| Ipv6Addr::from((0xFE80 << 112) | u128::from(bits))),
    });
    let v4 = any::<Ipv4Addr>().prop_map(|address| IpAddr::V4(address).into());
    match family {
        Family::Ipv4 => prop_oneof![v4, v6].boxed(),
        Family::Ipv6 => v6.boxed(),
    }
}

prop_compose! {
    pub fn any_attributes(family: Family)(
        (origin, as_path, next_hop, med, local_pref) in (
            proptest::sample::select(&[Origin::Igp, Origin::Egp, Origin::Incomplete][..]),
            any_as_path(),
            any_next_hop(family),
            option::of(any::<u32>().prop_map(Med)),
            option::of(any::<u32>().prop_map(LocalPref)),
        ),
        (atomic_aggregate, aggregator, originator_id, cluster_list, only_to_customer) in (
            any::<bool>(),
            option::of((any_asn(), any::<Ipv4Addr>())),
            option::of(any_router_id()),
            vec(any::<Ipv4Addr>().prop_map(ClusterId), 0..5),
            option::of(any::<u32>().prop_map(Asn)),
        ),
        (communities, extended_communities, large_communities, unknown) in (
            vec(any::<u32>().prop_map(Community), 0..100),
            vec(any::<[u8; 8]>().prop_map(ExtendedCommunity), 0..20),
            proptest::collection::btree_set(any::<[u32; 3]>().prop_map(LargeCommunity), 0..20),
            proptest::collection::btree_map(40..=255u8, vec(any::<u8>(), 0..300), 0..3),
        ),
    ) -> PathAttributes {
        let mut attributes = PathAttributes::originated(next_hop.address);
        attributes.origin = origin;
        attributes.as_path = as_path;
        attributes.next_hop = next_hop;
        attributes.med = med;
        attributes.local_pref = local_pref;
        attributes.atomic_aggregate = atomic_aggregate;
        attributes.aggregator = aggregator.map(|(asn, address)| Aggregator { asn, address });
        attributes.communities = communities.into();
        attributes.extended_communities = extended_communities.into();
        attributes.large_communities = large_communities.into_iter().collect();
        attributes.originator_id = originator_id;
        attributes.cluster_list = cluster_list.into();
        attributes.only_to_customer = only_to_customer;
        let unknown = unknown.into_iter();
        attributes.unknown = unknown
            .map(|(code, value)| UnknownAttribute { flags: 0xE0, code, value })
            .collect();
        attributes
    }
}

pub fn any_prefix(family: Family) -> impl Strategy<Value = Prefix> {
    let made = |address, length| Prefix::new(address, length).expect("length fits");
    match family {
        Family::Ipv4 => (any::<Ipv4Addr>(), 0..=32u8)
            .prop_map(move |(address, length)| made(IpAddr::V4(address), length))
            .boxed(),
        Family::Ipv6 => (any::<Ipv6Addr>(), 0..=128u8)
            .prop_map(move |(address, length)| made(IpAddr::V6(address), length))
            .boxed(),
    }
}

pub fn any_routes() -> impl Strategy<Value = (Family, PathAttributes, Vec<Prefix>)> {
    proptest::sample::select(&Family::ALL[..]).prop_flat_map(|family| {
        let prefixes = vec(any_prefix(family), 1..1500);
        (Just(family), any_attributes(family), prefixes)
    })
}

pub fn any_capability() -> impl Strategy<Value = Capability> {
    let family = proptest::sample::select(&Family::ALL[..]);
    let restart = (
        any::<[bool; 2]>(),
        0..4096u16,
        vec((family, any::<bool>()), 0..3),
    );
    let (restart, u24) = (
        restart.prop_map(|(flags, restart_time_secs, families)| GracefulRestart {
            restart_state: flags[0],
            notification: flags[1],
            restart_time_secs,
            families,
        }),
        0..(1u32 << 24),
    );
    prop_oneof![
        any::<(u16, u8)>().prop_map(|(afi, safi)| Capability::MultiProtocol { afi, safi }),
        Just(Capability::RouteRefresh),
        vec(any::<(u16, u16, u16)>(), 0..5).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        any::<u8>().prop_map(Capability::Role),
        restart.prop_map(Capability::GracefulRestart),
        vec(any::<(u16, u8, u8)>(), 0..5).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRouteRefresh),
        vec((any::<u16>(), any::<u8>(), any::<u8>(), u24), 0..5)
            .prop_map(Capability::LongLivedGracefulRestart),
        ("[a-zäö]{0,20}", "[a-z.]{0,20}")
            .prop_map(|(host, domain)| Capability::Fqdn { host, domain }),
        (128..=255u8, vec(any::<u8>(), 0..=255))
            .prop_map(|(code, data)| Capability::Unknown { code, data }),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn generated_routes_survive_the_round_trip((family, attributes, prefixes) in any_routes()) {
        for (four_octet_as, max_len) in
            [(true, MAX_LEN), (false, MAX_LEN), (true, MAX_EXTENDED_LEN)]
        {
            let context = EncodeContext { four_octet_as, max_len, add_path: FamilySet::EMPTY };
            let encoded = encode_announce(family, &attributes, prefixes.iter().copied(), &context);
            let mut found = Vec::new();
            for message in encoded.expect("attributes are bounded") {
                prop_assert!(message.len() <= max_len);
                let frame = frame(&message);
                let context = UpdateContext { four_octet_as, ebgp: false, add_path: FamilySet::EMPTY };
                let update = decode_update(&frame.body, &context).expect("ours");
                prop_assert_eq!(&update.errors, &[]);
                prop_assert!(update.withdrawn.is_empty());
                prop_assert_eq!(update.announced.len(), 1);
                let announcement = &update.announced[0];
                prop_assert!(is_same(&announcement.attributes, &attributes, four_octet_as));
                found.extend(announcement.nlri.iter());
            }
            prop_assert_eq!(&found, &prefixes);
        }
    }

    #[test]
    fn withdrawals_survive_the_round_trip((family, _, prefixes) in any_routes()) {
        let context = EncodeContext { four_octet_as: true, max_len: MAX_LEN, add_path: FamilySet::EMPTY };
        let mut found = Vec::new();
        for message in encode_withdraw(family, prefixes.iter().copied(), &context) {
            prop_assert!(message.len() <= MAX_LEN);
            let frame = frame(&message);
            let update = decode_update(&frame.body, &EBGP).expect("ours");
            prop_assert_eq!(update.end_of_rib, None);
            found.extend(update.withdrawn.iter().flat_map(|run| run.iter()));
        }
        prop_assert_eq!(found, prefixes);
    }

    #[test]
    fn opens_survive_the_round_trip(
        asn in any_asn(),
        hold_time in prop_oneof![Just(0), 3..=u16::MAX],
        router_id in any_router_id(),
        capabilities in vec(any_capability(), 0..15),
    ) {
        let mut capabilities = capabilities;
        capabilities.push(Capability::FourOctetAs(asn));
        let hold_time = HoldTime::new(hold_time).expect("not 1 or 2");
        let open = Open { asn, hold_time, router_id, capabilities };
        prop_assert_eq!(Open::decode(&frame(&open.encode()).body), Ok(open));
    }

    #[test]
    fn notifications_survive_the_round_trip(
        (code, subcode) in any::<(u8, u8)>(),
        data in vec(any::<u8>(), 0..4075),
    ) {
        let notification = Notification::with_data(code, subcode, data);
        let encoded = notification.encode();
        prop_assert!(!notification.describe().is_empty());
        prop_assert_eq!(Notification::decode(&frame(&encoded).body), Ok(notification));
    }
}

/// A small generator of our own, so that a seed means the same messages for ever (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).expect("64 bits");
        usize::try_from(self.next() % limit).expect("below limit")
    }

    fn octet(&mut self) -> u8 {
        // Values that lengths and counts like to be wrong with, half of the time.
        let telling = [0, 1, 2, 3, 4, 14, 15, 32, 33, 64, 128, 129, 254, 255];
        match self.below(2) {
            0 => telling[self.below(telling.len())],
            _ => u8::try_from(self.below(256)).expect("below 256"),
        }
    }
}

/// Valid messages of every kind, to start from.
fn corpus() -> Vec<Vec<u8>> {
    let mut runner = proptest::test_runner::TestRunner::new(config());
    let mut corpus = Vec::new();
    for _ in 0..40 {
        let (family, attributes, mut prefixes) = generate(&any_routes(), &mut runner);
        prefixes.truncate(8);
        for four_octet_as in [true, false] {
            let context = EncodeContext {
                four_octet_as,
                max_len: MAX_LEN,
                add_path: FamilySet::EMPTY,
            };
            let prefixes = prefixes.iter().copied();
            let announced = encode_announce(family, &attributes, prefixes.clone(), &context);
            corpus.extend(announced.expect("room"));
            corpus.extend(encode_withdraw(family, prefixes, &context));
        }
        let capabilities = generate(&vec(any_capability(), 0..10), &mut runner);
        let open = Open {
            asn: Asn(65001),
            hold_time: HoldTime::DEFAULT,
            router_id: RouterId([192, 0, 2, 1].into()),
            capabilities,
        };
        corpus.push(open.encode());
    }
    corpus.push(Notification::cease_with_message(2, "maintenance").encode());
    corpus.push(bgp::wire::frame::keepalive());
    for family in Family::ALL {
        let kind = bgp::wire::refresh::RefreshKind::Request;
        corpus.push(RouteRefresh { family, kind }.encode());
        corpus.push(bgp::wire::update::encode_end_of_rib(family));
    }
    corpus.into_iter().map(|message| message.to_vec()).collect()
}

fn generate<S: Strategy>(strategy: &S, runner: &mut proptest::test_runner::TestRunner) -> S::Value {
    use proptest::strategy::ValueTree;
    strategy
        .new_tree(runner)
        .expect("strategy has values")
        .current()
}

fn mutate(message: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        // The marker is spared, or hardly anything would get past it.
        let at = 19 + random.below(message.len().saturating_sub(19));
        let at = at.min(message.len());
        match random.below(6) {
            0 | 1 if at < message.len() => message[at] = random.octet(),
            2 if at < message.len() => message[at] ^= 1 << random.below(8),
            3 => message.insert(at, random.octet()),
            4 if at < message.len() => {
                message.remove(at);
            }
            _ => message.truncate(at.max(19)),
        }
    }
    if random.below(8) > 0 {
        let length = u16::try_from(message.len())
            .expect("small messages")
            .to_be_bytes();
        message[16..18].copy_from_slice(&length);
    }
}

/// A million messages, mutated or of random octets, end without a panic, and what is accepted is
/// encoded and read as the same again.
#[test]
fn roundtrip_property() {
    const THREADS: u64 = 4;
    let corpus = corpus();
    let counts: Vec<[u32; 2]> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| {
                let corpus = &corpus;
                scope.spawn(move || quarter_of_a_million(corpus, 0x7606 + seed))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|counts| counts.expect("no panic")).collect()
    });
    let [accepted, malformed] = [0, 1].map(|at| counts.iter().map(|pair| pair[at]).sum::<u32>());
    println!("{accepted} accepted, {malformed} malformed");
    // Both ways through the decoders were taken often.
    assert!(accepted > 100_000 && malformed > 100_000);
}

/// How many were accepted, and how many not.
fn quarter_of_a_million(corpus: &[Vec<u8>], seed: u64) -> [u32; 2] {
    let mut random = Random(seed);
    let contexts = [EBGP, IBGP, TWO_OCTET, add_path()];
    let mut counts = [0, 0];
    for round in 0..250_000 {
        let message = match round % 5 {
            0 => random_message(&mut random),
            _ => {
                let mut message = corpus[random.below(corpus.len())].clone();
                mutate(&mut message, &mut random);
                message
            }
        };
        let context = &contexts[random.below(contexts.len())];
        let shown = Shown(seed, &message);
        let mut is_accepted = false;
        if let Some(frame) = read(&message) {
            is_accepted = decode(&frame, context);
            pass_on(&frame, context);
        }
        counts[usize::from(!is_accepted)] += 1;
        drop(shown);
    }
    counts
}

/// A right header before any octets.
fn random_message(random: &mut Random) -> Vec<u8> {
    let kind = 1 + u8::try_from(random.below(5)).expect("below 5");
    let length = random.below(200);
    let body: Vec<u8> = (0..length).map(|_| random.octet()).collect();
    message(kind, &body)
}

/// Prints the message if the test fails while it is in work.
struct Shown<'a>(u64, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {:#x}: {:02x?}", self.0, self.1);
        }
    }
}
