use std::time::Duration;

use bgp::policy::{Action, PrefixMatch, Rule};
use bgp::speaker::config::{Originated, PeerSource};
use bgp::speaker::secret::Secret;

use super::*;
use crate::datastore::{load, parse_stream};

mod features;
mod reflector;

/// Four nodes: a1 and a2 in rack a with a reflector, b1 in rack b without, c1 in none.
const NODES: &str = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: a1, labels: {caracal.dev/rack: a, role: edge}}
spec: {bgp: {ipv4Address: 192.168.100.100/24}, podCIDRs: [172.17.8.0/24]}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: a2, labels: {caracal.dev/rack: a}}
spec: {bgp: {ipv4Address: 192.168.100.101/24, asNumber: 64600}, podCIDRs: [172.17.9.0/24]}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: b1, labels: {caracal.dev/rack: b}}
spec: {bgp: {ipv4Address: 192.168.200.101/24, ipv6Address: 'fd00:200::101'}, podCIDRs: [172.17.10.0/24]}
---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: c1}
spec: {bgp: {ipv4Address: 192.168.30.1/24, ipv6Address: 'fd00:30::1'}, podCIDRs: [172.17.11.0/24, 'fd00:17:11::/64']}
---
apiVersion: caracal.dev/v1alpha1
kind: Rack
metadata: {name: a}
spec: {asNumber: 64512, reflectors: [192.168.100.2]}
---
apiVersion: caracal.dev/v1alpha1
kind: Rack
metadata: {name: b}
spec: {asNumber: 64513}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: default}
spec: {cidr: 172.17.0.0/16}
";

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: caracal.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn peer(name: &str, spec: &str) -> String {
    document("BGPPeer", name, spec)
}

/// Two files: one that could be read.
fn passwords() -> Passwords {
    let secret = Secret::new("secret").expect("length");
    [
        ("/good".into(), Ok(secret)),
        ("/bad".into(), Err("/bad cannot be read: gone".to_owned())),
    ]
    .into()
}

/// The configuration of `node`, with the nodes above and `more` documents; and what is wrong.
fn config(node: &str, more: &str) -> (SpeakerConfig, Vec<String>) {
    let (snapshot, _) = load(&parse_stream("f.yaml", &format!("{NODES}{more}")));
    let (config, errors) =
        speaker_config(&snapshot, &passwords(), snapshot.node(node).expect(node));
    (config, errors.iter().map(ToString::to_string).collect())
}

/// `NAME KEY AS…` of each peer, in the order of the keys.
fn shown(config: &SpeakerConfig) -> Vec<String> {
    let line = |(key, peer): (&PeerKey, &PeerConfig)| {
        let asn = peer.remote_asn.map(|asn| asn.to_string());
        format!("{} {key} AS{}", peer.name, asn.unwrap_or_default())
    };
    config.peers.iter().map(line).collect()
}

fn only<'c>(config: &'c SpeakerConfig, address: &str) -> &'c PeerConfig {
    let address: IpAddr = address.parse().expect(address);
    let found = config.peers.iter().find(|(key, _)| key.address == address);
    found.map(|(_, peer)| peer).expect("peer")
}

#[test]
fn mesh_and_racks_generate_the_sessions() {
    let mesh_off = document(
        "BGPConfiguration",
        "default",
        "{nodeToNodeMeshEnabled: false}",
    );
    let password = document(
        "BGPConfiguration",
        "default",
        "{nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}",
    );
    let reflector_node = "---
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: d1}
spec: {bgp: {ipv4Address: 192.168.40.1, routeReflectorClusterID: 224.0.0.1}}
";
    let port = document("BGPConfiguration", "node.b1", "{listenPort: 1179}");
    for (name, node, more, expected) in [
        (
            "a rack with a reflector leaves the mesh",
            "a1",
            "",
            vec!["rack-a-192.168.100.2 192.168.100.2 AS64512"],
        ),
        (
            "also with an AS number of its own",
            "a2",
            "",
            vec!["rack-a-192.168.100.2 192.168.100.2 AS64512"],
        ),
        (
            "a rack without stays in the mesh",
            "b1",
            "",
            vec!["mesh-c1 192.168.30.1 AS64512"],
        ),
        ("no rack", "c1", "", vec!["mesh-b1 192.168.200.101 AS64513"]),
        ("no mesh", "c1", mesh_off.as_str(), vec![]),
        (
            "no mesh, rack",
            "a1",
            mesh_off.as_str(),
            vec!["rack-a-192.168.100.2 192.168.100.2 AS64512"],
        ),
        (
            "a mesh that wants a password is closed",
            "c1",
            password.as_str(),
            vec![],
        ),
        (
            "a node that reflects is in no mesh",
            "c1",
            reflector_node,
            vec!["mesh-b1 192.168.200.101 AS64513"],
        ),
        ("nor has one itself", "d1", reflector_node, vec![]),
        (
            "another port",
            "c1",
            port.as_str(),
            vec!["mesh-b1 192.168.200.101:1179 AS64513"],
        ),
    ] {
        let (config, errors) = config(node, more);
        assert_eq!(shown(&config), expected, "{name}");
        assert_eq!(errors, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_own_as_number_follows_the_precedence() {
    let default = document("BGPConfiguration", "default", "{asNumber: 64999}");
    let lone = |spec: &str, label: &str| {
        format!(
            "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {{name: n, labels: {{caracal.dev/rack: {label}}}}}\nspec: {spec}\n"
        )
    };
    let own = "{bgp: {ipv4Address: 10.0.0.1, asNumber: 64700}}";
    let none = "{bgp: {ipv4Address: 10.0.0.1}}";
    for (name, more, expected) in [
        ("node before rack", lone(own, "a") + &default, 64700),
        ("rack before default", lone(none, "b") + &default, 64513),
        (
            "default where the rack has none",
            lone(none, "x") + &default + &document("Rack", "x", "{}"),
            64999,
        ),
        ("built in", lone(none, "''"), 64512),
    ] {
        assert_eq!(config("n", &more).0.asn, Asn(expected), "{name}");
    }
    let (config, _) = config(
        "c1",
        &peer(
            "p",
            "{peerIP: 10.9.9.9, asNumber: 64999, localASNumber: 64999}",
        ),
    );
    let peer = only(&config, "10.9.9.9");
    assert_eq!(peer.local_asn, Some(Asn(64999)));
    assert_eq!(
        peer.import_default,
        ImportDefault::Accept,
        "it is internal then"
    );
}

#[test]
fn internal_and_external_sessions_have_their_defaults() {
    let inside_pools = |own: &str| ImportDefault::InsidePools {
        pools: vec!["172.17.0.0/16".parse().expect("pool")],
        own: own
            .split(' ')
            .map(|cidr| cidr.parse().expect(cidr))
            .collect(),
        lent: Vec::new(),
    };
    let (closed, own_only) = (inside_pools("172.17.8.0/24"), ExportDefault::OwnOnly);
    let open = (ImportDefault::Accept, ExportDefault::Accept);
    for (name, node, more, address, ttl, mode, policy) in [
        (
            "iBGP reflector",
            "a1",
            String::new(),
            "192.168.100.2",
            255,
            NextHopMode::Auto,
            open.clone(),
        ),
        (
            "eBGP reflector",
            "a2",
            String::new(),
            "192.168.100.2",
            255,
            NextHopMode::Auto,
            (inside_pools("172.17.9.0/24"), ExportDefault::OwnOnly),
        ),
        (
            "eBGP mesh",
            "c1",
            String::new(),
            "192.168.200.101",
            255,
            NextHopMode::SelfAddress,
            (
                inside_pools("172.17.11.0/24 fd00:17:11::/64"),
                ExportDefault::OwnOnly,
            ),
        ),
        (
            "iBGP router",
            "a1",
            peer("p", "{peerIP: 10.9.9.9, asNumber: 64512}"),
            "10.9.9.9",
            255,
            NextHopMode::Auto,
            open.clone(),
        ),
        (
            "eBGP router",
            "a1",
            peer("p", "{peerIP: 10.9.9.9, asNumber: 64520}"),
            "10.9.9.9",
            1,
            NextHopMode::Auto,
            (closed.clone(), own_only.clone()),
        ),
        (
            "multihop",
            "a1",
            peer("p", "{peerIP: 10.9.9.9, asNumber: 64520, ebgpMultihop: 3}"),
            "10.9.9.9",
            3,
            NextHopMode::Auto,
            (closed.clone(), own_only.clone()),
        ),
        (
            "any hops",
            "a1",
            peer(
                "p",
                "{peerIP: 10.9.9.9, asNumber: 64520, ebgpMultihop: true, nextHopMode: Keep}",
            ),
            "10.9.9.9",
            255,
            NextHopMode::Keep,
            (closed.clone(), own_only.clone()),
        ),
        (
            "TTL security",
            "a1",
            peer(
                "p",
                "{peerIP: 10.9.9.9, asNumber: 64520, ttlSecurity: 1, nextHopMode: Self}",
            ),
            "10.9.9.9",
            255,
            NextHopMode::SelfAddress,
            (closed, own_only),
        ),
        (
            "Calico's old Keep",
            "a1",
            peer(
                "p",
                "{peerIP: 10.9.9.9, asNumber: 64512, keepOriginalNextHop: true}",
            ),
            "10.9.9.9",
            255,
            NextHopMode::Keep,
            open,
        ),
    ] {
        let (config, errors) = config(node, &more);
        let peer = only(&config, address);
        assert_eq!((peer.ttl, peer.next_hop_mode), (ttl, mode), "{name}");
        assert_eq!(
            (peer.import_default.clone(), peer.export_default.clone()),
            policy,
            "{name}"
        );
        assert!(!peer.passive && !peer.route_reflector_client, "{name}");
        assert_eq!(errors, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn peers_are_for_the_nodes_they_name() {
    let address = "peerIP: 10.9.9.9, asNumber: 64520";
    for (name, spec, nodes) in [
        (
            "everyone",
            format!("{{{address}}}"),
            vec!["a1", "a2", "b1", "c1"],
        ),
        ("one node", format!("{{node: b1, {address}}}"), vec!["b1"]),
        (
            "by selector",
            format!("{{nodeSelector: \"role == 'edge'\", {address}}}"),
            vec!["a1"],
        ),
        (
            "by empty fields",
            format!("{{node: '', nodeSelector: '', {address}}}"),
            vec!["a1", "a2", "b1", "c1"],
        ),
        (
            "one of the nodes itself",
            "{peerIP: 192.168.100.100}".to_owned(),
            vec!["a2", "b1", "c1"],
        ),
        (
            "selected nodes, both ways",
            "{node: a1, peerSelector: \"!has(caracal.dev/rack)\"}".to_owned(),
            vec!["a1", "c1"],
        ),
        (
            "selected nodes, one way",
            "{node: a1, peerSelector: \"!has(caracal.dev/rack)\", reversePeering: Manual}"
                .to_owned(),
            vec!["a1"],
        ),
    ] {
        let mesh_off = document(
            "BGPConfiguration",
            "default",
            "{nodeToNodeMeshEnabled: false}",
        );
        let more = peer("p", &spec) + &mesh_off;
        let found: Vec<&str> = ["a1", "a2", "b1", "c1"]
            .into_iter()
            .filter(|node| {
                config(node, &more)
                    .0
                    .peers
                    .values()
                    .any(|peer| peer.name == "p")
            })
            .collect();
        assert_eq!(found, nodes, "{name}");
    }
}

#[test]
fn nodes_that_are_peers_bring_their_number_and_families() {
    let selected = peer("p", "{node: c1, peerSelector: has(caracal.dev/rack)}");
    let (config, errors) = config("c1", &selected);
    assert_eq!(
        shown(&config),
        [
            "p 192.168.100.100 AS64512",
            "p 192.168.100.101 AS64600",
            "p 192.168.200.101 AS64513"
        ]
    );
    let both = vec![Family::Ipv4, Family::Ipv6];
    assert_eq!(only(&config, "192.168.100.100").families, [Family::Ipv4]);
    assert_eq!(only(&config, "192.168.200.101").families, both);
    let local = only(&config, "192.168.200.101").local_address;
    assert_eq!(local, Some("192.168.30.1".parse().expect("address")));
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn an_explicit_peer_changes_a_generated_session_field_by_field() {
    let more = peer(
        "fast",
        "{node: a1, peerIP: 192.168.100.2, holdTime: 9s, keepaliveTime: 3s, passive: true, maxPrefixes: 7}",
    );
    let (changed, errors) = config("a1", &more);
    let (plain, _) = config("a1", "");
    let expected = PeerConfig {
        name: "fast".to_owned(),
        source: PeerSource::Peer,
        hold_time: bgp::types::HoldTime::new(9).expect("hold time"),
        keepalive_time: Some(Duration::from_secs(3)),
        passive: true,
        max_prefixes: Some(7),
        ..only(&plain, "192.168.100.2").clone()
    };
    assert_eq!(shown(&changed), ["fast 192.168.100.2 AS64512"]);
    assert_eq!(only(&changed, "192.168.100.2"), &expected);
    assert_eq!(errors, Vec::<String>::new());

    let rack = document(
        "Rack",
        "z",
        "{asNumber: 64512, reflectors: ['192.168.100.9:1179']}",
    );
    let node = "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: z1, labels: {caracal.dev/rack: z}}\nspec: {bgp: {ipv4Address: 10.0.0.1}}\n";
    let more = format!(
        "{rack}{node}{}",
        peer("p", "{peerIP: 192.168.100.9, holdTime: 9s}")
    );
    assert_eq!(
        shown(&config("z1", &more).0),
        ["p 192.168.100.9:1179 AS64512"],
        "the generated port"
    );

    let external = peer("p", "{node: a1, peerIP: 192.168.100.2, asNumber: 64999}");
    let (config, _) = config("a1", &external);
    let peer = only(&config, "192.168.100.2");
    assert_eq!(
        (peer.ttl, &peer.export_default),
        (1, &ExportDefault::OwnOnly),
        "it is external now"
    );
}

#[test]
fn of_two_peers_for_one_session_the_first_by_name_wins() {
    let first = peer("p1", "{peerIP: 10.9.9.9, asNumber: 64520}");
    let second = peer("p2", "{node: a1, peerIP: 10.9.9.9, asNumber: 64521}");
    let other_port = peer("p3", "{node: a1, peerIP: '10.9.9.9:1179', asNumber: 64522}");
    for more in [
        format!("{first}{second}{other_port}"),
        format!("{other_port}{second}{first}"),
    ] {
        let (config, errors) = config("a1", &more);
        assert_eq!(
            shown(&config),
            [
                "p1 10.9.9.9 AS64520",
                "p3 10.9.9.9:1179 AS64522",
                "rack-a-192.168.100.2 192.168.100.2 AS64512"
            ]
        );
        assert_eq!(
            errors,
            [
                "f.yaml: BGPPeer/p2: spec.peerIP: the session with 10.9.9.9 belongs to BGPPeer p1; remove one of them"
            ]
        );
    }
    let (config, errors) = config("b1", &second);
    assert_eq!(shown(&config).len(), 1, "p2 is for a1 alone");
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn filters_are_taken_in_order_and_a_missing_one_closes_the_session() {
    let more = document(
        "BGPFilter",
        "f1",
        "{importV4: [{cidr: 203.0.113.0/24, matchOperator: In, action: Accept}]}",
    ) + &document("BGPFilter", "f2", "{exportV6: [{action: Reject}]}");
    let (open, errors) = config(
        "a1",
        &format!(
            "{more}{}",
            peer(
                "p",
                "{peerIP: 10.9.9.9, asNumber: 64520, filters: [f2, f1]}"
            )
        ),
    );
    let filters = &only(&open, "10.9.9.9").filters;
    let names: Vec<&str> = filters.iter().map(|filter| filter.name.as_str()).collect();
    assert_eq!(names, ["f2", "f1"]);
    let rules: Vec<&Rule> = filters
        .iter()
        .flat_map(|filter| &filter.import_v4)
        .collect();
    let cidr = "203.0.113.0/24".parse().expect("cidr");
    let inside = PrefixMatch::In {
        cidr,
        lengths: None,
    };
    let rule = Rule::new(inside, Action::ACCEPT);
    assert_eq!(rules, [&rule]);
    assert_eq!(errors, Vec::<String>::new());

    let (closed, errors) = config(
        "a1",
        &format!(
            "{more}{}",
            peer(
                "p",
                "{peerIP: 10.9.9.9, asNumber: 64520, filters: [f1, gone]}"
            )
        ),
    );
    let peer = only(&closed, "10.9.9.9");
    assert_eq!(
        (
            peer.filters.len(),
            &peer.import_default,
            &peer.export_default
        ),
        (0, &ImportDefault::Reject, &ExportDefault::Reject)
    );
    assert_eq!(
        errors,
        [
            "f.yaml: BGPPeer/p: spec.filters[1]: there is no usable BGPFilter gone, so nothing passes; add or mend it"
        ]
    );
}

#[test]
fn a_peer_that_cannot_be_honoured_is_closed() {
    let secret = "password: {secretKeyRef: {name: a, key: b}}";
    let router = "peerIP: 10.9.9.9";
    for (name, more, gone, error) in [
        (
            "a password",
            peer("p", &format!("{{{router}, asNumber: 64520, {secret}}}")),
            "10.9.9.9",
            None,
        ),
        (
            "a password that cannot be read",
            peer(
                "p",
                &format!("{{{router}, asNumber: 64520, password: {{file: /bad}}}}"),
            ),
            "10.9.9.9",
            Some("spec.password.file: /bad cannot be read: gone; the session is not configured"),
        ),
        (
            "a password on a generated session",
            peer("p", &format!("{{peerIP: 192.168.100.2, {secret}}}")),
            "192.168.100.2",
            None,
        ),
        (
            "no AS number",
            peer("p", &format!("{{{router}}}")),
            "10.9.9.9",
            Some("spec.asNumber: missing; write the peer's AS number"),
        ),
        (
            "a family without address",
            peer(
                "p",
                &format!("{{{router}, asNumber: 64520, families: [ipv6]}}"),
            ),
            "10.9.9.9",
            Some("spec.families: ipv6 is left out: this node has no ipv6 address"),
        ),
        (
            "a peer of another family",
            peer("p", "{peerIP: 'fd00::9', asNumber: 64520}"),
            "fd00::9",
            Some(
                "spec.peerIP: this node has no ipv6 address to reach fd00::9 from; \
                  write bgp.ipv6Address in its Node, or sourceAddress here",
            ),
        ),
        (
            "a source of another family",
            peer(
                "p",
                &format!("{{{router}, asNumber: 64520, sourceAddress: 'fd00::1'}}"),
            ),
            "10.9.9.9",
            Some("spec.sourceAddress: fd00::1 and the peer 10.9.9.9 are of different families"),
        ),
    ] {
        let (config, errors) = config("a1", &more);
        let gone: IpAddr = gone.parse().expect(gone);
        assert!(config.peers.keys().all(|key| key.address != gone), "{name}");
        let expected: Vec<String> = error
            .iter()
            .map(|error| format!("f.yaml: BGPPeer/p: {error}"))
            .collect();
        assert_eq!(errors, expected, "{name}");
    }
    let wider = peer("range", "{peerPrefixes: [10.0.0.0/8], asNumber: 64520}");
    let (config, _) = config(
        "a1",
        &(peer("p", &format!("{{{router}, asNumber: 64520, {secret}}}")) + &wider),
    );
    let closed = only(&config, "10.9.9.9");
    assert_eq!(
        (&closed.import_default, &closed.export_default),
        (&ImportDefault::Reject, &ExportDefault::Reject),
        "no way around through a range"
    );
}

#[test]
fn a_password_in_a_file_is_that_of_the_session() {
    let of = |spec: &str| {
        config(
            "a1",
            &peer(
                "p",
                &format!("{{{spec}, asNumber: 64512, password: {{file: /good}}}}"),
            ),
        )
    };
    let expected = Secret::new("secret").ok();
    let (listed, errors) = of("peerIP: 10.9.9.9");
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(only(&listed, "10.9.9.9").password, expected);
    let (generated, _) = of("peerIP: 192.168.100.2");
    assert_eq!(only(&generated, "192.168.100.2").password, expected);
    let (range, _) = of("peerPrefixes: [10.9.9.0/24]");
    let templates: Vec<_> = range.ranges.values().map(|t| t.password.clone()).collect();
    assert_eq!(templates, [expected]);
}

#[test]
fn clients_are_internal() {
    let node = "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: d1}\nspec: {bgp: {ipv4Address: 192.168.40.1, routeReflectorClusterID: 224.0.0.1}}\n";
    let (config, errors) = config(
        "d1",
        &format!(
            "{node}{}{}{}",
            peer(
                "all",
                "{nodeSelector: '!has(caracal.dev/rack)', peerSelector: all()}"
            ),
            peer(
                "forced",
                "{node: d1, peerIP: 10.9.9.9, asNumber: 64512, routeReflectorClient: false}"
            ),
            peer(
                "wrong",
                "{node: d1, peerIP: 10.9.9.8, asNumber: 64520, routeReflectorClient: true}"
            ),
        ),
    );
    assert_eq!(
        config.cluster_id,
        Some(ClusterId(Ipv4Addr::new(224, 0, 0, 1)))
    );
    for (name, address, expected) in [
        ("internal node", "192.168.100.100", true),
        ("external node", "192.168.200.101", false),
        ("said not to be", "10.9.9.9", false),
        ("external", "10.9.9.8", false),
    ] {
        assert_eq!(
            only(&config, address).route_reflector_client,
            expected,
            "{name}"
        );
    }
    assert_eq!(
        errors,
        [
            "f.yaml: BGPPeer/wrong: spec.routeReflectorClient: clients are of the own AS (RFC 4456); remove it, or correct asNumber"
        ]
    );
}

#[test]
fn own_prefixes_are_announced_with_own_addresses() {
    let (config, errors) = config("c1", "");
    let next_hop = |address: &str| Originated::new(address.parse().expect(address));
    assert_eq!(
        config.originated,
        [
            (
                "172.17.11.0/24".parse().expect("prefix"),
                next_hop("192.168.30.1")
            ),
            (
                "fd00:17:11::/64".parse().expect("prefix"),
                next_hop("fd00:30::1")
            ),
        ]
        .into()
    );
    assert_eq!(errors, Vec::<String>::new());
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["192.168.30.1:179", "[fd00:30::1]:179"]);
    assert_eq!(config.router_id, RouterId(Ipv4Addr::new(192, 168, 30, 1)));
}

#[test]
fn what_cannot_be_announced_is_said() {
    let hidden = document(
        "IPPool",
        "hidden",
        "{cidr: 172.17.11.0/24, disableBGPExport: true}",
    );
    let (config_c1, _) = config("c1", &hidden);
    assert_eq!(config_c1.originated.len(), 1, "the longest pool decides");
    let lone = "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: n, labels: {caracal.dev/rack: gone}}\nspec: {podCIDRs: ['fd00:9::/64']}\n";
    let (config, errors) = config("n", lone);
    assert!(config.originated.is_empty() && config.peers.is_empty() && config.listen.is_empty());
    assert_eq!(
        errors,
        [
            "f.yaml: Node/n: metadata.labels[caracal.dev/rack]: there is no Rack gone, so the node is in none; add it or change the label",
            "f.yaml: Node/n: spec.bgp: no address, so no BGP; set ipv4Address or ipv6Address",
            "f.yaml: Node/n: spec.podCIDRs[0]: fd00:9::/64 is not announced: set spec.bgp.ipv6Address, its next hop",
        ]
    );
}

#[test]
fn a_rack_that_cannot_be_reached_is_said() {
    let rack = document("Rack", "six", "{reflectors: ['fd00::2']}");
    let node = "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: n, labels: {caracal.dev/rack: six}}\nspec: {bgp: {ipv4Address: 10.0.0.1}}\n";
    let (config, errors) = config("n", &format!("{rack}{node}"));
    assert!(config.peers.is_empty());
    assert_eq!(
        errors,
        [
            "f.yaml: Node/n: spec.bgp: no address of the family of Rack six's reflectors, so no session; set one"
        ]
    );
}

#[test]
fn settings_of_one_node_come_before_the_default() {
    let more = document(
        "BGPConfiguration",
        "default",
        "{listenPort: 1179, localPreference: 200, asNumber: 64999}",
    ) + &document(
        "BGPConfiguration",
        "node.c1",
        "{routerID: 1.2.3.4, listenAddresses: [127.0.0.9], listenPort: 2179}",
    );
    let (config_c1, _) = config("c1", &more);
    assert_eq!(config_c1.router_id, RouterId(Ipv4Addr::new(1, 2, 3, 4)));
    assert_eq!(
        config_c1.listen,
        ["127.0.0.9:2179".parse().expect("socket")]
    );
    assert_eq!(config_c1.local_pref, LocalPref(200));
    let (config_a1, _) = config("a1", &more);
    assert_eq!(
        config_a1.listen,
        ["192.168.100.100:1179".parse().expect("socket")]
    );
    let same = document("BGPConfiguration", "default", "{routerID: 1.2.3.4}");
    let (_, errors) = config("c1", &same);
    assert_eq!(
        errors,
        [
            "f.yaml: Node/c1: spec.bgp: router id 1.2.3.4 is also that of node a1; set routerID in BGPConfiguration node.c1"
        ]
    );
}
