//! BGPConfiguration: what holds for all speakers (`default`), or for one node (`node.NAME`).

use std::net::{IpAddr, SocketAddr};

use bgp::policy::action::Priority;
use bgp::types::{Asn, ClusterId, LocalPref, RouterId};
use serde_json::Value;

use super::fields::Fields;
use super::names::NodeName;
use super::object::Metadata;
use super::values;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BgpConfiguration {
    pub name: String,
    pub scope: Scope,
    pub asn: Option<Asn>,
    pub router_id: Option<RouterId>,
    pub cluster_id: Option<ClusterId>,
    pub listen_addresses: Option<Vec<IpAddr>>,
    pub listen_port: Option<u16>,
    pub node_to_node_mesh_enabled: Option<bool>,
    /// A password is asked for in the mesh. None is supported yet, so there must be no mesh.
    pub has_mesh_password: bool,
    pub local_pref: Option<LocalPref>,
    /// Most equal paths in use together, and whether of different neighbouring ASes.
    pub multipath: Option<Multipath>,
    pub always_compare_med: Option<bool>,
    /// About to stop: every route said asks to be used last (RFC 8326).
    pub graceful_shutdown: Option<bool>,
}

/// How many equal paths are used together (ECMP): 1 to 64, 1 being the best alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Multipath {
    pub ebgp: u8,
    pub ibgp: u8,
    pub across_as: bool,
}

/// Whom a BGPConfiguration is for; its name says it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    Everyone,
    Node(NodeName),
}

pub(super) fn read(metadata: Metadata, spec: &mut Fields<'_, '_>) -> Option<BgpConfiguration> {
    let scope = match metadata.name.as_str() {
        "default" => Some(Scope::Everyone),
        name => name
            .strip_prefix("node.")
            .and_then(|node| node.parse().ok())
            .map(Scope::Node),
    };
    let configuration = BgpConfiguration {
        name: metadata.name,
        scope: scope.clone().unwrap_or(Scope::Everyone),
        asn: spec.optional("asNumber", values::asn),
        router_id: spec.optional("routerID", router_id),
        cluster_id: spec
            .optional("clusterID", values::ipv4_address)
            .map(ClusterId),
        listen_addresses: spec.list("listenAddresses", listen_address),
        listen_port: spec.optional("listenPort", values::port),
        node_to_node_mesh_enabled: spec.optional("nodeToNodeMeshEnabled", values::boolean),
        has_mesh_password: spec.has("nodeMeshPassword"),
        local_pref: spec.optional("localPreference", local_preference),
        multipath: read_multipath(spec),
        always_compare_med: spec.optional("alwaysCompareMED", values::boolean),
        graceful_shutdown: spec.optional("gracefulShutdown", values::boolean),
    };
    spec.ignored(&["nodeMeshPassword"]);
    if configuration.has_mesh_password {
        spec.report(
            "nodeMeshPassword",
            "not supported yet: the mesh is closed; remove the password or the mesh",
        );
    }
    if spec.optional("deterministicMED", values::boolean) == Some(false) {
        spec.report(
            "deterministicMED",
            "has no effect: MEDs are always compared within each neighbouring AS; remove it",
        );
    }
    match scope {
        Some(Scope::Everyone) => {}
        Some(Scope::Node(_)) => {
            for field in ["asNumber", "nodeToNodeMeshEnabled", "nodeMeshPassword"] {
                if spec.has(field) {
                    spec.reject(
                        field,
                        "other nodes must know it too; set it in `default`, or the AS number in the Node",
                    );
                }
            }
        }
        None => spec.reject("", "the name must be `default` or `node.NAME`"),
    }
    read_calicos_fields(spec);
    scope.map(|_| configuration)
}

fn read_multipath(spec: &mut Fields<'_, '_>) -> Option<Multipath> {
    let mut fields = spec.mapping("multipath")?;
    let paths = |value: &Value| values::small_integer(value, 1..=64);
    let multipath = Multipath {
        ebgp: fields.optional("ebgp", paths).unwrap_or(1),
        ibgp: fields.optional("ibgp", paths).unwrap_or(1),
        across_as: fields
            .optional("acrossAS", values::boolean)
            .unwrap_or(false),
    };
    fields.finish();
    Some(multipath)
}

fn listen_address(value: &Value) -> Result<IpAddr, String> {
    let has_port = |text: &str| text.parse::<SocketAddr>().is_ok();
    values::address(value).map_err(|reason| match value.as_str().is_some_and(has_port) {
        true => format!("{reason}; the port is listenPort"),
        false => reason,
    })
}

fn router_id(value: &Value) -> Result<RouterId, String> {
    let address = values::ipv4_address(value)?;
    if address.is_unspecified() {
        return Err("a router id is never zero (RFC 6286 §2.1)".to_owned());
    }
    Ok(RouterId(address))
}

/// What routes have at Calico's nodes unless configured; they say it as LOCAL_PREF.
const CALICO_PRIORITY: u32 = 1024;

/// A number, or that of Calico's nodes.
fn local_preference(value: &Value) -> Result<LocalPref, String> {
    let wrong = || values::expected("a number from 0 to 4294967295, or `calico`", value);
    if value.as_str() == Some("calico") {
        return Priority::new(CALICO_PRIORITY)
            .map(Priority::local_pref)
            .ok_or_else(wrong);
    }
    let number = value.as_u64().ok_or_else(wrong)?;
    let number = u32::try_from(number).map_err(|_| wrong())?;
    Ok(LocalPref(number))
}

fn read_calicos_fields(spec: &mut Fields<'_, '_>) {
    spec.unsupported(
        "logSeverityScreen",
        "set logLevel in the agent's configuration",
    );
    spec.unsupported(
        "nodeMeshMaxRestartTime",
        "set gracefulRestartSeconds in the agent's configuration",
    );
    spec.unsupported("ignoredInterfaces", "only own prefixes are announced");
    for field in ["communities", "prefixAdvertisements"] {
        spec.unsupported(field, "announcements carry no communities");
    }
    for field in [
        "serviceClusterIPs",
        "serviceExternalIPs",
        "serviceLoadBalancerIPs",
    ] {
        spec.unsupported(field, "service addresses are not announced");
    }
    for field in ["localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6"] {
        spec.unsupported(field, "workloads are no BGP peers");
    }
    for field in ["ipv4NormalRoutePriority", "ipv6NormalRoutePriority"] {
        spec.unsupported(field, "all routes have metric 202");
    }
    // These say how Calico splits its work between programs; there is nothing to split here.
    spec.ignored(&["programClusterRoutes", "serviceLoadBalancerAggregation"]);
    let bind_mode = spec.optional("bindMode", values::text);
    if bind_mode.is_some_and(|mode| mode != "NodeIP") {
        spec.report(
            "bindMode",
            "not supported, has no effect: speakers listen on the node's address; set listenAddresses",
        );
    }
}
