//! Who there is in the racks of a spine, and who has sessions with whom. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use agent::lab::topology::{NODES, Node, ROUTED_ASN, ROUTER, Rack};

/// Ends of sessions: a machine and its peer's address.
pub type Ends = BTreeSet<(String, IpAddr)>;

/// Whom the reflectors have in their files beside the range of their rack's nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peering {
    /// The spine, the other one of the rack, and by eBGP those of the other rack.
    Joined,
    /// The spine and the other one of the rack: what comes from the other rack has passed FRR.
    BySpine,
    /// Nobody by address: the spine is a range too.
    Ranges,
    /// As `BySpine`, and FRR is of rack b's AS: an internal peer there, by eBGP the way to rack a.
    Inside {
        /// FRR is a reflection client of rack b's reflectors.
        is_client: bool,
    },
}

/// What is watched: the routes of all nodes, packets within each rack, and more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The spine's routes too, and packets between the racks, begun from both sides.
    Everything,
    /// Packets between the racks too.
    Packets,
    /// Nothing more.
    Racks,
}

impl Scope {
    /// Which workloads talk.
    pub fn flows(self) -> Vec<[&'static str; 2]> {
        let mut flows = vec![["a1-1", "a2-1"], ["b1-1", "b2-2"]];
        match self {
            Scope::Everything | Scope::Packets => flows.extend([
                ["a1-2", "b1-1"],
                ["a2-2", "b2-1"],
                ["b1-2", "a1-1"],
                ["b2-2", "a2-1"],
            ]),
            Scope::Racks => {}
        }
        flows
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Reflectors of each rack, 1 or 2.
    pub per_rack: u8,
    pub peering: Peering,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reflector {
    pub name: String,
    pub rack: Rack,
    pub address: Ipv4Addr,
}

impl Plan {
    pub fn reflectors_of(self, rack: &Rack) -> Vec<Reflector> {
        let first = Reflector {
            name: rack.reflector_name(),
            rack: *rack,
            address: rack.reflector(),
        };
        let second = Reflector {
            name: format!("{}2", rack.reflector_name()),
            rack: *rack,
            address: rack.host(4),
        };
        let both = [first, second].into_iter();
        both.take(self.per_rack.into()).collect()
    }

    pub fn reflectors(self) -> Vec<Reflector> {
        let of_rack = |rack: &Rack| self.reflectors_of(rack);
        Rack::ALL.iter().flat_map(of_rack).collect()
    }

    /// The reflectors that one has in its file.
    pub fn listed_by(self, reflector: &Reflector) -> Vec<Reflector> {
        let mut others = self.reflectors();
        others.retain(|other| {
            let is_mate = other.rack == reflector.rack;
            other.name != reflector.name
                && match self.peering {
                    Peering::Joined => true,
                    Peering::BySpine | Peering::Inside { .. } => is_mate,
                    Peering::Ranges => false,
                }
        });
        others
    }

    /// Every machine with a program of ours.
    pub fn machines(self) -> Vec<String> {
        let nodes = NODES.iter().map(|node| node.name.to_owned());
        let reflectors = self.reflectors().into_iter();
        nodes.chain(reflectors.map(|it| it.name)).collect()
    }

    /// Where others know a machine: the spine has an address in each rack.
    pub fn addresses(self, machine: &str) -> BTreeSet<IpAddr> {
        let nodes = NODES
            .iter()
            .map(|node| (node.name.to_owned(), node.address));
        let reflectors = self.reflectors().into_iter();
        let reflectors = reflectors.map(|it| (it.name, it.address));
        let spine = Rack::ALL.map(|rack| (ROUTER.to_owned(), rack.router()));
        let all = nodes.chain(reflectors).chain(spine);
        all.filter(|(name, _)| name == machine)
            .map(|(_, address)| address.into())
            .collect()
    }

    pub fn spine_asn(self) -> u32 {
        match self.peering {
            Peering::Joined | Peering::BySpine | Peering::Ranges => ROUTED_ASN,
            Peering::Inside { .. } => Rack::B.asn,
        }
    }

    /// AS_PATH of the other rack's routes on a node.
    pub fn path_to(self, other: &Rack) -> String {
        match self.peering {
            Peering::Joined | Peering::Inside { .. } => other.asn.to_string(),
            Peering::BySpine | Peering::Ranges => format!("{ROUTED_ASN} {}", other.asn),
        }
    }

    /// Next hop of a route on a node of `rack`: reflectors keep it, and FRR does towards its AS.
    pub fn next_hop(self, rack: &Rack, to: &Node) -> IpAddr {
        let is_kept = match self.peering {
            Peering::Joined => true,
            Peering::BySpine | Peering::Ranges => *rack == to.rack,
            Peering::Inside { .. } => *rack == to.rack || rack.asn == self.spine_asn(),
        };
        let address = if is_kept { to.address } else { rack.router() };
        address.into()
    }

    /// The nodes of the other rack.
    pub fn others(self, machine: &str) -> Vec<&'static Node> {
        let is_its = |reflector: &Reflector| reflector.name == machine;
        let reflector = self.reflectors().into_iter().find(is_its);
        let node = NODES.iter().find(|node| node.name == machine);
        let rack = reflector.map(|it| it.rack).or(node.map(|it| it.rack));
        let is_other = |node: &&Node| rack.is_some_and(|rack| rack != node.rack);
        NODES.iter().filter(is_other).collect()
    }

    /// Who of its peers tells a machine of the routes to the other rack.
    pub fn tellers(self, machine: &str) -> BTreeSet<IpAddr> {
        let mut tellers = self.peers_of(machine);
        tellers.retain(|peer| NODES.iter().all(|node| *peer != node.address));
        let inside = self.reflectors_of(&Rack::B);
        let is_inside = inside.iter().any(|reflector| reflector.name == machine);
        // RFC 4456 §6: what a client says goes to all, what a non-client says to clients alone.
        if is_inside && self.peering == (Peering::Inside { is_client: false }) {
            tellers.retain(|peer| inside.iter().all(|mate| *peer != mate.address));
        }
        tellers
    }

    /// With whom a machine has sessions.
    pub fn peers_of(self, machine: &str) -> BTreeSet<IpAddr> {
        if let Some(node) = NODES.iter().find(|node| node.name == machine) {
            let reflectors = self.reflectors_of(&node.rack).into_iter();
            return reflectors.map(|it| it.address.into()).collect();
        }
        let reflectors = self.reflectors();
        let Some(reflector) = reflectors.iter().find(|it| it.name == machine) else {
            return BTreeSet::new();
        };
        let nodes = NODES.iter().filter(|node| node.rack == reflector.rack);
        let listed = self.listed_by(reflector).into_iter();
        let mut peers: BTreeSet<IpAddr> = nodes.map(|node| node.address.into()).collect();
        peers.insert(reflector.rack.router().into());
        peers.extend(listed.map(|other| IpAddr::from(other.address)));
        peers
    }

    /// Both ends of every session of a machine; of those with the spine our own end alone.
    pub fn ends_of(self, machine: &str) -> Ends {
        let addresses = self.addresses(machine);
        let mut ends = Ends::new();
        for one in self.machines() {
            let peers = self.peers_of(&one).into_iter();
            let its = peers.filter(|peer| one == machine || addresses.contains(peer));
            ends.extend(its.map(|peer| (one.clone(), peer)));
        }
        ends
    }

    /// Both ends of a reflector's sessions with the nodes.
    pub fn ends_with_nodes(self, reflector: &Reflector) -> Ends {
        let mut ends = self.ends_of(&reflector.name);
        ends.retain(|(machine, peer)| {
            let is_node = |node: &Node| node.name == machine || *peer == node.address;
            NODES.iter().any(is_node)
        });
        ends
    }
}
