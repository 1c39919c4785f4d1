//! Who there is in the racks of a spine, and who has sessions with whom. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use agent::lab::topology::{NODES, Node, Rack};

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
                    Peering::BySpine => is_mate,
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

    pub fn address(self, machine: &str) -> Option<IpAddr> {
        let node = NODES.iter().find(|node| node.name == machine);
        let reflectors = self.reflectors();
        let reflector = reflectors.iter().find(|it| it.name == machine);
        let address = node.map(|node| node.address);
        address.or(reflector.map(|it| it.address)).map(IpAddr::from)
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
        let address = self.address(machine);
        let mut ends = Ends::new();
        for one in self.machines() {
            let peers = self.peers_of(&one).into_iter();
            let its = peers.filter(|peer| one == machine || address == Some(*peer));
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
