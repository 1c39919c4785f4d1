//! A speaker against a peer whose every message the test writes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp::policy::{Action, Filter, Operation, PrefixMatch, Rule};
use bgp::rib::decision;
use bgp::speaker::config::{
    GracefulRestartConfig, Originated, PeerConfig, PeerKey, PeerSource, SpeakerConfig,
};
use bgp::speaker::status::RouteStatus;
use bgp::speaker::{RouteSelection, Speaker};
use bgp::types::{Asn, Family, FamilySet, HoldTime, LocalPref, Prefix, RouterId};
use bgp::wire::attribute::PathAttributes;
use bgp::wire::capability::{Capability, GracefulRestart};
use bgp::wire::community::Community;
use bgp::wire::frame::{self, Frame, MAX_EXTENDED_LEN, MAX_LEN, MessageKind};
use bgp::wire::open::Open;
use bgp::wire::refresh::{RefreshKind, RouteRefresh};
use bgp::wire::update::{self, EncodeContext, UpdateContext};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(20);
const AS: Asn = Asn(64512);
const NEXT_HOP: [u8; 4] = [192, 0, 2, 77];

fn prefix(text: &str) -> Prefix {
    text.parse().expect(text)
}

/// A speaker that dials `addresses`, its clients, and originates 10.1.0.0/16.
fn start(addresses: &[SocketAddr]) -> Speaker {
    Speaker::start(config(addresses), false).0
}

fn config(addresses: &[SocketAddr]) -> SpeakerConfig {
    let own = Originated::new([192, 0, 2, 1].into());
    let mut peer = PeerConfig::new("scripted", PeerSource::Peer, Some(AS));
    peer.connect_retry_time = Duration::from_millis(200);
    peer.route_reflector_client = true;
    let peers = addresses.iter().map(|address| {
        let key = PeerKey {
            address: address.ip(),
            port: address.port(),
        };
        (key, peer.clone())
    });
    SpeakerConfig {
        asn: AS,
        router_id: RouterId(Ipv4Addr::new(192, 0, 2, 1)),
        cluster_id: None,
        listen: Vec::new(),
        local_addresses: vec![[192, 0, 2, 1].into()],
        local_pref: LocalPref::DEFAULT,
        peers: peers.collect(),
        ranges: BTreeMap::new(),
        max_dynamic_peers: 0,
        originated: BTreeMap::from([(prefix("10.1.0.0/16"), own)]),
        aggregates: BTreeMap::new(),
        decision: decision::Options::default(),
        is_draining: false,
        graceful_restart: GracefulRestartConfig::default(),
    }
}

/// The scripted peer's end of an established session.
struct Script {
    stream: TcpStream,
    buffer: BytesMut,
    max_len: usize,
}

impl Script {
    /// A speaker with an established session, whose peer has these capabilities besides IPv4 and
    /// 4-octet AS numbers.
    async fn establish(capabilities: &[Capability]) -> (Speaker, Script) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let speaker = start(&[listener.local_addr().expect("bound")]);
        (speaker, Script::accept(&listener, 77, capabilities).await)
    }

    /// Peer `number` takes a session in.
    async fn accept(listener: &TcpListener, number: u8, capabilities: &[Capability]) -> Script {
        let (stream, _) = listener.accept().await.expect("accept");
        let mut script = Script {
            stream,
            buffer: BytesMut::new(),
            max_len: MAX_LEN,
        };
        let mut all = vec![Family::Ipv4.into(), Capability::FourOctetAs(AS)];
        all.extend_from_slice(capabilities);
        let open = Open {
            asn: AS,
            hold_time: HoldTime::DEFAULT,
            router_id: RouterId(Ipv4Addr::new(192, 0, 2, number)),
            capabilities: all,
        };
        script.send(&[open.encode(), frame::keepalive()]).await;
        for kind in [MessageKind::Open, MessageKind::Keepalive] {
            assert_eq!(script.receive().await.kind, kind);
        }
        if capabilities.contains(&Capability::ExtendedMessage) {
            script.max_len = MAX_EXTENDED_LEN;
        }
        script
    }

    async fn send(&mut self, messages: &[Bytes]) {
        for message in messages {
            self.stream.write_all(message).await.expect("written");
        }
    }

    async fn receive(&mut self) -> Frame {
        let next = async {
            loop {
                let frame = frame::next_frame(&mut self.buffer, self.max_len).expect("valid");
                match frame {
                    Some(frame) => return frame,
                    None => {
                        let read = self.stream.read_buf(&mut self.buffer).await.expect("read");
                        assert!(read > 0, "closed by the speaker");
                    }
                }
            }
        };
        tokio::time::timeout(DEADLINE, next)
            .await
            .expect("a message in time")
    }

    /// The next messages but KEEPALIVEs, in short.
    async fn hears(&mut self, count: usize) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let frame = self.receive().await;
            match frame.kind {
                MessageKind::Keepalive => {}
                MessageKind::RouteRefresh => {
                    let refresh = RouteRefresh::decode(&frame.body).expect("valid");
                    heard.push(format!("{:?}", refresh.expect("ours").kind));
                }
                MessageKind::Update => heard.push(brief(&frame.body)),
                MessageKind::Open | MessageKind::Notification => {
                    panic!("unexpected {:?}: {:?}", frame.kind, frame.body)
                }
            }
        }
        heard
    }
}

fn brief(body: &[u8]) -> String {
    let context = UpdateContext {
        four_octet_as: true,
        ebgp: false,
        add_path: FamilySet::EMPTY,
    };
    let update = update::decode_update(body, &context).expect("valid");
    let announced = update.announced.iter().flat_map(|a| a.nlri.iter());
    let withdrawn = update.withdrawn.iter().flat_map(|nlri| nlri.iter());
    announced
        .map(|prefix| format!("+{prefix}"))
        .chain(withdrawn.map(|prefix| format!("-{prefix}")))
        .chain(update.end_of_rib.map(|_| "EoR".to_owned()))
        .collect()
}

fn announce(prefixes: &[&str], attributes: &PathAttributes, max_len: usize) -> Vec<Bytes> {
    let context = EncodeContext {
        four_octet_as: true,
        max_len,
        add_path: FamilySet::EMPTY,
    };
    let prefixes = prefixes.iter().map(|text| prefix(text));
    update::encode_announce(Family::Ipv4, attributes, prefixes, &context).expect("fits")
}

fn plain(prefixes: &[&str]) -> Bytes {
    let attributes = PathAttributes::originated(IpAddr::from(NEXT_HOP));
    announce(prefixes, &attributes, MAX_LEN).remove(0)
}

fn refresh(kind: RefreshKind) -> Bytes {
    let family = Family::Ipv4;
    RouteRefresh { family, kind }.encode()
}

/// Waits until what the peer sent is what `holds` wants.
async fn shows(speaker: &Speaker, holds: impl Fn(&[RouteStatus]) -> bool) {
    let poll = async {
        loop {
            let mut routes = speaker.routes(RouteSelection::default()).await;
            routes.retain(|route| route.peer.is_some());
            if holds(&routes) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, poll).await.is_err() {
        let routes = speaker.routes(RouteSelection::default()).await;
        panic!("not what was expected: {routes:#?}");
    }
}

fn are(routes: &[RouteStatus], expected: &[(&str, bool)]) -> bool {
    let shown = routes.iter().map(|route| (route.prefix, route.stale));
    let expected = expected.iter().map(|(text, stale)| (prefix(text), *stale));
    shown.eq(expected)
}

#[tokio::test]
async fn a_received_refresh_flushes_what_it_does_not_repeat() {
    let (speaker, mut peer) =
        Script::establish(&[Capability::RouteRefresh, Capability::EnhancedRouteRefresh]).await;
    peer.send(&[plain(&["10.2.0.0/16", "10.3.0.0/16"])]).await;
    shows(&speaker, |routes| {
        are(routes, &[("10.2.0.0/16", false), ("10.3.0.0/16", false)])
    })
    .await;
    peer.send(&[refresh(RefreshKind::Begin), plain(&["10.3.0.0/16"])])
        .await;
    shows(&speaker, |routes| {
        are(routes, &[("10.2.0.0/16", true), ("10.3.0.0/16", false)])
    })
    .await;
    peer.send(&[refresh(RefreshKind::End)]).await;
    shows(&speaker, |routes| are(routes, &[("10.3.0.0/16", false)])).await;
}

#[tokio::test]
async fn demarcations_keep_their_place_between_the_routes_of_one_segment() {
    let (speaker, mut peer) =
        Script::establish(&[Capability::RouteRefresh, Capability::EnhancedRouteRefresh]).await;
    let burst = [
        plain(&["10.4.0.0/16"]),
        refresh(RefreshKind::Begin),
        plain(&["10.5.0.0/16"]),
        refresh(RefreshKind::End),
        plain(&["10.6.0.0/16"]),
    ];
    peer.send(&[burst.concat().into()]).await;
    shows(&speaker, |routes| {
        are(routes, &[("10.5.0.0/16", false), ("10.6.0.0/16", false)])
    })
    .await;
}

#[tokio::test]
async fn a_new_policy_asks_for_a_refresh_and_does_not_wait_for_it() {
    let prepending = Rule::new(
        PrefixMatch::Any,
        Action::Accept(vec![Operation::PrependAsPath(vec![Asn(65001)])]),
    );
    for (name, capabilities, is_asked) in [
        ("route refresh", &[Capability::RouteRefresh][..], true),
        ("none", &[], false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("bound");
        let speaker = start(&[address]);
        let mut peer = Script::accept(&listener, 77, capabilities).await;
        assert_eq!(peer.hears(2).await, ["+10.1.0.0/16", "EoR"], "{name}");
        peer.send(&[plain(&["10.2.0.0/16"])]).await;
        shows(&speaker, |routes| are(routes, &[("10.2.0.0/16", false)])).await;
        for (rules, as_path, rejected) in [
            (vec![Rule::new(PrefixMatch::Any, Action::Reject)], "", true),
            (vec![prepending.clone()], "65001", false),
        ] {
            let mut changed = config(&[address]);
            for peer in changed.peers.values_mut() {
                peer.filters = vec![Filter {
                    name: "f".into(),
                    import_v4: rules.clone(),
                    ..Filter::default()
                }];
            }
            speaker.configure(changed).await;
            // The peer answers nothing.
            shows(&speaker, |routes| {
                are(routes, &[("10.2.0.0/16", false)])
                    && routes[0].as_path == as_path
                    && routes[0].rejected_reason.is_some() == rejected
            })
            .await;
            let received = RouteSelection {
                received: Some(address.ip()),
                ..RouteSelection::default()
            };
            let received = speaker.routes(received).await;
            assert_eq!(received[0].as_path, "", "{name}: as it was sent");
        }
        // What is said after it shows what was said until then.
        let mut more = config(&[address]);
        let own = Originated::new([192, 0, 2, 1].into());
        more.originated.insert(prefix("10.9.0.0/16"), own);
        speaker.configure(more).await;
        let expected = match is_asked {
            true => &["+10.9.0.0/16", "Request", "Request", "Request"][..],
            false => &["+10.9.0.0/16"],
        };
        let mut heard = peer.hears(expected.len()).await;
        // The last question may be overtaken by the route.
        heard.sort();
        assert_eq!(heard, expected, "{name}");
    }
}

#[tokio::test]
async fn a_requested_refresh_is_demarcated_where_that_was_negotiated() {
    for (name, capabilities, expected) in [
        (
            "enhanced",
            &[Capability::RouteRefresh, Capability::EnhancedRouteRefresh][..],
            &["Begin", "+10.1.0.0/16", "End"][..],
        ),
        ("plain", &[Capability::RouteRefresh], &["+10.1.0.0/16"]),
    ] {
        let (_speaker, mut peer) = Script::establish(capabilities).await;
        assert_eq!(peer.hears(2).await, ["+10.1.0.0/16", "EoR"], "{name}");
        peer.send(&[refresh(RefreshKind::Request)]).await;
        assert_eq!(peer.hears(expected.len()).await, expected, "{name}");
    }
}

/// A speaker with a peer for each of these, who have all heard what it has.
async fn several(capabilities: &[&[Capability]]) -> (Speaker, Vec<Script>) {
    let mut listeners = Vec::new();
    for _ in capabilities {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("bind"));
    }
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("bound"))
        .collect();
    let speaker = start(&addresses);
    let mut peers = Vec::new();
    for (number, (listener, capabilities)) in (71..).zip(listeners.iter().zip(capabilities)) {
        let mut peer = Script::accept(listener, number, capabilities).await;
        assert_eq!(peer.hears(2).await, ["+10.1.0.0/16", "EoR"]);
        peers.push(peer);
    }
    (speaker, peers)
}

#[tokio::test]
async fn one_octet_segments() {
    let (speaker, mut peer) = Script::establish(&[]).await;
    peer.stream.set_nodelay(true).expect("set");
    for octet in [plain(&["10.2.0.0/16"]), plain(&["10.3.0.0/16"])].concat() {
        peer.send(&[Bytes::from(vec![octet])]).await;
        // Lets the speaker's reader run, which is on this thread.
        tokio::task::yield_now().await;
    }
    shows(&speaker, |routes| {
        are(routes, &[("10.2.0.0/16", false), ("10.3.0.0/16", false)])
    })
    .await;
}

#[tokio::test]
async fn three_messages_in_one_segment() {
    let (speaker, mut peer) = Script::establish(&[]).await;
    let segment = [
        plain(&["10.2.0.0/16"]),
        frame::keepalive(),
        plain(&["10.3.0.0/16"]),
    ];
    peer.send(&[segment.concat().into()]).await;
    shows(&speaker, |routes| {
        are(routes, &[("10.2.0.0/16", false), ("10.3.0.0/16", false)])
    })
    .await;
}

#[tokio::test]
async fn taw_withdraws_at_other_peers() {
    let (speaker, mut peers) = several(&[&[], &[]]).await;
    let [from, other] = &mut peers[..] else {
        unreachable!("two were made");
    };
    from.send(&[plain(&["10.2.0.0/16"])]).await;
    assert_eq!(other.hears(1).await, ["+10.2.0.0/16"]);
    let mut malformed = plain(&["10.2.0.0/16"]).to_vec();
    // The first attribute is ORIGIN: flags, type, length, value. There is no origin 9.
    let origin = frame::HEADER_LEN + 4;
    assert_eq!(malformed[origin..origin + 4], [0x40, 1, 1, 0]);
    malformed[origin + 3] = 9;
    from.send(&[malformed.into(), plain(&["10.3.0.0/16"])])
        .await;
    assert_eq!(
        other.hears(2).await,
        ["-10.2.0.0/16", "+10.3.0.0/16"],
        "RFC 7606 §7.1"
    );
    shows(&speaker, |routes| are(routes, &[("10.3.0.0/16", false)])).await;
    for peer in speaker.peers().await {
        assert_eq!((peer.state.as_str(), peer.flaps), ("established", 0));
    }
}

#[tokio::test]
async fn next_hop_self_zero_multicast_never_used() {
    let (speaker, mut peers) = several(&[&[], &[]]).await;
    let [from, other] = &mut peers[..] else {
        unreachable!("two were made");
    };
    let unusable = [
        ("10.2.0.0/16", [192, 0, 2, 1], "next hop is an own address"),
        ("10.3.0.0/16", [0; 4], "next hop is not a unicast address"),
        (
            "10.4.0.0/16",
            [224, 0, 0, 5],
            "next hop is not a unicast address",
        ),
        ("10.5.0.0/16", [255; 4], "next hop is not a unicast address"),
        (
            "10.6.0.0/16",
            [127, 0, 0, 1],
            "next hop is not a unicast address",
        ),
    ];
    for (route, next_hop, _) in unusable {
        let attributes = PathAttributes::originated(next_hop.into());
        from.send(&announce(&[route], &attributes, MAX_LEN)).await;
    }
    from.send(&[plain(&["10.7.0.0/16"])]).await;
    assert_eq!(other.hears(1).await, ["+10.7.0.0/16"], "and nothing before");
    let shown = speaker.routes(RouteSelection::default()).await;
    for (route, _, reason) in unusable {
        let shown = shown.iter().find(|shown| shown.prefix == prefix(route));
        let shown = shown.expect(route);
        assert!(!shown.best, "{route}");
        assert_eq!(shown.rejected_reason.as_deref(), Some(reason), "{route}");
    }
    assert!(speaker.peers().await.iter().all(|peer| peer.flaps == 0));
}

fn with_communities(count: u32) -> PathAttributes {
    PathAttributes {
        communities: (0..count).map(Community).collect(),
        ..PathAttributes::originated(IpAddr::from(NEXT_HOP))
    }
}

#[tokio::test]
async fn extended_messages_go_between_those_that_have_them() {
    let extended = [Capability::ExtendedMessage];
    let (_speaker, mut peers) = several(&[&extended, &extended, &[]]).await;
    let [from, with, without] = &mut peers[..] else {
        unreachable!("three were made");
    };
    from.send(&announce(&["10.2.0.0/16"], &with_communities(1), MAX_LEN))
        .await;
    assert_eq!(with.hears(1).await, ["+10.2.0.0/16"]);
    assert_eq!(without.hears(1).await, ["+10.2.0.0/16"]);
    let attributes = with_communities(16_000);
    let large = announce(&["10.2.0.0/16"], &attributes, MAX_EXTENDED_LEN);
    assert!(large[0].len() > 64_000);
    from.send(&large).await;
    assert_eq!(with.hears(1).await, ["+10.2.0.0/16"]);
    assert_eq!(without.hears(1).await, ["-10.2.0.0/16"], "RFC 8654 §4");
}

#[tokio::test]
async fn a_longer_message_of_a_peer_without_extended_messages_is_an_error() {
    let (_speaker, mut peer) = Script::establish(&[]).await;
    let large = announce(&["10.2.0.0/16"], &with_communities(2000), MAX_EXTENDED_LEN);
    let length = u16::try_from(large[0].len()).expect("a message");
    peer.send(&large).await;
    let answer = loop {
        let frame = peer.receive().await;
        if frame.kind == MessageKind::Notification {
            break frame.body;
        }
    };
    let [high, low] = length.to_be_bytes();
    assert_eq!(answer[..], [1, 2, high, low], "RFC 4271 §6.1");
}

fn keeps_forwarding() -> Capability {
    Capability::GracefulRestart(GracefulRestart {
        restart_state: false,
        notification: true,
        restart_time_secs: 120,
        families: vec![(Family::Ipv4, true)],
    })
}

/// A speaker that dials one peer, whose configuration `change` makes.
async fn dialling(change: impl Fn(&mut PeerConfig)) -> (Speaker, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let mut config = config(&[listener.local_addr().expect("bound")]);
    config.peers.values_mut().for_each(|peer| {
        peer.idle_hold_time = Duration::from_millis(100);
        change(peer);
    });
    (Speaker::start(config, false).0, listener)
}

async fn flaps(speaker: &Speaker, count: u64) {
    let poll = async {
        while speaker.peers().await[0].flaps < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let wait = tokio::time::timeout(DEADLINE, poll).await;
    wait.expect("the session ends");
}

/// RFC 4724 §4.2: at the second restart in a row what was stale goes, what was announced meanwhile
/// is kept.
#[tokio::test]
async fn a_second_restart_costs_only_what_was_not_announced_since_the_first() {
    let (speaker, listener) = dialling(|peer| peer.strict_consecutive_restart = true).await;
    let mut first = Script::accept(&listener, 77, &[keeps_forwarding()]).await;
    let routes = plain(&["10.2.0.0/16", "10.3.0.0/16"]);
    first.send(&[routes]).await;
    shows(&speaker, |routes| routes.len() == 2).await;
    drop(first);
    let mut second = Script::accept(&listener, 77, &[keeps_forwarding()]).await;
    second.send(&[plain(&["10.2.0.0/16"])]).await;
    shows(&speaker, |routes| {
        are(routes, &[("10.2.0.0/16", false), ("10.3.0.0/16", true)])
    })
    .await;
    drop(second);
    shows(&speaker, |routes| are(routes, &[("10.2.0.0/16", true)])).await;
}

#[tokio::test]
async fn too_many_prefixes_are_not_kept_for_a_peer_that_closes_at_once() {
    let (speaker, listener) = dialling(|peer| {
        peer.max_prefixes = Some(1);
        peer.long_lived_stale_time = Some(Duration::from_secs(3600));
    })
    .await;
    let mut script = Script::accept(&listener, 77, &[keeps_forwarding()]).await;
    script.send(&[plain(&["10.2.0.0/16", "10.3.0.0/16"])]).await;
    drop(script);
    flaps(&speaker, 1).await;
    shows(&speaker, |routes| routes.is_empty()).await;
}

#[tokio::test]
async fn routes_of_before_a_restart_do_not_count_as_too_many() {
    let (speaker, listener) = dialling(|peer| peer.max_prefixes = Some(2)).await;
    let mut first = Script::accept(&listener, 77, &[keeps_forwarding()]).await;
    first.send(&[plain(&["10.2.0.0/16", "10.3.0.0/16"])]).await;
    shows(&speaker, |routes| routes.len() == 2).await;
    drop(first);
    let mut second = Script::accept(&listener, 77, &[keeps_forwarding()]).await;
    second.send(&[plain(&["10.4.0.0/16", "10.5.0.0/16"])]).await;
    shows(&speaker, |routes| routes.len() == 4).await;
    second
        .send(&[update::encode_end_of_rib(Family::Ipv4)])
        .await;
    shows(&speaker, |routes| {
        are(routes, &[("10.4.0.0/16", false), ("10.5.0.0/16", false)])
    })
    .await;
    second.send(&[plain(&["10.6.0.0/16"])]).await;
    flaps(&speaker, 2).await;
    shows(&speaker, |routes| routes.is_empty()).await;
}
