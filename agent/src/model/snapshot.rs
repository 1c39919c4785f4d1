//! Everything that is accepted, at one moment, with the conflicts between objects settled.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use bgp::types::{Family, Prefix};

use super::bgp_configuration::{BgpConfiguration, Scope};
use super::filter::BgpFilter;
use super::names::NodeName;
use super::node::Node;
use super::object::{Object, ObjectId};
use super::peer::BgpPeer;
use super::pool::IpPool;
use super::rack::Rack;
use super::workload::WorkloadEndpoint;
use crate::api::schema::StoreError;

/// A valid object and the file it came from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sourced {
    pub file: String,
    pub object: Object,
}

/// An immutable set of objects without conflicts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<NodeName, Node>,
    pools: BTreeMap<String, IpPool>,
    racks: BTreeMap<String, Rack>,
    configurations: BTreeMap<Scope, BgpConfiguration>,
    peers: BTreeMap<String, BgpPeer>,
    filters: BTreeMap<String, BgpFilter>,
    /// By namespace and name.
    workloads: BTreeMap<(String, String), WorkloadEndpoint>,
    files: BTreeMap<ObjectId, String>,
}

impl Snapshot {
    /// Settles conflicts: of objects that cannot both be, the one with the smallest (kind,
    /// namespace, name, file) stays and each other one is an error. The order in which objects are
    /// given does not matter.
    pub fn build(objects: impl IntoIterator<Item = Sourced>) -> (Snapshot, Vec<StoreError>) {
        let mut objects: Vec<(ObjectId, Sourced)> = objects
            .into_iter()
            .map(|sourced| (sourced.object.id(), sourced))
            .collect();
        objects.sort();
        let mut snapshot = Snapshot::default();
        let mut claims = Claims::default();
        let mut errors = Vec::new();
        for (id, sourced) in objects {
            match claims.claim_all(&id, &sourced) {
                Ok(()) => snapshot.insert(id, sourced),
                Err(conflict) => errors.push(StoreError {
                    file: sourced.file,
                    object: id.to_string(),
                    field: conflict.field.to_owned(),
                    reason: conflict.to_string(),
                }),
            }
        }
        (snapshot, errors)
    }

    fn insert(&mut self, id: ObjectId, sourced: Sourced) {
        match sourced.object {
            Object::BgpConfiguration(object) => {
                self.configurations.insert(object.scope.clone(), object);
            }
            Object::BgpFilter(object) => {
                self.filters.insert(object.name.clone(), object);
            }
            Object::BgpPeer(object) => {
                self.peers.insert(object.name.clone(), object);
            }
            Object::IpPool(object) => {
                self.pools.insert(object.name.clone(), object);
            }
            Object::Node(object) => {
                self.nodes.insert(object.name.clone(), object);
            }
            Object::Rack(object) => {
                self.racks.insert(object.name.clone(), object);
            }
            Object::WorkloadEndpoint(object) => {
                let key = (object.namespace.clone(), object.name.clone());
                self.workloads.insert(key, object);
            }
        }
        self.files.insert(id, sourced.file);
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn pools(&self) -> impl Iterator<Item = &IpPool> {
        self.pools.values()
    }

    pub fn rack(&self, name: &str) -> Option<&Rack> {
        self.racks.get(name)
    }

    pub fn racks(&self) -> impl Iterator<Item = &Rack> {
        self.racks.values()
    }

    /// BGPConfiguration `default`.
    pub fn default_configuration(&self) -> Option<&BgpConfiguration> {
        self.configurations.get(&Scope::Everyone)
    }

    /// BGPConfiguration `node.NAME`.
    pub fn configuration_of(&self, node: &NodeName) -> Option<&BgpConfiguration> {
        self.configurations.get(&Scope::Node(node.clone()))
    }

    pub fn peers(&self) -> impl Iterator<Item = &BgpPeer> {
        self.peers.values()
    }

    pub fn filter(&self, name: &str) -> Option<&BgpFilter> {
        self.filters.get(name)
    }

    pub fn filters(&self) -> impl Iterator<Item = &BgpFilter> {
        self.filters.values()
    }

    pub fn workloads(&self) -> impl Iterator<Item = &WorkloadEndpoint> {
        self.workloads.values()
    }

    /// An error about an object of this snapshot, naming its file.
    pub fn error(&self, id: &ObjectId, field: &str, reason: impl Into<String>) -> StoreError {
        StoreError {
            file: self
                .files
                .get(id)
                .cloned()
                .unwrap_or_else(|| "-".to_owned()),
            object: id.to_string(),
            field: field.to_owned(),
            reason: reason.into(),
        }
    }

    /// Every object's identity and file.
    pub fn files(&self) -> impl Iterator<Item = (&ObjectId, &str)> {
        self.files.iter().map(|(id, file)| (id, file.as_str()))
    }
}

/// What objects hold that only one can have.
#[derive(Default)]
struct Claims {
    objects: BTreeMap<ObjectId, Owner>,
    addresses: BTreeMap<IpAddr, Owner>,
    /// They do not overlap.
    pod_cidrs: BTreeMap<Prefix, Owner>,
    pool_cidrs: BTreeMap<Prefix, Owner>,
    interfaces: BTreeMap<(NodeName, String), Owner>,
}

#[derive(Clone)]
struct Owner {
    id: ObjectId,
    file: String,
}

struct Conflict {
    field: &'static str,
    what: String,
    owner: Owner,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { what, owner, .. } = self;
        let Owner { id, file } = owner;
        write!(f, "{what} {id} in {file}, which wins; change one of them")
    }
}

impl Claims {
    /// Claims all that an object needs, or nothing.
    fn claim_all(&mut self, id: &ObjectId, sourced: &Sourced) -> Result<(), Conflict> {
        let owner = Owner {
            id: id.clone(),
            file: sourced.file.clone(),
        };
        if let Some(holder) = self.objects.get(id) {
            return Err(Conflict {
                field: "metadata.name",
                what: "the same name as".to_owned(),
                owner: holder.clone(),
            });
        }
        match &sourced.object {
            Object::Node(node) => self.claim_node(node, &owner)?,
            Object::IpPool(pool) => {
                if let Some(holder) = self.pool_cidrs.get(&pool.cidr) {
                    return Err(Conflict {
                        field: "spec.cidr",
                        what: format!("{} is also the cidr of", pool.cidr),
                        owner: holder.clone(),
                    });
                }
                self.pool_cidrs.insert(pool.cidr, owner.clone());
            }
            Object::WorkloadEndpoint(workload) => self.claim_workload(workload, &owner)?,
            // Two BGPPeers conflict only where both lead to one session; see resolve/peering.
            Object::BgpPeer(_)
            | Object::BgpConfiguration(_)
            | Object::BgpFilter(_)
            | Object::Rack(_) => {}
        }
        self.objects.insert(id.clone(), owner);
        Ok(())
    }

    fn claim_node(&mut self, node: &Node, owner: &Owner) -> Result<(), Conflict> {
        for family in Family::ALL {
            let field = match family {
                Family::Ipv4 => "spec.bgp.ipv4Address",
                Family::Ipv6 => "spec.bgp.ipv6Address",
            };
            if let Some(address) = node.address(family) {
                self.check_address(address, field)?;
            }
        }
        for cidr in &node.pod_cidrs {
            if let Some((other, holder)) = self.overlapping(cidr) {
                return Err(Conflict {
                    field: "spec.podCIDRs",
                    what: format!("{cidr} overlaps {other} of"),
                    owner: holder.clone(),
                });
            }
        }
        for address in node.addresses() {
            self.addresses.insert(address, owner.clone());
        }
        for cidr in &node.pod_cidrs {
            self.pod_cidrs.insert(*cidr, owner.clone());
        }
        Ok(())
    }

    fn claim_workload(
        &mut self,
        workload: &WorkloadEndpoint,
        owner: &Owner,
    ) -> Result<(), Conflict> {
        for address in &workload.addresses {
            self.check_address(*address, "spec.addresses")?;
        }
        if let Some(interface) = &workload.interface {
            let key = (workload.node.clone(), interface.clone());
            if let Some(holder) = self.interfaces.get(&key) {
                return Err(Conflict {
                    field: "spec.interfaceName",
                    what: format!("{interface} is also the interface of"),
                    owner: holder.clone(),
                });
            }
            self.interfaces.insert(key, owner.clone());
        }
        for address in &workload.addresses {
            self.addresses.insert(*address, owner.clone());
        }
        Ok(())
    }

    fn check_address(&self, address: IpAddr, field: &'static str) -> Result<(), Conflict> {
        match self.addresses.get(&address) {
            None => Ok(()),
            Some(holder) => Err(Conflict {
                field,
                what: format!("{address} is also an address of"),
                owner: holder.clone(),
            }),
        }
    }

    /// The claimed prefix that overlaps `cidr`. Claimed ones are disjoint and sorted by their first
    /// address, so it is the last one not after `cidr`, or the first one not before it.
    fn overlapping(&self, cidr: &Prefix) -> Option<(&Prefix, &Owner)> {
        let before = self.pod_cidrs.range(..=*cidr).next_back();
        let after = self.pod_cidrs.range(*cidr..).next();
        before
            .into_iter()
            .chain(after)
            .find(|(other, _)| other.overlaps(cidr))
    }
}

#[cfg(test)]
mod tests;
