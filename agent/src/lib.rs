//! Caracal's node agent as a library, so that its programs, the reflector and the tests share one
//! implementation.
//!
//! `model`, `resolve`, and `dataplane::{desired, diff, ownership}` are pure. `datastore` reads the
//! store, `dataplane` the kernel; `reconcile` is the loop between them.

pub mod api;
pub mod carrier;
pub mod claim;
pub mod cni;
pub mod config;
pub mod crash;
pub mod dataplane;
pub mod datastore;
pub mod descriptors;
pub mod drain;
pub mod dry_run;
pub mod host_daemons;
pub mod installed_file;
pub mod ipam;
pub mod lab;
pub mod memory;
pub mod model;
pub mod names;
pub mod prefix_map;
pub mod privileges;
pub mod reconcile;
pub mod requests;
pub mod resolve;
pub mod routing;
pub mod run;
