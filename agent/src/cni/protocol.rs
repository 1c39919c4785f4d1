//! The words of the CNI specification (1.1.0, and 0.3.1 to 1.0.0 for older runtimes), and the call
//! that `caracal-cni` makes to the agent.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::result::CniResult;

/// Of the call between `caracal-cni` and the agent; both sides refuse another number.
pub const PROTOCOL_VERSION: u32 = 1;
/// Where the agent listens if the network configuration does not say.
pub const DEFAULT_SOCKET: &str = "/run/caracal/agent.sock";
/// The `type` of our network configurations.
pub const PLUGIN_TYPE: &str = "caracal-cni";
/// The path of the call on the agent's socket.
pub const CALL_PATH: &str = "/v1/cni";
/// Longest accepted network configuration. Runtimes send a few kilobytes.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;

/// Part of a file name on our side; runtimes use 64 hex digits.
const MAX_CONTAINER_ID: usize = 200;
/// IFNAMSIZ without the terminating zero.
const MAX_INTERFACE_NAME: usize = 15;

/// Versions of the specification in which we can answer, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum CniVersion {
    #[serde(rename = "0.3.1")]
    V0_3_1,
    #[serde(rename = "0.4.0")]
    V0_4_0,
    #[serde(rename = "1.0.0")]
    V1_0_0,
    #[serde(rename = "1.1.0")]
    V1_1_0,
}

impl CniVersion {
    pub const ALL: [CniVersion; 4] = [
        CniVersion::V0_3_1,
        CniVersion::V0_4_0,
        CniVersion::V1_0_0,
        CniVersion::V1_1_0,
    ];
    pub const NEWEST: CniVersion = CniVersion::V1_1_0;

    pub fn as_str(self) -> &'static str {
        match self {
            CniVersion::V0_3_1 => "0.3.1",
            CniVersion::V0_4_0 => "0.4.0",
            CniVersion::V1_0_0 => "1.0.0",
            CniVersion::V1_1_0 => "1.1.0",
        }
    }

    fn from_text(text: &str) -> Option<CniVersion> {
        CniVersion::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Error codes of the specification, and ours from 100 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// The configuration's `cniVersion` is none of ours.
    IncompatibleVersion,
    /// A CNI_ variable is missing or unusable; the message names it.
    InvalidEnvironment,
    /// Reading stdin failed.
    Io,
    /// The configuration is not JSON.
    Decode,
    /// The configuration says something we cannot use.
    InvalidConfig,
    /// Nothing is wrong with the call; the agent is not there or not ready.
    TryAgainLater,
    /// The workload's interface or its host side could not be set up or removed.
    InterfaceFailed,
    /// No address is free on this node.
    NoAddress,
    /// The agent's state directory could not be written.
    StateNotWritten,
}

impl ErrorCode {
    pub fn number(self) -> u32 {
        match self {
            ErrorCode::IncompatibleVersion => 1,
            ErrorCode::InvalidEnvironment => 4,
            ErrorCode::Io => 5,
            ErrorCode::Decode => 6,
            ErrorCode::InvalidConfig => 7,
            ErrorCode::TryAgainLater => 11,
            ErrorCode::InterfaceFailed => 100,
            ErrorCode::NoAddress => 101,
            ErrorCode::StateNotWritten => 102,
        }
    }
}

/// Why a call failed, before it is put in the words of a version.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    pub code: ErrorCode,
    pub message: String,
    /// The causes, if the message does not tell all.
    pub details: String,
}

impl CniError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> CniError {
        CniError {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    pub fn with_details(mut self, details: impl Into<String>) -> CniError {
        self.details = details.into();
        self
    }

    /// The error with the causes of `error` as its details.
    pub fn caused_by(self, error: &dyn std::error::Error) -> CniError {
        self.with_details(chain(error))
    }

    /// Message and details.
    pub fn in_one_line(&self) -> String {
        match self.details.as_str() {
            "" => self.message.clone(),
            details => format!("{}: {details}", self.message),
        }
    }

    pub fn to_object(&self, version: CniVersion) -> ErrorObject {
        ErrorObject {
            cni_version: version.to_string(),
            code: self.code.number(),
            msg: self.message.clone(),
            details: self.details.clone(),
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a plugin prints when it fails.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorObject {
    pub cni_version: String,
    pub code: u32,
    pub msg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// What a plugin prints for VERSION.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionObject {
    pub cni_version: String,
    pub supported_versions: Vec<String>,
}

impl VersionObject {
    /// In the caller's version if it is one of ours, else in the newest.
    pub fn answering(asked: Option<CniVersion>) -> VersionObject {
        VersionObject {
            cni_version: asked.unwrap_or(CniVersion::NEWEST).to_string(),
            supported_versions: CniVersion::ALL.map(|version| version.to_string()).to_vec(),
        }
    }
}

/// CNI_COMMAND.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

impl Command {
    /// # Errors
    /// `InvalidEnvironment` if it is empty or no command of the specification.
    pub fn parse(text: &str) -> Result<Command, CniError> {
        match text {
            "ADD" => Ok(Command::Add),
            "DEL" => Ok(Command::Del),
            "CHECK" => Ok(Command::Check),
            "STATUS" => Ok(Command::Status),
            "GC" => Ok(Command::Gc),
            "VERSION" => Ok(Command::Version),
            "" => Err(invalid_environment("CNI_COMMAND is not set")),
            other => Err(invalid_environment(format!(
                "CNI_COMMAND {other:?} is none of ADD, DEL, CHECK, STATUS, GC, VERSION"
            ))),
        }
    }
}

/// What we use of a network configuration. Runtimes add keys (`runtimeConfig`, `prevResult`,
/// `capabilities`, `dns`, …), so unknown ones are let be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkConfig {
    pub cni_version: CniVersion,
    pub name: String,
    /// The agent's socket.
    pub socket: String,
}

impl NetworkConfig {
    /// # Errors
    /// `Decode` if it is not a JSON object, `IncompatibleVersion`, or `InvalidConfig` with every
    /// problem found.
    pub fn parse(config: &Value) -> Result<NetworkConfig, CniError> {
        let Value::Object(keys) = config else {
            return Err(CniError::new(
                ErrorCode::Decode,
                "the network configuration is not a JSON object",
            ));
        };
        let mut problems = Vec::new();
        let mut text = |key: &str, default: Option<&str>| match (keys.get(key), default) {
            (Some(Value::String(text)), _) if !text.is_empty() => text.clone(),
            (None, Some(default)) => default.to_owned(),
            (None, None) => {
                problems.push(format!("{key} is missing"));
                String::new()
            }
            (Some(_), _) => {
                problems.push(format!("{key} is not a non-empty string"));
                String::new()
            }
        };
        // Without the key, the specification's first version is meant.
        let version = text("cniVersion", Some("0.1.0"));
        let name = text("name", None);
        let kind = text("type", Some(PLUGIN_TYPE));
        let socket = text("socket", Some(DEFAULT_SOCKET));
        if !kind.is_empty() && kind != PLUGIN_TYPE {
            problems.push(format!("type is {kind:?}, not {PLUGIN_TYPE:?}"));
        }
        if !socket.is_empty() && !socket.starts_with('/') {
            problems.push(format!("socket {socket:?} is not an absolute path"));
        }
        let cni_version = CniVersion::from_text(&version);
        if let Some(cni_version) = cni_version
            && problems.is_empty()
        {
            return Ok(NetworkConfig {
                cni_version,
                name,
                socket,
            });
        }
        if cni_version.is_none() && !version.is_empty() {
            let ours = CniVersion::ALL.map(CniVersion::as_str).join(", ");
            return Err(CniError::new(
                ErrorCode::IncompatibleVersion,
                format!("cniVersion {version:?} is none of {ours}"),
            ));
        }
        Err(CniError::new(
            ErrorCode::InvalidConfig,
            format!("invalid network configuration: {}", problems.join("; ")),
        ))
    }

    /// The version in which to answer, as far as one can be read.
    pub fn version_of(config: &Value) -> Option<CniVersion> {
        CniVersion::from_text(config.get("cniVersion")?.as_str()?)
    }
}

/// One call of a runtime, as `caracal-cni` passes it on. The descriptor of `netns` travels beside
/// it; a DEL comes without one if the namespace is gone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    pub protocol_version: u32,
    pub command: Command,
    pub container_id: String,
    pub ifname: String,
    /// CNI_NETNS as given.
    pub netns: String,
    /// CNI_ARGS as given.
    pub args: String,
    /// The network configuration.
    pub config: Value,
}

impl Call {
    /// Checks what names files and interfaces on our side.
    ///
    /// # Errors
    /// `InvalidEnvironment` naming the variable.
    pub fn check_names(&self) -> Result<(), CniError> {
        check_container_id(&self.container_id)?;
        check_interface_name(&self.ifname)
    }
}

/// The agent's answer: a result for ADD, nothing for DEL, or an error.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    pub protocol_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<CniResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorObject>,
}

/// What Kubernetes says of a workload in CNI_ARGS. Empty where the runtime said nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WorkloadName {
    pub namespace: String,
    pub name: String,
}

impl WorkloadName {
    /// Reads `K8S_POD_NAMESPACE` and `K8S_POD_NAME` of `KEY=VALUE;…`; other keys are let be. One
    /// without the other names nothing.
    ///
    /// # Errors
    /// `InvalidEnvironment` for a part without `=`.
    pub fn parse(args: &str) -> Result<WorkloadName, CniError> {
        let mut workload = WorkloadName::default();
        for part in args.split(';').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                invalid_environment(format!("CNI_ARGS has {part:?}, which is not KEY=VALUE"))
            })?;
            match key.trim() {
                "K8S_POD_NAMESPACE" => workload.namespace = value.trim().to_owned(),
                "K8S_POD_NAME" => workload.name = value.trim().to_owned(),
                _ => {}
            }
        }
        if workload.namespace.is_empty() || workload.name.is_empty() {
            return Ok(WorkloadName::default());
        }
        Ok(workload)
    }

    /// What the host interface is named after.
    pub fn identity<'a>(&self, container_id: &'a str) -> std::borrow::Cow<'a, str> {
        if self.name.is_empty() {
            return container_id.into();
        }
        format!("{}.{}", self.namespace, self.name).into()
    }
}

pub fn invalid_environment(message: impl Into<String>) -> CniError {
    CniError::new(ErrorCode::InvalidEnvironment, message)
}

/// Specification, section "Parameters": starts with an alphanumeric, then those and `_ . -`.
fn check_container_id(id: &str) -> Result<(), CniError> {
    if id.is_empty() {
        return Err(invalid_environment("CNI_CONTAINERID is not set"));
    }
    let is_valid = id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || matches!(one, '_' | '.' | '-'))
        && id.len() <= MAX_CONTAINER_ID;
    if !is_valid {
        return Err(invalid_environment(format!(
            "CNI_CONTAINERID {id:?} is not 1 to {MAX_CONTAINER_ID} letters, digits, `_`, `.` or `-`"
        )));
    }
    Ok(())
}

fn check_interface_name(name: &str) -> Result<(), CniError> {
    if name.is_empty() {
        return Err(invalid_environment("CNI_IFNAME is not set"));
    }
    // As the kernel's dev_valid_name; it also takes `%` for a pattern, and every namespace has its lo.
    let is_valid = name.len() <= MAX_INTERFACE_NAME
        && name != "."
        && name != ".."
        && name != "lo"
        && !name.contains(|one: char| "/:%".contains(one) || one.is_whitespace())
        && !name.contains('\0');
    if !is_valid {
        return Err(invalid_environment(format!(
            "CNI_IFNAME {name:?} cannot name an interface"
        )));
    }
    Ok(())
}
