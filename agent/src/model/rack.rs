//! Rack: nodes that peer with the same route reflectors.

use bgp::types::Asn;

use super::fields::Fields;
use super::object::Metadata;
use super::values::{self, PeerAddress};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rack {
    /// The value of the label `caracal.dev/rack` on its nodes.
    pub name: String,
    /// AS of its reflectors, and of its nodes that name none.
    pub asn: Option<Asn>,
    /// Empty: its nodes stay in the mesh.
    pub reflectors: Vec<PeerAddress>,
}

pub(super) fn read(metadata: Metadata, spec: &mut Fields<'_, '_>) -> Option<Rack> {
    let asn = spec.optional("asNumber", values::asn);
    let reflectors = spec
        .list("reflectors", values::peer_address)
        .unwrap_or_default();
    for (index, reflector) in reflectors.iter().enumerate() {
        if reflectors
            .iter()
            .take(index)
            .any(|other| other == reflector)
        {
            spec.reject(
                &format!("reflectors[{index}]"),
                format!("{} is listed twice; remove one", reflector.address),
            );
        }
    }
    Some(Rack {
        name: metadata.name,
        asn,
        reflectors,
    })
}
