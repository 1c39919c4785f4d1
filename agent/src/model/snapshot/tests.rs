use serde_json::{Value, json};

use super::*;
use crate::model::object::parse;

fn object(file: &str, kind: &str, name: &str, spec: Value) -> Sourced {
    let document = json!({
        "apiVersion": "caracal.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    let parsed = parse(&document);
    Sourced {
        file: file.to_owned(),
        object: parsed
            .object
            .unwrap_or_else(|| panic!("{:?}", parsed.problems)),
    }
}

fn node(file: &str, name: &str, address: &str, cidr: &str) -> Sourced {
    let spec = json!({"bgp": {"ipv4Address": address}, "podCIDRs": [cidr]});
    object(file, "Node", name, spec)
}

fn workload(file: &str, name: &str, interface: &str, address: &str) -> Sourced {
    let spec = json!({"node": "a1", "interfaceName": interface, "addresses": [address]});
    object(file, "WorkloadEndpoint", name, spec)
}

fn lines(errors: &[StoreError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_smallest_of_conflicting_objects_wins_and_the_others_are_reported() {
    let pool = |file, name| object(file, "IPPool", name, json!({"cidr": "10.0.0.0/8"}));
    for (name, winner, loser, expected) in [
        (
            "two nodes of one name",
            node("a.yaml", "a1", "192.0.2.1", "10.0.1.0/24"),
            node("b.yaml", "a1", "192.0.2.2", "10.0.2.0/24"),
            "b.yaml: Node/a1: metadata.name: the same name as Node/a1 in a.yaml, which wins; change one of them",
        ),
        (
            "equal podCIDRs",
            node("z.yaml", "a1", "192.0.2.1", "10.0.1.0/24"),
            node("a.yaml", "a2", "192.0.2.2", "10.0.1.0/24"),
            "a.yaml: Node/a2: spec.podCIDRs: 10.0.1.0/24 overlaps 10.0.1.0/24 of Node/a1 in z.yaml, which wins; change one of them",
        ),
        (
            "a podCIDR inside another",
            node("a.yaml", "a1", "192.0.2.1", "10.0.0.0/16"),
            node("a.yaml", "a2", "192.0.2.2", "10.0.9.0/24"),
            "a.yaml: Node/a2: spec.podCIDRs: 10.0.9.0/24 overlaps 10.0.0.0/16 of Node/a1 in a.yaml, which wins; change one of them",
        ),
        (
            "a podCIDR around another",
            node("a.yaml", "a1", "192.0.2.1", "10.0.9.0/24"),
            node("a.yaml", "a2", "192.0.2.2", "10.0.0.0/16"),
            "a.yaml: Node/a2: spec.podCIDRs: 10.0.0.0/16 overlaps 10.0.9.0/24 of Node/a1 in a.yaml, which wins; change one of them",
        ),
        (
            "one address of two nodes",
            node("a.yaml", "a1", "192.0.2.1", "10.0.1.0/24"),
            node("a.yaml", "a2", "192.0.2.1", "10.0.2.0/24"),
            "a.yaml: Node/a2: spec.bgp.ipv4Address: 192.0.2.1 is also an address of Node/a1 in a.yaml, which wins; change one of them",
        ),
        (
            "one cidr of two pools",
            pool("a.yaml", "p1"),
            pool("a.yaml", "p2"),
            "a.yaml: IPPool/p2: spec.cidr: 10.0.0.0/8 is also the cidr of IPPool/p1 in a.yaml, which wins; change one of them",
        ),
        (
            "one address of two workloads",
            workload("a.yaml", "w1", "cara1", "10.0.1.9/32"),
            workload("a.yaml", "w2", "cara2", "10.0.1.9"),
            "a.yaml: WorkloadEndpoint/default/w2: spec.addresses: 10.0.1.9 is also an address of WorkloadEndpoint/default/w1 in a.yaml, which wins; change one of them",
        ),
        (
            "one interface of two workloads",
            workload("a.yaml", "w1", "cara1", "10.0.1.8"),
            workload("a.yaml", "w2", "cara1", "10.0.1.9"),
            "a.yaml: WorkloadEndpoint/default/w2: spec.interfaceName: cara1 is also the interface of WorkloadEndpoint/default/w1 in a.yaml, which wins; change one of them",
        ),
        (
            "a node's address of a workload",
            node("z.yaml", "z1", "192.0.2.1", "10.0.1.0/24"),
            workload("a.yaml", "w1", "cara1", "192.0.2.1"),
            "a.yaml: WorkloadEndpoint/default/w1: spec.addresses: 192.0.2.1 is also an address of Node/z1 in z.yaml, which wins; change one of them",
        ),
    ] {
        let id = winner.object.id();
        let (forward, errors) = Snapshot::build([winner.clone(), loser.clone()]);
        assert_eq!(lines(&errors), [expected], "{name}");
        let files: Vec<_> = forward.files().collect();
        assert_eq!(files, [(&id, winner.file.as_str())], "{name}");
        let backward = Snapshot::build([loser, winner]);
        assert_eq!((forward, errors), backward, "{name}: any order");
    }
}

#[test]
fn what_a_loser_claims_besides_is_free_for_others() {
    let (snapshot, errors) = Snapshot::build([
        node("a.yaml", "a1", "192.0.2.1", "10.0.1.0/24"),
        node("a.yaml", "a2", "192.0.2.1", "10.0.2.0/24"),
        node("a.yaml", "a3", "192.0.2.3", "10.0.2.0/24"),
    ]);
    let names: Vec<&str> = snapshot.nodes().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["a1", "a3"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn many_disjoint_pod_cidrs_do_not_conflict() {
    let nodes = (0..=255).map(|i| {
        let spec = json!({"podCIDRs": [format!("10.{i}.0.0/16")]});
        object("a.yaml", "Node", &format!("n{i}"), spec)
    });
    let (snapshot, errors) = Snapshot::build(nodes);
    assert_eq!((snapshot.nodes().count(), errors), (256, vec![]));
}
