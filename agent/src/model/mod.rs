//! The resources and what they mean together. Pure.
//!
//! A document comes in as plain data ([`serde_json::Value`], whatever store it was read from),
//! is checked field by field ([`fields`], [`values`]) and becomes a typed [`object::Object`] or a
//! list of everything that is wrong with it. Accepted objects together make a
//! [`snapshot::Snapshot`], in which conflicts between them are settled.
//!
//! One file per kind. A new kind is a file with its type and its `read` function, a variant of
//! [`object::Kind`] and [`object::Object`], and a map in the snapshot.

pub mod bgp_configuration;
pub mod fields;
pub mod filter;
pub mod names;
pub mod node;
pub mod object;
pub mod peer;
pub mod pool;
pub mod rack;
pub mod selector;
pub mod snapshot;
pub mod values;
pub mod workload;

pub use bgp_configuration::BgpConfiguration;
pub use filter::BgpFilter;
pub use names::{Labels, NodeName};
pub use node::Node;
pub use object::{Kind, Object, ObjectId};
pub use peer::BgpPeer;
pub use pool::IpPool;
pub use rack::Rack;
pub use selector::Selector;
pub use snapshot::Snapshot;
pub use workload::WorkloadEndpoint;
