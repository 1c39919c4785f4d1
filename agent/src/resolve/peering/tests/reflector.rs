use super::*;

const REFLECTOR: &str = "
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, listenAddresses: [192.168.100.9, 192.168.100.2, '2001:db8::2']}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: nodes}
spec: {peerPrefixes: [192.168.100.0/24, 192.168.101.0/24], asNumber: 64512, routeReflectorClient: true}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: rack-b}
spec: {peerIP: 192.168.200.2, asNumber: 64513}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: default}
spec: {cidr: 172.17.0.0/16, ipipMode: CrossSubnet}
";

fn reflector(stream: &str) -> (SpeakerConfig, Vec<String>) {
    let (snapshot, errors) = load(&parse_stream("r.yaml", stream));
    assert_eq!(errors, []);
    let (config, errors) = reflector_config(&snapshot, &Passwords::new());
    (config, errors.iter().map(ToString::to_string).collect())
}

#[test]
fn a_reflector_has_clients_by_range_and_other_reflectors() {
    let (config, errors) = reflector(REFLECTOR);
    assert_eq!(errors, Vec::<String>::new());
    let own = Ipv4Addr::new(192, 168, 100, 2);
    assert_eq!(
        (config.asn, config.router_id, config.cluster_id),
        (Asn(64512), RouterId(own), Some(ClusterId(own)))
    );
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(
        listen,
        [
            "192.168.100.2:179",
            "192.168.100.9:179",
            "[2001:db8::2]:179"
        ]
    );
    let ranges: Vec<String> = config.ranges.keys().map(ToString::to_string).collect();
    assert_eq!(ranges, ["192.168.100.0/24", "192.168.101.0/24"]);
    for range in config.ranges.values() {
        assert!(range.route_reflector_client);
        assert_eq!(
            (range.source, range.ttl, range.next_hop_mode),
            (PeerSource::Range, 255, NextHopMode::Keep)
        );
        assert_eq!(
            (&range.import_default, &range.export_default),
            (&ImportDefault::Accept, &ExportDefault::Accept)
        );
        assert_eq!(range.families, Family::ALL);
    }
    let other = only(&config, "192.168.200.2");
    assert_eq!(
        (other.ttl, other.next_hop_mode, other.local_address),
        (255, NextHopMode::Keep, Some(IpAddr::V4(own)))
    );
    let pools = vec!["172.17.0.0/16".parse().expect("pool")];
    assert_eq!(
        (&other.import_default, &other.export_default),
        (
            &ImportDefault::AllButMartians { pools },
            &ExportDefault::Accept
        )
    );
}

#[test]
fn what_a_reflector_cannot_use_is_one_line_each() {
    let node = "---\napiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: a1}\n";
    let base = document(
        "BGPConfiguration",
        "default",
        "{asNumber: 64512, listenAddresses: [192.168.100.2]}",
    );
    let lone = document("BGPConfiguration", "default", "{asNumber: 64512}");
    for (name, stream, expected) in [
        (
            "no router id",
            lone,
            vec![
                "r.yaml: BGPConfiguration/default: spec.routerID: missing; write routerID, or an IPv4 address in listenAddresses",
            ],
        ),
        (
            "a node",
            format!("{base}{node}"),
            vec!["r.yaml: Node/a1: kind: a reflector has no use for it; remove it"],
        ),
        (
            "peers by node",
            base.clone()
                + &peer("p1", "{node: a1, peerIP: 10.0.0.1, asNumber: 1}")
                + &peer(
                    "p2",
                    "{nodeSelector: has(x), peerIP: 10.0.0.1, asNumber: 1}",
                )
                + &peer("p3", "{peerSelector: has(x)}"),
            vec![
                "r.yaml: BGPPeer/p1: spec.node: a reflector knows no nodes; use peerIP or peerPrefixes alone",
                "r.yaml: BGPPeer/p2: spec.nodeSelector: a reflector knows no nodes; use peerIP or peerPrefixes alone",
                "r.yaml: BGPPeer/p3: spec.peerSelector: a reflector knows no nodes; use peerIP or peerPrefixes alone",
            ],
        ),
        (
            "one range twice",
            base.clone()
                + &peer("p1", "{peerPrefixes: [10.0.0.0/8], asNumber: 1}")
                + &peer("p2", "{peerPrefixes: [10.0.0.0/8], asNumber: 2}"),
            vec![
                "r.yaml: BGPPeer/p2: spec.peerPrefixes[0]: 10.0.0.0/8 belongs to BGPPeer p1; remove one of them",
            ],
        ),
        ("fine", base, vec![]),
    ] {
        assert_eq!(reflector(&stream).1, expected, "{name}");
    }
}

#[test]
fn a_reflectors_rack_says_its_as_number() {
    let rack = document(
        "Rack",
        "a",
        "{asNumber: 64600, reflectors: [192.168.100.2]}",
    );
    assert_eq!(reflector(&format!("{REFLECTOR}{rack}")).0.asn, Asn(64600));
}

fn rack(name: &str, reflector: &str, aggregates: &str) -> String {
    let spec = format!("{{reflectors: [{reflector}], aggregates: [{aggregates}]}}");
    document("Rack", name, &spec)
}

#[test]
fn a_reflector_announces_the_aggregates_of_its_rack() {
    let own = rack(
        "a",
        "192.168.100.2",
        "{cidr: 172.17.8.0/22, nextHop: 192.168.100.1}, {cidr: 172.18.0.0/16, nextHop: 192.168.100.3, summaryOnly: false}",
    );
    let other = rack(
        "b",
        "192.168.200.2",
        "{cidr: 172.17.12.0/22, nextHop: 192.168.200.1}",
    );
    let (config, errors) = reflector(&format!("{REFLECTOR}{own}{other}"));
    assert_eq!(errors, Vec::<String>::new());
    let read: Vec<(String, String, bool)> = config
        .aggregates
        .iter()
        .map(|(prefix, aggregate)| {
            let next_hop = aggregate.next_hop.to_string();
            (prefix.to_string(), next_hop, aggregate.summary_only)
        })
        .collect();
    let expected = [
        ("172.17.8.0/22", "192.168.100.1", true),
        ("172.18.0.0/16", "192.168.100.3", false),
    ];
    assert_eq!(
        read,
        expected.map(|(cidr, by, only)| (cidr.to_owned(), by.to_owned(), only))
    );
}

#[test]
fn an_aggregate_that_a_reflector_cannot_announce_is_one_line() {
    let fine = rack(
        "a",
        "192.168.100.2",
        "{cidr: 172.17.8.0/22, nextHop: 192.168.100.1}",
    );
    for (name, racks, expected) in [
        (
            "by another address of ours",
            rack(
                "a",
                "192.168.100.2",
                "{cidr: 172.17.8.0/22, nextHop: 192.168.100.9}",
            ),
            "r.yaml: Rack/a: spec.aggregates[0].nextHop: 192.168.100.9 is an address of this reflector, which forwards nothing; write the address of the router that has the rack's routes (the ToR)",
        ),
        (
            "what another rack of ours has",
            fine.clone()
                + &rack(
                    "b",
                    "192.168.100.2",
                    "{cidr: 172.17.0.0/16, nextHop: 192.168.100.1}",
                ),
            "r.yaml: Rack/b: spec.aggregates[0].cidr: 172.17.0.0/16 overlaps 172.17.8.0/22 of another Rack; remove one",
        ),
        (
            "of a rack that is not ours, and none is",
            rack(
                "b",
                "192.168.200.2",
                "{cidr: 172.17.0.0/16, nextHop: 192.168.200.1}",
            ),
            "r.yaml: Rack/b: spec.reflectors: not this reflector, so nobody hears of the aggregates; add an address of its listenAddresses",
        ),
    ] {
        let (_, errors) = reflector(&format!("{REFLECTOR}{racks}"));
        assert_eq!(errors, [expected], "{name}");
    }
}

#[test]
fn a_node_of_a_rack_with_aggregates_has_none() {
    let aggregates = "aggregates: [{cidr: 172.17.8.0/22, nextHop: 192.168.100.1}]";
    let nodes = NODES.replace(
        "reflectors: [192.168.100.2]",
        &format!("reflectors: [192.168.100.2], {aggregates}"),
    );
    assert_ne!(nodes, NODES);
    let (snapshot, errors) = load(&parse_stream("s.yaml", &nodes));
    assert_eq!(errors, []);
    let node = snapshot.node("a1").expect("a1");
    let (config, errors) = speaker_config(&snapshot, &Passwords::new(), node);
    assert_eq!(errors, []);
    assert_eq!(config.aggregates, BTreeMap::new());
    assert_eq!(config.peers.len(), 1);
}
