//! The plugin against the agent's socket, as the runtime sees it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::plugin::{Environment, run};
use super::super::server;
use super::fakes::{Agent, Machine};
use crate::api::listener::PrivateSocket;
use crate::api::serve::serve;

/// An agent that serves its socket until it is dropped.
struct Served {
    runtime: tokio::runtime::Runtime,
    agent: Agent,
    machine: Machine,
    directory: tempfile::TempDir,
}

impl Served {
    fn start() -> Served {
        let directory = tempfile::tempdir().expect("a directory");
        let machine = Machine::default();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let guard = runtime.enter();
        let agent = Agent::start(&directory.path().join("state"), &machine);
        let socket = PrivateSocket::bind(&directory.path().join("agent.sock")).expect("bound");
        let router = server::router(Arc::clone(&agent.verbs));
        tokio::spawn(serve(socket, router, std::future::pending()));
        drop(guard);
        Served {
            runtime,
            agent,
            machine,
            directory,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }
}

fn environment(command: &str, id: &str) -> Environment {
    Environment {
        command: command.to_owned(),
        container_id: id.to_owned(),
        netns: String::from("/proc/self/ns/net"),
        ifname: String::from("eth0"),
        args: format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={id}"),
    }
}

fn config(version: &str, socket: &Path) -> Value {
    json!({"cniVersion": version, "name": "caracal", "type": "caracal-cni", "socket": socket,
        "runtimeConfig": {"portMappings": []}, "prevResult": {"ips": []}, "unknown": 1})
}

fn call(environment: &Environment, stdin: &str) -> (u8, Option<Value>) {
    let mut stdout = Vec::new();
    let code = run(environment, stdin.as_bytes(), &mut stdout);
    let printed = match stdout.is_empty() {
        true => None,
        false => Some(serde_json::from_slice(&stdout).expect("JSON on stdout")),
    };
    (code, printed)
}

#[test]
fn results_have_the_shape_of_their_version() {
    let served = Served::start();
    for (index, version) in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"].iter().enumerate() {
        let id = format!("c{index}");
        let config = config(version, &served.socket()).to_string();
        let (code, printed) = call(&environment("ADD", &id), &config);
        assert_eq!(code, 0, "{version}: {printed:?}");

        let address = format!("172.17.8.{}/32", index + 2);
        let mut ip = json!({"address": address, "gateway": "169.254.1.1", "interface": 1});
        if version.starts_with('0') {
            ip["version"] = json!("4");
        }
        let host_interface = crate::names::host_interface(&format!("default.{id}"));
        let expected = json!({
            "cniVersion": version,
            "interfaces": [
                {"name": host_interface, "mac": "ee:ee:ee:ee:ee:ee"},
                {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/proc/self/ns/net"},
            ],
            "ips": [ip],
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
        });
        assert_eq!(printed, Some(expected), "{version}");
    }
}

#[test]
fn del_prints_nothing_and_needs_no_namespace() {
    let served = Served::start();
    let config = config("1.0.0", &served.socket()).to_string();
    assert_eq!(call(&environment("ADD", "c1"), &config).0, 0);
    for netns in ["/proc/self/ns/net", "/run/netns/gone", ""] {
        let mut environment = environment("DEL", "c1");
        environment.netns = netns.to_owned();
        assert_eq!(call(&environment, &config), (0, None), "{netns}");
        assert!(served.machine.interfaces().is_empty());
    }
}

#[test]
fn many_workloads_at_once_have_different_addresses() {
    let served = Served::start();
    let config = config("1.0.0", &served.socket()).to_string();
    let addresses: BTreeSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..50)
            .map(|index| {
                let environment = environment("ADD", &format!("c{index}"));
                let config = &config;
                scope.spawn(move || {
                    let (code, printed) = call(&environment, config);
                    assert_eq!(code, 0, "{printed:?}");
                    printed.expect("a result")["ips"][0]["address"].to_string()
                })
            })
            .collect();
        calls
            .into_iter()
            .map(|call| call.join().expect("joined"))
            .collect()
    });
    assert_eq!(addresses.len(), 50);
    assert_eq!(served.machine.state().programmed.len(), 50);

    std::thread::scope(|scope| {
        for index in 0..50 {
            let environment = environment("DEL", &format!("c{index}"));
            let config = &config;
            scope.spawn(move || assert_eq!(call(&environment, config), (0, None)));
        }
    });
    assert!(served.machine.interfaces().is_empty());
    assert!(served.agent.verbs.attached().is_empty());
}

#[test]
fn errors_have_the_codes_of_the_specification() {
    let served = Served::start();
    let good = config("1.0.0", &served.socket()).to_string();
    let nobody = config("0.4.0", Path::new("/nonexistent/agent.sock")).to_string();
    let mut relative = config("1.0.0", &served.socket());
    relative["socket"] = json!("agent.sock");
    let mut nameless = config("1.0.0", &served.socket());
    nameless.as_object_mut().expect("an object").remove("name");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"no namespace").expect("written");
    let with = |change: fn(&mut Environment)| {
        let mut environment = environment("ADD", "c1");
        change(&mut environment);
        environment
    };
    let mut no_namespace = environment("ADD", "c1");
    no_namespace.netns = file.path().to_string_lossy().into_owned();
    let huge = format!("{{\"name\": \"{}\"", "x".repeat(2 * 1024 * 1024));

    for (name, environment, stdin, code, version) in [
        ("no JSON", with(|_| {}), "{", 6, "1.1.0"),
        ("nothing", with(|_| {}), "", 6, "1.1.0"),
        ("not an object", with(|_| {}), "[]", 6, "1.1.0"),
        ("huge", with(|_| {}), huge.as_str(), 6, "1.1.0"),
        (
            "old",
            with(|_| {}),
            &config("0.2.0", &served.socket()).to_string(),
            1,
            "1.1.0",
        ),
        (
            "future",
            with(|_| {}),
            &config("2.0.0", &served.socket()).to_string(),
            1,
            "1.1.0",
        ),
        (
            "no version",
            with(|_| {}),
            r#"{"name": "caracal"}"#,
            1,
            "1.1.0",
        ),
        ("no name", with(|_| {}), &nameless.to_string(), 7, "1.0.0"),
        (
            "relative socket",
            with(|_| {}),
            &relative.to_string(),
            7,
            "1.0.0",
        ),
        (
            "no command",
            with(|one| one.command.clear()),
            &good,
            4,
            "1.0.0",
        ),
        (
            "bad command",
            with(|one| one.command = String::from("add")),
            &good,
            4,
            "1.0.0",
        ),
        (
            "unsupported",
            with(|one| one.command = String::from("CHECK")),
            &good,
            4,
            "1.0.0",
        ),
        (
            "no container",
            with(|one| one.container_id.clear()),
            &good,
            4,
            "1.0.0",
        ),
        (
            "no interface",
            with(|one| one.ifname.clear()),
            &good,
            4,
            "1.0.0",
        ),
        (
            "no namespace",
            with(|one| one.netns.clear()),
            &good,
            4,
            "1.0.0",
        ),
        (
            "namespace gone",
            with(|one| one.netns = String::from("/run/netns/gone")),
            &good,
            4,
            "1.0.0",
        ),
        ("not a namespace", no_namespace, &good, 4, "1.0.0"),
        ("no agent", with(|_| {}), &nobody, 11, "0.4.0"),
        (
            "no agent for DEL",
            with(|one| one.command = String::from("DEL")),
            &nobody,
            11,
            "0.4.0",
        ),
    ] {
        let (exit, printed) = call(&environment, stdin);
        let printed = printed.unwrap_or_else(|| panic!("{name}: nothing printed"));
        assert_eq!(exit, 1, "{name}: {printed}");
        assert_eq!(printed["code"], json!(code), "{name}: {printed}");
        assert_eq!(printed["cniVersion"], json!(version), "{name}");
    }
    assert!(served.machine.interfaces().is_empty());
}

#[test]
fn version_needs_no_agent() {
    for (stdin, version) in [
        (r#"{"cniVersion": "0.4.0"}"#, "0.4.0"),
        (r#"{"cniVersion": "9.0.0"}"#, "1.1.0"),
        ("", "1.1.0"),
    ] {
        let (code, printed) = call(&environment("VERSION", ""), stdin);
        let expected = json!({"cniVersion": version,
            "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]});
        assert_eq!((code, printed), (0, Some(expected)), "{stdin}");
    }
}

#[test]
fn agent_of_another_protocol_says_try_again_later() {
    use crate::api::client::Client;
    let served = Served::start();
    let body = json!({"protocolVersion": 99, "command": "SOMETHING"}).to_string();
    let answer = Client::new(&served.socket())
        .post("/v1/cni", body.as_bytes(), None)
        .expect("an answer");
    let reply: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(reply["error"]["code"], json!(11), "{reply}");
}

#[test]
fn runtime_that_hangs_up_leaves_no_half_workload() {
    use std::os::fd::AsRawFd;
    let served = Served::start();
    let body = serde_json::to_string(&super::fakes::call(
        super::super::protocol::Command::Add,
        "c1",
        "default.web",
    ))
    .expect("JSON");
    let request = format!(
        "POST /v1/cni HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let stream = std::os::unix::net::UnixStream::connect(served.socket()).expect("connected");
    let netns = super::fakes::netns();
    served.machine.state().is_held = true;
    nix::sys::socket::sendmsg::<()>(
        stream.as_raw_fd(),
        &[std::io::IoSlice::new(request.as_bytes())],
        &[nix::sys::socket::ControlMessage::ScmRights(&[
            netns.as_raw_fd()
        ])],
        nix::sys::socket::MsgFlags::empty(),
        None,
    )
    .expect("sent");
    served
        .machine
        .wait_until("ADD begun", |state| state.begun == 1);
    drop(stream);
    served.machine.state().is_held = false;
    served
        .machine
        .wait_until("ADD done", |state| state.programmed.len() == 1);

    let del = served.agent.del("c1", "default.web");
    served.runtime.block_on(del).expect("deleted");
    assert!(served.machine.interfaces().is_empty());
    assert!(served.machine.state().programmed.is_empty());
}
