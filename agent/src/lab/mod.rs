//! The lab: two racks on one machine, from real programs in network namespaces.
//!
//! In: a `Scenario`. Out: a running lab that is taken down by the record of what it made. The
//! command `caracal lab` and the system tests are built on it. It changes nothing outside the
//! namespaces it makes and its own directory, and it drives the product only as a user would: by
//! files, command lines and the CNI protocol.
//!
//! `topology`, `texts`, `expect` and `packet` are pure.

pub mod capture;
pub mod error;
pub mod expect;
pub mod frr;
pub mod interrupt;
pub mod machine;
pub mod matrix;
pub mod netns;
pub mod packet;
pub mod ping;
pub mod process;
pub mod record;
pub mod running;
pub mod show;
pub mod texts;
pub mod topology;

pub use error::{LabError, Result};
pub use netns::{Mounts, Namespace};
pub use process::Process;
pub use running::Lab;
pub use topology::{Driver, Options, Scenario};
