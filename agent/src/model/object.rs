//! Objects of all kinds: which there are, how a document becomes one.

use std::fmt;

use serde_json::{Map, Value};

use super::bgp_configuration::{self, BgpConfiguration};
use super::fields::{Effect, Fields, Problem, nearest};
use super::filter::{self, BgpFilter};
use super::names::{Labels, check_name};
use super::node::{self, Node};
use super::peer::{self, BgpPeer};
use super::pool::{self, IpPool};
use super::rack::{self, Rack};
use super::values;
use super::workload::{self, WorkloadEndpoint};

/// The kinds that are read, in the order of their names: of conflicting objects the smallest wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    BgpConfiguration,
    BgpFilter,
    BgpPeer,
    IpPool,
    Node,
    Rack,
    WorkloadEndpoint,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::BgpConfiguration,
        Kind::BgpFilter,
        Kind::BgpPeer,
        Kind::IpPool,
        Kind::Node,
        Kind::Rack,
        Kind::WorkloadEndpoint,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::BgpConfiguration => "BGPConfiguration",
            Kind::BgpFilter => "BGPFilter",
            Kind::BgpPeer => "BGPPeer",
            Kind::IpPool => "IPPool",
            Kind::Node => "Node",
            Kind::Rack => "Rack",
            Kind::WorkloadEndpoint => "WorkloadEndpoint",
        }
    }

    fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    fn is_namespaced(self) -> bool {
        match self {
            Kind::WorkloadEndpoint => true,
            Kind::BgpConfiguration
            | Kind::BgpFilter
            | Kind::BgpPeer
            | Kind::IpPool
            | Kind::Node
            | Kind::Rack => false,
        }
    }

    fn api_versions(self) -> &'static [&'static str] {
        match self {
            Kind::BgpConfiguration | Kind::BgpFilter | Kind::BgpPeer | Kind::IpPool => &[
                "caracal.dev/v1alpha1",
                "projectcalico.org/v3",
                "crd.projectcalico.org/v1",
            ],
            Kind::Node | Kind::Rack | Kind::WorkloadEndpoint => &["caracal.dev/v1alpha1"],
        }
    }
}

/// What makes an object the same object: kind, namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId {
    pub kind: Kind,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    pub name: String,
}

impl ObjectId {
    /// Of a kind without namespaces.
    pub fn new(kind: Kind, name: impl Into<String>) -> ObjectId {
        ObjectId {
            kind,
            namespace: String::new(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind.as_str(), self.name)
        } else {
            let kind = self.kind.as_str();
            write!(f, "{kind}/{}/{}", self.namespace, self.name)
        }
    }
}

/// A valid object.
#[allow(
    clippy::large_enum_variant,
    reason = "there are few objects, and each is moved once"
)]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Object {
    BgpConfiguration(BgpConfiguration),
    BgpFilter(BgpFilter),
    BgpPeer(BgpPeer),
    IpPool(IpPool),
    Node(Node),
    Rack(Rack),
    WorkloadEndpoint(WorkloadEndpoint),
}

impl Object {
    pub fn id(&self) -> ObjectId {
        match self {
            Object::BgpConfiguration(object) => ObjectId::new(Kind::BgpConfiguration, &object.name),
            Object::BgpFilter(object) => ObjectId::new(Kind::BgpFilter, &object.name),
            Object::BgpPeer(object) => ObjectId::new(Kind::BgpPeer, &object.name),
            Object::IpPool(object) => ObjectId::new(Kind::IpPool, &object.name),
            Object::Node(object) => ObjectId::new(Kind::Node, object.name.as_str()),
            Object::Rack(object) => ObjectId::new(Kind::Rack, &object.name),
            Object::WorkloadEndpoint(object) => ObjectId {
                kind: Kind::WorkloadEndpoint,
                namespace: object.namespace.clone(),
                name: object.name.clone(),
            },
        }
    }
}

/// Which object a document is about, as far as that could be read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Identity {
    Known(ObjectId),
    /// A complete identity of a kind that is not read here.
    Foreign(String),
    /// No kind or no name: it may be any object.
    Unknown(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Known(id) => id.fmt(f),
            Identity::Foreign(text) | Identity::Unknown(text) => f.write_str(text),
        }
    }
}

/// A document, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parsed {
    pub identity: Identity,
    /// `None`: rejected.
    pub object: Option<Object>,
    /// Not empty if rejected.
    pub problems: Vec<Problem>,
}

/// What of `metadata` the kinds use.
pub(super) struct Metadata {
    pub name: String,
    pub namespace: String,
    pub labels: Labels,
}

/// Reads one document and finds everything that is wrong with it.
pub fn parse(document: &Value) -> Parsed {
    let mut problems = Vec::new();
    let Value::Object(map) = document else {
        let reason = values::expected("a mapping with apiVersion, kind and metadata", document);
        return Parsed {
            identity: Identity::Unknown("-".to_owned()),
            object: None,
            problems: vec![Problem {
                field: "-".to_owned(),
                reason,
                effect: Effect::Rejects,
            }],
        };
    };
    let (identity, object) = read_document(map, &mut problems);
    let is_rejected = problems
        .iter()
        .any(|problem| problem.effect == Effect::Rejects);
    problems.sort();
    Parsed {
        identity,
        object: object.filter(|_| !is_rejected),
        problems,
    }
}

fn read_document(
    map: &Map<String, Value>,
    problems: &mut Vec<Problem>,
) -> (Identity, Option<Object>) {
    let mut document = Fields::of_document(map, problems);
    let api_version = document.required(
        "apiVersion",
        "write `apiVersion: caracal.dev/v1alpha1`",
        values::text,
    );
    let kind_name = document.required("kind", "write e.g. `kind: Node`", values::text);
    let kind = kind_name.as_deref().and_then(Kind::from_name);
    let metadata = read_metadata(&mut document, kind);
    let identity = identify(kind_name.as_deref(), kind, metadata.as_ref());
    let Some(kind) = kind else {
        if let Some(name) = kind_name {
            document.reject("kind", unknown_kind(&name));
        }
        return (identity, None);
    };
    check_api_version(&mut document, kind, api_version);
    // Written by Kubernetes, not by people.
    document.ignored(&["status"]);
    let no_spec = Map::new();
    let object = match document.has("spec") {
        true => document
            .mapping("spec")
            .and_then(|spec| read_spec(kind, metadata, spec)),
        false => {
            document.ignored(&["spec"]);
            read_spec(kind, metadata, document.nested("spec", &no_spec))
        }
    };
    document.finish();
    (identity, object)
}

fn read_spec(kind: Kind, metadata: Option<Metadata>, mut spec: Fields<'_, '_>) -> Option<Object> {
    // Without a name the object cannot be used, but the rest of its problems are still found.
    let metadata = metadata.unwrap_or(Metadata {
        name: String::new(),
        namespace: String::new(),
        labels: Labels::new(),
    });
    let object = match kind {
        Kind::BgpConfiguration => {
            bgp_configuration::read(metadata, &mut spec).map(Object::BgpConfiguration)
        }
        Kind::BgpFilter => filter::read(metadata, &mut spec).map(Object::BgpFilter),
        Kind::BgpPeer => peer::read(metadata, &mut spec).map(Object::BgpPeer),
        Kind::IpPool => pool::read(metadata, &mut spec).map(Object::IpPool),
        Kind::Node => node::read(metadata, &mut spec).map(Object::Node),
        Kind::Rack => rack::read(metadata, &mut spec).map(Object::Rack),
        Kind::WorkloadEndpoint => workload::read(metadata, &mut spec).map(Object::WorkloadEndpoint),
    };
    spec.finish();
    object
}

fn check_api_version(document: &mut Fields<'_, '_>, kind: Kind, api_version: Option<String>) {
    let Some(found) = api_version else { return };
    if !kind.api_versions().contains(&found.as_str()) {
        let wanted = kind.api_versions().join(" or ");
        let reason = format!("{} is not in this group; write {wanted}", kind.as_str());
        document.reject("apiVersion", reason);
    }
}

fn unknown_kind(name: &str) -> String {
    let names = Kind::ALL.map(Kind::as_str);
    match nearest(name, &names) {
        Some(known) => format!("unknown kind; did you mean {known}?"),
        None => format!("unknown kind; known are {}", names.join(", ")),
    }
}

/// `None` if there is no usable name; that has been reported then.
fn read_metadata(document: &mut Fields<'_, '_>, kind: Option<Kind>) -> Option<Metadata> {
    if !document.has("metadata") {
        document.ignored(&["metadata"]);
        document.reject("metadata.name", "missing; write `metadata: {name: …}`");
        return None;
    }
    let mut metadata = document.mapping("metadata")?;
    // Written by Kubernetes and its tools; `kubectl get -o yaml` shows them.
    metadata.ignored(&[
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ]);
    let name = metadata.required("name", "write the object's name", object_name);
    let namespace = metadata.optional("namespace", object_name);
    let namespace = match kind.map(Kind::is_namespaced) {
        Some(true) => namespace.unwrap_or_else(|| "default".to_owned()),
        Some(false) => {
            if namespace.is_some() {
                metadata.reject("namespace", "this kind has no namespaces; remove it");
            }
            String::new()
        }
        None => namespace.unwrap_or_default(),
    };
    let labels = read_labels(&mut metadata);
    metadata.finish();
    Some(Metadata {
        name: name?,
        namespace,
        labels,
    })
}

fn read_labels(metadata: &mut Fields<'_, '_>) -> Labels {
    let mut labels = Labels::new();
    let Some(map) = metadata.optional("labels", |value| match value {
        Value::Object(map) => Ok(map.clone()),
        other => Err(values::expected("a mapping", other)),
    }) else {
        return labels;
    };
    for (key, value) in map {
        match values::text(&value) {
            Ok(text) => {
                labels.insert(key, text);
            }
            Err(reason) => {
                // The key comes from outside; control characters would break the line.
                let key: String = key.chars().filter(|c| !c.is_control()).take(80).collect();
                metadata.reject(&format!("labels[{key}]"), reason);
            }
        }
    }
    labels
}

fn object_name(value: &Value) -> Result<String, String> {
    let name = values::text(value)?;
    check_name(&name).map_err(|error| error.to_string())?;
    Ok(name)
}

fn identify(kind_name: Option<&str>, kind: Option<Kind>, metadata: Option<&Metadata>) -> Identity {
    // The kind comes from outside: keep what fits on a line.
    let shown: String = kind_name
        .unwrap_or("-")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(64)
        .collect();
    match (kind_name, kind, metadata) {
        (Some(_), Some(kind), Some(metadata)) => Identity::Known(ObjectId {
            kind,
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }),
        (Some(_), None, Some(metadata)) => Identity::Foreign(format!("{shown}/{}", metadata.name)),
        (None, _, Some(metadata)) => Identity::Unknown(format!("-/{}", metadata.name)),
        (_, _, None) => Identity::Unknown(format!("{shown}/-")),
    }
}
