//! What can go wrong in the lab.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("the lab makes network namespaces and needs root")]
    NotRoot,
    #[error("{tool} is missing: apt-get install {package}")]
    MissingTool { tool: String, package: String },
    #[error("no node or workload {name}; there are {known}")]
    UnknownNode { name: String, known: String },
    #[error("no lab{} is up; `caracal lab up` brings one up", .0.as_ref().map(|id| format!(" {id}")).unwrap_or_default())]
    NoSuchLab(Option<String>),
    #[error("several labs are up, name one with --lab: {0}")]
    SeveralLabs(String),
    #[error("failed to {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{command} failed: {reason}")]
    Command { command: String, reason: String },
    #[error("{what} did not come about within {} s: {evidence}", waited.as_secs_f32())]
    NotReached {
        what: String,
        waited: Duration,
        evidence: String,
    },
    #[error("the lab directory {0} is under /run, which nodes replace by their own: set TMPDIR")]
    DirectoryHidden(PathBuf),
    #[error("interrupted")]
    Interrupted,
    /// Several problems; each is a line.
    #[error("{}", .0.join("\n"))]
    Findings(Vec<String>),
}

impl LabError {
    /// For `map_err`: keeps the cause and says what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let what = what.into();
        move |source| LabError::Io { what, source }
    }
}

pub type Result<T> = std::result::Result<T, LabError>;
