//! The files and commands that make a topology real: resources, reflector and FRR configuration,
//! CNI configuration, and input of `ip -batch`. Pure.

use std::net::Ipv4Addr;
use std::path::Path;

use super::topology::{
    LAB_PREFIX, LAB_PREFIX_HOST, LAB_ROUTER, LAB_ROUTER_ASN, NIC, NODES, Node, POOL, ROUTED_ASN,
    ROUTER, ROUTER_NIC_B, Rack, Scenario, lab_router_address,
};

const API_VERSION: &str = "caracal.dev/v1alpha1";

/// The store of all nodes: (file name, content).
pub fn store(scenario: Scenario) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = NODES
        .iter()
        .map(|node| {
            (
                format!("node-{}.yaml", node.name),
                node_resource(scenario, node),
            )
        })
        .collect();
    let ipip_mode = if scenario == Scenario::Routed {
        "Never"
    } else {
        "CrossSubnet"
    };
    let spec = format!("{{cidr: {POOL}, ipipMode: {ipip_mode}, natOutgoing: true}}");
    files.push(("pool.yaml".to_owned(), document("IPPool", "default", &spec)));
    let is_mesh = !scenario.has_reflectors();
    let spec = format!("{{asNumber: 64512, nodeToNodeMeshEnabled: {is_mesh}}}");
    files.push((
        "bgp.yaml".to_owned(),
        document("BGPConfiguration", "default", &spec),
    ));
    if scenario.has_reflectors() {
        let racks: String = Rack::ALL.iter().map(rack_resource).collect();
        files.push(("racks.yaml".to_owned(), racks));
    }
    if scenario.has_lab_router() {
        files.push(("lab-router.yaml".to_owned(), lab_router_peer(scenario)));
    }
    files
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: {API_VERSION}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn node_resource(scenario: Scenario, node: &Node) -> String {
    let labels = if scenario.has_reflectors() {
        format!(", labels: {{caracal.dev/rack: {}}}", node.rack.name)
    } else {
        String::new() // a label that names no Rack would be reported
    };
    format!(
        "apiVersion: {API_VERSION}\n\
         kind: Node\n\
         metadata: {{name: {}{labels}}}\n\
         spec:\n  \
           bgp: {{ipv4Address: {}/24}}\n  \
           podCIDRs: [{}]\n",
        node.name,
        node.address,
        node.pod_cidr()
    )
}

fn rack_resource(rack: &Rack) -> String {
    let spec = format!(
        "{{asNumber: {}, reflectors: [{}]}}",
        rack.asn,
        rack.reflector()
    );
    document("Rack", rack.name, &spec)
}

/// The lab router as a peer of node a1, and the filter that admits its prefix.
fn lab_router_peer(scenario: Scenario) -> String {
    let address = lab_router_address();
    let filters = filters(scenario);
    let spec = format!("{{node: a1, peerIP: {address}, asNumber: {LAB_ROUTER_ASN}{filters}}}");
    document("BGPPeer", "lab-router", &spec) + &filter_resource()
}

fn filters(scenario: Scenario) -> &'static str {
    if scenario == Scenario::Frr {
        ", filters: [from-lab]"
    } else {
        ""
    }
}

fn filter_resource() -> String {
    let rule = format!("[{{action: Accept, matchOperator: Equal, cidr: {LAB_PREFIX}}}]");
    let spec = format!("{{importV4: {rule}, exportV4: {rule}}}");
    document("BGPFilter", "from-lab", &spec)
}

/// The file of a rack's reflector.
pub fn reflector(scenario: Scenario, rack: &Rack) -> String {
    let address = rack.reflector();
    let asn = rack.asn;
    let other = rack.other();
    let filters = filters(scenario);
    let mut text = document(
        "BGPConfiguration",
        "default",
        &format!(
            "{{asNumber: {asn}, routerID: {address}, clusterID: {address}, listenAddresses: [{address}]}}"
        ),
    );
    text += &document(
        "BGPPeer",
        "nodes",
        &format!(
            "{{peerPrefixes: [{}], asNumber: {asn}, routeReflectorClient: true}}",
            rack.subnet()
        ),
    );
    text += &document(
        "BGPPeer",
        &format!("rack-{}", other.name),
        &format!(
            "{{peerIP: {}, asNumber: {}{filters}}}",
            other.reflector(),
            other.asn
        ),
    );
    match scenario {
        Scenario::Racks | Scenario::Mesh => {}
        Scenario::Routed => {
            let spec = format!("{{peerIP: {}, asNumber: {ROUTED_ASN}}}", rack.router());
            text += &document("BGPPeer", ROUTER, &spec);
        }
        Scenario::Frr | Scenario::FrrUnfiltered => {
            // With a pool in its file a reflector admits nothing outside it without a filter.
            let spec = format!("{{cidr: {POOL}}}");
            text += &document("IPPool", "default", &spec);
            text += &filter_resource();
            if rack.name == Rack::A.name {
                let address = lab_router_address();
                let spec = format!("{{peerIP: {address}, asNumber: {LAB_ROUTER_ASN}{filters}}}");
                text += &document("BGPPeer", "lab-router", &spec);
            }
        }
    }
    text
}

/// FRR's bgpd: the router in the middle (`--routed`), or the lab router in rack a (`--frr`).
pub fn frr(scenario: Scenario) -> String {
    let (asn, router_id, peers) = if scenario == Scenario::Routed {
        let peers = Rack::ALL.map(|rack| (rack.reflector(), rack.asn)).to_vec();
        (ROUTED_ASN, Rack::A.router(), peers)
    } else {
        let peers = vec![
            (NODES[0].address, Rack::A.asn),
            (Rack::A.reflector(), Rack::A.asn),
        ];
        (LAB_ROUTER_ASN, lab_router_address(), peers)
    };
    let mut text = format!(
        "hostname {LAB_ROUTER}\n\
         router bgp {asn}\n \
         bgp router-id {router_id}\n \
         no bgp ebgp-requires-policy\n \
         no bgp network import-check\n"
    );
    for (address, peer_asn) in &peers {
        text += &format!(" neighbor {address} remote-as {peer_asn}\n");
        text += &format!(" neighbor {address} timers connect 1\n");
        // A reflector keeps next hops, so those of rack b are not on FRR's own subnet.
        text += &format!(" neighbor {address} ebgp-multihop 2\n");
    }
    text += " address-family ipv4 unicast\n";
    if scenario.has_lab_router() {
        text += &format!("  network {LAB_PREFIX}\n");
    }
    text + " exit-address-family\n"
}

/// Input of `ip -batch` in the switch's namespace: a bridge per rack and a port per machine.
/// `holder_of` gives the process that holds a machine's namespace.
pub fn switch(scenario: Scenario, holder_of: impl Fn(&str) -> i32) -> String {
    let mut text = String::new();
    for rack in Rack::ALL {
        let bridge = format!("rack-{}", rack.name);
        text += &format!("link add {bridge} type bridge forward_delay 0 mcast_snooping 0\n");
        text += &format!("link set {bridge} up\n");
        for (machine, nic) in machines(scenario, &rack) {
            text += &port(&rack, &machine, nic, holder_of(&machine));
        }
    }
    text
}

/// A port of the rack's bridge and the NIC at its other end.
pub fn port(rack: &Rack, machine: &str, nic: &str, holder: i32) -> String {
    let port = format!("{machine}-{}", rack.name);
    format!(
        "link add {port} type veth peer name {nic} netns {holder}\n\
         link set {port} master rack-{} up\n",
        rack.name
    )
}

/// Every machine on a rack's subnet with the name of its NIC there.
fn machines(scenario: Scenario, rack: &Rack) -> Vec<(String, &'static str)> {
    let is_a = rack.name == Rack::A.name;
    let mut machines = vec![(ROUTER.to_owned(), if is_a { NIC } else { ROUTER_NIC_B })];
    let nodes = NODES.iter().filter(|node| node.rack == *rack);
    machines.extend(nodes.map(|node| (node.name.to_owned(), NIC)));
    if scenario.has_reflectors() {
        machines.push((rack.reflector_name(), NIC));
    }
    if scenario.has_lab_router() && is_a {
        machines.push((LAB_ROUTER.to_owned(), NIC));
    }
    machines
}

/// `ip -batch` in the router: .1 of both racks, and no pod route. It knows the way to what the lab
/// router announces, as a data centre's routers know its networks.
pub fn router_links(scenario: Scenario) -> String {
    let nic = |nic: &str, rack: &Rack| {
        format!(
            "addr add {}/24 dev {nic}\nlink set {nic} up\n",
            rack.router()
        )
    };
    let mut text = "link set lo up\n".to_owned();
    text += &nic(NIC, &Rack::A);
    text += &nic(ROUTER_NIC_B, &Rack::B);
    if scenario.has_lab_router() {
        text += &format!("route add {LAB_PREFIX} via {}\n", lab_router_address());
    }
    text
}

pub fn node_links(node: &Node) -> String {
    let to = if node.has_default_route {
        "default".to_owned()
    } else {
        node.rack.other().subnet()
    };
    host_links(node.address, &to, &node.rack)
}

pub fn reflector_links(rack: &Rack) -> String {
    host_links(rack.reflector(), &rack.other().subnet(), rack)
}

pub fn lab_router_links() -> String {
    let mut text = host_links(lab_router_address(), &Rack::B.subnet(), &Rack::A);
    text += &format!("addr add {LAB_PREFIX_HOST}/24 dev lo\n");
    text
}

/// A NIC with its address, and one route by the rack's router.
pub fn host_links(address: Ipv4Addr, to: &str, rack: &Rack) -> String {
    format!(
        "link set lo up\n\
         addr add {address}/24 dev {NIC}\n\
         link set {NIC} up\n\
         route add {to} via {} dev {NIC}\n",
        rack.router()
    )
}

/// What a runtime gives the plugin on standard input.
pub fn cni_configuration(socket: &Path) -> String {
    format!(
        r#"{{"cniVersion": "1.1.0", "name": "caracal", "type": "caracal-cni", "socket": "{}"}}"#,
        socket.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::document::{Document, load, parse_stream};
    use crate::model::peer::Passwords;
    use crate::resolve::peering::{reflector_config, speaker_config};

    #[test]
    fn node_without_default_route_knows_only_the_other_rack() {
        let b2 = super::super::topology::node("b2").expect("a node of the lab");
        let links = node_links(b2);
        assert!(links.contains("route add 192.168.100.0/24 via 192.168.200.1 dev eth0\n"));
        assert!(!links.contains("default"));
    }

    #[test]
    fn lab_router_is_admitted_by_a_filter_only_where_asked() {
        for (scenario, is_admitted) in [(Scenario::Frr, true), (Scenario::FrrUnfiltered, false)] {
            let peer = lab_router_peer(scenario);
            assert_eq!(peer.contains("filters: [from-lab]"), is_admitted);
            let file = reflector(scenario, &Rack::B);
            assert_eq!(file.contains("filters: [from-lab]"), is_admitted);
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        for scenario in [Scenario::Racks, Scenario::Routed, Scenario::Frr] {
            for rack in Rack::ALL {
                for (machine, _) in machines(scenario, &rack) {
                    let port = format!("{machine}-{}", rack.name);
                    assert!(port.len() <= 15, "{port}");
                }
            }
        }
    }

    const SCENARIOS: [Scenario; 5] = [
        Scenario::Racks,
        Scenario::Mesh,
        Scenario::Routed,
        Scenario::Frr,
        Scenario::FrrUnfiltered,
    ];

    #[test]
    fn stores_of_all_labs_are_accepted_without_remarks() {
        for scenario in SCENARIOS {
            let files = store(scenario);
            let documents: Vec<Document> = files
                .iter()
                .flat_map(|(name, text)| parse_stream(name, text))
                .collect();
            let (snapshot, errors) = load(&documents);
            assert_eq!(errors, [], "{scenario}");
            for node in &NODES {
                let resource = snapshot
                    .node(node.name)
                    .expect("every node is in the store");
                let (_, errors) = speaker_config(&snapshot, &Passwords::new(), resource);
                assert_eq!(errors, [], "{scenario}, {}", node.name);
            }
        }
    }

    #[test]
    fn reflectors_of_all_labs_are_accepted_without_remarks() {
        for scenario in SCENARIOS {
            for rack in &Rack::ALL {
                let documents = parse_stream("reflector.yaml", &reflector(scenario, rack));
                let (snapshot, errors) = load(&documents);
                assert_eq!(errors, [], "{scenario}, {}", rack.name);
                let (_, errors) = reflector_config(&snapshot, &Passwords::new());
                assert_eq!(errors, [], "{scenario}, {}", rack.name);
            }
        }
    }
}
