use super::*;
use crate::datastore::{load, parse_stream};

const STORE: &str = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: a1}
spec: {bgp: {ipv4Address: 192.0.2.1}, podCIDRs: [172.17.8.0/24]}
---
apiVersion: caracal.dev/v1alpha1
kind: WorkloadEndpoint
metadata: {name: db-0}
spec: {node: a1, interfaceName: caradb, addresses: [172.17.8.9/32], mac: '02:00:00:00:00:09'}
---
apiVersion: caracal.dev/v1alpha1
kind: WorkloadEndpoint
metadata: {name: member}
spec: {node: a1, addresses: [172.17.8.10]}
---
apiVersion: caracal.dev/v1alpha1
kind: WorkloadEndpoint
metadata: {name: elsewhere}
spec: {node: a2, interfaceName: caraelse, addresses: [172.17.9.9]}
";

fn attachment(container: &str, name: &str, interface: &str, address: &str) -> Attachment {
    Attachment {
        container_id: container.to_owned(),
        container_interface: "eth0".to_owned(),
        netns: String::new(),
        namespace: if name.is_empty() { "" } else { "default" }.to_owned(),
        name: name.to_owned(),
        host_interface: interface.to_owned(),
        addresses: vec![address.parse().expect(address)],
        mac: [2, 0, 0, 0, 0, 1],
    }
}

fn resolve(attachments: &[Attachment]) -> Endpoints {
    let (snapshot, errors) = load(&parse_stream("f.yaml", STORE));
    assert_eq!(errors, []);
    let node = snapshot.node("a1").expect("a1");
    resolve_endpoints(&snapshot, node, attachments)
}

#[test]
fn attached_and_declared_workloads_of_this_node_are_linked() {
    let endpoints = resolve(&[attachment("c1", "web-0", "cara1", "172.17.8.2")]);
    let link = |address: &str, mac| WorkloadLink {
        addresses: vec![address.parse().expect(address)],
        mac: Some(mac),
    };
    assert_eq!(
        endpoints.links,
        [
            ("cara1".to_owned(), link("172.17.8.2", [2, 0, 0, 0, 0, 1])),
            ("caradb".to_owned(), link("172.17.8.9", [2, 0, 0, 0, 0, 9])),
        ]
        .into()
    );
    assert_eq!(endpoints.failed, []);
}

#[test]
fn of_two_claims_the_smallest_wins_in_any_order() {
    for (name, attachments, links, failed) in [
        (
            "one address of two workloads",
            [
                attachment("c2", "web-1", "cara2", "172.17.8.2"),
                attachment("c1", "web-0", "cara1", "172.17.8.2"),
            ],
            vec!["cara1", "caradb"],
            vec![(
                "Attachment/default/web-1",
                "172.17.8.2 belongs to Attachment/default/web-0",
            )],
        ),
        (
            "one interface of two containers without names",
            [
                attachment("c1", "", "cara1", "172.17.8.2"),
                attachment("c2", "", "cara1", "172.17.8.3"),
            ],
            vec!["cara1", "caradb"],
            vec![("Attachment/c2", "interface cara1 belongs to Attachment/c1")],
        ),
        (
            "a declared workload's address, and the tunnel's",
            [
                attachment("c1", "web-0", "cara1", "172.17.8.9"),
                attachment("c2", "web-1", "cara2", "172.17.8.1"),
            ],
            vec!["cara1"],
            vec![
                ("Attachment/default/web-1", "172.17.8.1 belongs to Node/a1"),
                (
                    "WorkloadEndpoint/default/db-0",
                    "172.17.8.9 belongs to Attachment/default/web-0",
                ),
            ],
        ),
    ] {
        let endpoints = resolve(&attachments);
        let found: Vec<&str> = endpoints.links.keys().map(String::as_str).collect();
        assert_eq!(found, links, "{name}");
        let found: Vec<(&str, &str)> = endpoints
            .failed
            .iter()
            .map(|item| (item.object.as_str(), item.error.as_str()))
            .collect();
        assert_eq!(found, failed, "{name}");
        let [first, second] = attachments;
        assert_eq!(resolve(&[second, first]), endpoints, "{name}: any order");
    }
}
