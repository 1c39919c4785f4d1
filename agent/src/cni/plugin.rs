//! `caracal-cni`: reads what the runtime gives, passes it to the agent, prints the answer.
//!
//! Environment and standard input in, standard output and an exit code out. It opens CNI_NETNS
//! itself, as the path may mean nothing in the agent's mount namespace, and does nothing else to
//! the system.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use serde::Serialize;
use serde_json::Value;

use super::protocol::{
    CALL_PATH, Call, CniError, CniVersion, Command, ErrorCode, MAX_CONFIG_BYTES, NetworkConfig,
    PROTOCOL_VERSION, Reply, VersionObject, chain, invalid_environment,
};
use crate::api::client::{Client, ClientError};

/// Above what the agent allows itself for a call, below what runtimes allow the plugin.
const DEADLINE: Duration = Duration::from_secs(90);
const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// The CNI_ variables; an absent one is empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    pub command: String,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
    pub args: String,
}

impl Environment {
    pub fn from_process() -> Environment {
        let variable = |name| {
            let value = std::env::var_os(name).unwrap_or_default();
            value.to_string_lossy().into_owned()
        };
        Environment {
            command: variable("CNI_COMMAND"),
            container_id: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            ifname: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
        }
    }
}

/// Answers one call on `stdout` and returns the exit code: 0, or 1 with an error object printed.
pub fn run(environment: &Environment, stdin: impl Read, stdout: impl Write) -> u8 {
    let config = read_config(stdin);
    let version = config.as_ref().ok().and_then(NetworkConfig::version_of);
    let (text, code) = match answer(environment, config) {
        Ok(text) => (text, 0),
        Err(Failure::Here(error)) => (
            to_json(&error.to_object(version.unwrap_or(CniVersion::NEWEST))),
            1,
        ),
        Err(Failure::Agent(text)) => (text, 1),
    };
    // Without a reader there is no one left to tell.
    match print(stdout, &text) {
        Ok(()) => code,
        Err(_) => 1,
    }
}

/// Where the error object comes from.
enum Failure {
    Here(CniError),
    Agent(String),
}

impl From<CniError> for Failure {
    fn from(error: CniError) -> Failure {
        Failure::Here(error)
    }
}

/// The text for standard output; empty for a DEL that went well.
fn answer(environment: &Environment, config: Result<Value, CniError>) -> Result<String, Failure> {
    let command = Command::parse(&environment.command)?;
    if command == Command::Version {
        // The agent is not asked: a runtime wants to know before anything is set up. Old ones send
        // no configuration.
        let asked = config.ok().as_ref().and_then(NetworkConfig::version_of);
        return Ok(to_json(&VersionObject::answering(asked)));
    }
    let config_value = config?;
    let config = NetworkConfig::parse(&config_value)?;
    let call = Call {
        protocol_version: PROTOCOL_VERSION,
        command,
        container_id: environment.container_id.clone(),
        ifname: environment.ifname.clone(),
        netns: environment.netns.clone(),
        args: environment.args.clone(),
        config: config_value,
    };
    let netns = match command {
        Command::Add => {
            call.check_names()?;
            Some(open_namespace(&environment.netns)?)
        }
        Command::Del => {
            call.check_names()?;
            // The namespace may be gone, and the agent needs none to remove a veth.
            None
        }
        Command::Check | Command::Status | Command::Gc | Command::Version => None,
    };
    let reply = ask(Path::new(&config.socket), &call, netns)?;
    match (reply.error, reply.result) {
        (Some(error), _) => Err(Failure::Agent(to_json(&error))),
        (None, Some(result)) => Ok(to_json(&result)),
        (None, None) => Ok(String::new()),
    }
}

/// Reads the network configuration. Nothing at all reads as null.
fn read_config(stdin: impl Read) -> Result<Value, CniError> {
    let mut text = Vec::new();
    let limit = MAX_CONFIG_BYTES as u64 + 1;
    stdin.take(limit).read_to_end(&mut text).map_err(|error| {
        CniError::new(ErrorCode::Io, "failed to read standard input").caused_by(&error)
    })?;
    if text.len() > MAX_CONFIG_BYTES {
        return Err(CniError::new(
            ErrorCode::Decode,
            format!("the network configuration is longer than {MAX_CONFIG_BYTES} bytes"),
        ));
    }
    serde_json::from_slice(&text).map_err(|error| {
        CniError::new(ErrorCode::Decode, "the network configuration is not JSON").caused_by(&error)
    })
}

fn open_namespace(path: &str) -> Result<OwnedFd, CniError> {
    if path.is_empty() {
        return Err(invalid_environment("CNI_NETNS is not set"));
    }
    // Without O_NONBLOCK a path that is a FIFO would hang the runtime.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(|error| {
            invalid_environment(format!("failed to open CNI_NETNS {path:?}")).caused_by(&error)
        })?;
    let filesystem = fstatfs(&file).map_err(|error| {
        invalid_environment(format!("failed to inspect CNI_NETNS {path:?}")).caused_by(&error)
    })?;
    if filesystem.filesystem_type() != NSFS_MAGIC {
        return Err(invalid_environment(format!(
            "CNI_NETNS {path:?} is not a network namespace"
        )));
    }
    Ok(file.into())
}

fn ask(socket: &Path, call: &Call, netns: Option<OwnedFd>) -> Result<Reply, CniError> {
    let client = Client::new(socket)
        .deadline(DEADLINE)
        .max_body(MAX_REPLY_BYTES);
    let body = serde_json::to_vec(call).map_err(|error| {
        CniError::new(ErrorCode::Decode, "failed to write the call").caused_by(&error)
    })?;
    let answer = client
        .post(CALL_PATH, &body, netns.as_ref().map(AsFd::as_fd))
        .map_err(|error| unreachable(socket, &error))?;
    if answer.status != 200 {
        return Err(try_again(format!(
            "the agent answered with HTTP status {}",
            answer.status
        ))
        .with_details(String::from_utf8_lossy(&answer.body)));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| try_again("the agent's answer cannot be read").caused_by(&error))
}

/// Also for DEL: the runtime repeats it, and what it is about is still there.
fn unreachable(socket: &Path, error: &ClientError) -> CniError {
    try_again(format!("the agent does not answer on {}", socket.display()))
        .with_details(chain(error))
}

fn try_again(message: impl Into<String>) -> CniError {
    CniError::new(ErrorCode::TryAgainLater, message)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our types have string keys only")
}

fn print(mut stdout: impl Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    writeln!(stdout, "{text}")?;
    stdout.flush()
}
