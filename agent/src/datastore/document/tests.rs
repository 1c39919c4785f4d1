use super::*;

fn problems(stream: &str) -> Vec<String> {
    let documents = parse_stream("f.yaml", stream);
    let (_, errors) = load(&documents);
    errors.iter().map(ToString::to_string).collect()
}

fn document(kind: &str, spec: &str) -> String {
    format!("apiVersion: caracal.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
}

const EXAMPLES: &str = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: a1, labels: {caracal.dev/rack: a}}
spec:
  bgp: {ipv4Address: 192.168.100.100/24, asNumber: 64512}
  podCIDRs: [172.17.8.0/24]
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: default}
spec: {cidr: 172.17.0.0/16, ipipMode: CrossSubnet, natOutgoing: true}
---
apiVersion: caracal.dev/v1alpha1
kind: Rack
metadata: {name: a}
spec: {asNumber: 64512, reflectors: [192.168.100.2]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: false}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: lab-router}
spec: {node: a1, peerIP: 192.168.100.3, asNumber: 64520, filters: [from-lab]}
---
apiVersion: caracal.dev/v1alpha1
kind: WorkloadEndpoint
metadata: {name: db-0, namespace: default, labels: {app: db}}
spec: {node: a1, interfaceName: cara0123456789a, addresses: [172.17.8.9/32], ports: [{name: pg, port: 5432, protocol: TCP}]}
";

#[test]
fn the_documented_examples_are_accepted() {
    assert_eq!(problems(EXAMPLES), Vec::<String>::new());
}

#[test]
fn what_the_page_about_resources_shows_is_accepted() {
    let page = include_str!("../../../../docs/resources.md");
    let blocks: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block)
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        assert!(!parse_stream("f.yaml", block).is_empty(), "{block}");
        assert_eq!(problems(block), Vec::<String>::new(), "{block}");
    }
}

#[test]
fn every_problem_is_one_line_with_its_field_and_a_fix() {
    let d = document;
    for (name, stream, expected) in [
        (
            "unknown fields",
            d(
                "IPPool",
                "{cidr: 10.0.0.0/8, ipipmode: Always, colour: red}",
            ),
            vec![
                "f.yaml: IPPool/x: spec.colour: unknown field; remove it",
                "f.yaml: IPPool/x: spec.ipipmode: unknown field; did you mean `ipipMode`?",
            ],
        ),
        (
            "several problems of one document",
            d(
                "Node",
                "{bgp: {ipv4Address: 300.1.1.1, asNumber: 0, x: 1}, podCIDRs: [10.0.0.1/24, 10.0.0.0/31], y: 1}",
            ),
            vec![
                "f.yaml: Node/x: spec.bgp.asNumber: AS 0 is never used (RFC 7607); write the AS number",
                "f.yaml: Node/x: spec.bgp.ipv4Address: expected ADDRESS or ADDRESS/LENGTH, found \"300.1.1.1\"",
                "f.yaml: Node/x: spec.bgp.x: unknown field; remove it",
                "f.yaml: Node/x: spec.podCIDRs[0]: \"10.0.0.1/24\" has bits set beyond its length; did you mean 10.0.0.0/24?",
                "f.yaml: Node/x: spec.podCIDRs[1]: 10.0.0.0/31 is no prefix for a node's workloads; use a length from 8 to 30",
                "f.yaml: Node/x: spec.y: unknown field; remove it",
            ],
        ),
        (
            "no apiVersion",
            "kind: Node\nmetadata: {name: x}\n".to_owned(),
            vec!["f.yaml: Node/x: apiVersion: missing; write `apiVersion: caracal.dev/v1alpha1`"],
        ),
        (
            "another group",
            "apiVersion: v1\nkind: Rack\nmetadata: {name: x}\n".to_owned(),
            vec![
                "f.yaml: Rack/x: apiVersion: Rack is not in this group; write caracal.dev/v1alpha1",
            ],
        ),
        (
            "unknown kind",
            d("IpPool", "{}"),
            vec!["f.yaml: IpPool/x: kind: unknown kind; did you mean IPPool?"],
        ),
        (
            "no name",
            "apiVersion: caracal.dev/v1alpha1\nkind: Node\n".to_owned(),
            vec!["f.yaml: Node/-: metadata.name: missing; write `metadata: {name: …}`"],
        ),
        (
            "a number for a name",
            "apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {name: 7}\n".to_owned(),
            vec![
                "f.yaml: Node/-: metadata.name: expected text, found the number 7; put it in quotes",
            ],
        ),
        (
            "a namespace where there is none",
            "apiVersion: caracal.dev/v1alpha1\nkind: Rack\nmetadata: {name: x, namespace: y}\n"
                .to_owned(),
            vec!["f.yaml: Rack/x: metadata.namespace: this kind has no namespaces; remove it"],
        ),
        (
            "not YAML",
            "{[".to_owned(),
            vec!["f.yaml: document 1: line 1: not valid YAML:"],
        ),
        (
            "a key twice",
            d("Rack", "{asNumber: 64512, asNumber: 64513}"),
            vec![
                "f.yaml: document 1: line 4: not valid YAML: duplicate mapping key: asNumber at column 25",
            ],
        ),
        (
            "no mapping",
            "- a\n- b\n".to_owned(),
            vec![
                "f.yaml: document 1: -: expected a mapping with apiVersion, kind and metadata, found a list",
            ],
        ),
        ("empty", String::new(), vec![]),
        (
            "comments only",
            "# nothing\n---\n# here\n".to_owned(),
            vec![],
        ),
        (
            "both tunnels",
            d(
                "IPPool",
                "{cidr: 10.0.0.0/8, ipipMode: Always, vxlanMode: Always}",
            ),
            vec![
                "f.yaml: IPPool/x: spec.vxlanMode: a pool has one kind of tunnel; set the other modes to Never",
            ],
        ),
        (
            "IPIP for IPv6",
            d("IPPool", "{cidr: 'fd00::/48', ipipMode: Always}"),
            vec![
                "f.yaml: IPPool/x: spec.ipipMode: IPIP carries IPv4 only; set ipipMode of an IPv6 pool to Never",
            ],
        ),
        (
            "own podCIDRs overlap",
            d("Node", "{podCIDRs: [10.0.0.0/16, 10.0.1.0/24]}"),
            vec![
                "f.yaml: Node/x: spec.podCIDRs: 10.0.1.0/24 overlaps 10.0.0.0/16 of the same node; remove one",
            ],
        ),
        (
            "incomplete rules",
            d(
                "BGPFilter",
                "{importV4: [{cidr: 10.0.0.0/8, action: Accept}, {matchOperator: In, action: Accept}, {cidr: 10.0.0.0/8, matchOperator: In}, {prefixLength: {min: 8}, action: Reject}]}",
            ),
            vec![
                "f.yaml: BGPFilter/x: spec.importV4[0].matchOperator: missing; write how cidr is compared: Equal, NotEqual, In or NotIn",
                "f.yaml: BGPFilter/x: spec.importV4[1].cidr: missing; write the prefix that matchOperator compares with",
                "f.yaml: BGPFilter/x: spec.importV4[2].action: missing; write Accept or Reject",
                "f.yaml: BGPFilter/x: spec.importV4[3].prefixLength: needs a cidr; write `cidr` and `matchOperator: In`",
            ],
        ),
        (
            "rules that cannot match what they say",
            d(
                "BGPFilter",
                "{importV4: [{cidr: 'fd00::/8', matchOperator: In, action: Accept}, {cidr: 10.0.0.0/8, matchOperator: Equal, prefixLength: {max: 7}, action: Accept}, {cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 24, max: 16}, action: Accept}]}",
            ),
            vec![
                "f.yaml: BGPFilter/x: spec.importV4[0].cidr: fd00::/8 is not ipv4; move the rule to the other family's list",
                "f.yaml: BGPFilter/x: spec.importV4[1].prefixLength.max: 7 is less than the length of 10.0.0.0/8, so that no prefix is meant; raise it",
                "f.yaml: BGPFilter/x: spec.importV4[2].prefixLength.min: 24 is more than max 16; swap them",
            ],
        ),
        (
            "a peer without target, with too short a hold time",
            d("BGPPeer", "{asNumber: 64512, holdTime: 2s}"),
            vec![
                "f.yaml: BGPPeer/x: spec.holdTime: hold time 2 s is not 0 or at least 3 (RFC 4271 §4.2)",
                "f.yaml: BGPPeer/x: spec.peerIP: missing; write peerIP, or peerSelector, or peerPrefixes",
            ],
        ),
        (
            "a peer with two of everything",
            d(
                "BGPPeer",
                "{node: a1, nodeSelector: all(), peerIP: 192.0.2.1, peerSelector: has(x), asNumber: 1, ttlSecurity: 1, ebgpMultihop: 2, keepaliveTime: 90s}",
            ),
            vec![
                "f.yaml: BGPPeer/x: spec.asNumber: with peerSelector each node's own AS number counts; remove it",
                "f.yaml: BGPPeer/x: spec.ebgpMultihop: ttlSecurity says the hops already; remove one",
                "f.yaml: BGPPeer/x: spec.keepaliveTime: not below the hold time of 90s; write a third of it, or raise holdTime",
                "f.yaml: BGPPeer/x: spec.nodeSelector: node is given as well; remove one of them",
                "f.yaml: BGPPeer/x: spec.peerSelector: peerIP is given as well; keep one",
            ],
        ),
        (
            "a NIC given away",
            d(
                "WorkloadEndpoint",
                "{node: a1, interfaceName: eth0, addresses: [10.0.0.0/24]}",
            ),
            vec![
                "f.yaml: WorkloadEndpoint/default/x: spec.addresses[0]: a workload has single addresses; write 10.0.0.0/32",
                "f.yaml: WorkloadEndpoint/default/x: spec.interfaceName: expected a workload's veth, found \"eth0\"; rename the veth to `cara` and up to 11 characters",
            ],
        ),
        (
            "a configuration of nobody",
            d("BGPConfiguration", "{asNumber: 64512}"),
            vec!["f.yaml: BGPConfiguration/x: spec: the name must be `default` or `node.NAME`"],
        ),
    ] {
        let found = problems(&stream);
        assert_eq!(found.len(), expected.len(), "{name}: {found:#?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.starts_with(expected), "{name}:\n{found}\n{expected}");
            assert!(!found.contains('\n'), "{name}: one line");
        }
        // What is wrong in one document costs no other.
        let beside = format!("{EXAMPLES}---\n{stream}");
        let documents = parse_stream("f.yaml", &beside);
        let (snapshot, _) = load(&documents);
        assert!(snapshot.node("a1").is_some(), "{name}");
        assert_eq!(snapshot.files().count(), 6, "{name}");
    }
}

#[test]
fn fields_without_effect_are_reported_and_the_object_is_used() {
    for (kind, name, spec, fields) in [
        (
            "IPPool",
            "x",
            "{cidr: 10.0.0.0/8, vxlanMode: CrossSubnet, disabled: true, nodeSelector: has(x)}",
            vec!["spec.disabled", "spec.nodeSelector"],
        ),
        (
            "BGPConfiguration",
            "default",
            "{logSeverityScreen: Info, deterministicMED: false, nodeMeshPassword: {secretKeyRef: {name: a, key: b}}, communities: []}",
            vec![
                "spec.deterministicMED",
                "spec.logSeverityScreen",
                "spec.nodeMeshPassword",
            ],
        ),
        (
            "BGPPeer",
            "x",
            "{peerIP: 192.0.2.1, asNumber: 1, password: {secretKeyRef: {name: a, key: b}}, reachableBy: 192.0.2.9, bfd: false}",
            vec!["spec.password", "spec.reachableBy"],
        ),
    ] {
        let stream = format!(
            "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        let (snapshot, errors) = load(&parse_stream("f.yaml", &stream));
        let found: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(found, fields, "{kind}");
        assert_eq!(snapshot.files().count(), 1, "{kind}");
    }
}

#[test]
fn key_in_the_place_of_its_file_is_refused_and_not_repeated() {
    for (name, password, field) in [
        ("bare", "hunter2", "spec.password"),
        ("a number", "4711", "spec.password"),
        ("for a file", "{file: hunter2}", "spec.password.file"),
        ("a number for a file", "{file: 4711}", "spec.password.file"),
    ] {
        let stream = format!(
            "apiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: x}}\n\
             spec: {{peerIP: 192.0.2.1, asNumber: 1, password: {password}}}\n"
        );
        let (snapshot, errors) = load(&parse_stream("f.yaml", &stream));
        assert_eq!(snapshot.peers().count(), 0, "{name}");
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, [field], "{name}");
        let said = format!("{errors:?}");
        assert!(
            !said.contains("hunter2") && !said.contains("4711"),
            "{said}"
        );
    }
}

#[test]
fn objects_as_kubectl_shows_them_are_read() {
    let stream = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  annotations: {projectcalico.org/metadata: '{}'}
  creationTimestamp: '2026-01-01T00:00:00Z'
  generation: 1
  name: default-ipv4-ippool
  resourceVersion: '712'
  uid: 0b9b
spec:
  allowedUses: [Workload, Tunnel]
  assignmentMode: Automatic
  blockSize: 26
  cidr: 10.42.0.0/16
  ipipMode: Never
  natOutgoing: true
  nodeSelector: all()
  vxlanMode: Never
status: {conditions: []}
";
    assert_eq!(problems(stream), Vec::<String>::new());
}

/// All orders of up to four things.
fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    match items {
        [] => vec![Vec::new()],
        _ => (0..items.len())
            .flat_map(|first| {
                let mut rest = items.to_vec();
                let item = rest.remove(first);
                permutations(&rest).into_iter().map(move |mut order| {
                    order.insert(0, item.clone());
                    order
                })
            })
            .collect(),
    }
}

#[test]
fn any_order_of_files_and_documents_gives_the_same() {
    let node = |name: &str, address: &str, cidr: &str| {
        format!(
            "apiVersion: caracal.dev/v1alpha1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{bgp: {{ipv4Address: {address}}}, podCIDRs: [{cidr}]}}\n"
        )
    };
    // Two versions of a1, and a2 that conflicts with either.
    let documents = [
        node("a1", "192.0.2.1", "10.1.0.0/16"),
        node("a1", "192.0.2.2", "10.2.0.0/16"),
        node("a2", "192.0.2.2", "10.1.7.0/24"),
        document("IPPool", "{cidr: 10.0.0.0/8}"),
    ];
    let (expected, errors) = load(&parse_stream("f.yaml", &documents.join("---\n")));
    assert_eq!(errors.len(), 2, "{errors:?}");
    for order in permutations(&documents) {
        let found = load(&parse_stream("f.yaml", &order.join("---\n")));
        assert_eq!(found, (expected.clone(), errors.clone()), "in one file");
    }
    let files: Vec<Document> = documents
        .iter()
        .enumerate()
        .flat_map(|(index, text)| parse_stream(&format!("{index}.yaml"), text))
        .collect();
    let expected = load(&files);
    for order in permutations(&files) {
        assert_eq!(load(&order), expected, "in four files");
    }
}

#[test]
fn too_many_documents_are_reported() {
    let stream = "--- {}\n".repeat(yaml::MOST_DOCUMENTS + 1);
    let documents = parse_stream("f.yaml", &stream);
    assert_eq!(documents.len(), yaml::MOST_DOCUMENTS + 1);
    let last = documents
        .last()
        .and_then(|document| document.errors.first());
    assert!(
        last.is_some_and(|error| error.reason.contains("split the file")),
        "{last:?}"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    })]

    #[test]
    fn mutated_files_end_in_objects_or_errors(
        mutations in proptest::collection::vec((0..EXAMPLES.len(), proptest::prelude::any::<u8>()), 1..20),
    ) {
        let mut bytes = EXAMPLES.as_bytes().to_vec();
        for (position, byte) in mutations {
            if let Some(place) = bytes.get_mut(position) {
                *place = byte;
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let documents = parse_stream("f.yaml", &text);
        for document in &documents {
            proptest::prop_assert!(document.object.is_some() || !document.errors.is_empty());
        }
        for error in load(&documents).1 {
            let line = error.to_string();
            proptest::prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn any_text_is_a_selector_or_an_error(text in "[a-z!&|() ={}'\",]{0,200}") {
        let _ = crate::model::Selector::parse(&text);
    }
}
